"""Threads that share one object, or the work of one call, give the answers of one thread."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from ngram_eval import NgramMemory
from ngram_eval import _core as core
from ngram_eval.config import ExactConfig
from ngram_eval.scorers.base import Vocabulary
from ngram_eval.scorers.exact.model import make_model
from tests.support.exact import repetitive, uniform

THREADS, CALLS, V = 4, 8, 24
TOKENS = np.random.default_rng(1).integers(0, V, 300).astype(np.uint16)
ROWS = np.random.default_rng(2).dirichlet(np.full(V, 0.5), 300)


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """work(thread) of each thread, begun together."""
    barrier = Barrier(THREADS)

    def begin(thread: int) -> Any:
        barrier.wait()
        return work(thread)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


def learned(preset: str) -> NgramMemory:
    """A memory that has seen tokens, and whose weights have moved."""
    surfaces: list[bytes | None] = [bytes([97 + i]) for i in range(V)]
    memory = NgramMemory(preset, vocabulary=Vocabulary(V, surfaces, neural=True))
    memory.observe(TOKENS, ROWS)
    return memory


@pytest.mark.parametrize("preset", ["exact", "tilt", "mixer"])
def test_a_memory_with_learned_weights(preset: str) -> None:
    memory = learned(preset)
    expected = [memory.distribution(row) for row in ROWS[:CALLS]]
    for found in at_once(lambda thread: [memory.distribution(row) for row in ROWS[:CALLS]]):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("preset", ["exact", "mixer"])
def test_a_memory_that_some_observe_while_others_ask(preset: str) -> None:
    memory = learned(preset)
    before = len(memory)

    def work(thread: int) -> None:
        for row in ROWS[:CALLS]:
            assert abs(memory.distribution(row).sum() - 1) < 1e-9
            if thread % 2:
                memory.observe([thread], row[None])

    at_once(work)
    assert len(memory) == before + CALLS * (THREADS // 2)


def test_hashed_counts_that_threads_fill_and_read() -> None:
    def counts() -> core.HashedCounts:
        return core.HashedCounts(
            min_order=2, max_order=5, buckets=256, min_count=1, context_lag=0, target_backoff=False, threads=2
        )

    shared, alone = counts(), counts()
    starts, stops = np.arange(0, 250, 50), np.arange(50, 300, 50)

    def work(thread: int) -> None:
        for _ in range(CALLS):
            shared.update(TOKENS, 0, 299)
            shared.lookup(TOKENS, 0, 299)
            shared.score_windows(TOKENS, starts, stops)

    at_once(work)
    for _ in range(THREADS * CALLS):
        alone.update(TOKENS, 0, 299)
        alone.score_windows(TOKENS, starts, stops)
    np.testing.assert_array_equal(shared.state(), alone.state())


def test_one_exact_model_whose_readers_write_scratch() -> None:
    model = core.ExactModel(max_order=4, chain=True, tilt="learned", tilt_factor=1.0, tilt_confidence=0.3)
    entropy = np.ones(300, np.float32)
    model.score(TOKENS, ROWS, entropy, together=False)
    expected = model.distribution(ROWS[0], 1.0)
    for found in at_once(lambda thread: [(model.distribution(ROWS[0], 1.0), model.learned()) for _ in range(CALLS)]):
        for row, _ in found:
            np.testing.assert_array_equal(row, expected)


CUTS = [0, 1024, 1025, 2048, 3071, 5119, 6400]
"""Calls that begin a thread, of whole chunks or not, and calls too short for one; more chunks than it may be ahead."""


def test_a_thread_that_counts_ahead_changes_no_number() -> None:
    tokens, (p, entropy) = repetitive(40, CUTS[-1]), uniform(40, CUTS[-1])
    alone, ahead = make_model("cpu", 12, ExactConfig()), make_model("cpu", 12, ExactConfig(), threads=2)
    for start, stop in pairwise(CUTS):
        part = slice(start, stop)
        expected, found = (m.score(tokens[part], p[part], entropy[part], together=False) for m in (alone, ahead))
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_array_equal(ahead.evidence(3), alone.evidence(3))
    for name, learned in alone.learned().items():
        np.testing.assert_array_equal(ahead.learned()[name], learned)
    row = np.full(40, 1 / 40)
    np.testing.assert_array_equal(ahead.distribution(row, 1.0), alone.distribution(row, 1.0))
