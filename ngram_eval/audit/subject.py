"""What is audited, behind one interface: it scores a stream, and shows distributions with the target withheld.

A subject that can't do what a probe asks for raises `NotApplicable` with the reason.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.claim import Claim
from ngram_eval.text.stream import Tokens


class NotApplicable(Exception):
    """A probe can't be made of this subject; says why."""


class Trace(NamedTuple):
    """A stream scored once."""

    positions: NDArray[np.int64]
    """What was charged for, in order; a position may come twice."""
    values: NDArray[np.float64]
    """What each was charged with, before the floor."""
    neural: NDArray[np.float64] | None
    """The neural model's probability of the targets, where it is known."""
    claim: Claim
    """What the subject reports of it."""


class Change(NamedTuple):
    """Of all tokens, the one whose value depends most on which token the target is."""

    token: int
    targets: tuple[int, int]
    values: tuple[float, float]


class Glimpse(NamedTuple):
    """A position just before it is scored, its target and all later tokens withheld."""

    position: int
    values: NDArray[np.float64]
    """(V,): what each token would be charged with."""
    neural: NDArray[np.float64] | None
    """(V,): the neural model's distribution, where it is known."""
    change: Change | None
    """How the values of the others depend on the target, where the subject is told the target at all."""


class Subject:
    """What is audited."""

    name: str

    @property
    def source_is_given(self) -> bool:
        """Whether neural statistics were computed elsewhere, so that they stay as they are whatever the tokens."""
        return False

    def score(self, tokens: Tokens) -> Trace:
        """Evaluate a stream as the subject always does, from its beginning."""
        raise NotImplementedError

    def expected(self, tokens: Tokens) -> int:
        """The positions [0, expected) are those that an evaluation of the stream should charge for."""
        return len(tokens) - 1

    def glimpses(self, tokens: Tokens, samples: NDArray[np.int64]) -> Iterator[Glimpse]:
        """The samples, one pass from left to right; what comes after a sample is not even in memory."""
        raise NotImplementedError

    def without_memory(self) -> "Subject":
        """The subject with the weight of its memory set to 0."""
        raise NotApplicable("it has no weight that could be set to 0 from outside")

    def with_buckets(self, buckets: int) -> "Subject":
        """The subject with fewer buckets."""
        raise NotApplicable("it has no buckets")

    @property
    def buckets(self) -> int:
        """Buckets a table."""
        raise NotApplicable("it has no buckets: nothing can collide")

    def variants(self) -> dict[str, tuple["Subject", float]]:
        """Circumstances that must not matter: name -> (the subject in them, nats a position by which it may differ)."""
        raise NotApplicable("it can't be run again")
