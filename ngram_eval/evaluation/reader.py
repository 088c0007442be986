"""Readings: the results of forward passes over windows, and their form in messages between ranks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ngram_eval.errors import InputError
from ngram_eval.evaluation.interrupt import Interrupt
from ngram_eval.models.source import NeuralSource, NeuralStats, Stats
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
            stats = self.source.stats(self.tokens, whole, *given)
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
            *reading.looks.values(),
            stats.entropy,
        ]
        return np.concatenate([np.ascontiguousarray(array).view(np.uint8).ravel() for array in numbers])

    def message(self, rows: range) -> NDArray[np.uint8]:
        """An empty buffer of the size that `pack` returns for these windows."""
        windows = self.grid.plan[rows.start : rows.stop]
        distributions = len(samples_in(windows, self.samples)) + (windows.scored if self.needs_rows else 0)
        return np.empty(windows.scored * 12 + distributions * self.source.vocab_size * 8, np.uint8)

    def unpack(self, rows: range, message: NDArray[np.uint8]) -> Reading:
        """The reading of the windows `rows` that `pack` made into `message`."""
        windows = self.grid.plan[rows.start : rows.stop]
        n, size = windows.scored, self.source.vocab_size
        floats, entropy = message[: len(message) - 4 * n].view(np.float64), message[len(message) - 4 * n :]
        in_rows = n * size if self.needs_rows else 0
        whole = floats[n : n + in_rows].reshape(n, size) if self.needs_rows else None
        looks = dict(
            zip(samples_in(windows, self.samples), floats[n + in_rows :].reshape(-1, max(size, 1)), strict=True)
        )
        return Reading(rows, windows, Stats(floats[:n], entropy.view(np.float32), whole), looks)
