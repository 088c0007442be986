"""The scorer of hashed contexts mixed over binary decisions."""

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import EvalConfig
from ngram_eval.models.branches import Tree
from ngram_eval.models.source import NeuralStats
from ngram_eval.scorers.base import Explanation, HostCharged, OrderEvidence
from ngram_eval.scorers.mixer.model import TOKEN_CONTEXTS, Mixer
from ngram_eval.scorers.online import OnlineScorer, distinct_rows
from ngram_eval.text.stream import Stream
from ngram_eval.text.windows import Windows


class MixerScorer(OnlineScorer[Mixer]):
    """Hashed contexts mixed over binary decisions (`ngram_eval.scorers.mixer.model`)."""

    what = "a mixer"
    window_wise = False

    def __init__(self, mixer: Mixer, config: EvalConfig, tree: Tree) -> None:
        super().__init__(mixer, config.ngram.min_order)
        self.tree = tree

    def score(self, tokens: Stream, windows: Windows, stats: NeuralStats) -> HostCharged:
        if len(windows) == 0:
            return HostCharged(np.zeros(0), np.zeros(0, np.uint8))
        first, stop = int(windows.first[0]), int(windows.stop[-1])
        targets = self._targets(tokens, first, stop)
        if stats.branches is not None:
            p, order = self._model.score_paths(targets, stats.branches)
        else:
            assert stats.rows is not None, "it needs branches or rows"
            p, order = self._model.score(targets, distinct_rows(stats.rows))
        self._counted = stop
        return self._charged(windows, p, stats.p_target, order)

    def distribution(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        self._start(tokens)
        if position != self._counted:
            raise ValueError(f"position {self._counted} is next, not {position}")
        return self._model.distribution(probabilities)

    def explain(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float, target: int
    ) -> Explanation | None:
        """Explain the token contexts; a weight is a share of the logits. Words and bytes have the rest."""
        if position != self._counted:
            raise ValueError(f"position {self._counted} is next, not {position}")
        occurred, followed, shares = self._model.evidence(target, probabilities)
        mixed = 1.0 - self._model.neural_weight  # the rest of the switch's weight
        orders = tuple(
            OrderEvidence(order, int(occurred[k]), None, int(followed[k]), mixed * float(shares[k]))
            for order, k in TOKEN_CONTEXTS.items()
            if k < len(occurred)
        )
        known = [one.order for one in orders if one.context]
        return Explanation(max(known, default=0), mixed * (1.0 - float(shares[-1])), orders)
