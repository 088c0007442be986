"""The specification of the counts in plain numpy: slow and readable; every other backend equals it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import NgramConfig
from ngram_eval.scorers.hashed.counts import Best, Matches, check_tokens, check_windows
from ngram_eval.scorers.hashed.hashing import bucket_pair
from ngram_eval.text.stream import Tokens


def best_match(matches: Matches, config: NgramConfig) -> Best:
    """The highest matching order of each position (see `Counts.score_windows`)."""
    positions = matches.context.shape[1]
    best = Best(np.zeros(positions, np.uint8), np.zeros(positions, np.uint32), np.zeros(positions, np.uint32))
    for order, context, full in zip(config.orders, *matches, strict=True):  # lowest first, higher ones overwrite
        matched = context >= config.min_count
        if config.target_backoff:
            matched &= full > 0
        best.order[matched] = order
        best.context[matched] = context[matched]
        best.full[matched] = full[matched]
    return best


def read_targets(
    read: Callable[[int, int, NDArray[np.int64]], NDArray[np.uint32]],
    tokens: Tokens,
    position: int,
    vocab: int,
    config: NgramConfig,
) -> Matches:
    """`Counts.lookup_targets`; `read(row, table, buckets)` returns counters, of table 0 for contexts, 1 for full."""
    check_tokens(tokens, position, position + 1)
    shape = (len(config.orders), vocab)
    matches = Matches(np.zeros(shape, np.uint32), np.zeros(shape, np.uint32))
    end = position + 1 - config.context_lag
    for row, order in enumerate(config.orders):
        if end >= order - 1:
            ends, targets = np.full(vocab, end), np.arange(vocab)
            context, full = bucket_pair(tokens, ends, targets, order, config.buckets)
            matches.context[row], matches.full[row] = read(row, 0, context), read(row, 1, full)
    return matches


class ReferenceCounts:
    """`Counts` in numpy, one thread."""

    def __init__(self, config: NgramConfig, threads: int = 1) -> None:
        self.config = config
        self._tables = np.zeros((len(config.orders), 2, config.buckets), np.uint32)

    def _buckets(
        self, tokens: Tokens, order: int, start: int, stop: int
    ) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        """(first position of [start, stop) with a whole context, context buckets, full buckets from there on)."""
        lag = self.config.context_lag
        valid = min(max(start, order - 2 + lag), stop)  # the context [p + 1 - lag - width, p + 1 - lag) starts at >= 0
        positions = np.arange(valid, stop)
        context, full = bucket_pair(tokens, positions + 1 - lag, tokens[positions + 1], order, self.config.buckets)
        return valid, context, full

    def update(self, tokens: Tokens, start: int, stop: int) -> None:
        check_tokens(tokens, start, stop)
        for tables, order in zip(self._tables, self.config.orders, strict=True):
            _, context, full = self._buckets(tokens, order, start, stop)
            np.add.at(tables[0], context, 1)
            np.add.at(tables[1], full, 1)

    def lookup(self, tokens: Tokens, start: int, stop: int) -> Matches:
        check_tokens(tokens, start, stop)
        shape = (len(self.config.orders), stop - start)
        matches = Matches(np.zeros(shape, np.uint32), np.zeros(shape, np.uint32))
        for row, order in enumerate(self.config.orders):
            valid, context, full = self._buckets(tokens, order, start, stop)
            matches.context[row, valid - start :] = self._tables[row, 0, context]
            matches.full[row, valid - start :] = self._tables[row, 1, full]
        return matches

    def score_windows(self, tokens: Tokens, firsts: NDArray[np.int64], stops: NDArray[np.int64]) -> Best:
        check_windows(tokens, firsts, stops)  # all of them first: a bad call counts nothing
        scored = [Best(np.zeros(0, np.uint8), np.zeros(0, np.uint32), np.zeros(0, np.uint32))]
        for first, stop in zip(firsts.tolist(), stops.tolist(), strict=True):
            scored.append(best_match(self.lookup(tokens, first, stop), self.config))
            self.update(tokens, first, stop)
        return Best(*map(np.concatenate, zip(*scored, strict=True)))

    def lookup_targets(self, tokens: Tokens, position: int, vocab: int) -> Matches:
        return read_targets(lambda *where: self._tables[where], tokens, position, vocab, self.config)

    def state(self) -> NDArray[np.uint32]:
        return self._tables

    def load_state(self, state: NDArray[np.uint32]) -> None:
        if state.shape != self._tables.shape or state.dtype != np.uint32:
            raise ValueError(f"state is {state.dtype} {state.shape}, the tables are uint32 {self._tables.shape}")
        self._tables[:] = state
