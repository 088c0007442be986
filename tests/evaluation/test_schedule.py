"""Evaluations shared by ranks, as threads of this process: one answer on any number of them, interrupted or not."""

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ngram_eval.bpb import Tally, as_nats
from ngram_eval.config import EvalConfig, NgramConfig, WindowConfig, preset
from ngram_eval.distributed.prefill import faster_prefill, prefill_cuts, prefill_stop, scan
from ngram_eval.distributed.ranks import Ranks
from ngram_eval.errors import InputError
from ngram_eval.evaluation import engine
from ngram_eval.evaluation.evaluate import Share, evaluate
from ngram_eval.evaluation.job import Job
from ngram_eval.evaluation.reader import Reading
from ngram_eval.evaluation.schedule import beside, sharing_of
from ngram_eval.evaluation.settings import CheckpointSettings, HardwareSettings, Settings
from ngram_eval.models.saved_scores import RememberingSource, SavedScores
from ngram_eval.models.source import Asked, NeuralSource, Stats, UniformSource
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.models.transformer_source import TransformerSource
from ngram_eval.scorers.hashed.scorer import HashedScorer
from ngram_eval.text.samples import SAMPLES
from ngram_eval.text.shards import TokenStream
from ngram_eval.text.windows import Plan, Windows, share
from ngram_eval.timing import Stopwatch
from tests.support.streams import Stream
from tests.support.threads import on_ranks

TARGETS = 2816


def configured(name: str, seq_len: int = 256, stride: int = 24) -> EvalConfig:
    config = preset(name)
    return replace(
        config,
        window=replace(config.window, seq_len=seq_len, stride=stride),
        ngram=replace(config.ngram, buckets=512, max_order=min(config.ngram.max_order, 12)),
        mixer=replace(config.mixer, groups=1 << 10),
    )


def job_of(
    stream: Stream, source: NeuralSource, ranks: Ranks, backend: str = "cpu", settings: Settings | None = None
) -> Job:
    return Job(
        settings=settings or Settings(),
        ranks=ranks,
        stream=TokenStream(stream.tokens, (stream.shard,), len(stream.tokens)),
        tokenizer=None,
        manifest=None,
        source=source,
        backend=backend,
    )


UNSAVED = CheckpointSettings()


def evaluated(
    stream: Stream,
    source: NeuralSource,
    config: EvalConfig,
    world: int,
    backend: str = "cpu",
    saving: CheckpointSettings = UNSAVED,
    **options: Any,
) -> Tally:
    """The sum over ranks."""
    settings = Settings(hardware=HardwareSettings(threads=1, **{"batch_windows": 4, **options}))

    def one(ranks: Ranks) -> Share:
        job = job_of(stream, source, ranks, backend, settings)
        return evaluate(job, "it", config, saving=saving, clock=Stopwatch())

    results = on_ranks(world, one)
    return reduce(add, (found.tally for found in results), results[0].before.tally)


@pytest.fixture(scope="module")
def model() -> TransformerSource:
    """A small model, forwarded in batches of four windows."""
    torch.manual_seed(0)
    small = ModelConfig(vocab_size=50, width=32, layers=3, heads=2, kv_heads=2, value_layers=(2,))
    transformer = Transformer(small).eval()
    for parameter in transformer.parameters():  # output projections begin at zero
        torch.nn.init.normal_(parameter, std=0.1)
    return TransformerSource(
        transformer, train_seq_len=64, batch_windows=4, device=torch.device("cpu"), dtype=torch.float32
    )


WAYS: list[tuple[str, dict[str, Any]]] = [
    ("hashed", {"ngram": "sharded", "prefill": "scan"}),
    ("hashed", {"ngram": "sharded", "prefill": "local"}),
    ("hashed", {"ngram": "pipelined"}),
    ("pr890", {"ngram": "pipelined"}),
    ("exact", {}),
    ("tilt", {}),
    ("mixer", {}),
]


@pytest.mark.parametrize(("name", "way"), WAYS)
def test_a_model_gives_one_answer_on_any_number_of_ranks(
    stream: Stream, model: TransformerSource, name: str, way: dict[str, Any]
) -> None:
    """To the bit, with the sum over the vocabulary at the samples, and more ranks than batches."""
    config = configured(name)
    short = replace(stream, tokens=stream.tokens[:1400])
    alone = evaluated(short, model, config, 1)
    assert alone.sampled == SAMPLES
    assert alone.positions >= 1280
    for world in (3, 40) if way else (40,):
        assert evaluated(short, model, config, world, **way) == alone


@pytest.mark.parametrize(("name", "way"), WAYS[:-2])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    window=st.tuples(st.integers(1, 300), st.integers(1, 300)).map(sorted),
    world=st.integers(1, 9),
    batch_windows=st.integers(1, 50),
    by_window=st.booleans(),
)
def test_scores_give_one_answer_whatever_the_windows_and_batches(
    stream: Stream, name: str, way: dict[str, Any], window: list[int], world: int, batch_windows: int, by_window: bool
) -> None:
    config = configured(name, stride=window[0], seq_len=window[1])
    config = replace(config, exact=replace(config.exact, by_window=by_window and name == "exact"))
    source = SavedScores(stream.p_target, stream.entropy)
    alone = evaluated(stream, source, config, 1)
    assert evaluated(stream, source, config, world, **way, batch_windows=batch_windows) == alone


@pytest.mark.parametrize("prefill", ["scan", "local"])
@pytest.mark.parametrize("world", [2, 3, 5])
def test_pr890_depends_on_the_ranks_as_published(stream: Stream, world: int, prefill: str) -> None:
    source = SavedScores(stream.p_target, stream.entropy)
    found = evaluated(stream, source, configured("pr890", stride=32), world, prefill=prefill)
    expected = stream.published(seq_len=256, buckets=512, world=world)
    assert as_nats(found.nats) == pytest.approx(expected.nats, rel=1e-12)
    assert sum(found.hits_by_order.values()) == expected.hits.total()
    assert found.nats != evaluated(stream, source, configured("pr890", stride=32), 1).nats


@settings(max_examples=30)
@given(world=st.integers(1, 7), buckets=st.integers(1, 70), seed=st.integers(0, 99), at_once=st.integers(1, 300))
def test_a_scan_adds_up_what_lower_ranks_counted(world: int, buckets: int, seed: int, at_once: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 2**32 // max(world - 1, 1), (world, 3, 2, buckets)).astype(np.uint32)
    tables = counts.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ngram_eval.distributed.prefill._SCANNED_AT_ONCE", at_once)
        on_ranks(world, lambda ranks: scan(torch.from_numpy(tables[ranks.rank].view(np.int32)), ranks))
    for rank in range(world):
        assert (tables[rank] == counts[:rank].sum(axis=0)).all()


def test_a_scan_reports_an_overflow() -> None:
    tables = np.full((3, 1, 2, 8), 2**31, np.uint32)
    with pytest.raises(InputError, match="counted 4294967296 times, more than 4294967295: give more buckets"):
        on_ranks(3, lambda ranks: scan(torch.from_numpy(tables[ranks.rank].view(np.int32)), ranks))


@pytest.mark.parametrize("world", [2, 4, 8])
def test_a_scan_sends_twice_the_tables_whatever_the_number_of_ranks(world: int) -> None:
    tables = np.zeros((world, 2, 2, 64), np.uint32)

    def sent(ranks: Ranks) -> int:
        scan(torch.from_numpy(tables[ranks.rank].view(np.int32)), ranks)
        return ranks.sent

    assert on_ranks(world, sent) == [2 * tables[0].nbytes * (world - 1) // world] * world


@given(
    targets=st.integers(1, 400),
    shape=st.tuples(st.integers(1, 64), st.integers(1, 64)).map(sorted),
    world=st.integers(1, 9),
    hole=st.booleans(),
    rescore=st.booleans(),
)
def test_what_ranks_count_for_a_scan_is_what_each_would_count_alone(
    targets: int, shape: list[int], world: int, hole: bool, rescore: bool
) -> None:
    plan = Plan(targets, WindowConfig(seq_len=shape[1], stride=shape[0], rescore_tail=rescore))
    config = NgramConfig(prefill_hole=hole)
    cuts = prefill_cuts(plan, world, 3, config)
    assert cuts == sorted(cuts)
    assert cuts[0] == 0
    for rank in range(world):
        rows = share(plan, rank, world, 3)
        if rows:
            assert cuts[rank] == prefill_stop(plan, rows, config)


def test_the_first_forward_passes_run_beside_the_scan(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scan waits here until a forward pass has run, which it would do forever were they one after the other."""
    forwarded = threading.Event()
    original = HashedScorer.scan

    class Source(SavedScores):
        def stats(self, tokens: Any, windows: Windows, whole: Asked | None = None) -> Stats:
            forwarded.set()
            return super().stats(tokens, windows, whole)

    def waiting(self: HashedScorer, ranks: Ranks) -> None:
        assert forwarded.wait(60)
        original(self, ranks)

    monkeypatch.setattr(HashedScorer, "scan", waiting)
    config, source = configured("hashed"), Source(stream.p_target, stream.entropy)
    two = evaluated(stream, source, config, 2, prefill="scan")
    assert two == evaluated(stream, source, config, 1)


def test_the_faster_prefill_depends_on_stream_and_tables(stream: Stream) -> None:
    cuts = [0, 1_000_000, 2_000_000, 3_000_000]
    assert faster_prefill(cuts, NgramConfig(buckets=1 << 18)) == "scan"
    assert faster_prefill(cuts, NgramConfig(buckets=1 << 22)) == "local"
    assert faster_prefill([0], NgramConfig(buckets=1)) == "local"
    assert faster_prefill([0, 10**9], NgramConfig(buckets=1)) == "local", "of two ranks the first counts as much"


class Interrupted(Exception):
    """The run ends here."""


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    way=st.sampled_from([*WAYS[:5], ("pr890", {"ngram": "sharded"})]),
    worlds=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    stops=st.lists(st.integers(0, 30), min_size=20, max_size=20),
    every=st.integers(1, 400),
)
def test_interrupted_anywhere_and_resumed_on_any_ranks_the_answer_is_the_same(
    stream: Stream,
    tmp_path_factory: pytest.TempPathFactory,
    way: tuple[str, dict[str, Any]],
    worlds: list[int],
    stops: list[int],
    every: int,
) -> None:
    """Each rank stops after a number of readings of its own, ahead of or behind its last checkpoint."""
    name, options = way
    config, source = configured(name), SavedScores(stream.p_target, stream.entropy)
    source.batch_windows = 4
    split = name == "pr890" and options["ngram"] == "sharded"
    if split:
        worlds = [worlds[0]] * len(worlds)
    expected = evaluated(stream, source, config, worlds[-1], **options)
    folder = tmp_path_factory.mktemp("checkpoint")
    left = iter(stops)
    original = engine.Engine.score

    for attempt, world in enumerate(worlds):
        budgets = {}
        for rank in range(world):
            budgets[rank] = next(left, 0) if attempt + 1 < len(worlds) else 10**9

        def limited(self: engine.Engine, reading: Reading, budgets: dict[int, int] = budgets) -> None:
            rank = self.checkpoint._ranks.rank  # type: ignore[union-attr]
            budgets[rank] -= 1
            if budgets[rank] < 0:
                raise Interrupted
            original(self, reading)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine.Engine, "score", limited)
            try:
                saving = CheckpointSettings(checkpoint=folder, every=every, resume=attempt > 0)
                found = evaluated(stream, source, config, world, saving=saving, **options)
            except Interrupted:
                continue
    assert found == expected


def test_memory_is_exchanged_bit_for_bit(stream: Stream, model: TransformerSource) -> None:
    """Ranks that remember different windows of a position all keep the first one's statistics, as one rank does."""
    config = configured("pr890", stride=32).window
    plan, samples = Plan(1280, config), [3, 700, 1200]

    def remembered(ranks: Ranks) -> RememberingSource:
        memory = RememberingSource(model, 1399, config.seq_len, samples)
        rows = share(plan, ranks.rank, ranks.world, 4)
        for batch in (plan[row : row + 1] for row in rows):
            asked = np.isin(batch.positions(), samples)
            memory.stats(stream.tokens[:1400], batch, *[asked][: int(asked.any())])
        memory.exchange(ranks)
        return memory

    (alone,) = on_ranks(1, remembered)
    assert np.isnan(alone.p_target).sum() == 1399 - 1280
    for world in (2, 5):
        for memory in on_ranks(world, remembered):
            np.testing.assert_array_equal(memory.p_target, alone.p_target)
            np.testing.assert_array_equal(memory.entropy, alone.entropy)
            np.testing.assert_array_equal(memory._window_start, alone._window_start)
            assert memory._rows.keys() == set(samples)
            assert all((memory._rows[position] == alone._rows[position]).all() for position in samples)


class FailingSource(UniformSource):
    """Breaks off at a position."""

    batch_windows = 4

    def stats(self, tokens: Any, windows: Windows, whole: Asked | None = None) -> Stats:
        if windows.stop[-1] > 1500:
            raise InputError("no more")
        return super().stats(tokens, windows, whole)


@pytest.mark.parametrize("name", ["hashed", "exact"])
def test_a_failing_source_ends_the_engine(stream: Stream, name: str) -> None:
    with pytest.raises(InputError, match="no more"):
        evaluated(stream, FailingSource(50), configured(name), 1)
    assert not [thread for thread in threading.enumerate() if thread.name == "engine"]


def test_the_engine_has_ended_when_a_failing_source_is_told_of() -> None:
    """A process that exits while a thread is in compiled code may abort."""
    raised, ended = threading.Event(), []

    def items() -> Iterator[int]:
        yield 1
        raised.set()
        raise InputError("no more")

    def work(readings: Iterator[int]) -> None:
        assert list(readings) == [1]
        assert raised.wait(60)
        torch.cumsum(torch.ones(2_000_000), 0)
        ended.append(True)

    with pytest.raises(InputError, match="no more"):
        beside(work, items(), Stopwatch())
    assert ended


def test_a_failing_engine_ends_the_forward_passes() -> None:
    made = []

    def items() -> Iterator[int]:
        for i in itertools.count():
            made.append(i)
            yield i

    def work(readings: Iterator[int]) -> None:
        for i in readings:
            if i == 10:
                raise InputError("full")

    with pytest.raises(InputError, match="full"):
        beside(work, items(), Stopwatch())
    assert len(made) < 20


def test_an_engine_that_is_behind_holds_up_the_forward_passes() -> None:
    made, ahead = [0], []

    def items() -> Iterator[int]:
        for i in range(50):
            made[0] = i
            yield i

    def work(readings: Iterator[int]) -> int:
        total = 0
        for i in readings:
            torch.cumsum(torch.ones(200_000), 0)
            ahead.append(made[0] - i)
            total += i
        return total

    assert beside(work, items(), Stopwatch()) == sum(range(50))
    assert max(ahead) <= 6


def test_sharing_is_refused_where_it_can_t_be(stream: Stream) -> None:
    source = SavedScores(stream.p_target, stream.entropy)
    with pytest.raises(InputError, match="ngram sharded and preset it: it learns"):
        evaluated(stream, source, configured("exact"), 1, ngram="sharded")
    with pytest.raises(InputError, match="backend triton counts on the GPU"):
        sharing_of("pipelined", "hashed", configured("hashed"), "triton")
