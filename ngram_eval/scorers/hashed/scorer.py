"""The scorer of PR #890's family: hashed counts and a gate on the neural entropy."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ngram_eval.bpb import Tally
from ngram_eval.distributed.prefill import scan
from ngram_eval.distributed.ranks import Ranks
from ngram_eval.models.source import NeuralStats, Stats
from ngram_eval.scorers.base import Explanation, HostCharged, OrderEvidence, Scorer
from ngram_eval.scorers.hashed.counts import Best, Counts, Matches, around
from ngram_eval.scorers.hashed.gate import GatedBackoff
from ngram_eval.scorers.hashed.reference import best_match
from ngram_eval.text.stream import Stream
from ngram_eval.text.windows import Windows

_BLEND_AT_ONCE = 1 << 16


_COUNT_AT_ONCE = 1 << 22


def _positions(windows: Windows, part: slice) -> NDArray[np.int64]:
    return windows.positions()[part]


class HashedScorer(Scorer):
    """PR #890's family: hashed counts and a gate on the neural entropy (`gate.GatedBackoff`)."""

    window_wise = True

    def __init__(self, counts: Counts, blend: GatedBackoff) -> None:
        self._counts, self._blend, self._tally = counts, blend, Tally()

    def prefill(self, tokens: Stream, start: int, stop: int, advance: Callable[[int], None]) -> None:
        count_positions(self._counts, tokens, start, stop, advance)

    def scan(self, ranks: Ranks) -> None:
        import torch  # not at the top: one rank needs no torch

        scan(torch.from_numpy(self._counts.state().view(np.int32)), ranks)

    def score(self, tokens: Stream, windows: Windows, stats: NeuralStats) -> HostCharged:
        if len(windows) == 0:
            return HostCharged(np.zeros(0))
        read, base = around(tokens, int(windows.first.min()), int(windows.stop.max()), self._counts.config)
        best = self._counts.score_windows(read, windows.first - base, windows.stop - base)
        p_target, entropy = stats.p_target, stats.entropy
        values, weight = np.empty(len(best.order)), np.empty(len(best.order))
        for start in range(0, len(best.order), _BLEND_AT_ONCE):  # a part at a time: temporaries stay in the cache
            part = slice(start, start + _BLEND_AT_ONCE)
            p_neural, order = p_target[part], best.order[part]
            stats_here = Stats(p_neural, entropy[part])
            p, weight[part] = self._blend.weighed(stats_here, Best(order, best.context[part], best.full[part]))
            self._tally.add(p, p_neural, order, partial(_positions, windows, part))
            values[part] = p
        return HostCharged(values, best.order, weight)

    def distribution(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        return self._blend.distribution(self._counts, tokens, position, probabilities, entropy)

    def given_target(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        return self._blend.given_target(self._counts, tokens, position, probabilities, entropy)

    def explain(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float, target: int
    ) -> Explanation:
        return explain_hashed(self._counts, self._blend, tokens, position, entropy, target)

    def tally(self) -> Tally:
        return self._tally


def explain_hashed(
    counts: Counts, blend: GatedBackoff, tokens: Stream, position: int, entropy: float, target: int
) -> Explanation:
    """`Scorer.explain` of PR #890's family."""
    matches = blend.matches(counts, tokens, position, target + 1)
    context, full = matches.context[:, -1], matches.full[:, -1]
    best = best_match(Matches(context[:, None], full[:, None]), counts.config)
    matched = int(best.order[0])
    weight = float(blend.alpha(np.array([entropy], np.float32), best.order)[0]) if matched else 0.0
    orders = tuple(
        OrderEvidence(order, int(context[row]), None, int(full[row]), weight if order == matched else 0.0)
        for row, order in enumerate(counts.config.orders)
    )
    return Explanation(matched, weight, orders)


def count_positions(counts: Counts, tokens: Stream, start: int, stop: int, advance: Callable[[int], None]) -> None:
    """Count positions [start, stop) of a stream of any length.

    `advance` is called with the number of positions counted.
    """
    for low in range(start, stop, _COUNT_AT_ONCE):
        high = min(low + _COUNT_AT_ONCE, stop)
        part, base = around(tokens, low, high, counts.config)
        counts.update(part, low - base, high - base)
        advance(high - low)
