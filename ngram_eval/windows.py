"""The token stream cut into windows, and the windows dealt out to ranks and batches.

Position p predicts tokens[p + 1]. A window sees positions [start, stop) and scores [first, stop).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import WindowConfig
from ngram_eval.errors import InputError


@dataclass(frozen=True, slots=True)
class Windows:
    """Consecutive windows, one int64 entry each."""

    start: NDArray[np.int64]
    first: NDArray[np.int64]
    stop: NDArray[np.int64]
    seq_len: int
    """Positions of a whole window. Some are cut short by an end of the stream; the model treats them as padded."""

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, chosen: slice | NDArray[np.bool_]) -> "Windows":
        return replace(self, start=self.start[chosen], first=self.first[chosen], stop=self.stop[chosen])

    @property
    def scored(self) -> int:
        """Positions scored by all windows together."""
        return int((self.stop - self.first).sum())

    def spans(self) -> list[tuple[int, int]]:
        """The scored positions as [first, stop) spans, windows that continue each other joined."""
        if len(self) == 0:
            return []
        breaks = np.flatnonzero(self.first[1:] != self.stop[:-1]) + 1
        firsts, stops = self.first[np.append(0, breaks)], self.stop[np.append(breaks, len(self)) - 1]
        return list(zip(firsts.tolist(), stops.tolist(), strict=True))

    def positions(self) -> NDArray[np.int64]:
        """The scored positions, window after window."""
        return np.concatenate([np.zeros(0, np.int64), *(np.arange(first, stop) for first, stop in self.spans())])

    def scoring(self, position: int) -> "Windows":
        """The first window that scores `position`, cut to score nothing else; empty if there is none."""
        row = int(np.searchsorted(self.stop, position, side="right"))
        if row == len(self) or self.first[row] > position:
            return self[:0]
        return replace(self[row : row + 1], first=np.array([position]), stop=np.array([position + 1]))


def target_count(tokens: int, length: int) -> int:
    """Targets T = floor((tokens - 1) / length) * length that are evaluated (PR #890's cut of the validation split)."""
    targets = (tokens - 1) // length * length
    if targets <= 0:
        raise InputError(
            f"the stream has {tokens} tokens, shorter than one sequence of {length} and its last target: "
            f"give more data, or a --seq-len of at most {max(tokens - 1, 1)}"
        )
    return targets


def plan_windows(targets: int, config: WindowConfig) -> Windows:
    """The windows over positions [0, targets).

    Mended: the first window scores all its positions, each later one the next `stride` (the last may have fewer), with
    as much context before them as fits; every position is scored once. With `rescore_tail`, as published: a window
    at every multiple of the stride, those past the end cut short and scoring the last `stride` positions again.
    """
    length, stride = config.seq_len, config.stride
    if config.rescore_tail:
        start = np.arange(0, targets, stride, dtype=np.int64)
        stop = np.minimum(start + length, targets)
        first = np.maximum(stop - stride, start)
        first[0] = 0
    else:
        head = min(length, targets)
        stop = np.append(np.arange(head, targets, stride, dtype=np.int64), targets)
        start = np.maximum(stop - length, 0)
        first = np.append(0, stop[:-1])
    return Windows(start, first, stop, length)


def batch_bounds(windows: Windows, batch_windows: int) -> NDArray[np.int64]:
    """Bounds of batches: batch i is windows[bounds[i]:bounds[i + 1]].

    A batch holds at most `batch_windows` consecutive windows of one shape (length and scored positions), so that one
    forward serves it.
    """
    if len(windows) == 0:
        return np.zeros(1, np.int64)
    shape = np.stack([windows.stop - windows.start, windows.first - windows.start])
    changes = np.flatnonzero((shape[:, 1:] != shape[:, :-1]).any(axis=0)) + 1
    runs = np.concatenate([[0], changes, [len(windows)]])
    return np.concatenate([*(np.arange(a, b, batch_windows) for a, b in pairwise(runs)), runs[-1:]])


def batches(windows: Windows, batch_windows: int) -> Iterator[Windows]:
    """The batches of `batch_bounds`, in order."""
    bounds = batch_bounds(windows, batch_windows).tolist()
    for a, b in pairwise(bounds):
        yield windows[a:b]


def share(windows: Windows, rank: int, world: int, config: WindowConfig, batch_windows: int) -> Windows:
    """The contiguous run of windows that `rank` of `world` scores; empty where there are too few.

    Mended presets are split between batches of the one global grid, so that no forward sees another composition
    whatever the number of ranks; with `rescore_tail` windows are split one by one, as published.
    """
    bounds = (
        np.arange(len(windows) + 1, dtype=np.int64) if config.rescore_tail else batch_bounds(windows, batch_windows)
    )
    units = len(bounds) - 1
    return windows[int(bounds[units * rank // world]) : int(bounds[units * (rank + 1) // world])]
