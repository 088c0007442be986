"""The gate and the blend, against the formulas."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngram_eval.config import GateConfig
from ngram_eval.models.source import Stats
from ngram_eval.scorers.hashed.counts import Best
from ngram_eval.scorers.hashed.gate import GatedBackoff

CENTRES = {9: 2.6, 8: 2.8, 7: 3.0, 6: 3.2, 5: 3.5, 4: 3.8, 3: 4.2, 2: 4.5}


def blend(gate: GateConfig, p: float, entropy: float, order: int, context: int, full: int) -> float:
    stats = Stats(np.array([p]), np.array([entropy], np.float32))
    best = Best(np.array([order], np.uint8), np.array([context], np.uint32), np.array([full], np.uint32))
    return float(GatedBackoff(gate)(stats, best)[0])


@given(
    p=st.floats(0, 1),
    entropy=st.floats(0, 12, width=32),
    order=st.integers(1, 9),
    context=st.integers(1, 2**32 - 1),
    full=st.integers(0, 2**32 - 1),
)
def test_the_published_formula(p: float, entropy: float, order: int, context: int, full: int) -> None:
    alpha = 0.05 + 0.55 / (1 + math.exp(-2 * (entropy - CENTRES.get(order, 4.0))))
    expected = (1 - alpha) * p + alpha * min(full, context) / context
    assert blend(GateConfig(), p, entropy, order, context, full) == pytest.approx(expected, rel=1e-12, abs=1e-300)


def test_without_a_match_the_neural_probability_stands() -> None:
    assert blend(GateConfig(), 0.3, 5.0, 0, 0, 0) == 0.3
    assert blend(GateConfig(alpha_range=0.0), 0.3, 5.0, 0, 0, 0) == 0.3


def test_range_zero_selects_the_fixed_weight() -> None:
    assert blend(GateConfig(alpha_range=0.0), 0.5, 9.0, 7, 4, 1) == pytest.approx(0.8 * 0.5 + 0.2 * 0.25, rel=1e-15)


def test_a_steep_gate_neither_overflows_nor_warns() -> None:
    steep = GateConfig(alpha_slope=1e6)
    assert blend(steep, 0.5, 12.0, 9, 2, 2) == pytest.approx(0.4 * 0.5 + 0.6)
    assert blend(steep, 0.5, 0.0, 9, 2, 2) == pytest.approx(0.95 * 0.5 + 0.05)
