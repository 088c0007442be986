"""Count tables behind one protocol, one backend a file.

Every backend holds, per order, a table of context counts and a table of full (context + target) counts (see
`ngram_eval.scorers.hashed.hashing`), and equals `reference` exactly, table by table. Backends are named in `BACKENDS` alone.

Position p of a stream of N tokens predicts tokens[p + 1], so positions run over [0, N - 1). A position whose context
would start before the stream is skipped for that order: it is not counted and never matches.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.uint16] | NDArray[np.uint32]
"""Tokens in memory or mapped: one dimension, contiguous, uint16 or uint32."""


class Stream(Protocol):
    """A token stream of any length, read in slices: an array, or shards end to end (`ngram_eval.text.shards.Shards`)."""

    def __len__(self) -> int: ...

    def __getitem__(self, positions: slice, /) -> Tokens:
        """The tokens of a slice without a step."""
