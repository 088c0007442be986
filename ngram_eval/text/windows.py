"""Cuts a token stream into windows, and assigns windows to ranks and batches.

Position p predicts tokens[p + 1]. A window sees positions [start, stop) and scores [first, stop).
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.text.stream import Stream, Tokens


@dataclass(frozen=True, slots=True)
class Windows:
    """Consecutive windows; each array is (windows,)."""

    start: NDArray[np.int64]
    first: NDArray[np.int64]
    stop: NDArray[np.int64]
    seq_len: int
    """Positions of a whole window. The ends of the stream cut some short; the model treats these as padded."""

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, chosen: slice | NDArray[np.bool_]) -> "Windows":
        return replace(self, start=self.start[chosen], first=self.first[chosen], stop=self.stop[chosen])

    @property
    def scored(self) -> int:
        """Number of positions that all windows score together."""
        return int((self.stop - self.first).sum())

    def spans(self) -> list[tuple[int, int]]:
        """The scored positions as [first, stop) spans; adjacent spans are joined."""
        if len(self) == 0:
            return []
        breaks = np.flatnonzero(self.first[1:] != self.stop[:-1]) + 1
        firsts, stops = self.first[np.append(0, breaks)], self.stop[np.append(breaks, len(self)) - 1]
        return list(zip(firsts.tolist(), stops.tolist(), strict=True))

    def changes(self) -> list[int]:
        """The windows whose shape (length and scored positions) differs from that of the window before.

        A forward pass takes windows of one shape.
        """
        shape = np.stack([self.stop - self.start, self.first - self.start])
        rows: list[int] = (np.flatnonzero((shape[:, 1:] != shape[:, :-1]).any(axis=0)) + 1).tolist()
        return rows

    def positions(self) -> NDArray[np.int64]:
        """The scored positions, window after window."""
        return np.concatenate([np.zeros(0, np.int64), *(np.arange(first, stop) for first, stop in self.spans())])

    def targets(self, tokens: Stream) -> Tokens:
        """The tokens after the scored positions, window after window."""
        positions = self.positions()
        base = int(positions.min(initial=0))
        targets: Tokens = tokens[base + 1 : int(positions.max(initial=-1)) + 2][positions - base]
        return targets

    def scoring(self, position: int) -> "Windows":
        """The first window that scores `position`, reduced to score only that; empty if there is none."""
        row = int(np.searchsorted(self.stop, position, side="right"))
        if row == len(self) or self.first[row] > position:
            return self[:0]
        return replace(self[row : row + 1], first=np.array([position]), stop=np.array([position + 1]))


def target_count(tokens: int, length: int) -> int:
    """Number of targets to evaluate, T = floor((tokens - 1) / length) * length, as PR #890 cuts the validation split.

    Raises `InputError` if T is 0.
    """
    targets = (tokens - 1) // length * length
    if targets <= 0:
        raise InputError(
            f"the stream has {tokens} tokens, shorter than one sequence of {length} and its last target: "
            f"give more data, or a --seq-len of at most {max(tokens - 1, 1)}"
        )
    return targets


@dataclass(frozen=True, slots=True)
class Plan:
    """All windows over positions [0, targets), computed on demand: no stream is too long for a plan.

    The first window scores all its positions. Each later one scores the next `stride` (the last may have fewer), with
    as much context before them as fits, so every position is scored once. With `rescore_tail`, as published, a window
    starts at every multiple of the stride; windows past the end are cut short and score the last `stride` positions
    again.
    """

    targets: int
    config: WindowConfig

    def __len__(self) -> int:
        beyond = self.targets if self.config.rescore_tail else max(self.targets - self.config.seq_len, 0) + 1
        extra = 0 if self.config.rescore_tail else self.config.stride - 1  # the first window is one more
        return -(-(beyond + extra) // self.config.stride)

    def __getitem__(self, chosen: slice) -> Windows:
        """The windows of a slice without a step."""
        first_row, last_row, _ = chosen.indices(len(self))
        return self.at(np.arange(first_row, last_row, dtype=np.int64))

    def at(self, row: NDArray[np.int64]) -> Windows:
        """The windows of these rows."""
        length, stride = self.config.seq_len, self.config.stride
        if self.config.rescore_tail:
            start = row * stride
            stop = np.minimum(start + length, self.targets)
            first = np.maximum(stop - stride, start)
        else:
            head = min(length, self.targets)
            stop = np.minimum(head + row * stride, self.targets)
            start = np.maximum(stop - length, 0)
            first = head + (row - 1) * stride
        return Windows(start, np.where(row == 0, 0, first), stop, length)

    def first_scored(self, row: int) -> int:
        """The first position that window `row` scores; `targets` for a row after the last window."""
        return int(self[row : row + 1].first[0]) if row < len(self) else self.targets

    def runs(self) -> list[range]:
        """The windows in runs of one shape (length and scored positions)."""
        count, edge = len(self), self.config.seq_len // self.config.stride + 3
        # Only the first window and those that reach the end differ from the one before.
        parts = [range(count)] if count <= edge + 3 else [range(3), range(count - edge, count)]
        changes = [0]
        for part in parts:
            changes += [part.start + row for row in self[part.start : part.stop].changes()]
        return [range(a, b) for a, b in pairwise([*changes, count])]

    def scored(self, rows: range) -> int:
        """Number of positions that the windows `rows` score together."""
        total = 0
        for run in self.runs():
            here = range(max(run.start, rows.start), min(run.stop, rows.stop))
            total += len(here) * self[run.start : run.start + 1].scored
        return total


def plan_windows(targets: int, config: WindowConfig) -> Windows:
    """All windows of a `Plan` at once."""
    return Plan(targets, config)[:]


class Grid:
    """A plan cut into batches of at most `batch_windows` consecutive windows of one shape, for one forward pass each.

    The grid is the same on any number of ranks: a window is always forwarded together with the same others.
    """

    def __init__(self, plan: Plan, batch_windows: int) -> None:
        self.plan, self._size = plan, batch_windows
        self._runs = plan.runs()
        self._before = np.cumsum([0, *(-(-len(run) // batch_windows) for run in self._runs)])  # batches before each run

    def __len__(self) -> int:
        return int(self._before[-1])

    def rows(self, batch: int) -> range:
        """The windows of a batch; an empty range after the last batch."""
        if batch >= len(self):
            return range(len(self.plan), len(self.plan))
        index = int(np.searchsorted(self._before, batch, side="right")) - 1
        run = self._runs[index]
        start = run.start + (batch - int(self._before[index])) * self._size
        return range(start, min(start + self._size, run.stop))

    def batch_of(self, row: int) -> int:
        """The batch of window `row`; the number of batches for a row after the last window."""
        if row >= len(self.plan):
            return len(self)
        index = bisect_right(self._runs, row, key=lambda run: run.start) - 1
        return int(self._before[index]) + (row - self._runs[index].start) // self._size

    def cut(self, rows: range) -> Iterator[range]:
        """The windows `rows` as runs that each lie in one batch."""
        start = rows.start
        while start < rows.stop:
            stop = min(self.rows(self.batch_of(start)).stop, rows.stop)
            yield range(start, stop)
            start = stop


def share(plan: Plan, rank: int, world: int, batch_windows: int) -> range:
    """The contiguous run of windows that `rank` of `world` scores; empty if there are too few windows.

    Ranks get whole batches of the global grid; with `rescore_tail` they get single windows, as published. Their numbers
    differ by at most one.
    """
    if plan.config.rescore_tail:
        return range(len(plan) * rank // world, len(plan) * (rank + 1) // world)
    grid = Grid(plan, batch_windows)
    first, last = (len(grid) * r // world for r in (rank, rank + 1))
    return range(grid.rows(first).start, grid.rows(last).start)


def batches(windows: Windows, batch_windows: int) -> Iterator[Windows]:
    """Batches of at most `batch_windows` consecutive windows of one shape, as in a `Grid`."""
    for a, b in pairwise([0, *windows.changes(), len(windows)]):
        for start in range(a, b, batch_windows):
            yield windows[start : min(start + batch_windows, b)]
