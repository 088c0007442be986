"""Sampled positions: there an evaluation looks at whole distributions, just before it scores the position."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import WindowConfig
from ngram_eval.text.windows import Windows

SAMPLES = 128
"""Default number of positions at which an evaluation takes the sum over the vocabulary; an audit has as many."""
_ENTROPY_AT_ONCE = 1 << 15
"""Tokens of a distribution handled at once: temporaries of 2 MB cost twenty times as much as the arithmetic."""


def choose_samples(targets: int, count: int, config: WindowConfig, seed: int = 0) -> NDArray[np.int64]:
    """At most `count` of the positions [0, targets), ascending: a random one from each of `count` equal parts.

    The last stride is left out: with `rescore_tail` it is scored repeatedly, and every preset has the same samples.
    """
    positions = max(targets - config.stride, 1)
    count = min(count, positions)
    drawn = np.random.default_rng(seed).random(count)
    return np.unique(((np.arange(count) + drawn) * positions / max(count, 1)).astype(np.int64))


def cut(windows: Windows, samples: NDArray[np.int64], window_wise: bool) -> Iterator[tuple[list[int], Windows]]:
    """The windows in parts, each with the samples to look at before the part is scored; see `Scorer.window_wise`."""
    looks: list[int] = []
    for position in samples.tolist():
        row = int(np.searchsorted(windows.stop, position, side="right"))
        if row == len(windows) or windows.first[row] > position:
            continue
        if row > 0:
            yield looks, windows[:row]
            looks, windows = [], windows[row:]
        if not window_wise and windows.first[0] < position:
            yield looks, replace(windows[:1], stop=np.array([position]))
            looks, windows = [], replace(windows, first=np.append(position, windows.first[1:]))
        looks.append(position)
    if len(windows):
        yield looks, windows


def samples_in(windows: Windows, samples: NDArray[np.int64]) -> list[int]:
    """The samples that the windows score."""
    return [position for position in samples.tolist() if len(windows.scoring(position))]


def entropy_of(neural: NDArray[np.float64]) -> float:
    """Entropy (nats) of one distribution, (V,)."""
    total = 0.0
    for start in range(0, len(neural), _ENTROPY_AT_ONCE):
        part = neural[start : start + _ENTROPY_AT_ONCE]
        total -= float((part * np.log(np.maximum(part, np.finfo(np.float64).tiny))).sum())
    return total
