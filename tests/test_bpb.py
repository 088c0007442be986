"""Sums and bits per byte."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngram_eval.bpb import Tally, as_nats, bits_per_byte, fixed_point, nats_of

probabilities = st.lists(st.floats(0.0, 1.0, allow_subnormal=True), min_size=1, max_size=60)


@given(probabilities, st.integers(0, 60), st.randoms())
def test_sums_do_not_depend_on_split_or_order(values: list[float], cut: int, random: object) -> None:
    nats = nats_of(np.array(values))
    parts = fixed_point(nats[:cut]) + fixed_point(nats[cut:])
    assert parts == fixed_point(nats) == fixed_point(nats[::-1])


@given(probabilities)
def test_sums_are_exact_to_a_rounding_of_each_position(values: list[float]) -> None:
    nats = nats_of(np.array(values))
    exact = sum((Fraction(value) for value in nats.tolist()), Fraction(0))
    assert abs(Fraction(fixed_point(nats), 1 << 52) - exact) <= Fraction(len(values), 1 << 53)
    assert as_nats(fixed_point(nats)) == pytest.approx(math.fsum(nats), rel=1e-12, abs=1e-13)


def test_large_sums_do_not_overflow() -> None:
    nats = np.full(1_000_000, -math.log(1e-30))
    assert as_nats(fixed_point(nats)) == pytest.approx(1e6 * 69.07755278982137, rel=1e-15)


def test_probability_zero_is_floored() -> None:
    assert nats_of(np.array([0.0, 1e-40, 1.0])).tolist() == [-math.log(1e-30), -math.log(1e-30), 0.0]


def test_bits_per_byte() -> None:
    assert bits_per_byte(math.log(2) * 12, 4) == 3.0
    assert bits_per_byte(1.0, 0) is None


def test_tallies_add_up() -> None:
    one, two = Tally(), Tally()
    p, order = np.array([0.5, 0.25, 0.125]), np.array([0, 9, 2], np.uint8)
    one.add(p, p, order)
    two.add(p[:2], p[1:], order[1:])
    both = one + two
    assert both.positions == 5
    assert both.hits_by_order == {2: 2, 9: 2}
    assert both.nats == one.nats + two.nats
    assert as_nats(one.nats) == pytest.approx(6 * math.log(2), rel=1e-15)
