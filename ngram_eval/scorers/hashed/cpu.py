"""The counts in C++ (`csrc/hashed/counts.h`), with one or more threads."""

import numpy as np
from numpy.typing import NDArray

from ngram_eval._core import HashedCounts
from ngram_eval.config import NgramConfig
from ngram_eval.scorers.hashed.counts import Best, Matches
from ngram_eval.scorers.hashed.reference import read_targets
from ngram_eval.text.stream import Tokens


class CpuCounts:
    """`Counts` in C++. Threads take different orders, so threads beyond the number of orders are idle."""

    def __init__(self, config: NgramConfig, threads: int) -> None:
        self.config = config
        self._counts = HashedCounts(
            min_order=config.min_order,
            max_order=config.max_order,
            buckets=config.buckets,
            min_count=config.min_count,
            context_lag=config.context_lag,
            target_backoff=config.target_backoff,
            threads=threads,
        )

    def update(self, tokens: Tokens, start: int, stop: int) -> None:
        self._counts.update(tokens, start, stop)

    def lookup(self, tokens: Tokens, start: int, stop: int) -> Matches:
        return Matches(*self._counts.lookup(tokens, start, stop))

    def score_windows(self, tokens: Tokens, firsts: NDArray[np.int64], stops: NDArray[np.int64]) -> Best:
        return Best(*self._counts.score_windows(tokens, firsts, stops))

    def lookup_targets(self, tokens: Tokens, position: int, vocab: int) -> Matches:
        tables = self.state()
        return read_targets(lambda *where: tables[where], tokens, position, vocab, self.config)

    def state(self) -> NDArray[np.uint32]:
        """The tables themselves, not a copy; the array keeps them alive."""
        return self._counts.state()

    def load_state(self, state: NDArray[np.uint32]) -> None:
        tables = self.state()
        if state.shape != tables.shape or state.dtype != np.uint32:
            raise ValueError(f"state is {state.dtype} {state.shape}, the tables are uint32 {tables.shape}")
        tables[:] = state
