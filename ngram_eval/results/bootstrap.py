"""The confidence interval of a difference of two rates: a paired circular block bootstrap over stretches of a stream.

Neighbouring stretches are not independent: they share a text, and what the memory learns in one helps in the next. So
whole blocks of consecutive stretches are drawn. Their length is chosen from the series: D. N. Politis and H. White,
"Automatic block-length selection for the dependent bootstrap", Econometric Reviews 23 (2004), with the correction by
A. Patton, Politis and White, 28 (2009), for the circular bootstrap.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]

MOST_UNITS = 1 << 13
"""Most units to draw from; more stretches are first added up in equal groups."""
FEWEST_UNITS = 20
"""Fewest units for a meaningful interval."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its percentile interval."""

    estimate: float
    low: float
    high: float
    units: int
    """Number of stretches to draw from."""
    block: int
    """Number of consecutive stretches drawn together."""


def block_length(series: Series) -> int:
    """Number of consecutive values to draw together, by Politis and White, from 1 to a quarter of the series."""
    n = len(series)
    centred = series - series.mean()
    variance = float(centred @ centred) / n
    if variance == 0.0:
        return 1
    most = min(int(np.ceil(np.sqrt(n))) + max(5, int(np.log10(n))), n - 1)
    covariance = np.array([float(centred[: n - lag] @ centred[lag:]) / n for lag in range(most + 1)])
    # Correlations beyond `cut` are noise: the first run of `run` small ones follows it.
    run, small = max(5, int(np.sqrt(np.log10(n)))), 2 * np.sqrt(np.log10(n) / n)
    large = np.abs(covariance[1:] / covariance[0]) > small
    quiet = [lag for lag in range(len(large)) if not large[lag : lag + run].any()]
    cut = quiet[0] if quiet else int(np.flatnonzero(large)[-1]) + 1
    width = min(2 * max(cut, 1), most)
    lags = np.arange(-width, width + 1)
    share = np.abs(lags) / width
    taper = np.where(share <= 0.5, 1.0, 2 * (1 - share))  # the flat-top lag window
    kept = taper * covariance[np.abs(lags)]
    slope, spread = float((np.abs(lags) * kept).sum()), 4 / 3 * float(kept.sum()) ** 2
    if spread == 0.0:
        return 1
    length = (2 * slope**2 / spread) ** (1 / 3) * n ** (1 / 3)
    return int(min(max(round(length), 1), max(n // 4, 1)))


def difference(
    one: Series, other: Series, over_one: Series, over_other: Series, *, draws: int, confidence: float, seed: int
) -> Interval | None:
    """sum(one) / sum(over_one) - sum(other) / sum(over_other), and its interval; None for too few stretches.

    All four arrays are (stretches,), for the same consecutive stretches: bits, and bytes or positions.
    """
    sums = np.stack([one, other, over_one, over_other])
    each = -(-sums.shape[1] // MOST_UNITS)
    sums = np.add.reduceat(sums, np.arange(0, sums.shape[1], each), axis=1)
    n = sums.shape[1]
    a, b, over_a, over_b = sums.sum(axis=1)
    if n < FEWEST_UNITS:
        return None
    rate_a, rate_b = a / over_a, b / over_b
    # The first-order contribution of each stretch to the difference; its autocorrelation sets the block length.
    influence = (sums[0] - rate_a * sums[2]) / over_a - (sums[1] - rate_b * sums[3]) / over_b
    block = block_length(influence)
    circle = np.concatenate([np.zeros((4, 1)), sums, sums[:, : block - 1]], axis=1)
    ends = np.cumsum(circle, axis=1)
    blocks = ends[:, block:] - ends[:, :-block]  # (4, n): the block that begins at each stretch
    rng, drawn = np.random.default_rng(seed), -(-n // block)
    values = np.empty(draws)
    for draw in range(draws):
        total = blocks[:, rng.integers(n, size=drawn)].sum(axis=1)
        values[draw] = total[0] / total[2] - total[1] / total[3]
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(rate_a - rate_b), float(low), float(high), n, block)
