"""Scorers: from neural statistics and n-gram counts to the values charged, one class per family.

A scorer owns its counts and its blend and returns one tally, so it may keep both on the host or on a device.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ngram_eval.bpb import Tally
from ngram_eval.distributed.ranks import Ranks
from ngram_eval.models.branches import Tree
from ngram_eval.models.source import NeuralStats
from ngram_eval.text.stream import Stream
from ngram_eval.text.windows import Windows


class Charged(Protocol):
    """The values that scored positions were charged with, on the host or on a device."""

    @property
    def values(self) -> NDArray[np.float64]:
        """(positions,), window after window, before the floor; probabilities if the scorer is `normalised`."""

    @property
    def order(self) -> NDArray[np.uint8] | None:
        """Matched orders, (positions,), 0 where no order matched; None if the host does not know them."""

    @property
    def weight(self) -> NDArray[np.float64] | None:
        """Weights of the n-gram estimate in the blend, (positions,), 0 to 1; None if they are not known."""


class HostCharged(NamedTuple):
    """`Charged` in this process's memory."""

    values: NDArray[np.float64]
    order: NDArray[np.uint8] | None = None
    weight: NDArray[np.float64] | None = None


class OrderEvidence(NamedTuple):
    """The counts of one order for a target, and the order's weight in the blend."""

    order: int
    """Order; its context has order - 1 tokens."""
    context: int
    """Number of times that the context has occurred."""
    distinct: int | None
    """Number of different tokens that have followed the context; None if it is not known."""
    target: int
    """Number of times that the target has followed the context."""
    weight: float
    """Share of the blend that comes from this order, 0 to 1."""


class Explanation(NamedTuple):
    """How a target's charge is made up, before the target is counted."""

    order: int
    """The matched order, 0 if no order matched."""
    weight: float
    """Share of the blend that comes from n-grams, 0 to 1; the rest is the neural model's."""
    orders: tuple[OrderEvidence, ...]
    """All orders that were looked up, lowest first."""


class Scorer(Protocol):
    """Scores windows in stream order, each before it is counted."""

    window_wise: bool
    """True if positions are counted after their whole window is scored; False if each is counted before the next.

    If False, windows may be cut between any two scored positions without changing the result.
    """
    on_device: bool = False
    """Whether calls return before the work is done, so that a separate thread would gain nothing."""

    tree: Tree | None = None
    """The tree whose branches it takes in place of whole distributions."""

    def prefill(self, tokens: Stream, start: int, stop: int, advance: Callable[[int], None]) -> None:
        """Count positions [start, stop) without scoring them.

        `advance` is called with the number of positions counted.
        """

    def scan(self, ranks: Ranks) -> None:
        """Replace the counts by those of all ranks before this one (`distributed.prefill.scan`)."""

    def learned(self) -> dict[str, NDArray[Any]]:
        """All that is learned besides the counts, for a checkpoint; empty for a scorer that only counts."""
        return {}

    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None:
        """Load what another scorer's `learned` returned; the same positions must have been counted before."""
        if learned:
            raise ValueError(f"this scorer learns nothing, but {', '.join(learned)} were given")

    def score(self, tokens: Stream, windows: Windows, stats: NeuralStats) -> Charged:
        """Charge for the scored positions of `windows`, whose neural statistics are `stats`, and count them."""

    def distribution(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        """The value of each token as the target of `position`, with the current counts, (V,).

        `probabilities` (V,) and `entropy` are the neural model's there. Does not change the counts, and does not depend
        on tokens[position + 1] or any later token.
        """

    def given_target(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        """The values of all tokens when the target is tokens[position + 1], (V,).

        If the target helps to choose an order, a weight or a denominator, all values use its choice. Otherwise this is
        `distribution`.
        """
        return self.distribution(tokens, position, probabilities, entropy)

    def explain(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float, target: int
    ) -> Explanation | None:
        """How the charge of `target` at `position` is made up; None for a scorer that does not know.

        `probabilities` and `entropy` are as for `distribution`. Like it, this changes nothing and reads no token after
        `position`.
        """
        return None

    def tally(self) -> Tally:
        """The sums of everything charged so far."""


class NeuralScorer(Scorer):
    """The neural model alone."""

    window_wise = False

    def __init__(self) -> None:
        self._tally = Tally()

    def prefill(self, tokens: Stream, start: int, stop: int, advance: Callable[[int], None]) -> None:
        advance(stop - start)

    def scan(self, ranks: Ranks) -> None:
        pass

    def score(self, tokens: Stream, windows: Windows, stats: NeuralStats) -> HostCharged:
        p = stats.p_target
        order = np.zeros(len(p), np.uint8)
        self._tally.add(p, p, order, windows.positions)
        return HostCharged(p, order)

    def distribution(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        return probabilities

    def tally(self) -> Tally:
        return self._tally


class Vocabulary(NamedTuple):
    """What a scorer may know about the tokens and the neural model."""

    size: int
    surfaces: Sequence[bytes | None] | None
    """The bytes that each token spells; None without a tokenizer."""
    neural: bool
    """Whether the neural distributions come from a trained model, not --uniform."""
