"""How sure a difference is."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ngram_eval.results.bootstrap import block_length, difference


def autoregressive(rng: np.random.Generator, n: int, rho: float) -> NDArray[np.float64]:
    noise = rng.normal(size=n + 200)
    series = np.zeros(n + 200)
    for i in range(1, n + 200):
        series[i] = rho * series[i - 1] + noise[i]
    return series[200:]


def test_the_block_grows_with_the_dependence() -> None:
    rng = np.random.default_rng(0)
    lengths = [np.mean([block_length(autoregressive(rng, 2000, rho)) for _ in range(20)]) for rho in (0.0, 0.5, 0.9)]
    assert lengths[0] < 5 < lengths[1] < 20 < lengths[2] < 120
    assert block_length(np.zeros(50)) == 1


@pytest.mark.parametrize(("rho", "at_least"), [(0.0, 0.90), (0.7, 0.86)])
def test_the_interval_covers_the_truth_as_often_as_it_says(rho: float, at_least: float) -> None:
    """Of a known difference, 0.3; drawn one by one, dependent stretches would be far too sure of it."""
    rng, covered, naive, runs = np.random.default_rng(1), 0, 0, 200
    sizes = np.full(400, 10.0)
    for seed in range(runs):
        shared = rng.normal(5, 1, 400)
        one, other = 10 * (shared + 0.3 + autoregressive(rng, 400, rho)), 10 * shared
        found = difference(one, other, sizes, sizes, draws=200, confidence=0.95, seed=seed)
        assert found is not None
        covered += found.low <= 0.3 <= found.high
        step = 1.96 * float((one - other).std()) / 10 / math.sqrt(400)
        naive += abs(found.estimate - 0.3) <= step
    assert at_least <= covered / runs <= 0.99
    assert (naive / runs < 0.75) == (rho > 0.5)


def test_few_stretches_have_no_interval() -> None:
    ones = np.ones(19)
    assert difference(ones, ones, ones, ones, draws=100, confidence=0.95, seed=0) is None
