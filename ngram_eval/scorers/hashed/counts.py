"""Count tables with one protocol, one backend per file.

Every backend holds, per order, a table of context counts and a table of full (context + target) counts (see
`ngram_eval.scorers.hashed.hashing`), and equals `reference` exactly, table by table. A position whose context would
start before the stream is skipped for that order: it is not counted and never matches.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import NgramConfig
from ngram_eval.scorers.backends import load_backend
from ngram_eval.text.stream import Stream, Tokens, check_span


class Matches(NamedTuple):
    """Counts of every order at consecutive positions; row i belongs to order min_order + i."""

    context: NDArray[np.uint32]
    """Counts of the context buckets, (orders, positions); 0 where the order is skipped."""
    full: NDArray[np.uint32]
    """Counts of the full buckets, (orders, positions); 0 where the order is skipped."""


class Best(NamedTuple):
    """The matched order of each position and its two counts; all 0 where no order matched."""

    order: NDArray[np.uint8]
    context: NDArray[np.uint32]
    full: NDArray[np.uint32]


class Counts(Protocol):
    """Hashed n-gram counts. Methods raise `ValueError` for positions outside the stream or arrays of another form."""

    config: NgramConfig

    def update(self, tokens: Tokens, start: int, stop: int) -> None:
        """Count positions [start, stop) in both tables of every order."""

    def lookup(self, tokens: Tokens, start: int, stop: int) -> Matches:
        """Counts of positions [start, stop) in every order, from the current tables."""

    def score_windows(self, tokens: Tokens, firsts: NDArray[np.int64], stops: NDArray[np.int64]) -> Best:
        """Window by window: look up positions [first, stop), keep the best match of each, then count them.

        Returns the best matches of all windows' positions, one after another; the result is as if windows were done in
        order. The best match is the highest order whose context count reaches `min_count` and, with `target_backoff`,
        whose full count is not 0.
        """

    def lookup_targets(self, tokens: Tokens, position: int, vocab: int) -> Matches:
        """Counts of every order at one position, for each token below `vocab` as the target, (orders, vocab).

        Reads the current tables; tokens[position + 1] is not read.
        """

    def state(self) -> NDArray[np.uint32]:
        """The tables, (orders, 2, buckets): [i, 0] context counts and [i, 1] full counts of order min_order + i.

        This is a view if the backend allows it; copy it before counting further.
        """

    def load_state(self, state: NDArray[np.uint32]) -> None:
        """Copy `state` into the tables."""


def make_counts(backend: str, config: NgramConfig, threads: int = 1) -> Counts:
    """Empty tables of the named backend; raises `InputError` if it can't be loaded or has no device to run on.

    `threads` is the most threads a call may use; only `cpu` uses more than one.
    """
    counts: Counts = load_backend(backend, "hashed")(config, threads)
    return counts


def around(stream: Stream, start: int, stop: int, config: NgramConfig) -> tuple[Tokens, int]:
    """(tokens that positions [start, stop) and their contexts read, the stream's index of the first of these).

    Position p of the stream is position p minus that index of these tokens. No context is cut, so counts are equal.
    """
    base = max(start - max(config.max_order - 2 + config.context_lag, 0), 0)  # order 1 has no context to read
    return stream[base : stop + 1], base


def check_tokens(tokens: Tokens, start: int, stop: int) -> None:
    """Raise `ValueError` unless `tokens` is a valid array for the counts and [start, stop) is within its positions."""
    if tokens.ndim != 1 or tokens.dtype not in (np.uint16, np.uint32) or not tokens.flags.c_contiguous:
        raise ValueError(
            f"tokens must be contiguous, one-dimensional, uint16 or uint32, not {tokens.dtype} of shape {tokens.shape}"
        )
    check_span(tokens, start, stop)


def check_windows(tokens: Tokens, firsts: NDArray[np.int64], stops: NDArray[np.int64]) -> None:
    """Raise `ValueError` unless every window [first, stop) passes `check_tokens`."""
    if len(firsts) != len(stops):
        raise ValueError(f"{len(firsts)} firsts for {len(stops)} stops")
    for first, stop in zip(firsts.tolist(), stops.tolist(), strict=True):
        check_tokens(tokens, first, stop)
