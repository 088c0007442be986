"""One body of tests for every counts backend: each equals the reference exactly, tables and results.

The reference itself is held against `published_score`, which is written from the method's description with
dictionaries and shares no code with the package.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ngram_eval.config import NgramConfig
from ngram_eval.errors import InputError
from ngram_eval.scorers.backends import BACKENDS
from ngram_eval.scorers.hashed.counts import Best, Counts, around, make_counts
from ngram_eval.scorers.hashed.reference import ReferenceCounts
from ngram_eval.text.stream import Tokens

IMPLEMENTATIONS = [(name, threads) for name in BACKENDS for threads in ((1, 2) if name == "cpu" else (1,))]
every_backend = pytest.mark.parametrize(("backend", "threads"), IMPLEMENTATIONS)
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

BLOCK_LENGTHS = [1, 2, 31, 32, 33, 63, 64, 65, 1000, 2048]


@dataclass(frozen=True)
class Case:
    """A stream, a configuration, and windows of any length, in any order, overlapping or empty."""

    config: NgramConfig
    tokens: Tokens
    firsts: NDArray[np.int64]
    stops: NDArray[np.int64]


@st.composite
def configs(draw: st.DrawFn) -> NgramConfig:
    low = draw(st.integers(1, 9))
    return NgramConfig(
        min_order=low,
        max_order=draw(st.integers(low, 9)),
        buckets=1 << draw(st.integers(0, 14)),
        min_count=draw(st.integers(1, 4)),
        context_gap=draw(st.booleans()),
        target_backoff=draw(st.booleans()),
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    dtype = draw(st.sampled_from([np.uint16, np.uint32]))
    edges = [0, 1, 65535] + ([65536, 65537, 2**32 - 1] if dtype is np.uint32 else [])
    alphabet = draw(st.lists(st.sampled_from(edges) | st.integers(0, edges[-1]), min_size=1, max_size=5))
    length = draw(st.sampled_from([2, 3, 9, 10, 11, 63, 1000, 5000]) | st.integers(2, 300))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tokens = rng.choice(np.array(alphabet, dtype), length)
    windows = draw(st.integers(0, 60))
    if draw(st.booleans()):  # consecutive windows, the first longer, as the evaluator cuts them
        stride = draw(st.sampled_from([1, 7, 32, 63]))
        edges_of_windows = np.unique(np.minimum(np.arange(0, windows + 1) * stride + 100, length - 1))
        firsts, stops = np.append([0], edges_of_windows[:-1]), edges_of_windows
    else:
        a = rng.integers(0, length, windows)
        b = np.minimum(a + rng.choice(np.array([0, *BLOCK_LENGTHS]), windows), length - 1)
        firsts, stops = np.minimum(a, b), b
    return Case(draw(configs()), tokens, firsts.astype(np.int64), stops.astype(np.int64))


def assert_same(actual: tuple[NDArray[Any], ...], expected: tuple[NDArray[Any], ...]) -> None:
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        np.testing.assert_array_equal(a, e)


def published_score(case: Case) -> list[tuple[int, int, int]]:
    """(order, context count, full count) of each scored position by the published method, buckets in dictionaries."""
    primes = [36313, 27191, 51647, 81929, 131071, 174763, 233017, 299993, 350377]
    x = [int(t) for t in case.tokens]
    config = case.config
    context_counts: Counter[tuple[int, int]] = Counter()
    full_counts: Counter[tuple[int, int]] = Counter()

    def keys(p: int, order: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
        w = order - 1
        context_start = p - w if config.context_gap else p - w + 1
        if context_start < 0:
            return None
        h = 0
        for k in range(w):
            h ^= x[context_start + k] * primes[k]
        return (order, h % config.buckets), (order, (h ^ x[p + 1] * primes[w]) % config.buckets)

    scored = []
    for first, stop in zip(case.firsts.tolist(), case.stops.tolist(), strict=True):
        for p in range(first, stop):
            found = (0, 0, 0)
            for order in range(config.max_order, config.min_order - 1, -1):
                key = keys(p, order)
                if key is None:
                    continue
                context, full = context_counts[key[0]], full_counts[key[1]]
                if context >= config.min_count and (full > 0 or not config.target_backoff):
                    found = (order, context, full)
                    break
            scored.append(found)
        for p in range(first, stop):
            for order in range(config.min_order, config.max_order + 1):
                key = keys(p, order)
                if key is not None:
                    context_counts[key[0]] += 1
                    full_counts[key[1]] += 1
    return scored


def run(counts: Counts, case: Case) -> Best:
    return counts.score_windows(case.tokens, case.firsts, case.stops)


@given(case=cases())
@settings(max_examples=25, deadline=None)
def test_reference_is_the_published_method(case: Case) -> None:
    keep = np.cumsum(case.stops - case.firsts) <= 600  # plain Python is slow
    case = replace(case, firsts=case.firsts[keep], stops=case.stops[keep])
    best = run(ReferenceCounts(case.config), case)
    assert list(zip(*(a.tolist() for a in best), strict=True)) == published_score(case)


@every_backend
@quick
@given(case=cases(), data=st.data())
def test_equals_reference(backend: str, threads: int, case: Case, data: st.DataObject) -> None:
    reference, counts = ReferenceCounts(case.config), make_counts(backend, case.config, threads)
    spans = st.tuples(st.integers(0, len(case.tokens) - 1), st.integers(0, len(case.tokens) - 1)).map(sorted)

    start, stop = data.draw(spans)
    for c in (reference, counts):
        c.update(case.tokens, start, stop)
    assert_same((counts.state(),), (reference.state(),))

    assert_same(run(counts, case), run(reference, case))
    assert_same((counts.state(),), (reference.state(),))

    start, stop = data.draw(spans)
    assert_same(counts.lookup(case.tokens, start, stop), reference.lookup(case.tokens, start, stop))
    assert_same((counts.state(),), (reference.state(),))


@every_backend
@pytest.mark.parametrize("length", BLOCK_LENGTHS)
def test_window_lengths_of_the_default_orders(backend: str, threads: int, length: int) -> None:
    config = NgramConfig(buckets=1 << 12)
    windows = 300 if backend == "cpu" else 60
    tokens = np.random.default_rng(length).integers(0, 3, min(9001, windows * length + 1)).astype(np.uint16)
    firsts = np.arange(0, len(tokens) - 1, length)
    stops = np.minimum(firsts + length, len(tokens) - 1)
    case = Case(config, tokens, firsts, stops)
    reference, counts = ReferenceCounts(config), make_counts(backend, config, threads)
    assert_same(run(counts, case), run(reference, case))
    assert_same((counts.state(),), (reference.state(),))


@cache
def long_windows() -> tuple[Case, Best, NDArray[np.uint32]]:
    """A window longer than anything a backend works through at once, and what the reference makes of it."""
    config = NgramConfig(min_order=1, max_order=3, buckets=64, min_count=1)
    tokens = np.random.default_rng(0).integers(0, 5, (1 << 20) + 20_000).astype(np.uint16)
    case = Case(config, tokens, np.array([0, 5000, 5001, 0]), np.array([5000, 5001, 20_000, len(tokens) - 1]))
    reference = ReferenceCounts(config)
    return case, run(reference, case), reference.state()


@every_backend
def test_windows_longer_than_any_block(backend: str, threads: int) -> None:
    """Lookups of a window see none of its own counts, however the backend cuts it up."""
    case, best, state = long_windows()
    counts = make_counts(backend, case.config, threads)
    assert_same(run(counts, case), best)
    assert_same((counts.state(),), (state,))


@every_backend
def test_positions_past_32_bits(backend: str, threads: int, tmp_path: Path) -> None:
    """Only the end of the stream is real; the rest is a hole in the file."""
    length = (1 << 32) + 3000
    tokens = np.memmap(tmp_path / "tokens", np.uint16, "w+", shape=length)
    tokens[-3000:] = np.random.default_rng(0).integers(0, 3, 3000)
    config = NgramConfig(buckets=1 << 10)
    stops = np.arange(length - 2000, length, 33)
    case = Case(config, tokens, stops - 33, stops)
    reference, counts = ReferenceCounts(config), make_counts(backend, config, threads)
    for c in (reference, counts):
        c.update(tokens, length - 2500, length - 2033)
    assert_same(run(counts, case), run(reference, case))
    assert_same((counts.state(),), (reference.state(),))
    end = (length - 100, length - 1)
    assert_same(counts.lookup(tokens, *end), reference.lookup(tokens, *end))


@pytest.mark.slow
@every_backend
def test_tables_past_31_bits(backend: str, threads: int) -> None:
    """Two tables of 2^31 counts, 16 GiB: few of their pages are touched."""
    config = NgramConfig(min_order=9, max_order=9, buckets=1 << 31)
    tokens = np.random.default_rng(0).choice(np.array([5, 40_000, 2**32 - 1], np.uint32), 1000)
    counts = make_counts(backend, config, threads)
    stops = np.arange(64, 1000, 32)
    best = counts.score_windows(tokens, stops - 32, stops)
    matches = counts.lookup(tokens, 900, 999)
    del counts
    case = Case(config, tokens, stops - 32, stops)
    assert list(zip(*(a.tolist() for a in best), strict=True)) == published_score(case)
    reference = ReferenceCounts(config)
    run(reference, case)
    assert_same(matches, reference.lookup(tokens, 900, 999))


@every_backend
def test_counts_wrap(backend: str, threads: int) -> None:
    config = NgramConfig(min_order=1, max_order=2, buckets=1)
    counts = make_counts(backend, config, threads)
    counts.load_state(np.full((2, 2, 1), 2**32 - 1, np.uint32))
    counts.update(np.zeros(4, np.uint16), 0, 3)
    assert counts.state().ravel().tolist() == [2, 2, 2, 2]


@every_backend
def test_state_outlives_its_counts(backend: str, threads: int) -> None:
    config = NgramConfig(buckets=1 << 16)
    counts = make_counts(backend, config, threads)
    counts.update(np.arange(1000, dtype=np.uint16), 0, 999)
    state = counts.state()
    expected = state.copy()
    del counts
    np.testing.assert_array_equal(state, expected)
    again = make_counts(backend, config, threads)
    again.load_state(state)
    np.testing.assert_array_equal(again.state(), expected)


@every_backend
def test_bad_arguments(backend: str, threads: int) -> None:
    config = NgramConfig(buckets=16)
    counts = make_counts(backend, config, threads)
    good = np.arange(20, dtype=np.uint16)
    bad: list[NDArray[Any]] = [good.astype(t) for t in ("i8", "i2", ">u2")] + [good[::2], good.reshape(4, 5)]
    for tokens in bad:
        with pytest.raises(ValueError, match="tokens must be"):
            counts.update(tokens, 0, 3)
        with pytest.raises(ValueError, match="tokens must be"):
            counts.lookup(tokens, 0, 3)
        with pytest.raises(ValueError, match="tokens must be"):
            counts.score_windows(tokens, np.array([0]), np.array([3]))
    for start, stop in ((-1, 3), (4, 3), (0, 20)):
        for call in (counts.update, counts.lookup):
            with pytest.raises(ValueError, match="outside"):
                call(good, start, stop)
        with pytest.raises(ValueError, match="outside"):
            counts.score_windows(good, np.array([start]), np.array([stop]))
    with pytest.raises(ValueError, match="outside"):
        counts.update(good[:0], 0, 0)
    with pytest.raises(ValueError, match="2 firsts for 1 stops"):
        counts.score_windows(good, np.array([0, 1]), np.array([1]))
    bad = [np.zeros((8, 2, 8), np.uint32), np.zeros((8, 2, 16), np.int32)]
    for state in bad:
        with pytest.raises(ValueError, match="state is"):
            counts.load_state(state)
    assert not counts.state().any()


def test_cpu_takes_no_other_integers() -> None:
    counts = make_counts("cpu", NgramConfig(buckets=16))
    good = np.arange(20, dtype=np.uint16)
    bad: list[NDArray[Any]] = [np.array([0], np.int32), np.array([[0]]), np.zeros(4, np.int64)[::2]]
    for firsts in bad:
        with pytest.raises(ValueError, match="firsts must be"):
            counts.score_windows(good, firsts, np.array([3]))
    with pytest.raises(ValueError, match="threads"):
        make_counts("cpu", NgramConfig(buckets=16), threads=0)


def test_unknown_backend_names_the_others() -> None:
    with pytest.raises(InputError, match=r"choose from auto, reference, cpu"):
        make_counts("gpu", NgramConfig())


@every_backend
@quick
@given(case=cases(), data=st.data())
def test_lookup_targets(backend: str, threads: int, case: Case, data: st.DataObject) -> None:
    """As if the target were each token in turn."""
    counts = make_counts(backend, case.config, threads)
    counts.update(case.tokens, 0, len(case.tokens) - 1)
    position = data.draw(st.integers(0, len(case.tokens) - 2))
    found = counts.lookup_targets(case.tokens, position, 4)
    for target in range(4):
        tokens = case.tokens.copy()
        tokens[position + 1] = target
        expected = counts.lookup(tokens, position, position + 1)
        assert_same(tuple(table[:, target : target + 1] for table in found), tuple(expected))


@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize("order", [1, 2, 3, 9])
def test_what_is_read_around_a_position_gives_the_counts_of_the_whole_stream(order: int, gap: bool) -> None:
    """Also for order 1 alone, which reads no context."""
    config = NgramConfig(min_order=1, max_order=order, buckets=64, min_count=1, context_gap=gap)
    tokens: Tokens = np.random.default_rng(0).integers(0, 5, 40).astype(np.uint16)
    counts = ReferenceCounts(config)
    counts.update(tokens, 0, 30)
    for position in range(39):
        part, base = around(tokens, position, position + 1, config)
        for ours, whole in (
            (counts.lookup_targets(part, position - base, 5), counts.lookup_targets(tokens, position, 5)),
            (counts.lookup(part, position - base, position - base + 1), counts.lookup(tokens, position, position + 1)),
        ):
            np.testing.assert_array_equal(ours.context, whole.context)
            np.testing.assert_array_equal(ours.full, whole.full)
