"""The byte mixture: C++ equals the reference bit for bit, and both are the published formulas."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ngram_eval.config import PpmdConfig
from ngram_eval.errors import InputError
from ngram_eval.scorers.ppmd.model import ByteSpelling, Ppmd, byte_spelling, make_ppmd

Rows = NDArray[np.float64]
configs = st.builds(
    PpmdConfig,
    byte_gate=st.sampled_from(["blind", "target"]),
    byte_share=st.sampled_from(["spread", "marginal"]),
    sure_above=st.sampled_from([0.0, 0.3, 0.7, 0.9, 1.0]),
    model_weight=st.sampled_from([0.0, 0.9, 0.99, 1.0]),
    model_weight_sure=st.sampled_from([0.0, 0.05, 0.3]),
)
spellings = st.builds(
    byte_spelling,
    st.lists(st.none() | st.text(" ab\xff", max_size=4).map(lambda text: text.encode("latin-1")), max_size=9).map(
        lambda drawn: [*drawn, b"a"]
    ),
    st.sampled_from(["piece", "decoded"]),
)


def rows_of(length: int, vocab_size: int, seed: int) -> Rows:
    """Distributions, some with impossible tokens."""
    rows = np.random.default_rng(seed).dirichlet(np.full(vocab_size, 0.4), length)
    rows[rows < 0.01] = 0.0
    rows[:, -1] += 1e-3
    found: Rows = rows / rows.sum(axis=1, keepdims=True)
    return found


def score(model: Ppmd, config: PpmdConfig, tokens: NDArray[np.uint16], rows: Rows) -> tuple[NDArray[np.generic], ...]:
    p = rows[np.arange(len(tokens)), tokens]
    return model.score(tokens, p, rows if config.byte_share == "marginal" else None)


@given(config=configs, spelling=spellings, order=st.integers(1, 7), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_cpp_is_the_reference(config: PpmdConfig, spelling: ByteSpelling, order: int, seed: int) -> None:
    """Values, orders, weights, evidence, distributions with and without a target; what is looked at is charged."""
    vocab_size = len(spelling.surfaces)
    tokens = np.random.default_rng(seed).integers(vocab_size, size=40).astype(np.uint16)
    rows = rows_of(40, vocab_size, seed)
    models = [make_ppmd(name, config, order, spelling) for name in ("reference", "cpu")]
    for model in models:
        model.append(tokens[:15])
    for i in range(15, 40):
        looked = [model.distribution(rows[i]) for model in models]
        given = [model.distribution(rows[i], int(tokens[i])) for model in models]
        evidence = [model.evidence(int(tokens[i])) for model in models]
        charged = [score(model, config, tokens[i : i + 1], rows[i : i + 1]) for model in models]
        for ours, theirs in (looked, given, *zip(*evidence, strict=True), *zip(*charged, strict=True)):
            np.testing.assert_array_equal(ours, theirs)
        value, longest, weight = charged[1]
        assert value[0] == looked[1][tokens[i]] == given[1][tokens[i]]
        occurred, _, _, shares = evidence[1]
        assert longest[0] == (np.flatnonzero(occurred)[-1] + 1 if occurred.any() else 0)
        assert shares.sum() == pytest.approx(weight[0])


def published(config: PpmdConfig, order: int, text: list[bytes], p: list[float]) -> list[float]:
    """The charges of tokens by the formulas of the submissions: every string of bytes is counted, none in a table."""
    past, counts, charges = b"", Counter[bytes](), []
    for token, p_token in zip(text, p, strict=True):
        charge = 1.0
        for byte in token:
            escape, p_ppm, confidence = 1.0, None, None
            for length in range(min(order - 1, len(past)), -1, -1):
                context = past[len(past) - length :]
                after = [counts[context + bytes([b])] for b in range(256)]
                if not any(after):
                    continue
                confidence = max(after) / sum(after) if confidence is None else confidence
                if after[byte]:
                    p_ppm = escape * (2 * after[byte] - 1) / (2 * sum(after))
                    break
                escape *= sum(map(bool, after)) / (2 * sum(after))
            p_ppm = max(escape / 256 if p_ppm is None else p_ppm, 1e-20)
            sure = (p_ppm if config.byte_gate == "target" else confidence or 0.0) > config.sure_above
            weight = config.model_weight_sure if sure else config.model_weight
            charge *= weight * p_token ** (1 / len(token)) + (1 - weight) * p_ppm
            for length in range(min(order - 1, len(past)) + 1):
                counts[past[len(past) - length :] + bytes([byte])] += 1
            past += bytes([byte])
        charges.append(charge)
    return charges


@pytest.mark.parametrize("gate", ["blind", "target"])
@pytest.mark.parametrize(
    ("order", "rest"),
    [(6, {"sure_above": 0.4}), (5, {"sure_above": 0.7, "model_weight": 0.99}), (2, {"sure_above": 0.4})],
)
def test_charges_are_those_of_the_published_formulas(gate: Any, order: int, rest: dict[str, Any]) -> None:
    config = replace(PpmdConfig(**rest), byte_gate=gate)
    surfaces: list[bytes | None] = [b"the ", b"cat", b" ", b"sat", b"hat", b"t"]
    tokens = np.random.default_rng(3).integers(len(surfaces), size=60).astype(np.uint16)
    p = np.random.default_rng(4).random(60)
    values, _, weights = make_ppmd("cpu", config, order, byte_spelling(surfaces, "decoded")).score(tokens, p, None)
    expected = published(config, order, [surfaces[token] or b"" for token in tokens.tolist()], p.tolist())
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    assert len(np.unique(weights)) > 2, "the gate opens and closes"


def test_a_byte_by_hand() -> None:
    """After "abab": one context of each length down to "ab" has data, and one byte, a, came after it."""
    model = make_ppmd("reference", PpmdConfig(), 6, byte_spelling([b"a", b"b", b"c"], "decoded"))
    model.append(np.array([0, 1, 0, 1], np.uint16))
    values = model.distribution(np.array([0.5, 0.3, 0.2]))
    assert values[0] == pytest.approx(0.05 * 0.5 + 0.95 * (2 * 1 - 1) / (2 * 1))
    escaped = 1 / 2 * 1 / 2  # of "ab" and "b", each with one byte that came once; then 4 bytes, 2 different
    assert values[1] == pytest.approx(0.05 * 0.3 + 0.95 * escaped * 3 / 8)
    assert values[2] == pytest.approx(0.05 * 0.2 + 0.95 * escaped * 2 / 8 / 256)


def test_the_target_decides_only_with_its_own_gate() -> None:
    """A byte that comes is then a reason to be sure; the other values move with it."""
    row = np.array([0.4, 0.3, 0.3])
    for gate in ("blind", "target"):
        config = PpmdConfig(byte_gate=gate, sure_above=0.5)
        model = make_ppmd("cpu", config, 3, byte_spelling([b"a", b"b", b"c"], "decoded"))
        model.append(np.array([0, 1] * 20, np.uint16))
        (a, b) = (model.distribution(row, target) for target in (0, 1))
        assert (a[2] == b[2]) == (gate == "blind")


@given(config=configs.filter(lambda c: c.byte_gate == "blind"), spelling=spellings, seed=st.integers(0, 1000))
@settings(max_examples=30)
def test_a_marginal_share_charges_no_more_than_one(config: PpmdConfig, spelling: ByteSpelling, seed: int) -> None:
    model = make_ppmd("cpu", replace(config, byte_share="marginal"), 4, spelling)
    vocab_size = len(spelling.surfaces)
    model.append(np.random.default_rng(seed).integers(vocab_size, size=60).astype(np.uint16))
    values = model.distribution(rows_of(1, vocab_size, seed)[0])
    assert values.min() >= 0
    assert values.sum() <= 1 + 1e-12


def test_a_spread_share_charges_more() -> None:
    """Once "the cat sat" has come often, hardly a token is left that is not charged more than the model gives it."""
    words: list[bytes | None] = [b"the", b" cat", b" sat", b" on", b"t", b"th", b"the c", b"the cat"]
    model = make_ppmd("cpu", PpmdConfig(), 6, byte_spelling(words, "decoded"))
    model.append(np.array([0, 1, 2, 3] * 10, np.uint16))
    assert model.distribution(np.full(8, 1 / 8)).sum() > 2


@pytest.mark.parametrize("gate", ["blind", "target"])
@pytest.mark.parametrize("share", ["spread", "marginal"])
def test_the_model_alone_is_left_where_it_has_all_weight(gate: Any, share: Any) -> None:
    config = PpmdConfig(byte_gate=gate, byte_share=share, model_weight=1.0, model_weight_sure=1.0)
    spelling = byte_spelling([None, b"a", b"ab", b"ab", b"c", b" c"], "piece")
    model, row = make_ppmd("cpu", config, 6, spelling), rows_of(1, 6, 5)[0]
    model.append(np.array([1, 2, 3, 4, 0], np.uint16))
    np.testing.assert_allclose(model.distribution(row), row, rtol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_leading_space_after_a_token_without_text_is_a_byte_by_one_rule_alone(backend: str) -> None:
    """By the published formula `▁x` is one byte after a boundary: charged like x there, and unlike it elsewhere."""
    row, surfaces = np.full(4, 0.25), [None, b"x", b" x", b"y"]
    for rule in ("piece", "decoded"):
        model = make_ppmd(backend, PpmdConfig(), 6, byte_spelling(surfaces, rule))
        model.append(np.array([1, 3, 1, 3], np.uint16))
        inside = model.distribution(row)
        model.append(np.array([0], np.uint16))
        after = model.distribution(row)
        assert inside[1] != inside[2]
        assert (after[1] == after[2]) == (rule == "piece")
        assert inside[0] == after[0] == row[0]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_wrong_arrays_are_refused(backend: str) -> None:
    model = make_ppmd(backend, PpmdConfig(byte_share="marginal"), 6, byte_spelling([b"a", b"b"], "decoded"))
    with pytest.raises(ValueError, match="outside the vocabulary of 2"):
        model.append(np.array([2], np.uint16))
    with pytest.raises(ValueError, match="marginal shares"):
        model.score(np.array([0], np.uint16), np.array([0.5]), None)
    with pytest.raises(ValueError, match="learns nothing"):
        model.load_learned({"weights": np.zeros(1)})


def test_without_bytes_or_a_backend_it_says_so() -> None:
    for surfaces in (None, [None, None], []):
        with pytest.raises(InputError, match=r"needs the bytes of tokens.*give tokenizer"):
            byte_spelling(surfaces, "decoded")
    with pytest.raises(InputError, match="backend triton has no byte mixture: choose reference or cpu"):
        make_ppmd("triton", PpmdConfig(), 6, byte_spelling([b"a"], "decoded"))


def test_floats_at_the_edges() -> None:
    for p, expected in ((0.0, 0.1 / 256), (-0.5, math.nan), (math.nan, math.nan)):
        for backend in ("reference", "cpu"):
            model = make_ppmd(backend, PpmdConfig(), 1, byte_spelling([b"ab"], "decoded"))
            values, _, _ = model.score(np.array([0], np.uint16), np.array([p]), None)
            second = 0.95 * (1 / 2) / 256  # "a" alone has been counted, so that it is sure
            np.testing.assert_allclose(values[0], expected * second, rtol=1e-12)
