"""The interface of audited subjects: they score a stream, and give distributions with the target withheld.

A subject that can't do what a probe needs raises `NotApplicable` with the reason.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.claim import Claim
from ngram_eval.audit.finding import NotApplicable
from ngram_eval.text.stream import Tokens


class Trace(NamedTuple):
    """A stream scored once."""

    positions: NDArray[np.int64]
    """Positions charged for, in order; a position may occur twice."""
    values: NDArray[np.float64]
    """Charges of these positions, before the floor."""
    neural: NDArray[np.float64] | None
    """The neural model's probabilities of the targets, if they are known."""
    claim: Claim
    """The sums that the subject reports."""


class Change(NamedTuple):
    """The token whose value depends most on the target."""

    token: int
    targets: tuple[int, int]
    values: tuple[float, float]


class Glimpse(NamedTuple):
    """A position just before it is scored, with its target and all later tokens withheld."""

    position: int
    values: NDArray[np.float64]
    """The value that each token would be charged with, (V,)."""
    neural: NDArray[np.float64] | None
    """The neural model's distribution, (V,), if it is known."""
    change: Change | None
    """How the values of other tokens depend on the target; None if the subject never gets the target."""


class Subject:
    """A subject of an audit."""

    name: str

    @property
    def source_is_given(self) -> bool:
        """Whether neural statistics were computed elsewhere and do not depend on the tokens here."""
        return False

    def score(self, tokens: Tokens) -> Trace:
        """Evaluate a stream from its beginning, as the subject always does."""
        raise NotImplementedError

    def expected(self, tokens: Tokens) -> int:
        """Number of positions that an evaluation of the stream should charge for: [0, expected)."""
        return len(tokens) - 1

    def glimpses(self, tokens: Tokens, samples: NDArray[np.int64]) -> Iterator[Glimpse]:
        """Glimpses of the samples, in one pass from left to right; tokens after a sample are not in memory."""
        raise NotImplementedError

    def without_memory(self) -> "Subject":
        """The subject with the weight of its memory set to 0."""
        raise NotApplicable("it has no weight that can be set to 0 from outside")

    def with_buckets(self, buckets: int) -> "Subject":
        """The subject with tables of so many buckets."""
        raise NotApplicable("it has no buckets")

    @property
    def buckets(self) -> int:
        """Number of buckets per table."""
        raise NotApplicable("it has no buckets: nothing can collide")

    def variants(self) -> dict[str, tuple["Subject", float]]:
        """Variants that must give the same number: name -> (subject, nats a position by which it may differ)."""
        raise NotApplicable("it can't be run again")
