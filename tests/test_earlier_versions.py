"""What version 0.1 wrote is read today, and gives the same numbers (`golden/make_files.py` says how it was made)."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ngram_eval.cli import compare
from ngram_eval.evaluation import checkpoint
from ngram_eval.models import artifact
from ngram_eval.text.manifest import read_manifest
from ngram_eval.text.shards import read_shards
from ngram_eval.text.tokenizer import Tokenizer
from ngram_eval.train import __main__ as training
from ngram_eval.train import journal
from tests.golden.make_files import CHECKPOINTED, FOLDER, TRAINED
from tests.support.evaluator import Evaluate
from tests.support.places import SAMPLE_PATH

SUMS = ("nats", "neural_nats", "positions", "bytes", "hits_by_order", "vocabulary_sum", "profile")


def runs(name: str) -> dict[str, Any]:
    """A result of version 0.1, by preset."""
    return {run["preset"]: run for run in json.loads((FOLDER / name).read_text())["runs"]}


@pytest.fixture(autouse=True)
def in_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results name their files as they were named then."""
    monkeypatch.chdir(FOLDER)


def test_shards_and_their_manifest() -> None:
    stream = read_shards(["tokens_*.bin"])
    manifest = read_manifest(stream.paths)
    assert manifest is not None
    assert (manifest.version, manifest.tokens) == ("0.1.0", len(stream.tokens))
    text = SAMPLE_PATH.read_text(encoding="utf-8")[:6000]
    assert Tokenizer.load(Path("tokenizer.model")).decode(stream.tokens[:]) == text


@pytest.mark.parametrize("spelling", ["--from-result", "--from_result"])
def test_a_result_is_run_again_to_the_bit(
    evaluate: Evaluate, capsys: pytest.CaptureFixture[str], spelling: str
) -> None:
    old = runs("result.json")
    assert all(run["arguments"] and "settings" not in run for run in old.values())
    with pytest.raises(SystemExit) as stopped:  # the mixer of today has other contexts, and that is said
        evaluate(spelling, "result.json")
    assert stopped.value.code == 1
    told = capsys.readouterr().out
    assert told.count("equal to result.json, bit for bit") == 3
    assert "mixer: DIFFERENT: nats" in told


def test_what_a_result_s_arguments_name_is_not_written(evaluate: Evaluate, tmp_path: Path) -> None:
    """Whatever the spelling, were it a file of somebody else's."""
    precious = tmp_path / "precious"
    theirs = json.loads(Path("checkpointed.json").read_text())
    for extra in ("--json", "--save-scores", "--save_scores", "--report", "--plot", "--checkpoint"):
        theirs["runs"][0]["arguments"] = [*runs("checkpointed.json")["exact"]["arguments"], extra, str(precious)]
        (tmp_path / "theirs.json").write_text(json.dumps(theirs))
        found = evaluate("--from-result", tmp_path / "theirs.json")
        assert found["exact"]["nats"] == runs("checkpointed.json")["exact"]["nats"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "theirs.json"], extra


def test_results_compare_with_those_of_today(evaluate: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(*CHECKPOINTED)
    new = sys.argv[-1]
    capsys.readouterr()
    compare.main(["checkpointed.json", new, "--json", "-"], "ngram-eval compare")
    _, found = json.loads(capsys.readouterr().out)["compared"]
    assert found["difference"] == 0
    assert (found["interval"]["low"], found["interval"]["high"]) == (0, 0)


def test_an_artifact_gives_its_bits_per_byte(evaluate: Evaluate) -> None:
    model, train_seq_len = artifact.load(FOLDER / "trained.ngev")
    assert (model.config.width, train_seq_len) == (4, 32)
    arguments = runs("of_model.json")["exact"]["arguments"]
    assert "trained.ngev" in arguments
    for name, run in evaluate(*arguments).items():
        old = runs("of_model.json")[name]
        assert run["bytes"] == old["bytes"]
        assert run["val_bpb"] == pytest.approx(old["val_bpb"], rel=1e-6)  # a model's floats depend on the machine
        assert run["neural_bpb"] == pytest.approx(old["neural_bpb"], rel=1e-6)


def test_saved_scores_give_the_same_bits(evaluate: Evaluate) -> None:
    flags = ["--data", "tokens_000000.bin", "--tokenizer", "tokenizer.model", "--scores", "scores.npz"]
    flags += ["--seq-len", "64", "--stride", "32", "--buckets", "512", "--preset", "exact", "--preset", "hashed"]
    for name, run in evaluate(*flags).items():
        for key in ("nats", "neural_nats", "positions", "bytes", "hits_by_order"):
            assert run[key] == runs("of_model.json")[name][key], (name, key)


@pytest.mark.parametrize("version", ["0.1.0", "99.0"])
def test_an_evaluation_that_was_killed_goes_on(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    monkeypatch.setattr(checkpoint, "__version__", version)
    monkeypatch.setattr("ngram_eval.models.source.UniformSource.batch_windows", 4)
    shutil.copytree("checkpoint", tmp_path / "checkpoint")
    found = evaluate(*CHECKPOINTED, "--checkpoint", tmp_path / "checkpoint", "--resume")["exact"]
    old = runs("checkpointed.json")["exact"]
    assert 0 < found["resumed_positions"] < found["positions"]
    for key in SUMS:
        assert found[key] == old[key], key


def test_a_training_that_was_stopped_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(artifact, "code_bytes", lambda: 1)
    shutil.copytree("training", tmp_path / "training")
    flags = [*map(str, TRAINED), "--folder", str(tmp_path / "training"), "--out", str(tmp_path / "trained.ngev")]
    monkeypatch.setattr(sys, "argv", ["train", *flags, "--resume"])
    training.main()
    shutil.copy("trained.jsonl", tmp_path / "log.jsonl")
    old, new = (journal.read(folder) for folder in (tmp_path, tmp_path / "training"))
    assert [entry.step for entry in new] == [entry.step for entry in old] == list(range(1, 21))
    np.testing.assert_allclose([e.loss for e in new], [e.loss for e in old], rtol=1e-4)
    assert [e.lr for e in new] == [e.lr for e in old]
    ours, theirs = (artifact.load(path / "trained.ngev")[0].state_dict() for path in (tmp_path, FOLDER))
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], atol=0.02, err_msg=name)
