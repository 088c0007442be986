"""Evaluations that begin with a kept memory: charged as after its text, on any number of ranks, resumed or not."""

from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ngram_eval
from ngram_eval.bpb import Tally, as_nats
from ngram_eval.cli import memory
from ngram_eval.config import EvalConfig, preset
from ngram_eval.distributed.ranks import Ranks
from ngram_eval.evaluation.evaluate import Share, evaluate
from ngram_eval.evaluation.job import Job
from ngram_eval.evaluation.settings import CheckpointSettings, HardwareSettings, Settings
from ngram_eval.kept import file as kept_file
from ngram_eval.models.source import UniformSource, statistics
from ngram_eval.scorers.base import Vocabulary
from ngram_eval.scorers.make import make_scorer
from ngram_eval.text.kept import kept_of
from ngram_eval.text.shards import TokenStream
from ngram_eval.text.stream import Joined
from ngram_eval.text.windows import Plan
from ngram_eval.timing import Stopwatch
from tests.support.evaluator import Evaluate, fails, small
from tests.support.streams import Stream
from tests.support.threads import on_ranks

KEPT, SCORED = 900, 1281
SOURCE = UniformSource(50)


def configured(name: str) -> EvalConfig:
    config = preset(name)
    return replace(
        config,
        window=replace(config.window, seq_len=256, stride=24),
        ngram=replace(config.ngram, buckets=512),
        mixer=replace(config.mixer, groups=1 << 10),
    )


def evaluated(stream: Stream, config: EvalConfig, world: int = 1, **options: Any) -> Tally:
    """The tally over ranks of the tokens after the first `KEPT`, which are kept."""
    tokens = stream.tokens[KEPT : KEPT + SCORED]
    settings = Settings(samples=0, hardware=HardwareSettings(threads=1, batch_windows=4, **options))

    def one(ranks: Ranks) -> Share:
        job = Job(
            settings=settings,
            ranks=ranks,
            stream=TokenStream(tokens, (), len(tokens)),
            tokenizer=None,
            manifest=None,
            source=SOURCE,
            backend="cpu",
            kept=kept_of(stream.tokens[:KEPT], None, 50),
        )
        return evaluate(job, "it", config, saving=CheckpointSettings(), clock=Stopwatch())

    return reduce(add, (found.tally for found in on_ranks(world, one)))


@pytest.mark.parametrize("name", ["hashed", "pr890", "exact", "tilt", "mixer"])
def test_a_text_is_charged_as_what_follows_the_memory(stream: Stream, name: str) -> None:
    config, tokens = configured(name), stream.tokens[: KEPT + SCORED]
    scorer = make_scorer("cpu", config, vocabulary=Vocabulary(50, None, neural=False))
    scorer.prefill(tokens, 0, KEPT, lambda counted: None)
    plan = Plan(SCORED - 1, config.window)
    windows = plan[0 : len(plan)]
    stats = statistics(SOURCE, tokens[KEPT:], windows, rows=config.needs_rows)
    moved = replace(windows, **{at: getattr(windows, at) + KEPT for at in ("start", "first", "stop")})
    scorer.score(tokens, moved, stats)
    expected, found = scorer.tally(), evaluated(stream, config)
    assert (found.nats, found.positions) == (expected.nats, expected.positions)
    assert found.hits_by_order == expected.hits_by_order
    alone = make_scorer("cpu", config, vocabulary=Vocabulary(50, None, neural=False))
    alone.score(tokens[KEPT:], windows, stats)
    assert as_nats(found.nats) < 0.98 * as_nats(alone.tally().nats), "it helps"


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("hashed", {"ngram": "sharded", "prefill": "scan"}),
        ("hashed", {"ngram": "sharded", "prefill": "local"}),
        ("hashed", {"ngram": "pipelined"}),
        ("exact", {}),
    ],
)
def test_ranks_count_a_memory_once_each(stream: Stream, name: str, way: dict[str, Any]) -> None:
    """Also those that have no window, and come before one that has."""
    config = configured(name)
    alone = evaluated(stream, config)
    for world in (2, 5, 60):
        assert evaluated(stream, config, world, **way) == alone


def test_a_joined_stream_is_both_streams() -> None:
    first, rest = np.arange(5, dtype=np.uint16), np.arange(5, 9, dtype=np.uint32)
    whole = Joined(first, rest)
    assert len(whole) == 9
    for start in range(10):
        for stop in range(start, 10):
            assert whole[start:stop].tolist() == list(range(start, stop))
            assert whole[start:stop].dtype == np.uint32


@pytest.fixture
def kept(stream: Stream, tmp_path: Path) -> Path:
    """A memory of the stream's beginning."""
    kept_file.write(tmp_path / "a.ngm", kept_of(stream.tokens[:KEPT], None, 50), "exact")
    return tmp_path / "a.ngm"


def test_a_run_says_what_it_began_with(
    stream: Stream, kept: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*small(stream), "--preset", "exact"]
    without, once = evaluate(*arguments)["exact"], evaluate(*arguments, "--memory", kept)["exact"]
    assert without["memory"] is None
    size = kept.stat().st_size
    sha256 = kept_of(stream.tokens[:KEPT], None, 50).sha256
    assert once["memory"] == {
        "sha256": sha256,
        "tokens": KEPT,
        "text_bytes": 0,
        "bytes": size,
        "learned": False,
        "model_bytes": None,
    }
    assert once["nats"] < without["nats"]
    assert [one["path"] for one in once["inputs"] if one["role"] == "memory"] == [str(kept)]
    assert f"900 tokens counted before the text, in {size:,} bytes of 16,000,000" in " ".join(
        capsys.readouterr().out.split()
    )
    twice = evaluate(*arguments, "--memory", kept, kept)["exact"]
    assert twice["memory"]["tokens"] == 2 * KEPT
    assert twice["nats"] != once["nats"]


def test_a_run_resumes_with_its_memory_alone(
    stream: Stream, kept: Path, evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*small(stream), "--preset", "exact", "--checkpoint", tmp_path / "c", "--every", 100]
    first = evaluate(*arguments, "--memory", kept)["exact"]
    again = evaluate(*arguments, "--memory", kept, "--resume")["exact"]
    assert (again["nats"], again["resumed_positions"]) == (first["nats"], first["positions"])
    assert "of another evaluation: memory.learned was False" in fails(capsys, evaluate, *arguments, "--resume")


def test_a_model_in_python_is_evaluated_with_a_memory(stream: Stream, kept: Path) -> None:
    logits = np.zeros((SCORED, 50))
    tokens = stream.tokens[KEPT : KEPT + SCORED + 1]
    alone, once, thrice = (
        ngram_eval.evaluate(logits, tokens, configured("exact"), memory=m) for m in ((), kept, [kept] * 3)
    )
    assert alone.memory is None
    assert once.nats < alone.nats
    assert once.memory is not None
    assert thrice.memory is not None
    assert (once.memory["tokens"], thrice.memory["tokens"]) == (KEPT, 3 * KEPT)
    assert [one["role"] for one in once.inputs] == ["data", "memory"]


def test_a_memory_of_more_tokens_is_refused(
    stream: Stream, tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    kept_file.write(tmp_path / "b.ngm", kept_of(np.array([1, 60], np.uint16), None, 61), "none")
    flags = ["--data", stream.shard, "--uniform", "--vocab-size", 50, "--preset", "exact", "--memory"]
    assert "is a memory of a vocabulary of 61 tokens, and here are 50" in fails(
        capsys, evaluate, *flags, tmp_path / "b.ngm"
    )


def test_what_is_learned_on_a_memory_comes_along(
    stream: Stream, kept: Path, evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once by --learn, or from the file, whose weights are rounded; only for that method and that model."""
    data = ["--data", stream.shard, "--uniform", "--vocab-size", 50, "--seq-len", 256]
    learned = tmp_path / "learned.ngm"
    command = [
        "learn",
        str(kept),
        "--uniform",
        "--preset",
        "exact",
        "--coding",
        "none",
        "--out",
        str(learned),
        "--quiet",
    ]
    memory.main(command, "ngram-eval memory")
    counted, at_once, from_file, other = (
        evaluate(*data, "--preset", "exact", "--memory", *flags)["exact"]
        for flags in ([kept], [kept, "--learn"], [learned], [learned, "--max-order", 5])
    )
    assert at_once["nats"] < counted["nats"]
    assert from_file["nats"] == pytest.approx(at_once["nats"], rel=1e-2)
    assert from_file["nats"] < counted["nats"]
    found = [one["memory"]["learned"] for one in (counted, at_once, from_file, other)]
    assert found == [False, True, True, False]
    assert "--learn is from the text of --memory" in fails(capsys, evaluate, *data, "--learn")
    needs_one = fails(capsys, evaluate, *small(stream), "--preset", "exact", "--memory", kept, "--learn")
    assert "own text needs a model that can be run on it" in needs_one
    with pytest.raises(SystemExit):
        memory.main([*command[:-2], str(learned), "--preset", "hashed"], "ngram-eval memory")
    assert "--preset hashed only counts" in capsys.readouterr().err
