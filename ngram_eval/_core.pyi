from typing import Any

import numpy as np
from numpy.typing import NDArray

compiler: str
simd: str

class ExactModel:
    def __init__(
        self, *, max_order: int, chain: bool, tilt: str, tilt_factor: float, tilt_confidence: float, threads: int = 1
    ) -> None: ...
    def append(self, tokens: NDArray[np.uint16] | NDArray[np.uint32]) -> None: ...
    def score(
        self,
        tokens: NDArray[np.uint16] | NDArray[np.uint32],
        base: NDArray[np.float64],
        entropy: NDArray[np.float32],
        *,
        together: bool,
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]: ...
    def distribution(self, base: NDArray[np.float64], entropy: float) -> NDArray[np.float64]: ...
    def distribution_after(
        self, tokens: NDArray[np.uint16] | NDArray[np.uint32], base: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]: ...
    def distributions(
        self,
        tokens: NDArray[np.uint16] | NDArray[np.uint32],
        base: NDArray[np.float64],
        entropy: NDArray[np.float32],
    ) -> NDArray[np.float64]: ...
    def check(
        self,
        tokens: NDArray[np.uint16] | NDArray[np.uint32],
        base: NDArray[np.float64],
        entropy: NDArray[np.float32],
    ) -> None: ...
    def score_recalled(
        self,
        tokens: NDArray[np.uint16] | NDArray[np.uint32],
        evidence: NDArray[np.uint8],
        depth: NDArray[np.uint8],
        base: NDArray[np.float64],
        entropy: NDArray[np.float32],
        *,
        together: bool,
    ) -> NDArray[np.float64]: ...
    def distribution_recalled(
        self, evidence: NDArray[np.uint8], depth: NDArray[np.uint8], base: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]: ...
    def follow(self, token: int) -> None: ...
    def evidence(self, token: int) -> NDArray[np.uint64]: ...
    def learned(self) -> dict[str, NDArray[Any]]: ...
    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None: ...
    def size(self) -> dict[str, int]: ...
    def __deepcopy__(self, memo: dict[int, Any]) -> ExactModel: ...

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

class Ppmd:
    def __init__(
        self,
        *,
        surfaces: list[bytes],
        bare: list[bytes],
        max_order: int,
        target_gate: bool,
        marginal: bool,
        sure_above: float,
        weight: float,
        weight_sure: float,
    ) -> None: ...
    def append(self, tokens: NDArray[np.uint16] | NDArray[np.uint32]) -> None: ...
    def score(
        self,
        tokens: NDArray[np.uint16] | NDArray[np.uint32],
        p: NDArray[np.float64],
        rows: NDArray[np.float64] | None,
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.float64]]: ...
    def distribution(self, base: NDArray[np.float64], target: int | None = None) -> NDArray[np.float64]: ...
    def evidence(
        self, token: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]: ...

class Mixer:
    def __init__(
        self,
        *,
        rank: NDArray[np.uint32],
        surfaces: list[bytes],
        hashed: int,
        sets: int,
        matches: int,
        exact_order: int,
        runs: int,
        cells: int,
        groups: int,
        weight: float,
    ) -> None: ...
    def append(self, tokens: NDArray[np.uint16] | NDArray[np.uint32]) -> None: ...
    def score(
        self, tokens: NDArray[np.uint16] | NDArray[np.uint32], base: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]: ...
    def score_paths(
        self, tokens: NDArray[np.uint16] | NDArray[np.uint32], branches: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]: ...
    def decisions(
        self, tokens: NDArray[np.uint16] | NDArray[np.uint32], base: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.float64]]: ...
    def distribution(self, base: NDArray[np.float64]) -> NDArray[np.float64]: ...
    def evidence(
        self, token: int, base: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]: ...
    def begin(self, base: NDArray[np.float64]) -> float: ...
    def decide(self, bit: int) -> float: ...
    @property
    def neural_weight(self) -> float: ...
    @property
    def token_known(self) -> bool: ...
    @property
    def token(self) -> int: ...
    def learned(self) -> dict[str, NDArray[Any]]: ...
    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None: ...
    def __deepcopy__(self, memo: dict[int, Any]) -> Mixer: ...

class RangeEncoder:
    def bits(self, bits: NDArray[np.uint8], ones: NDArray[np.float64]) -> None: ...
    def symbols(self, tokens: NDArray[np.uint16] | NDArray[np.uint32], rows: NDArray[np.float64]) -> None: ...
    def finish(self) -> bytes: ...

class RangeDecoder:
    def __init__(self, written: bytes) -> None: ...
    @property
    def beyond(self) -> int: ...

def read_decisions(mixer: Mixer, decoder: RangeDecoder, base: NDArray[np.float64], n: int) -> NDArray[np.uint32]: ...
def read_symbols(
    model: ExactModel, decoder: RangeDecoder, base: NDArray[np.float64], entropy: float, n: int
) -> NDArray[np.uint32]: ...
