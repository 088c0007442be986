import numpy as np
from numpy.typing import NDArray

compiler: str

class HashedCounts:
    def __init__(
        self,
        *,
        min_order: int,
        max_order: int,
        buckets: int,
        min_count: int,
        context_lag: int,
        target_backoff: bool,
        threads: int,
    ) -> None: ...
    def update(self, tokens: NDArray[np.uint16] | NDArray[np.uint32], start: int, stop: int) -> None: ...
    def lookup(
        self, tokens: NDArray[np.uint16] | NDArray[np.uint32], start: int, stop: int
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]: ...
    def score_windows(
        self, tokens: NDArray[np.uint16] | NDArray[np.uint32], firsts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint32]]: ...
    def state(self) -> NDArray[np.uint32]: ...

def random_increments(*, counts: HashedCounts, increments: int, ahead: int) -> None: ...
