"""Exact counts and the normalised blend: against counting by hand, the reference bit for bit, and what it promises."""

import math
from collections.abc import Callable
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ngram_eval.config import ExactConfig, preset
from ngram_eval.errors import InputError
from ngram_eval.scorers.exact.cuda import CudaModel
from ngram_eval.scorers.exact.model import ExactModel, make_model
from ngram_eval.scorers.exact.reference import logistic
from ngram_eval.text.stream import MAX_VOCABULARY
from tests.support.exact import BACKENDS, ENTROPY, TWO, backends, bases, compiled, repetitive, uniform

CONFIGS = {
    "chain": ExactConfig(),
    "chain and learned tilt": ExactConfig(tilt="learned"),
    "chain and fixed tilt": ExactConfig(tilt="fixed", tilt_confidence=0.4),
    "tilt alone": ExactConfig(chain=False, tilt="learned"),
    "by window": ExactConfig(by_window=True),
}


def models(*names: str) -> pytest.MarkDecorator:
    """The named backends in every configuration that they have: the GPU seeks no hints."""
    every = [(b, k) for b in names for k in CONFIGS if b != "cuda" or CONFIGS[k].tilt == "off"]
    return pytest.mark.parametrize(("backend", "config"), [(b, CONFIGS[k]) for b, k in every], ids=map("-".join, every))


def counted_by_hand(stream: list[int], token: int, length: int) -> tuple[int, ...] | None:
    """The evidence on `token` after the stream in its context of `length` tokens, by scanning the stream."""
    n = len(stream)
    context = stream[n - length :]
    ends = [i for i in range(length, n) if stream[i - length : i] == context]
    if not ends:
        return None
    followers = [stream[i] for i in ends]

    def novel(successor: int) -> int:  # how many different longer contexts it followed; the stream's start is one
        places = [i for i in ends if stream[i] == successor]
        return len({tuple(stream[i - length - 1 : i]) if i > length else () for i in places})

    run = next((i for i, one in enumerate(reversed(followers)) if one != followers[-1]), len(followers))
    recent = sum(1 << (31 - age) for age, one in enumerate(reversed(followers)) if one == token and age < 32)
    return (
        len(ends),
        sum(novel(one) for one in set(followers)),
        len(set(followers)),
        run if length else 0,
        followers.count(token),
        novel(token),
        recent if length else 0,
    )


@backends
@settings(max_examples=40)
@given(
    tokens=st.lists(st.integers(0, 3), min_size=1, max_size=80), max_order=st.integers(1, 7), token=st.integers(0, 4)
)
def test_counts_are_those_of_the_stream(backend: str, tokens: list[int], max_order: int, token: int) -> None:
    model = make_model(backend, max_order, ExactConfig())
    model.append(np.array(tokens, np.uint16))
    found = model.evidence(token)
    expected = [counted_by_hand(tokens, token, length) for length in range(min(max_order, len(tokens) + 1))]
    known = [row for row in expected if row is not None]
    assert len(found) == len(known)
    for length, (row, by_hand) in enumerate(zip(found.tolist(), known, strict=True)):
        used = [0, 2, 3, 4, 6] if length == max_order - 1 else range(7)  # nothing is longer than the longest
        assert [row[i] for i in used] == [by_hand[i] for i in used]


@models("cpu", "cuda")
@pytest.mark.parametrize(("vocab", "max_order"), [(2, 6), (5, 4), (30, 12), (3, 1), (4, 2), (50, 24)])
def test_equals_the_reference_bit_for_bit(backend: str, config: ExactConfig, vocab: int, max_order: int) -> None:
    length, rng = 300, np.random.default_rng(1)
    tokens, (rows, entropy) = repetitive(vocab, length), bases(vocab, length)
    fast, slow = make_model(backend, max_order, config), make_model("reference", max_order, config)
    bounds = [0, *np.cumsum(np.full(18, 17) if config.by_window else rng.integers(1, 40, 30)).clip(max=length).tolist()]
    for start, stop in pairwise(bounds):
        if start == stop:
            break
        part, row, h = slice(start, stop), rows[start], float(entropy[start])
        known, expected = fast.evidence(int(tokens[start])), slow.evidence(int(tokens[start]))
        for one in (known, expected):
            one[-1:, [1, 5]] = 0  # continuation counts of the longest are never read
        np.testing.assert_array_equal(known, expected)
        np.testing.assert_array_equal(fast.distribution(row, h), slow.distribution(row, h))
        if config.by_window:
            after = tokens[part][:3]
            np.testing.assert_array_equal(
                fast.distribution_after(after, row, h), slow.distribution_after(after, row, h)
            )
        scored = [m.score(tokens[part], rows[part], entropy[part], together=config.by_window) for m in (fast, slow)]
        for one, other in zip(*scored, strict=True):
            np.testing.assert_array_equal(one, other)


@models(*BACKENDS)
def test_distributions_sum_to_one_and_are_what_is_charged(backend: str, config: ExactConfig) -> None:
    vocab, length = 12, 120
    tokens, (rows, entropy) = repetitive(vocab, length), bases(vocab, length)
    model = make_model(backend, 8, config)
    for start in range(0, length, 5):
        part = slice(start, start + 5)
        if config.by_window:
            shown = np.stack(
                [model.distribution_after(tokens[start:i], rows[i], float(entropy[i])) for i in range(start, start + 5)]
            )
            charged, _ = model.score(tokens[part], rows[part], entropy[part], together=True)
        else:
            twin = make_model(backend, 8, config)
            twin.score(tokens[:start], rows[:start], entropy[:start], together=False)
            shown = twin.distributions(tokens[part], rows[part], entropy[part])
            charged, _ = model.score(tokens[part], rows[part], entropy[part], together=False)
        np.testing.assert_allclose(shown.sum(axis=1), 1.0, atol=1e-12)
        np.testing.assert_array_equal(shown[np.arange(5), tokens[part]], charged)


@compiled
def test_calls_may_be_cut_anywhere(backend: str) -> None:
    tokens, (p, entropy) = repetitive(40, 3000), uniform(40, 3000)
    whole, parts = make_model(backend, 12, ExactConfig()), make_model(backend, 12, ExactConfig())
    expected, _ = whole.score(tokens, p, entropy, together=False)
    cuts = [0, 1, 255, 256, 257, 513, 2000, 3000]
    found = [parts.score(tokens[a:b], p[a:b], entropy[a:b], together=False)[0] for a, b in pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(found), expected)
    wide = make_model(backend, 12, ExactConfig()).score(tokens.astype(np.uint32), p, entropy, together=False)[0]
    np.testing.assert_array_equal(wide, expected)


@pytest.mark.parametrize("backend", ["cuda"])
@pytest.mark.parametrize(("lanes", "batch"), [(1, 1), (2, 7), (4, 64), (8, 300), (2, 4096)])
def test_exact_counts_depend_on_neither_lanes_nor_batches(backend: str, lanes: int, batch: int) -> None:
    rng = np.random.default_rng(4)
    tokens = np.concatenate([rng.integers(0, 9, 300), *[np.full(40, 3)] * 2, rng.integers(0, 3, 300)]).astype(np.uint16)
    tokens = np.concatenate([tokens, tokens[100:400]])
    model, cpu = CudaModel(12, ExactConfig(), lanes=lanes, batch=batch), make_model("cpu", 12, ExactConfig())
    p, entropy = np.full(len(tokens), 1 / 9), np.full(len(tokens), 2, np.float32)
    for part in (slice(0, 500), slice(500, 501), slice(501, None)):
        found, expected = (m.score(tokens[part], p[part], entropy[part], together=False) for m in (model, cpu))
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
    assert {name: model.size()[name] for name in ("positions", "nodes")} == {
        name: cpu.size()[name] for name in ("positions", "nodes")
    }


@compiled
def test_a_window_sees_nothing_of_itself(backend: str) -> None:
    tokens, (p, entropy) = repetitive(20, 600), uniform(20, 600)
    model, other = make_model(backend, 6, ExactConfig()), make_model(backend, 6, ExactConfig())
    for each in (model, other):
        each.score(tokens[:500], p[:500], entropy[:500], together=False)
    cheated = tokens.copy()
    cheated[500:590] = tokens[599]  # had it been counted, the last token would be cheap
    first, _ = model.score(tokens[500:600], p[500:600], entropy[500:600], together=True)
    second, _ = other.score(cheated[500:600], p[500:600], entropy[500:600], together=True)
    assert first[-1] == second[-1]


@compiled
@pytest.mark.slow
def test_large_tables_keep_every_number(backend: str) -> None:
    """Past several growths of the index and of the nodes' segments."""
    tokens = np.random.default_rng(3).integers(0, 3000, 400_000).astype(np.uint16)
    model = make_model(backend, 3, ExactConfig())
    model.append(tokens)
    assert model.size()["nodes"] > 1 << 18
    pairs = tokens[:-2].astype(np.int64) * 3000 + tokens[1:-1]
    last = int(tokens[-2]) * 3000 + int(tokens[-1])
    after = tokens[2:][pairs == last]
    for token in (int(tokens[5]), *after[:3].tolist()):
        rows = model.evidence(token)
        assert rows[0, [0, 4]].tolist() == [len(tokens), int((tokens == token).sum())]
        followers = tokens[1:][tokens[:-1] == tokens[-1]]
        assert rows[1, [0, 2, 4]].tolist() == [
            len(followers),
            len(set(followers.tolist())),
            int((followers == token).sum()),
        ]
        if len(after):
            assert rows[2, [0, 2, 4]].tolist() == [len(after), len(set(after.tolist())), int((after == token).sum())]


def test_the_logistic_function() -> None:
    z = np.linspace(-20, 20, 4001).astype(np.float32)
    expected = 1 / (1 + np.exp(-np.clip(z.astype(np.float64), -14, 14)))
    np.testing.assert_allclose(logistic(z), expected, rtol=4e-6)
    assert 0 < logistic(z).min() < logistic(z).max() < 1


@pytest.mark.parametrize("text", ["noise that the base knows", "noise", "one token"])
def test_never_much_worse_than_the_base(text: str) -> None:
    """At most 1 + log2(T + 1) bits; 200 bits are promised, or 0.002 bpb of 100 kB."""
    length, vocab, rng = 40_000, 64, np.random.default_rng(5)
    rows = rng.dirichlet(np.full(vocab, 0.2), 50)
    which = rng.integers(0, 50, length)
    tokens: NDArray[np.int64]
    p: NDArray[np.float64]
    if text == "one token":
        tokens = np.zeros(length, np.int64)
        p = np.full(length, 0.999999)
    elif text == "noise":
        tokens, p = rng.integers(0, vocab, length), np.full(length, 1 / vocab)
    else:
        cumulated = rows.cumsum(axis=1)
        tokens = np.minimum((rng.random(length)[:, None] > cumulated[which]).sum(axis=1), vocab - 1)
        p = np.maximum(rows[which, tokens], 1e-9)
    model, entropy = make_model("cpu", 24, ExactConfig()), np.full(length, 2, np.float32)
    charged, _ = model.score(tokens.astype(np.uint16), p, entropy, together=False)
    assert np.log2(p).sum() - np.log2(charged).sum() < 1 + math.log2(length + 1)


def test_learns_what_repeats() -> None:
    tokens, (p, entropy) = np.tile(repetitive(200, 1000), 3), uniform(200, 3000)
    charged, order = make_model("cpu", 24, ExactConfig()).score(tokens, p, entropy, together=False)
    first, last = -np.log2(charged[:1000]).mean(), -np.log2(charged[2000:]).mean()
    assert first < math.log2(200) + 0.1
    assert last < 0.05 * first
    assert order[-1] == 24
    assert order[0] == 0


def test_a_fixed_tilt_is_the_formula() -> None:
    """p'(a) = p(a) e^(beta [a = h]) / Z, h the newest and most frequent successor of the longest context."""
    model = make_model("cpu", 4, ExactConfig(chain=False, tilt="fixed", tilt_beta=1.5))
    model.append(np.array([1, 2, 3, 1, 2, 3, 1, 2], np.uint16))
    base = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
    z = 1 + base[3] * (math.exp(1.5) - 1)
    np.testing.assert_allclose(model.distribution(base, 1.0), base * np.exp(1.5 * (np.arange(5) == 3)) / z, rtol=1e-14)
    unsure = make_model("cpu", 2, ExactConfig(chain=False, tilt="fixed", tilt_beta=1.5, tilt_confidence=0.9))
    unsure.append(np.array([1, 2, 1, 3, 1], np.uint16))
    np.testing.assert_array_equal(unsure.distribution(base, 1.0), base)


@pytest.mark.parametrize(("name", "expected"), [("exact", "0x1.5f18ddf964d53p+7"), ("tilt", "0x1.3dcadd2c6684cp+6")])
def test_golden_cost(name: str, expected: str) -> None:
    """Files of the codec hang on it: a change of these bits is a new version of the model."""
    tokens, (rows, entropy) = repetitive(40, 2000), bases(40, 2000)
    charged, _ = make_model("cpu", 24, preset(name).exact).score(tokens, rows, entropy, together=False)
    assert float(math.fsum(charged)).hex() == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.append(np.zeros(3)), "uint16 or uint32"),
        (lambda m: m.append(np.array([MAX_VOCABULARY], np.uint32)), "token 524287 at 0"),
        (lambda m: m.score(TWO, np.ones(3), ENTROPY, together=False), "contiguous float64 of shape"),
        (lambda m: m.score(TWO, np.ones(2, np.float32), ENTROPY, together=False), "float32"),
        (lambda m: m.score(TWO, np.ones(2), np.ones(2), together=False), "entropy must be float32"),
        (lambda m: m.score(np.array([1, 7], np.uint16), np.ones((2, 5)), ENTROPY, together=False), "token 7 for rows"),
        (lambda m: m.distribution(np.ones(3), 1.0), "token 4 was counted"),
        (lambda m: m.distributions(TWO, np.ones(2), ENTROPY), "whole base distributions"),
    ],
)
@compiled
def test_bad_arguments_are_named(backend: str, call: Callable[[ExactModel], object], message: str) -> None:
    model = make_model(backend, 4, ExactConfig())
    model.append(np.array([4], np.uint16))
    with pytest.raises(ValueError, match=message):
        call(model)


@pytest.mark.parametrize("config", [ExactConfig(), ExactConfig(tilt="learned"), ExactConfig(by_window=True)])
@pytest.mark.parametrize(("first", "second"), [*product(BACKENDS, BACKENDS)])
def test_what_is_learned_moves_to_another_model_of_any_backend(config: ExactConfig, first: str, second: str) -> None:
    """With the same tokens counted, it goes on to the same bits; and all backends write the same arrays."""
    if config.tilt != "off" and "cuda" in (first, second):
        with pytest.raises(InputError, match="tilt learned and backend cuda"):
            make_model("cuda", 5, config)
        return
    rng = np.random.default_rng(3)
    tokens = (rng.zipf(1.4, 400) % 7).astype(np.uint16)
    rows, entropy = rng.dirichlet(np.ones(7), 400), rng.uniform(0, 3, 400).astype(np.float32)

    def score(model: ExactModel, part: slice) -> NDArray[np.float64]:
        return model.score(tokens[part], rows[part], entropy[part], together=config.by_window)[0]

    whole, begun, resumed = (make_model(backend, 5, config) for backend in (first, first, second))
    for part in (slice(0, 250), slice(250, 400)):
        expected = score(whole, part)
    score(begun, slice(0, 250))
    resumed.append(tokens[:250])
    resumed.load_learned(begun.learned())
    assert (score(resumed, slice(250, 400)) == expected).all()
    for name, array in whole.learned().items():
        np.testing.assert_array_equal(resumed.learned()[name], array)
        assert resumed.learned()[name].dtype == array.dtype


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_learned_must_fit(backend: str) -> None:
    model = make_model(backend, 5, ExactConfig())
    learned = model.learned()
    with pytest.raises(ValueError, match="weights"):
        make_model(backend, 4, ExactConfig()).load_learned(learned)
    with pytest.raises(ValueError, match="steps must be like"):
        model.load_learned({**learned, "steps": learned["steps"].astype(np.int64)})
    with pytest.raises(ValueError, match="tilt"):
        model.load_learned({name: array for name, array in learned.items() if name != "tilt"})
