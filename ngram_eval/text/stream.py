"""Token streams, which are scored and read in slices.

Position p of a stream of N tokens predicts tokens[p + 1], so positions run over [0, N - 1).
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.uint16] | NDArray[np.uint32]
"""Tokens in memory: one dimension, contiguous, uint16 or uint32."""


MAX_VOCABULARY = (1 << 19) - 1
"""Most different tokens: exact counts and the mixer hold a token, and a number of tokens, in 19 bits."""


class Stream(Protocol):
    """A token stream of any length: an array, or shards end to end (`ngram_eval.text.shards.Shards`)."""

    def __len__(self) -> int: ...

    def __getitem__(self, positions: slice, /) -> Tokens:
        """The tokens of a slice without a step."""


def check_span(tokens: Stream, start: int, stop: int) -> None:
    """Raise `ValueError` unless [start, stop) is within the positions of the stream."""
    if not 0 <= start <= stop <= len(tokens) - 1:
        raise ValueError(f"positions [{start}, {stop}) outside [0, {len(tokens) - 1}) of {len(tokens)} tokens")


class Joined:
    """Two token streams, one after the other, as one `Stream`."""

    def __init__(self, first: Stream, rest: Stream) -> None:
        self._first, self._rest = first, rest
        self._dtype = np.result_type(first[:0], rest[:0])

    def __len__(self) -> int:
        return len(self._first) + len(self._rest)

    def __getitem__(self, positions: slice, /) -> Tokens:
        start, stop, _ = positions.indices(len(self))
        cut = len(self._first)
        before, after = self._first[start : min(stop, cut)], self._rest[max(start - cut, 0) : max(stop - cut, 0)]
        found: Tokens = after if start >= cut else before if stop <= cut else np.concatenate([before, after])
        return found.astype(self._dtype, copy=False)
