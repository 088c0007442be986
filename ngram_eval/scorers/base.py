"""Scorers: neural statistics and n-gram counts into what the text costs, one class a family.

A scorer owns its counts and its blend and hands back one tally, so that it may keep both wherever they are fastest.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ngram_eval.bpb import Tally
from ngram_eval.distributed.ranks import Ranks
from ngram_eval.models.source import NeuralStats
from ngram_eval.text.stream import Stream
from ngram_eval.text.windows import Windows


class Charged(Protocol):
    """What scored positions were charged with, wherever it is kept."""

    @property
    def values(self) -> NDArray[np.float64]:
        """(positions,), window after window, before the floor; probabilities if the scorer is `normalised`."""

    @property
    def order(self) -> NDArray[np.uint8] | None:
        """(positions,): the matched order, 0 where nothing matched; None where the host does not know."""

    @property
    def weight(self) -> NDArray[np.float64] | None:
        """(positions,): the weight of the n-gram estimate in the blend, 0 to 1; None where it is not known for each."""


class HostCharged(NamedTuple):
    """`Charged` in this process's memory."""

    values: NDArray[np.float64]
    order: NDArray[np.uint8] | None = None
    weight: NDArray[np.float64] | None = None


class OrderEvidence(NamedTuple):
    """What one order's context knows of a target, and what it has to say in the blend."""

    order: int
    """Its context has order - 1 tokens."""
    context: int
    """Times that the context has occurred."""
    distinct: int | None
    """Different tokens that have followed it; None where that is not known."""
    target: int
    """Times that the target has followed it."""
    weight: float
    """Share of the blend that rests on this order, 0 to 1."""


class Explanation(NamedTuple):
    """How a scorer comes to what it charges a target with, before the target is counted."""

    order: int
    """The matched order, 0 if nothing matched."""
    weight: float
    """Share of the blend that rests on n-grams, 0 to 1; the rest is the neural model's."""
    orders: tuple[OrderEvidence, ...]
    """Every order looked at, lowest first."""


class Scorer(Protocol):
    """Scores windows in stream order, each before it is counted."""

    window_wise: bool
    """Whether positions are counted when their whole window has been scored, or else each before the next is scored.

    In the second case windows may be cut anywhere between their scored positions, and nothing changes.
    """
    on_device: bool = False
    """Whether calls return before the work is done, so that a thread of its own would gain nothing."""

    def prefill(self, tokens: Stream, start: int, stop: int, advance: Callable[[int], None]) -> None:
        """Count positions [start, stop) without scoring them; `advance` hears of positions counted."""

    def scan(self, ranks: Ranks) -> None:
        """Replace what was counted by what all ranks before this one have counted (`distributed.prefill.scan`)."""

    def learned(self) -> dict[str, NDArray[Any]]:
        """What is learned besides the counts, for a checkpoint; empty for a scorer that only counts."""
        return {}

    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None:
        """Go on as the scorer that `learned` is from, once the same positions have been counted."""
        if learned:
            raise ValueError(f"this scorer learns nothing, but {', '.join(learned)} were given")

    def score(self, tokens: Stream, windows: Windows, stats: NeuralStats) -> Charged:
        """Charge for the scored positions of `windows`, whose neural statistics are `stats`, and count them."""

    def distribution(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        """(V,): what each token would be charged with at `position`, were it the target, as the counts stand.

        `probabilities` (V,) and `entropy` are the neural model's there. Changes nothing that was counted, and does not
        depend on tokens[position + 1] or any later token.
        """

    def given_target(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        """(V,): the values of all tokens as the target, tokens[position + 1], makes them.

        Where the target takes part in choosing an order, a weight or a denominator: with what it chose. Otherwise
        `distribution`, whatever the target.
        """
        return self.distribution(tokens, position, probabilities, entropy)

    def explain(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float, target: int
    ) -> Explanation | None:
        """How the charge of `target` at `position` comes about; `probabilities` and `entropy` as for `distribution`.

        As `distribution`, changes nothing and reads no token behind `position`. None for a scorer that can't tell.
        """
        return None

    def tally(self) -> Tally:
        """What has been charged so far."""


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
    """What a scorer may know of tokens besides their numbers, and of the model beside it."""

    size: int
    surfaces: Sequence[bytes | None] | None
    """What each token spells; None without a tokenizer."""
    neural: bool
    """Whether the neural distributions come from a model that knows something."""
