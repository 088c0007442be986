"""The common part of scorers that learn from each position for the next: exact counts, the mixer, bytes."""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ngram_eval.bpb import Tally
from ngram_eval.distributed.ranks import Ranks
from ngram_eval.errors import InputError
from ngram_eval.scorers.base import HostCharged, Scorer
from ngram_eval.text.stream import Stream, Tokens
from ngram_eval.text.windows import Windows

_COUNT_AT_ONCE = 1 << 22


class OnlineModel(Protocol):
    """The common methods of the models of online scorers."""

    def append(self, tokens: Tokens) -> None: ...
    def learned(self) -> dict[str, NDArray[Any]]: ...
    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None: ...


Model = TypeVar("Model", bound=OnlineModel)


class OnlineScorer(Scorer, Generic[Model]):
    """A scorer that learns from each position for the next, in stream order."""

    what = "a memory"
    """Name in messages."""

    def __init__(self, model: Model, min_order: int) -> None:
        self._model: Model = model
        self._min_order, self._tally = min_order, Tally()
        self._counted = 0  # positions
        self._started = False

    def prefill(self, tokens: Stream, start: int, stop: int, advance: Callable[[int], None]) -> None:
        """Count only; `load_learned` provides what would be learned meanwhile."""
        for low in range(start, stop, _COUNT_AT_ONCE):
            high = min(low + _COUNT_AT_ONCE, stop)
            self._model.append(self._targets(tokens, low, high))
            self._counted = high
            advance(high - low)

    def scan(self, ranks: Ranks) -> None:
        raise InputError(f"{self.what} is never split over ranks: its weights are learned in stream order")

    def learned(self) -> dict[str, NDArray[Any]]:
        return self._model.learned()

    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None:
        self._model.load_learned(learned)

    def _targets(self, tokens: Stream, first: int, stop: int) -> NDArray[Any]:
        """Targets of [first, stop), which must be the next positions."""
        if first != self._counted:
            raise ValueError(f"positions are scored in stream order: {self._counted} is next, not {first}")
        self._start(tokens)
        return tokens[first + 1 : stop + 1]

    def _start(self, tokens: Stream) -> None:
        if not self._started:
            self._model.append(tokens[:1])  # not a target
            self._started = True

    def _charged(
        self, windows: Windows, p: NDArray[np.float64], neural: NDArray[np.float64], order: NDArray[np.uint8]
    ) -> HostCharged:
        matched = np.where(order >= self._min_order, order, 0).astype(np.uint8)
        self._tally.add(p, neural, matched, windows.positions)
        return HostCharged(p, matched)

    def tally(self) -> Tally:
        return self._tally


def distinct_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """`rows` (n, V) as they are, or (1, V) if all rows are one array in memory."""
    return rows[:1] if len(rows) and rows.strides[0] == 0 else rows
