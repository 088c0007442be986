"""Scorers: neural statistics and n-gram counts into what the text costs, one class a family.

A scorer owns its counts and its blend and hands back one tally, so that it may keep both wherever they are fastest.
"""

from collections.abc import Callable
from typing import Protocol

from ngram_eval.blend import GatedBackoff
from ngram_eval.bpb import Tally
from ngram_eval.config import EvalConfig
from ngram_eval.counts import Best, Counts, Tokens, make_counts
from ngram_eval.neural import NeuralStats, Stats
from ngram_eval.prefill import prefill_locally
from ngram_eval.windows import Windows

_BLEND_AT_ONCE = 1 << 16


class Scorer(Protocol):
    """Scores windows in stream order, each before it is counted."""

    normalised: bool
    """Whether the values it charges sum to 1 over the vocabulary."""

    def prefill(self, tokens: Tokens, stop: int, advance: Callable[[int], None]) -> None:
        """Count positions [0, stop), which other ranks score; `advance` hears of positions counted."""

    def score(self, tokens: Tokens, windows: Windows, stats: NeuralStats) -> None:
        """Charge for the scored positions of `windows`, whose neural statistics are `stats`, and count them."""

    def tally(self) -> Tally:
        """What has been charged so far."""


class HashedScorer:
    """PR #890's family: hashed counts and a gate on the neural entropy (`ngram_eval.blend.GatedBackoff`)."""

    normalised = GatedBackoff.normalised

    def __init__(self, counts: Counts, blend: GatedBackoff) -> None:
        self._counts, self._blend, self._tally = counts, blend, Tally()

    def prefill(self, tokens: Tokens, stop: int, advance: Callable[[int], None]) -> None:
        prefill_locally(self._counts, tokens, stop, advance)

    def score(self, tokens: Tokens, windows: Windows, stats: NeuralStats) -> None:
        best = self._counts.score_windows(tokens, windows.first, windows.stop)
        p_target, entropy = stats.p_target, stats.entropy
        for start in range(0, len(best.order), _BLEND_AT_ONCE):  # a part at a time: temporaries stay in the cache
            part = slice(start, start + _BLEND_AT_ONCE)
            p_neural, order = p_target[part], best.order[part]
            p = self._blend(Stats(p_neural, entropy[part]), Best(order, best.context[part], best.full[part]))
            self._tally.add(p, p_neural, order)

    def tally(self) -> Tally:
        return self._tally


def make_scorer(backend: str, config: EvalConfig, threads: int = 1) -> Scorer:
    """The scorer that `config` asks for, with empty counts of the named backend."""
    if backend == "triton":
        from ngram_eval.device import TritonScorer

        return TritonScorer(config)
    return HashedScorer(make_counts(backend, config.ngram, threads), GatedBackoff(config.gate))
