"""The scorer of exact counts and their normalised blend."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import EvalConfig
from ngram_eval.models.source import NeuralStats
from ngram_eval.scorers.base import Explanation, HostCharged, OrderEvidence
from ngram_eval.scorers.exact.model import ExactModel
from ngram_eval.scorers.exact.reference import chain_shares
from ngram_eval.scorers.online import OnlineScorer, distinct_rows
from ngram_eval.text.stream import Stream, Tokens
from ngram_eval.text.windows import Windows


class ExactScorer(OnlineScorer[ExactModel]):
    """Exact counts and their normalised blend (`ngram_eval.scorers.exact.model`)."""

    what = "an exact memory"

    def __init__(self, model: ExactModel, config: EvalConfig) -> None:
        super().__init__(model, config.ngram.min_order)
        self.window_wise = config.exact.by_window
        self._exact = config.exact

    def score(self, tokens: Stream, windows: Windows, stats: NeuralStats) -> HostCharged:
        p_target, entropy, rows = stats.p_target, stats.entropy, stats.rows
        p, order = np.empty(len(p_target)), np.empty(len(p_target), np.uint8)
        entry = 0
        for part in self._parts(windows):
            here = slice(entry, entry + part.scored)
            base = p_target[here] if rows is None else distinct_rows(rows[here])
            targets = self._targets(tokens, int(part.first[0]), int(part.stop[-1]))
            p[here], order[here] = self._model.score(targets, base, entropy[here], together=self.window_wise)
            self._counted, entry = int(part.stop[-1]), here.stop
        return self._charged(windows, p, p_target, order)

    def _parts(self, windows: Windows) -> Iterator[Windows]:
        """The windows, one by one if each is counted as a whole."""
        step = 1 if self.window_wise else max(len(windows), 1)
        for row in range(0, len(windows), step):
            yield windows[row : row + step]

    def distribution(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        self._start(tokens)
        between = tokens[self._counted + 1 : position + 1]
        if self.window_wise:
            return self._model.distribution_after(between, probabilities, entropy)
        if len(between):
            raise ValueError(f"position {self._counted} is next, not {position}")
        return self._model.distribution(probabilities, entropy)

    def distribution_after(
        self, tokens: Stream, more: Tokens, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        """The distribution after `tokens`, all of them counted, and `more`, which are not, (V,)."""
        self._start(tokens)
        return self._model.distribution_after(more, probabilities, entropy)

    def explain(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float, target: int
    ) -> Explanation | None:
        self._start(tokens)
        if self._counted != position:
            return None  # inside a window that is counted as a whole
        newest = int(tokens[position : position + 1][0])
        shares = chain_shares(self._model.learned(), self._model.evidence(target), newest, entropy, self._exact)
        orders = tuple(
            OrderEvidence(level + 1, seen.total, seen.distinct, seen.count, weight)
            for level, (seen, weight) in enumerate(shares)
        )
        longest = len(orders) if len(orders) >= self._min_order else 0
        return Explanation(longest, sum(one.weight for one in orders), orders)
