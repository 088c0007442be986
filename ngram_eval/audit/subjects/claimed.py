"""Probabilities that somebody wrote down (`--claimed`), with the logits of the distributions they are said to be of."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.claim import Claim
from ngram_eval.audit.finding import NotApplicable
from ngram_eval.audit.precision import CLOSE, UNIT_ROUNDOFF, Precision, precision_of
from ngram_eval.audit.subject import Glimpse, Subject, Trace
from ngram_eval.errors import InputError
from ngram_eval.models.saved_arrays import open_arrays
from ngram_eval.models.saved_logits import SavedLogits
from ngram_eval.text.stream import Tokens
from ngram_eval.text.windows import Windows

_AT_ONCE = 1 << 22
"""Logits that are read at once."""
_SEEN = 64
"""Rows of logits that show their precision and how large they are."""
_MASKED = 256.0
"""Logits as large as this mark tokens that are ruled out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClaimedSubject(Subject):
    """Claimed charges from a file, with the logits of the distributions that they are claimed to be from."""

    name: str
    positions: NDArray[np.int64]
    values: NDArray[np.float64]
    logits: SavedLogits | None
    tokens: Tokens
    """The stream that they belong to."""
    whole: int
    """Number of positions of a whole evaluation."""
    precision: Precision | None = None
    """The precision that is declared for the charges; else the one seen."""

    @property
    def source_is_given(self) -> bool:
        return True

    @cached_property
    def slack(self) -> float:
        """What rounding the charges to their precision, and the logits to theirs, can change."""
        slack = CLOSE + 2 * UNIT_ROUNDOFF[self.precision or precision_of(self.values)]
        if self.logits is not None:
            first = np.ravel(self.logits.logits[:_SEEN]).astype(np.float64)
            first = first[np.abs(first) < _MASKED]
            slack += 2 * UNIT_ROUNDOFF[precision_of(first)] * float(np.abs(first).max(initial=0.0))
        return slack

    def vocab_size(self, tokens: Tokens) -> int:
        return super().vocab_size(tokens) if self.logits is None else self.logits.vocab_size

    def expected(self, tokens: Tokens) -> int:
        return self.whole

    def score(self, tokens: Tokens, wanted: NDArray[np.int64] | None = None) -> Trace:
        if not np.array_equal(tokens, self.tokens):
            raise NotApplicable("a file of claims can't be computed again")
        return Trace(self.positions, self.values, None, Claim())

    def glimpses(self, tokens: Tokens, samples: NDArray[np.int64]) -> Iterator[Glimpse]:
        if self.logits is None:
            raise NotApplicable("only the targets' values are claimed: give the distributions with --logits")
        for position in samples.tolist():
            at = np.array([position])
            (values,) = self.logits.probabilities(tokens, Windows(at, at, at + 1, 1))
            yield Glimpse(position, values, None, None)

    def foretold(self, tokens: Tokens, positions: NDArray[np.int64]) -> NDArray[np.float64] | None:
        if self.logits is None:
            raise NotApplicable("only the targets' values are claimed: give the distributions with --logits")
        step = max(_AT_ONCE // self.logits.vocab_size, 1)
        parts = [positions[start : start + step] for start in range(0, len(positions), step)]
        values = np.empty(len(positions))
        for start, at in zip(range(0, len(positions), step), parts, strict=True):
            rows = self.logits.probabilities(tokens, Windows(at, at, at + 1, 1))
            values[start : start + step] = rows[np.arange(len(at)), tokens[at + 1]]
        return values


def load_claimed(
    path: Path,
    logits: SavedLogits | None,
    tokens: Tokens,
    seq_len: int,
    subset: bool,
    precision: Precision | None = None,
) -> ClaimedSubject:
    """Read an .npz or .safetensors file with the charges `p` and their `positions` (default: 0, 1, 2, ...).

    A whole evaluation has all positions, or those of all whole sequences. Raises `InputError` for any other file.
    """
    arrays = open_arrays(path, "--claimed")
    if "p" not in arrays.headers:
        raise InputError(f"{path}: no array p, the probabilities that positions were charged with")
    for name, (shape, dtype) in arrays.headers.items():
        if name not in ("p", "positions"):
            continue
        if math.prod(shape) > 2 * len(tokens) + (1 << 20):  # some charge a tail often
            raise InputError(f"{path}: {name} is {dtype} of shape {shape}; the data has {len(tokens) - 1:,} positions")
        if dtype.kind not in ("f" if name == "p" else "iu"):  # before it is read: a string can be a gigabyte
            raise InputError(f"{path}: {name} is {dtype} of shape {shape}; give numbers")
    values = arrays.read("p")
    positions = arrays.read("positions") if "positions" in arrays.headers else np.arange(len(values))
    if values.ndim != 1 or values.dtype.kind != "f" or len(values) == 0 or not (values >= 0).all():
        raise InputError(f"{path}: p is {values.dtype} of shape {values.shape}; give one float >= 0 a position")
    if positions.shape != values.shape or positions.dtype.kind not in "iu":
        raise InputError(
            f"{path}: positions is {positions.dtype} of shape {positions.shape}; give one integer for each p"
        )
    if positions.min() < 0 or positions.max() >= len(tokens) - 1:
        raise InputError(
            f"{path}: positions reach from {positions.min()} to {positions.max()}; the data has {len(tokens) - 1:,}"
        )
    end = int(positions.max()) + 1
    return ClaimedSubject(
        name=path.name,
        positions=positions.astype(np.int64),
        values=values.astype(np.float64),
        logits=logits,
        tokens=tokens,
        precision=precision,
        whole=end if subset or end == (len(tokens) - 1) // seq_len * seq_len else len(tokens) - 1,
    )
