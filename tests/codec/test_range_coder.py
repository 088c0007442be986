"""What is written is read, whatever follows it, in as many bits as its shares say; C++ writes the reference's bytes."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ngram_eval import _core
from ngram_eval.codec import range_coder
from ngram_eval.codec.range_coder import WHOLE, RangeDecoder, borders, share_of

PROBABILITIES = st.floats(0.0, 1.0) | st.sampled_from([2.0**-40, 1 - 2.0**-40, 0.5, 2.0**-32])
DECISIONS = st.lists(st.tuples(st.integers(0, 1), PROBABILITIES), max_size=200)
BOTH = pytest.mark.parametrize("functions", [range_coder, _core], ids=["reference", "cpp"])


def written(functions: Any, decisions: list[tuple[int, float]]) -> bytes:
    encoder = functions.RangeEncoder()
    bits, ones = zip(*decisions, strict=True) if decisions else ((), ())
    encoder.bits(np.array(bits, np.uint8), np.array(ones, np.float64))
    found: bytes = encoder.finish()
    return found


@given(DECISIONS, st.binary(max_size=12))
@example([(0, 0.0), (1, 0.0)] * 2, b"")
@example([(0, 0.5)] * 64 + [(1, 0.0)] * 9, b"\xff" * 9)
def test_decisions_come_back_whatever_follows(decisions: list[tuple[int, float]], after: bytes) -> None:
    data = written(range_coder, decisions)
    assert written(_core, decisions) == data
    decoder = RangeDecoder(data + after)
    assert [decoder.bit(one) for _, one in decisions] == [bit for bit, _ in decisions]
    assert decoder.beyond <= 7
    bits = sum(math.log2(WHOLE / share_of(bit, one).size) for bit, one in decisions)
    assert bits <= 8 * len(data), "there is no room for more; what cuts cost: test_many_decisions_cost_what_they_say"


def rows_of(seed: int, tokens: int, vocab_size: int) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(vocab_size, 0.05), tokens)
    return np.array([rng.choice(vocab_size, p=row) for row in rows], np.uint16), rows


@given(st.integers(0, 1 << 30), st.integers(0, 40), st.sampled_from([2, 3, 17, 300]))
@settings(max_examples=30)
def test_symbols_come_back(seed: int, count: int, vocab_size: int) -> None:
    tokens, rows = rows_of(seed, count, vocab_size)
    data = []
    for functions in (range_coder, _core):
        encoder = functions.RangeEncoder()
        encoder.symbols(tokens, rows)
        data.append(encoder.finish())
    assert data[0] == data[1]
    decoder = RangeDecoder(data[0])
    assert [decoder.symbol(row) for row in rows] == tokens.tolist()


@given(st.integers(0, 1 << 30), st.sampled_from([2, 5, 1000]))
def test_every_symbol_has_a_share(seed: int, vocab_size: int) -> None:
    p = np.random.default_rng(seed).dirichlet(np.full(vocab_size, 0.01))
    p[p < 1e-3] = 0.0
    at = borders(p)
    assert (at[0], at[-1], len(at)) == (0, WHOLE, vocab_size + 1)
    assert min(np.diff(at)) >= 1
    np.testing.assert_allclose(np.diff(at) / WHOLE, p / p.sum(), atol=1e-6)


@BOTH
def test_many_decisions_cost_what_they_say(functions: Any) -> None:
    """Among them cuts at a border: the interval lies across one for long once in a few thousand bytes."""
    rng = np.random.default_rng(0)
    ones = rng.random(20_000 if functions is range_coder else 2_000_000) ** 4
    bits = (rng.random(len(ones)) < ones).astype(np.uint8)
    encoder = functions.RangeEncoder()
    encoder.bits(bits, ones)
    charged = -np.log2(np.where(bits, ones, 1 - ones)).sum()
    assert charged <= 8 * len(encoder.finish()) <= charged * 1.00001 + 16


MODEL = _core.ExactModel(max_order=2, chain=True, tilt="off", tilt_factor=1.0, tilt_confidence=0.0)
ONE, TWO = np.zeros(1, np.uint16), np.full((1, 2), 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _core.RangeEncoder().bits(np.zeros(2, np.int64), np.zeros(2)), "bits must be uint8"),
        (lambda: _core.RangeEncoder().bits(np.zeros(2, np.uint8), np.zeros(3)), "ones must be float64 of shape .2,."),
        (lambda: _core.RangeEncoder().symbols(ONE, TWO[0]), "rows must be float64 of shape .1, V."),
        (lambda: _core.RangeEncoder().symbols(ONE + np.uint16(2), TWO), "a token is outside its row"),
        (lambda: _core.read_symbols(MODEL, _core.RangeDecoder(b""), TWO, 0.5, 3), "base must be float64 of shape .V,."),
        (lambda: _core.read_symbols(MODEL, _core.RangeDecoder(b""), TWO[0], 0.5, -1), "n is negative"),
    ],
)
def test_arrays_of_another_form_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
