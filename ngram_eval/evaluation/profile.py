"""The profile of an evaluation: sums along its stream, by order and by entropy, for comparisons and plots.

Sums are integers in units of 2^-24 nats, so they do not depend on how positions are split over ranks or batches. Their
number is bounded, whatever the length of the stream. `Profile.packed` is their form in result files.
"""

import base64
import zlib
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngram_eval.bpb import nats_of
from ngram_eval.config import MAX_EXACT_ORDER
from ngram_eval.errors import InputError
from ngram_eval.structured import Count, Size, build
from ngram_eval.text.windows import Plan, Windows

UNIT = float(1 << 24)
"""Units in one nat, and in a weight of 1. A position adds at most 69.1 nats: no sum overflows below 7e9 positions."""
MOST_STRETCHES = 1 << 16
"""Most stretches of a stream; longer streams have several windows in each."""
ORDERS = MAX_EXACT_ORDER + 1
"""Number of matched orders: 0 (no match) to the highest order."""
ENTROPY_BINS, ENTROPY_STEP = 64, 0.25
"""Bins of the neural entropy and their width in nats; the last holds all above."""

ALONG = ("nats", "neural_nats", "bytes", "positions")
"""Columns of `Profile.along`."""
CELLS = ("positions", "nats", "neural_nats", "weight")
"""Layers of `Profile.cells`; weight is the sum of the n-gram estimate's weights at these positions."""

_WINDOWS_AT_ONCE = 1 << 11

Integers = NDArray[np.int64]
Units = NDArray[np.float64]
"""Whole numbers of units, as floats."""


@dataclass(kw_only=True, slots=True)
class Profile:
    """Sums of an evaluation. Profiles of several ranks, or of a run and its resumed rest, add up."""

    targets: int
    """Positions of the stream, cut to whole sequences."""
    windows_each: int
    """Consecutive windows of one stretch."""
    along: Integers
    """(stretches, 4): sums of each stretch in the order of `ALONG`; nats in units of 2^-24."""
    cells: Integers = field(default_factory=lambda: np.zeros((len(CELLS), ORDERS, ENTROPY_BINS), np.int64))
    """(4, orders, bins): sums by matched order (0: none) and bin of the neural entropy, in the order of `CELLS`."""
    weighted: bool = False
    """Whether the scorer reported the weight at every position; else the layer is zero."""
    samples: list[tuple[int, float, float, float | None]] = field(default_factory=list)
    """(position, neural entropy in nats, sum over the vocabulary, weight of the n-gram memory) of sampled positions;
    the weight is None where the scorer does not report it."""

    @classmethod
    def empty(cls, plan: Plan) -> "Profile":
        """The profile of the windows `plan` before any of them is scored."""
        each = -(-len(plan) // MOST_STRETCHES)
        return cls(
            targets=plan.targets, windows_each=each, along=np.zeros((-(-len(plan) // each), len(ALONG)), np.int64)
        )

    def add(
        self,
        rows: range,
        windows: Windows,
        *,
        p: NDArray[np.float64],
        p_neural: NDArray[np.float64],
        entropy: NDArray[np.float32],
        sizes: Integers | None,
        order: NDArray[np.uint8] | None,
        weight: NDArray[np.float64] | None,
    ) -> None:
        """Add the scored positions of the windows `rows`; each array is (positions,).

        `p` are the values charged, `p_neural` and `entropy` the model's statistics, `sizes` the bytes of the targets,
        `order` the matched orders, `weight` the weights of the n-gram estimate.
        """
        ends = np.cumsum(windows.stop - windows.first)
        for first in range(0, len(rows), _WINDOWS_AT_ONCE):  # a part at a time: temporaries stay in the cache
            part = slice(first, first + _WINDOWS_AT_ONCE)
            here = slice(int(ends[first - 1]) if first else 0, int(ends[part][-1]))
            nats, neural = np.rint(nats_of(p[here]) * UNIT), np.rint(nats_of(p_neural[here]) * UNIT)
            self._add_along(rows[part], windows[part], nats, neural, None if sizes is None else sizes[here])
            if order is not None:
                self._add_cells(order[here], entropy[here], nats, neural, None if weight is None else weight[here])

    def _add_along(self, rows: range, windows: Windows, nats: Units, neural: Units, sizes: Integers | None) -> None:
        scored = windows.stop - windows.first
        stretch = np.arange(rows.start, rows.stop) // self.windows_each
        begins = np.append(0, np.flatnonzero(np.diff(stretch)) + 1)  # the first window of each stretch
        at = (np.cumsum(scored) - scored)[begins]
        into = self.along[stretch[0] : stretch[-1] + 1]
        into[:, 0] += np.add.reduceat(nats, at).astype(np.int64)
        into[:, 1] += np.add.reduceat(neural, at).astype(np.int64)
        if sizes is not None:
            into[:, 2] += np.add.reduceat(sizes, at)
        into[:, 3] += np.add.reduceat(scored, begins)

    def _add_cells(
        self,
        order: NDArray[np.uint8],
        entropy: NDArray[np.float32],
        nats: Units,
        neural: Units,
        weight: NDArray[np.float64] | None,
    ) -> None:
        bins = np.minimum(np.maximum(entropy, 0.0) * (1 / ENTROPY_STEP), ENTROPY_BINS - 1).astype(np.int64)
        cell = order.astype(np.int64) * ENTROPY_BINS + bins
        self.weighted = self.weighted or weight is not None
        layers = [None, nats, neural, *([] if weight is None else [np.rint(weight * UNIT)])]
        for layer, values in enumerate(layers):  # sums of integers below 2^53: exact in floats
            sums = np.bincount(cell, values, minlength=ORDERS * ENTROPY_BINS)
            self.cells[layer] += sums.astype(np.int64).reshape(ORDERS, ENTROPY_BINS)

    def __add__(self, other: "Profile") -> "Profile":
        return Profile(
            targets=self.targets,
            windows_each=self.windows_each,
            along=self.along + other.along,
            cells=self.cells + other.cells,
            weighted=self.weighted or other.weighted,
            samples=sorted([*self.samples, *other.samples], key=itemgetter(0)),
        )

    def gain_by_order(self) -> dict[int, float]:
        """Matched order -> nats that the memory saved against the model alone; order 0: no order matched."""
        _, nats, neural, _ = self.cells.sum(axis=2)
        return {order: gain / UNIT for order, gain in enumerate((neural - nats).tolist())}

    def packed(self) -> dict[str, Any]:
        """The profile as plain JSON; arrays are base64 of zlib of little-endian int64, row after row."""
        return {
            "targets": self.targets,
            "windows_each": self.windows_each,
            "along": pack(self.along),
            "cells": pack(self.cells),
            "weighted": self.weighted,
            "samples": [list(sample) for sample in self.samples],
        }

    @classmethod
    def unpacked(cls, packed: Any, source: object = "the profile", remedy: str = "evaluate again") -> "Profile":
        """The profile that `packed` made; raises `InputError`, naming `source`, for anything else."""
        found = build(packed, _Packed, source, remedy)
        try:
            along = unpack(found.along, MOST_STRETCHES * len(ALONG)).reshape(-1, len(ALONG))
            cells = unpack(found.cells, len(CELLS) * ORDERS * ENTROPY_BINS).reshape(len(CELLS), ORDERS, ENTROPY_BINS)
        except (ValueError, zlib.error) as error:  # base64's own is a ValueError
            raise InputError(f"{source} is damaged ({error}): {remedy}") from error
        return cls(
            targets=found.targets,
            windows_each=found.windows_each,
            along=along,
            cells=cells,
            weighted=found.weighted,
            samples=found.samples,
        )

    def fits(self, plan: Plan) -> bool:
        """Whether it can be of these windows."""
        return self.targets == plan.targets and len(self.along) == -(-len(plan) // self.windows_each)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Packed:
    """What `Profile.packed` gives."""

    targets: Size
    windows_each: Size
    along: str
    cells: str
    weighted: bool
    samples: list[tuple[Count, float, float, float | None]]


def pack(array: Integers) -> str:
    """Base64 of zlib of little-endian int64."""
    return base64.b64encode(zlib.compress(array.astype("<i8").tobytes())).decode()


def unpack(text: str, most: int) -> Integers:
    """The array that `pack` packed, in one dimension; raises `ValueError` for more than `most` numbers, unread."""
    stream = zlib.decompressobj()
    content = stream.decompress(base64.b64decode(text, validate=True), 8 * most + 1)
    if not stream.eof or stream.unused_data:
        raise ValueError(f"an array is cut short, or has more than {most} numbers")
    return np.frombuffer(content, "<i8").astype(np.int64)
