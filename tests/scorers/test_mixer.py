"""The mixer: C++ equals the reference bit for bit, values sum to 1, and learning is what it says."""

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ngram_eval.config import MixerConfig, preset
from ngram_eval.errors import InputError
from ngram_eval.scorers.mixer.model import Mixer, Spelling, make_mixer, spelling_of, unspelt
from ngram_eval.text.stream import MAX_VOCABULARY

WORDS = b"the cat sat\n on the mat;\n\n  The cat's mat, the cat sat. 12 cats \xc3\xa9t\xc3\xa9 "


def spelling(vocab_size: int, seed: int) -> Spelling:
    """Tokens that spell nothing, or one to four bytes of text, some alike."""
    rng = np.random.default_rng(seed)
    at, length = rng.integers(len(WORDS), size=vocab_size), rng.integers(0, 5, size=vocab_size)
    return spelling_of([WORDS[a : a + n] or None for a, n in zip(at, length, strict=True)])


def stream(n: int, vocab_size: int, seed: int) -> NDArray[np.uint16]:
    """Text of a kind: stretches come again, others are random."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(vocab_size, size=n)
    for start in range(20, n - 30, 45):
        source = rng.integers(start - 15)
        tokens[start : start + 30] = tokens[source : source + 30]
    return tokens.astype(np.uint16)


def rows(n: int, vocab_size: int, seed: int) -> NDArray[np.float64]:
    """Neural distributions: some even, some sure, some with impossible tokens."""
    rng = np.random.default_rng(seed)
    drawn = np.exp(rng.choice([0.0, 1.0, 12.0], size=(n, 1)) * rng.standard_normal((n, vocab_size)))
    drawn[rng.random((n, vocab_size)) < 0.1] = 0.0
    drawn[:, 0] += 1e-9
    result: NDArray[np.float64] = drawn / drawn.sum(axis=1, keepdims=True)
    return result


def pair(config: MixerConfig, spelt: Spelling, neural: bool) -> tuple[Mixer, Mixer]:
    reference, cpu = (make_mixer(name, config, spelt, neural=neural) for name in ("reference", "cpu"))
    return reference, cpu


def assert_equal(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype
        assert (array == other[name]).all(), name


@given(
    vocab_size=st.sampled_from([2, 3, 5, 16, 17, 40, 300]),
    contexts=st.integers(0, 37),
    sets=st.integers(1, 8),
    matches=st.integers(0, 3),
    exact_order=st.sampled_from([0, 0, 1, 5]),
    runs=st.integers(0, 37),
    cells=st.sampled_from([0, 8, 40]),
    log_groups=st.sampled_from([2, 3, 6, 14]),
    neural=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_cpp_is_the_reference(
    vocab_size: int,
    contexts: int,
    sets: int,
    matches: int,
    exact_order: int,
    runs: int,
    cells: int,
    log_groups: int,
    neural: bool,
    seed: int,
) -> None:
    """Charges, orders, decisions, weights, whole distributions, after tokens that were only appended."""
    config = MixerConfig(
        contexts=contexts,
        weight_sets=sets,
        matches=matches,
        exact_order=exact_order,
        runs=min(runs, contexts),
        cells=cells,
        groups=1 << log_groups,
    )
    mixers = pair(config, spelling(vocab_size, seed), neural)
    tokens, base = stream(110, vocab_size, seed), rows(110, vocab_size, seed)
    for mixer in mixers:
        mixer.append(tokens[:50])
    (p, order), (p_cpp, order_cpp) = (mixer.score(tokens[50:90], base[50:90]) for mixer in mixers)
    assert (p == p_cpp).all()
    assert (order == order_cpp).all()
    ours, theirs = (mixer.decisions(tokens[90:], base[90:]) for mixer in mixers)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    assert_equal(*(mixer.learned() for mixer in mixers))
    if config.contexts:
        (*counted, shares), (*counted_cpp, shares_cpp) = (mixer.evidence(int(tokens[3]), base[3]) for mixer in mixers)
        np.testing.assert_array_equal(counted, counted_cpp)
        np.testing.assert_allclose(shares, shares_cpp, rtol=1e-12)
        assert 0 < shares.sum() <= 1 + 1e-12
    whole, whole_cpp = (mixer.distribution(base[0]) for mixer in mixers)
    assert (whole == whole_cpp).all()


def test_runs_know_what_came_last() -> None:
    """Each of forty tokens is followed by one of its own, another one after every fourth time."""
    rng, bits = np.random.default_rng(0), []
    follower = rng.integers(40, 80, 40)
    tokens: list[int] = []
    for key in rng.integers(0, 40, 6000):
        if rng.random() < 0.25:
            follower[key] = rng.integers(40, 80)
        tokens += [key, follower[key]]
    stream_, row = np.array(tokens, np.uint16), np.full((1, 80), 1 / 80)
    for runs in (0, 14):
        config = MixerConfig(contexts=14, runs=runs, matches=0, groups=1 << 16)
        p, _ = make_mixer("cpu", config, spelling(80, 0), neural=False).score(stream_, row)
        bits.append(-np.log2(p[1::2]).sum())
    assert bits[1] < 0.97 * bits[0]


def test_long_repetitions_equal_the_reference() -> None:
    """Lengths in every class of the repetition's map, and tokens enough for estimates to settle."""
    tokens = np.tile(stream(60, 12, 3), 5)
    mixers = pair(MixerConfig(contexts=9, weight_sets=4, groups=1 << 10), spelling(12, 3), False)
    p, p_cpp = (mixer.score(tokens, np.full((1, 12), 1 / 12))[0] for mixer in mixers)
    assert (p == p_cpp).all()
    assert p[-60:].min() > 0.5


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@given(vocab_size=st.integers(2, 70), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_values_sum_to_one_whatever_collides(vocab_size: int, seed: int) -> None:
    config = replace(preset("mixer-max").mixer, groups=4)
    mixer = make_mixer("cpu", config, spelling(vocab_size, seed), neural=True)
    tokens, base = stream(200, vocab_size, seed), rows(200, vocab_size, seed)
    for i, token in enumerate(tokens.tolist()):
        whole = mixer.distribution(base[i])
        p, _ = mixer.score(tokens[i : i + 1], base[i : i + 1])
        assert p[0] == whole[token]
        assert whole.min() > 0
        assert abs(whole.sum() - 1) < 1e-12


def test_decisions_lead_to_the_token(backend: str) -> None:
    """A reader that is told only the outcomes comes to the same tokens, numbers and weights."""
    spelt, config = spelling(37, 5), replace(preset("mixer-max").mixer, groups=1 << 8)
    tokens, base = stream(60, 37, 5), rows(60, 37, 5)
    writer, reader = (make_mixer(backend, config, spelt, neural=True) for _ in range(2))
    p, bits, ones = writer.decisions(tokens, base)
    told, charged = iter(zip(bits.tolist(), ones.tolist(), strict=True)), []
    for i, token in enumerate(tokens.tolist()):
        one, product = reader.begin(base[i]), 1.0
        while not reader.token_known:
            bit, expected = next(told)
            assert one == expected
            product *= one if bit else 1.0 - one
            one = reader.decide(bit)
        assert reader.token == token
        charged.append(product)
    assert (p == charged).all()
    assert_equal(writer.learned(), reader.learned())


def test_decisions_are_begun_first(backend: str) -> None:
    mixer = make_mixer(backend, MixerConfig(groups=4), spelling(5, 0), neural=True)
    with pytest.raises(ValueError, match="no decision is under way"):
        mixer.decide(1)
    mixer.begin(np.full(5, 0.2))
    with pytest.raises(ValueError, match="bit is 2"):
        mixer.decide(2)
    mixer.score(np.array([1], np.uint16), np.full((1, 5), 0.2))  # ends the token
    with pytest.raises(ValueError, match="no decision is under way"):
        mixer.decide(0)


def test_what_is_learned_goes_on_elsewhere(backend: str) -> None:
    """Tokens appended and weights loaded: the rest is charged alike."""
    spelt, config = spelling(20, 1), replace(preset("mixer-max").mixer, groups=1 << 9)
    tokens, base = stream(90, 20, 1), rows(90, 20, 1)
    first, second = (make_mixer(backend, config, spelt, neural=True) for _ in range(2))
    first.score(tokens[:70], base[:70])
    second.append(tokens[:70])
    second.load_learned(first.learned())
    assert (first.score(tokens[70:], base[70:])[0] == second.score(tokens[70:], base[70:])[0]).all()
    broken = first.learned()
    broken.pop("last_weights")
    with pytest.raises(ValueError, match=r"arrays"):
        second.load_learned(broken)


@pytest.mark.parametrize("name", ["mixer", "mixer-fast", "mixer-max"])
def test_a_copy_goes_on_by_itself(backend: str, name: str) -> None:
    """In C++ also one that is made between two decisions of a token: the reference then holds views of its arrays."""
    spelt, config = spelling(20, 1), replace(preset(name).mixer, groups=1 << 9)
    tokens, base = stream(90, 20, 1), rows(90, 20, 1)
    mixer, alone = (make_mixer(backend, config, spelt, neural=True) for _ in range(2))
    for one in (mixer, alone):
        one.append(tokens[:30])
        one.score(tokens[30:50], base[30:50])
    for one in (mixer, alone):
        one.begin(base[50])
        one.decide(0)
        while backend == "reference" and not one.token_known:
            one.decide(1)
    copied = copy.deepcopy(mixer)
    mixer.score(tokens[10:40], base[10:40])
    del mixer
    while not alone.token_known:
        assert copied.decide(1) == alone.decide(1)
    assert (copied.token_known, copied.token) == (True, alone.token)
    assert (copied.distribution(base[50]) == alone.distribution(base[50])).all()
    (p, order), (expected, orders) = (one.score(tokens[50:], base[50:]) for one in (copied, alone))
    assert (p == expected).all()
    assert (order == orders).all()
    assert_equal(copied.learned(), alone.learned())


def test_beside_a_model_nothing_is_lost_at_first(backend: str) -> None:
    """Before anything is learned the neural distribution comes out, to the precision of float32 logits."""
    spelt, base = spelling(64, 2), np.full(64, 0.25 / 63)
    base[17] = 0.75
    mixer = make_mixer(backend, MixerConfig(groups=1 << 8), spelt, neural=True)
    assert np.abs(np.log(mixer.distribution(base) / base)).max() < 0.02


def test_a_model_without_chances_is_not_believed() -> None:
    """A distribution that is 0 all over a subtree, or everywhere, is no division by zero."""
    mixer = make_mixer("cpu", MixerConfig(groups=1 << 8), spelling(8, 2), neural=True)
    base = np.zeros((3, 8))
    base[1, 0] = 1.0
    p, _ = mixer.score(np.array([1, 2, 3], np.uint16), base)
    assert (p > 0).all()
    assert np.isfinite(mixer.distribution(base[0])).all()


@given(seed=st.integers(0, 1000), sharpness=st.sampled_from([0.0, 1.0, 4.0]), exact_order=st.sampled_from([0, 4]))
@settings(max_examples=20, deadline=None)
def test_never_much_worse_than_the_model_alone(seed: int, sharpness: float, exact_order: int) -> None:
    """At most 1 + log2(T + 1) bits over all T positions: here the model is right and the contexts know nothing.

    With exact counts, too, the switch is of three.
    """
    rng = np.random.default_rng(seed)
    base = np.exp(sharpness * rng.standard_normal((2000, 32)))
    base /= base.sum(axis=1, keepdims=True)
    tokens = (base.cumsum(axis=1) < rng.random((2000, 1))).sum(axis=1).clip(max=31).astype(np.uint16)
    config = MixerConfig(groups=1 << 12, exact_order=exact_order)
    p, _ = make_mixer("cpu", config, spelling(32, seed), neural=True).score(tokens, base)
    allowed = np.log2(3 if exact_order else 2) + np.log2(2001)
    assert np.log2(base[np.arange(2000), tokens]).sum() - np.log2(p).sum() <= allowed


@pytest.mark.parametrize("kind", ["constant", "alternating", "random", "repeated"])
def test_adversarial_streams_cost_at_most_a_thousandth_more(kind: str) -> None:
    """Over log2 V a token, with no model beside."""
    vocab_size, n = 64, 300_000
    rng = np.random.default_rng(0)
    tokens = {
        "constant": np.full(n, 5),
        "alternating": np.arange(n) % 2 * 40,
        "random": rng.integers(vocab_size, size=n),
        "repeated": np.tile(rng.integers(vocab_size, size=n // 4), 4),
    }[kind].astype(np.uint16)
    mixer = make_mixer("cpu", MixerConfig(groups=1 << 20), unspelt(vocab_size), neural=False)
    p, _ = mixer.score(tokens, np.full((1, vocab_size), 1 / vocab_size))
    bits = -np.log2(p).mean()
    assert bits < np.log2(vocab_size) * 1.001
    if kind != "random":
        assert bits < 3


def test_one_result_on_every_processor() -> None:
    """The loop is compiled for several instruction sets; float sums are taken in one order in all of them."""
    tokens, spelt = stream(3000, 50, 9), spelling(50, 9)
    mixer = make_mixer("cpu", MixerConfig(groups=1 << 12), spelt, neural=False)
    p, _ = mixer.score(tokens, np.full((1, 50), 1 / 50))
    assert math.fsum(p).hex() == GOLDEN


GOLDEN = "0x1.680b3c27e45fdp+10"


@pytest.mark.parametrize("vocab_size", [1, MAX_VOCABULARY + 1])
def test_vocabularies_are_bounded(vocab_size: int) -> None:
    with pytest.raises(InputError, match="2 to 524,287"):
        unspelt(vocab_size)


def test_ranks_follow_the_spelling() -> None:
    spelt = spelling_of([b"b", None, b"a", b"", b"ab", b"a"])
    assert spelt.rank.tolist() == [5, 0, 2, 1, 4, 3]
    assert spelt.surfaces[1] == b""


@pytest.mark.parametrize(
    ("tokens", "base", "message"),
    [
        (np.zeros(3, np.int64), np.ones((1, 8)), "uint16 or uint32"),
        (np.array([8], np.uint16), np.ones((1, 8)), "token 8 is outside"),
        (np.zeros(3, np.uint16), np.ones((2, 8)), r"\(n, V\)"),
        (np.zeros(3, np.uint16), np.ones((3, 7)), "V = 8"),
        (np.zeros(3, np.uint16), np.ones((3, 8), np.float32), "float64"),
    ],
)
def test_other_arrays_are_refused(tokens: NDArray[Any], base: NDArray[Any], message: str) -> None:
    mixer = make_mixer("cpu", MixerConfig(groups=4), spelling(8, 0), neural=True)
    with pytest.raises(ValueError, match=message):
        mixer.score(tokens, base)


def test_backends_without_it_say_so() -> None:
    with pytest.raises(InputError, match="backend triton has no mixer: choose reference or cpu"):
        make_mixer("triton", MixerConfig(), unspelt(4), neural=True)
