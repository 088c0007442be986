"""The interface of audited subjects: they score a stream, and give distributions with the target withheld.

A subject that can't do what a probe needs raises `NotApplicable` with the reason.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.claim import Claim
from ngram_eval.audit.finding import NotApplicable
from ngram_eval.audit.precision import CLOSE
from ngram_eval.text.stream import Tokens


class Sums(NamedTuple):
    """What a pass saw of the distribution at each of its positions; each is (positions,)."""

    total: NDArray[np.float64]
    """Σ over the vocabulary."""
    least: NDArray[np.float64]
    """The smallest value."""


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
    sums: Sums | None = None
    """Sums of all distributions, if the pass had them."""


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


class Drawn(NamedTuple):
    """A text that a subject drew from what it shows."""

    tokens: Tokens
    first: int
    """The first position whose target was drawn; tokens before are those that it was given."""
    shown: NDArray[np.float64]
    """Share of each drawn token in the sum of the values shown, (positions drawn,)."""


class Subject:
    """A subject of an audit."""

    name: str

    @property
    def source_is_given(self) -> bool:
        """Whether neural statistics were computed elsewhere and do not depend on the tokens here."""
        return False

    @property
    def short(self) -> int:
        """Fewest positions that show its memory at work: what probes with many runs let it score."""
        return 256

    @property
    def past_only(self) -> bool:
        """Whether it is given nothing but the past, so that a stream may end anywhere."""
        return False

    @property
    def slack(self) -> float:
        """Nats by which a charge may differ from what was foretold, by the precision of its numbers."""
        return CLOSE

    def vocab_size(self, tokens: Tokens) -> int:
        """V of its distributions; for want of better, what the tokens need."""
        return int(tokens.max()) + 1

    def score(self, tokens: Tokens, wanted: NDArray[np.int64] | None = None) -> Trace:
        """Evaluate a stream from its beginning, as the subject always does; glimpses of `wanted` will be asked for."""
        raise NotImplementedError

    def expected(self, tokens: Tokens) -> int:
        """Number of positions that an evaluation of the stream should charge for: [0, expected)."""
        return len(tokens) - 1

    def glimpses(self, tokens: Tokens, samples: NDArray[np.int64]) -> Iterator[Glimpse]:
        """Glimpses of the samples, in one pass from left to right; tokens after a sample are not in memory."""
        raise NotImplementedError

    def foretold(self, tokens: Tokens, positions: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """The targets' values at these positions from a pass that withholds them; None: only `glimpses` tell."""
        return None

    def draw(self, tokens: Tokens, rng: np.random.Generator) -> Drawn:
        """Continue a stretch of `tokens` with tokens drawn from what it shows."""
        raise NotApplicable("it can't continue a text")

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
