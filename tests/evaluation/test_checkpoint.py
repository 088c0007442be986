"""Checkpoints on disk: what they hold, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngram_eval.bpb import Tally
from ngram_eval.distributed.ranks import ALONE, Ranks
from ngram_eval.errors import InputError
from ngram_eval.evaluation import engine
from ngram_eval.evaluation.checkpoint import Checkpoint, Record, fingerprint, joined
from ngram_eval.models import source as neural
from ngram_eval.text.shards import write_shard
from tests.support.evaluator import Evaluate
from tests.support.streams import Stream

runs = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)).map(lambda t: range(t[0], t[0] + t[1])), max_size=6)


@given(runs, st.integers(0, 60), st.integers(0, 60))
def test_what_remains_is_what_was_not_done(done: list[range], start: int, length: int) -> None:
    rows = [row for run_ in done for row in run_]
    if len(set(rows)) < len(rows):
        with pytest.raises(ValueError, match="were scored twice"):
            joined(done)
        return
    record, asked = Record(done=joined(done)), range(start, start + length)
    assert [row for run_ in record.done for row in run_] == sorted(rows)
    assert all(a.stop < b.start for a, b in zip(record.done, record.done[1:], strict=False))
    assert [row for run_ in record.remaining(asked) for row in run_] == [row for row in asked if row not in rows]


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    """From all ranks' files, once; later ones replace earlier ones, and a new run takes over all of them."""
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    one = Tally(nats=2**90, neural_nats=3, positions=5, bytes=7, hits_by_order={2: 4, 24: 1}, sampled=1)

    def checkpoint(rank: int) -> Checkpoint:
        return Checkpoint(tmp_path / "here", {"config": {"a": 1}}, ALONE, 1) if rank == 0 else other

    first = checkpoint(0)
    assert first.begin(resume=True) == Record()
    other = Checkpoint(tmp_path / "here", {"config": {"a": 1}}, ALONE, 1)
    other._ranks = Ranks(1, 2)
    first.write(Record(done=[range(3)], tally=one))
    first.write(Record(done=[range(5)], tally=one, learned={"weights": weights}))
    other.write(Record(done=[range(9, 12)], tally=one))
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == [
        "rank-0000-00000.ckpt",
        "rank-0000-00001.ckpt",
        "start-0000.ckpt",
    ]
    for generation in ("0001", "0002"):
        found = checkpoint(0).begin(resume=True)
        assert found.done == [range(5), range(9, 12)]
        assert found.tally == one + one
        np.testing.assert_array_equal(found.learned["weights"], weights)
        assert [path.name for path in (tmp_path / "here").iterdir()] == [f"start-{generation}.ckpt"]


def test_files_of_an_earlier_generation_do_not_count(tmp_path: Path) -> None:
    """As after a kill between writing the new start and removing what it takes over."""
    checkpoint = Checkpoint(tmp_path, {}, ALONE, 1)
    checkpoint.begin(resume=False)
    checkpoint.write(Record(done=[range(4)], tally=Tally(nats=5)))
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    Checkpoint(tmp_path, {}, ALONE, 1).begin(resume=True)
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / ".start-0002.ckpt.half").write_bytes(b"cut short")
    found = Checkpoint(tmp_path, {}, ALONE, 1).begin(resume=True)
    assert found.tally.nats == 5
    assert [path.name for path in tmp_path.iterdir()] == ["start-0002.ckpt"]


class Interrupted(Exception):
    """The run ends here."""


@pytest.fixture
def learner(request: pytest.FixtureRequest) -> str:
    """A preset that learns online; `exact` where a test names none."""
    name: str = getattr(request, "param", "exact")
    return name


@pytest.fixture
def interrupted(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluate: Evaluate, learner: str
) -> list[object]:
    """Arguments of an evaluation that was broken off after three of its batches, with a checkpoint after each."""
    monkeypatch.setattr(neural.UniformSource, "batch_windows", 20)
    arguments = ["--data", stream.shard, "--uniform", "--vocab-size", 50, "--seq-len", 256, "--buckets", 512]
    arguments += ["--groups", 1024, "--preset", learner, "--checkpoint", tmp_path / "state", "--every", 1]
    original, left = engine.Engine.score, iter(range(3))

    def limited(self: engine.Engine, reading: Any) -> None:
        if next(left, None) is None:
            raise Interrupted
        original(self, reading)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Engine, "score", limited)
        with pytest.raises(Interrupted):
            evaluate(*arguments)
    return arguments


def refused(capsys: Any, evaluate: Evaluate, *arguments: object) -> str:
    with pytest.raises(SystemExit) as exit_info:
        evaluate(*arguments)
    assert exit_info.value.code == 2
    return str(capsys.readouterr().err)


@pytest.mark.parametrize("learner", ["exact", "mixer"], indirect=True)
def test_resuming_gives_the_same_bits(interrupted: list[object], evaluate: Evaluate, capsys: Any, learner: str) -> None:
    found = evaluate(*interrupted, "--resume")[learner]
    assert f"{learner}: 1,536 of 2,816 positions were scored before this run" in capsys.readouterr().out
    assert found["resumed_positions"] == 256 + 2 * 20 * 32
    plain = [argument for argument in interrupted[:-4]]
    expected = evaluate(*plain)[learner]
    assert expected["resumed_positions"] == 0
    for name in ("nats", "neural_nats", "positions", "hits_by_order", "vocabulary_sum"):
        assert found[name] == expected[name], name
    again = evaluate(*interrupted, "--resume")[learner]  # nothing is left to do
    assert again["resumed_positions"] == again["positions"]
    assert again["nats"] == expected["nats"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--max-order", 12], "config.ngram.max_order was 24, here it is 12"),
        (["--stride", 16], "config.window.stride was 32, here it is 16"),
        (["--max-tokens", 2000], "tokens was 3000, here it is 2000"),
        (["--vocab-size", 60], "neural source.vocab_size was 50, here it is 60"),
    ],
)
def test_a_checkpoint_of_another_evaluation_is_refused(
    interrupted: list[object], evaluate: Evaluate, capsys: Any, changed: list[object], message: str
) -> None:
    assert message in refused(capsys, evaluate, *interrupted, "--resume", *changed)
    assert evaluate(*interrupted, "--resume")["exact"]["resumed_positions"] > 0, "nothing is lost"


def test_a_checkpoint_of_other_data_is_refused(
    interrupted: list[object], stream: Stream, evaluate: Evaluate, capsys: Any, tmp_path: Path
) -> None:
    tokens = stream.tokens.copy()
    tokens[2999] ^= 1
    write_shard(tmp_path / "data.bin", tokens)
    message = refused(capsys, evaluate, *interrupted, "--resume", "--data", tmp_path / "data.bin")
    assert "data.data.bin was" in message
    assert "evaluate as before, or give another --checkpoint folder" in message


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
@pytest.mark.parametrize("name", ["start-0000.ckpt", "rank-0000-00000.ckpt"])
def test_a_damaged_checkpoint_is_refused(
    interrupted: list[object], evaluate: Evaluate, capsys: Any, tmp_path: Path, name: str, damage: str
) -> None:
    path = tmp_path / "state" / "exact" / name
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 1
    path.write_bytes({"cut": content[:-1], "flipped": bytes(flipped), "empty": b"", "text": b"hello\n"}[damage])
    message = refused(capsys, evaluate, *interrupted, "--resume")
    assert f"{path} is damaged or not a checkpoint" in message
    remedy = (
        "remove the folder and begin again" if "start" in name else "remove it, and what it records is scored again"
    )
    assert remedy in message
    if "rank" in name:
        path.unlink()
        assert evaluate(*interrupted, "--resume")["exact"]["resumed_positions"] == 0


def test_a_checkpoint_in_the_way_is_not_overwritten(
    interrupted: list[object], evaluate: Evaluate, capsys: Any, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in tmp_path.glob("state/*/*")}
    assert "give --resume to go on from it, or an empty folder" in refused(capsys, evaluate, *interrupted)
    assert {path: path.read_bytes() for path in tmp_path.glob("state/*/*")} == before


def test_a_split_result_stays_on_its_number_of_ranks(
    stream: Stream, evaluate: Evaluate, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--data", stream.shard, "--scores", stream.scores, "--seq-len", 256, "--buckets", 512]
    arguments += ["--preset", "pr890", "--checkpoint", tmp_path / "state"]
    evaluate(*arguments)
    monkeypatch.setattr(
        "ngram_eval.evaluation.evaluate.fingerprint",
        lambda job, *more: fingerprint(replace(job, ranks=Two(0, 2)), *more),
    )
    message = refused(capsys, evaluate, *arguments, "--resume")
    assert "number of ranks was 1, here it is 2" in message


class Two(Ranks):
    """Two ranks of which the other says nothing."""

    def gather(self, item: Any) -> list[Any]:
        return [item, []]

    def broadcast(self, item: Any) -> Any:
        return item


def test_flags_of_checkpoints_that_do_not_go_together(evaluate: Evaluate, capsys: Any, tmp_path: Path) -> None:
    assert "--resume needs a checkpoint" in refused(capsys, evaluate, "--resume")
    both = ("--checkpoint", tmp_path / "c", "--save-scores", tmp_path / "s.npz")
    assert "--save-scores needs the statistics of one whole run" in refused(capsys, evaluate, *both)
    assert "--every is 0" in refused(capsys, evaluate, "--every", 0)
    assert "--rank-timeout is 0" in refused(capsys, evaluate, "--rank-timeout", 0)
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refused(capsys, evaluate, "--checkpoint", tmp_path / "file", "--max-tokens", 600)


def test_another_version_of_the_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ngram_eval.evaluation.checkpoint.FORMAT", "ngram_eval checkpoint 0")
    Checkpoint(tmp_path, {}, ALONE, 1).begin(resume=False)
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"not a checkpoint of this version.*begin again"):
        Checkpoint(tmp_path, {}, ALONE, 1).begin(resume=True)
