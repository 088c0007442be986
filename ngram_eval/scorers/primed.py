"""A scorer that has counted other texts before the stream that it scores."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngram_eval.bpb import Tally
from ngram_eval.distributed.ranks import Ranks
from ngram_eval.models.source import NeuralStats
from ngram_eval.scorers.base import Charged, Explanation, Scorer
from ngram_eval.scorers.online import OnlineScorer
from ngram_eval.text.stream import Joined, Stream, Tokens
from ngram_eval.text.windows import Windows


class PrimedScorer(Scorer):
    """`scorer` on the stream that `kept` (M,) begins: it counts these tokens, and scores the others M positions later.

    What learns in stream order counts them first. Tables that add up count them last before a value is asked, once they
    are the sums of other ranks' tables.
    """

    def __init__(self, scorer: Scorer, kept: Tokens) -> None:
        self._scorer, self._kept, self._counted = scorer, kept, False
        self.window_wise, self.on_device, self.tree = scorer.window_wise, scorer.on_device, scorer.tree

    def whole(self, tokens: Stream) -> Stream:
        """The whole stream, after counting the kept tokens, once."""
        whole = Joined(self._kept, tokens)
        if not self._counted:
            self._counted = True
            self._scorer.prefill(whole, 0, len(self._kept), lambda counted: None)
        return whole

    def prefill(self, tokens: Stream, start: int, stop: int, advance: Callable[[int], None]) -> None:
        if isinstance(self._scorer, OnlineScorer):
            self.whole(tokens)
        first = len(self._kept)
        self._scorer.prefill(Joined(self._kept, tokens), first + start, first + stop, advance)

    def scan(self, ranks: Ranks) -> None:
        self._scorer.scan(ranks)

    def learned(self) -> dict[str, NDArray[Any]]:
        return self._scorer.learned()

    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None:
        self._scorer.load_learned(learned)

    def score(self, tokens: Stream, windows: Windows, stats: NeuralStats) -> Charged:
        later = len(self._kept)
        moved = replace(windows, start=windows.start + later, first=windows.first + later, stop=windows.stop + later)
        return self._scorer.score(self.whole(tokens), moved, stats)

    def distribution(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        return self._scorer.distribution(self.whole(tokens), len(self._kept) + position, probabilities, entropy)

    def given_target(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        return self._scorer.given_target(self.whole(tokens), len(self._kept) + position, probabilities, entropy)

    def explain(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float, target: int
    ) -> Explanation | None:
        whole = self.whole(tokens)
        return self._scorer.explain(whole, len(self._kept) + position, probabilities, entropy, target)

    def tally(self) -> Tally:
        return self._scorer.tally()
