"""Readings: the results of forward passes over windows, and their form in messages between ranks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ngram_eval.errors import InputError
from ngram_eval.evaluation.interrupt import Interrupt
from ngram_eval.models.branches import Tree
from ngram_eval.models.source import NeuralSource, NeuralStats, Stats, with_branches
from ngram_eval.text.samples import samples_in
from ngram_eval.text.stream import Stream
from ngram_eval.text.windows import Grid, Windows
from ngram_eval.timing import Stopwatch


@dataclass(frozen=True, slots=True)
class Reading:
    """The neural source's statistics of the windows `rows`."""

    rows: range
    windows: Windows
    stats: NeuralStats
    looks: dict[int, NDArray[np.float64]]
    """Sampled position -> the neural model's whole distribution there, (V,)."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Makes readings; a batch gives the same reading on any rank."""

    tokens: Stream
    source: NeuralSource
    grid: Grid
    samples: NDArray[np.int64]
    """Sampled positions."""
    needs_rows: bool
    """Whether the scorer needs whole distributions."""
    clock: Stopwatch
    interrupt: Interrupt | None = None
    """Ends the readings early."""
    tree: Tree | None = None
    """The tree whose branches the scorer needs, instead of whole distributions."""

    def read(self, pieces: Iterable[range]) -> Iterator[Reading]:
        """Readings of runs of windows, each within one batch. The whole batch is forwarded even for a part of it."""
        readings = (self._read(rows) for rows in pieces)
        return readings if self.interrupt is None else self.interrupt.until(readings)

    def _read(self, rows: range) -> Reading:
        batch = self.grid.rows(self.grid.batch_of(rows.start))
        whole, windows = self.grid.plan[batch.start : batch.stop], self.grid.plan[rows.start : rows.stop]
        start = (rows.start - batch.start) * (whole.scored // len(whole))  # a batch's windows score as many each
        entries = slice(start, start + windows.scored)
        sampled = np.zeros(whole.scored, np.bool_)
        sampled[entries] = np.isin(windows.positions(), self.samples)
        asked = np.ones(whole.scored, np.bool_) if self.needs_rows else sampled
        with self.clock.stage("neural"):
            given = (asked,) if asked.any() else ()
            if self.tree is None:
                stats = self.source.stats(self.tokens, whole, *given)
            else:
                stats = with_branches(self.source, self.tokens, whole, asked if given else None, self.tree)
        looks = dict[int, NDArray[np.float64]]()
        if given:
            if stats.rows is None:
                raise InputError(
                    f"the neural source {self.source.name} gave no rows: give them, or say gives_all = False"
                )
            looks = dict(zip(whole.positions()[sampled].tolist(), stats.rows[sampled[asked]], strict=True))
        return Reading(rows, windows, stats.part(entries), looks)

    def pack(self, reading: Reading) -> NDArray[np.uint8]:
        """A reading's numbers as bytes, (n,) uint8; `unpack` needs its windows too."""
        stats = reading.stats
        numbers = [
            stats.p_target,
            *((stats.rows,) if self.needs_rows and stats.rows is not None else ()),
            *((stats.branches,) if stats.branches is not None else ()),
            *reading.looks.values(),
            stats.entropy,
        ]
        return np.concatenate([np.ascontiguousarray(array).view(np.uint8).ravel() for array in numbers])

    def message(self, rows: range) -> NDArray[np.uint8]:
        """An empty buffer of the size that `pack` returns for these windows."""
        windows = self.grid.plan[rows.start : rows.stop]
        looks = len(samples_in(windows, self.samples)) * self.source.vocab_size
        return np.empty(windows.scored * 12 + (windows.scored * self._numbers + looks) * 8, np.uint8)

    def unpack(self, rows: range, message: NDArray[np.uint8]) -> Reading:
        """The reading of the windows `rows` that `pack` made into `message`."""
        windows = self.grid.plan[rows.start : rows.stop]
        n, size = windows.scored, self.source.vocab_size
        floats, entropy = message[: len(message) - 4 * n].view(np.float64), message[len(message) - 4 * n :]
        looked = n + n * self._numbers
        numbers = floats[n:looked].reshape(n, self._numbers)
        looks = dict(zip(samples_in(windows, self.samples), floats[looked:].reshape(-1, max(size, 1)), strict=True))
        whole, branches = numbers if self.needs_rows else None, None if self.tree is None else numbers
        return Reading(rows, windows, Stats(floats[:n], entropy.view(np.float32), whole, branches), looks)

    @property
    def _numbers(self) -> int:
        """Numbers a position besides the target's probability and the entropy."""
        if self.tree is not None:
            return self.tree.depth
        return self.source.vocab_size if self.needs_rows else 0
