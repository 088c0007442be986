"""The scorer of a model mixed byte by byte with a byte-level PPM-D."""

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import EvalConfig
from ngram_eval.models.source import NeuralStats
from ngram_eval.scorers.base import Explanation, HostCharged, OrderEvidence
from ngram_eval.scorers.online import OnlineScorer, distinct_rows
from ngram_eval.scorers.ppmd.model import Ppmd
from ngram_eval.text.stream import Stream
from ngram_eval.text.windows import Windows


class PpmdScorer(OnlineScorer[Ppmd]):
    """The published byte mixture (`ngram_eval.scorers.ppmd.model`)."""

    what = "a byte mixture"
    window_wise = False

    def __init__(self, ppmd: Ppmd, config: EvalConfig) -> None:
        super().__init__(ppmd, config.ngram.min_order)
        self._needs_rows, self._target_gate = config.needs_rows, config.ppmd.byte_gate == "target"

    def score(self, tokens: Stream, windows: Windows, stats: NeuralStats) -> HostCharged:
        if len(windows) == 0:
            return HostCharged(np.zeros(0), np.zeros(0, np.uint8), np.zeros(0))
        first, stop = int(windows.first[0]), int(windows.stop[-1])
        targets = self._targets(tokens, first, stop)
        rows = distinct_rows(stats.rows) if self._needs_rows and stats.rows is not None else None
        p, order, weight = self._model.score(targets, stats.p_target, rows)
        self._counted = stop
        return self._charged(windows, p, stats.p_target, order)._replace(weight=weight)

    def distribution(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        self._next_is(tokens, position)
        return self._model.distribution(probabilities)

    def given_target(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        self._next_is(tokens, position)
        target = int(tokens[position + 1 : position + 2][0])
        return self._model.distribution(probabilities, target if self._target_gate else None)

    def explain(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float, target: int
    ) -> Explanation:
        """Explain PPM-D's part: counts are of the token's first byte, weights of all its bytes."""
        self._next_is(tokens, position)
        occurred, distinct, followed, (no_order, *shares) = (one.tolist() for one in self._model.evidence(target))
        orders = tuple(
            OrderEvidence(order, *counts)
            for order, counts in enumerate(zip(occurred, distinct, followed, shares, strict=True), 1)
        )
        return Explanation(max((one.order for one in orders if one.context), default=0), no_order + sum(shares), orders)

    def _next_is(self, tokens: Stream, position: int) -> None:
        self._start(tokens)
        if position != self._counted:
            raise ValueError(f"position {self._counted} is next, not {position}")
