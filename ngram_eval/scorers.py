"""Scorers: neural statistics and n-gram counts into what the text costs, one class a family.

A scorer owns its counts and its blend and hands back one tally, so that it may keep both wherever they are fastest.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ngram_eval.blend import GatedBackoff
from ngram_eval.bpb import Tally
from ngram_eval.config import EvalConfig
from ngram_eval.counts import Best, Counts, Tokens, make_counts
from ngram_eval.neural import NeuralStats, Stats
from ngram_eval.prefill import prefill_locally
from ngram_eval.windows import Windows

_BLEND_AT_ONCE = 1 << 16


class Charged(Protocol):
    """What scored positions were charged with, wherever it is kept."""

    @property
    def values(self) -> NDArray[np.float64]:
        """(positions,), window after window, before the floor; probabilities if the scorer is `normalised`."""


class Values(NamedTuple):
    """`Charged` in this process's memory."""

    values: NDArray[np.float64]


class Scorer(Protocol):
    """Scores windows in stream order, each before it is counted."""

    normalised: bool
    """Whether the values it charges sum to 1 over the vocabulary."""
    window_wise: bool
    """Whether positions are counted when their whole window has been scored, or else each before the next is scored.

    In the second case windows may be cut anywhere between their scored positions, and nothing changes.
    """

    def prefill(self, tokens: Tokens, stop: int, advance: Callable[[int], None]) -> None:
        """Count positions [0, stop), which other ranks score; `advance` hears of positions counted."""

    def score(self, tokens: Tokens, windows: Windows, stats: NeuralStats) -> Charged:
        """Charge for the scored positions of `windows`, whose neural statistics are `stats`, and count them."""

    def distribution(
        self, tokens: Tokens, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        """(V,): what each token would be charged with at `position`, were it the target, as the counts stand.

        `probabilities` (V,) and `entropy` are the neural model's there. Changes nothing that was counted, and does not
        depend on tokens[position + 1] or any later token.
        """

    def given_target(
        self, tokens: Tokens, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        """(V,): the values of all tokens as the target, tokens[position + 1], makes them.

        Where the target takes part in choosing an order, a weight or a denominator: with what it chose. Otherwise
        `distribution`, whatever the target.
        """
        return self.distribution(tokens, position, probabilities, entropy)

    def tally(self) -> Tally:
        """What has been charged so far."""


class NeuralScorer(Scorer):
    """The neural model alone."""

    normalised = True
    window_wise = False

    def __init__(self) -> None:
        self._tally = Tally()

    def prefill(self, tokens: Tokens, stop: int, advance: Callable[[int], None]) -> None:
        advance(stop)

    def score(self, tokens: Tokens, windows: Windows, stats: NeuralStats) -> Values:
        p = stats.p_target
        self._tally.add(p, p, np.zeros(len(p), np.uint8))
        return Values(p)

    def distribution(
        self, tokens: Tokens, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        return probabilities

    def tally(self) -> Tally:
        return self._tally


class HashedScorer(Scorer):
    """PR #890's family: hashed counts and a gate on the neural entropy (`ngram_eval.blend.GatedBackoff`)."""

    normalised = GatedBackoff.normalised
    window_wise = True

    def __init__(self, counts: Counts, blend: GatedBackoff) -> None:
        self._counts, self._blend, self._tally = counts, blend, Tally()

    def prefill(self, tokens: Tokens, stop: int, advance: Callable[[int], None]) -> None:
        prefill_locally(self._counts, tokens, stop, advance)

    def score(self, tokens: Tokens, windows: Windows, stats: NeuralStats) -> Values:
        best = self._counts.score_windows(tokens, windows.first, windows.stop)
        p_target, entropy = stats.p_target, stats.entropy
        values = np.empty(len(best.order))
        for start in range(0, len(best.order), _BLEND_AT_ONCE):  # a part at a time: temporaries stay in the cache
            part = slice(start, start + _BLEND_AT_ONCE)
            p_neural, order = p_target[part], best.order[part]
            p = self._blend(Stats(p_neural, entropy[part]), Best(order, best.context[part], best.full[part]))
            self._tally.add(p, p_neural, order)
            values[part] = p
        return Values(values)

    def distribution(
        self, tokens: Tokens, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        return self._blend.distribution(self._counts, tokens, position, probabilities, entropy)

    def given_target(
        self, tokens: Tokens, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        return self._blend.given_target(self._counts, tokens, position, probabilities, entropy)

    def tally(self) -> Tally:
        return self._tally


def make_scorer(backend: str, config: EvalConfig, threads: int = 1) -> Scorer:
    """The scorer that `config` asks for, with empty counts of the named backend."""
    if backend == "triton":
        from ngram_eval.device import TritonScorer

        return TritonScorer(config)
    return HashedScorer(make_counts(backend, config.ngram, threads), GatedBackoff(config.gate))
