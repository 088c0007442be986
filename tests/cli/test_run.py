"""The evaluator's command line: its flags, and what it refuses."""

import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece

from ngram_eval.assets import asset
from ngram_eval.cli.codec import Compress, parse
from ngram_eval.config import preset
from ngram_eval.evaluation.settings import HardwareSettings
from ngram_eval.models import artifact
from ngram_eval.models.artifact import QuantConfig
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.text.shards import write_shard
from tests.support.evaluator import Evaluate, fails, small
from tests.support.streams import Stream


def test_every_configuration_field_is_a_flag(stream: Stream, evaluate: Evaluate) -> None:
    """Each is given a value that is not the preset's, and is found with it in the result."""
    data = ["--data", stream.shard, "--scores", stream.scores, "--preset", "exact"]
    flags = (
        "--scorer hashed --seq-len 128 --stride 16 --rescore-tail --min-order 3 --max-order 5 --buckets 1024 "
        "--min-count 3 --context-gap --prefill-hole --target-backoff --alpha-base 0.1 --alpha-range 0.3 "
        "--alpha-slope 1.5 --alpha-fixed 0.4 --centres 1 2 3 4 5 6 7 8 9 --no-chain --tilt learned --tilt-beta 1 "
        "--tilt-confidence 0.5 --contexts 9 --weight-sets 4 --groups 1024 "
        "--start-weight 0.1 --byte-rule piece"
    )
    config = evaluate(*data, *flags.split())["exact"]["config"]
    assert config == {
        "window": {"seq_len": 128, "stride": 16, "rescore_tail": True},
        "ngram": {
            "min_order": 3,
            "max_order": 5,
            "buckets": 1024,
            "min_count": 3,
            "context_gap": True,
            "prefill_hole": True,
            "target_backoff": True,
        },
        "gate": {
            "alpha_base": 0.1,
            "alpha_range": 0.3,
            "alpha_slope": 1.5,
            "alpha_fixed": 0.4,
            "centres": [1, 2, 3, 4, 5, 6, 7, 8, 9],
        },
        "scorer": "hashed",
        "exact": {
            "chain": False,
            "tilt": "learned",
            "tilt_beta": 1.0,
            "tilt_confidence": 0.5,
            "by_window": False,
        },
        "mixer": {"contexts": 9, "weight_sets": 4, "groups": 1024, "start_weight": 0.1},
        "byte_rule": "piece",
    }
    whole = evaluate(*data, "--by-window", "--seq-len", 256)["exact"]["config"]  # which goes with no learned tilt
    before = leaves(asdict(preset("exact")))
    bytewise = (
        "--scorer ppmd --byte-gate target --byte-share marginal --sure-above 0.7 --model-weight 0.8 "
        "--model-weight-sure 0.2"
    )
    uniform = ["--data", stream.shard, "--uniform", "--tokenizer", asset("tokenizer.model"), "--preset", "ppmd"]
    mixed = evaluate(*uniform, *bytewise.split(), "--seq-len", 256)["ppmd"]["config"]
    of_mixer = [*uniform[:-1], "mixer", "--matches", 2, "--exact-order", 3, "--runs", 5, "--cells", 8]
    found = (config, whole, mixed, evaluate(*of_mixer, "--groups", 1024, "--seq-len", 256)["mixer"]["config"])
    changed = [{name for name, value in leaves(one).items() if value != before[name]} for one in found]
    assert "exact.by_window" in changed[1]
    added = {name for name in changed[2] | changed[3] if "ppmd" in name or "mixer" in name}
    assert changed[0] | {"exact.by_window"} | added == before.keys()


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--buckets", 1000], "--buckets is 1000"),
        (["--min-order", 5, "--max-order", 4], "--min-order is 5"),
        (["--max-order", 10], "--max-order is 10"),
        (["--stride", 257, "--seq-len", 256], "--stride is 257"),
        (["--stride", 0], "--stride is 0"),
        (["--seq-len", 0], "--seq-len is 0"),
        (["--min-count", 0], "--min-count is 0"),
        (["--alpha-base", 2], "--alpha-base is 2"),
        (["--alpha-range", 0.99], "--alpha-range is 0.99"),
        (["--centres", 1, 2], "--centres"),
        (["--preset", "exakt"], "choose from pr890, hashed"),
        (["--backend", "gpu"], "choose from auto, reference, cpu"),
        (["--no-such-flag"], "no-such-flag"),
        (["--batch-windows", 0], "--batch-windows is 0"),
        (["--max-tokens", 0], "--max-tokens is 0"),
        (["--threads", 0], "--threads is 0"),
        (["--uniform"], "neural sources"),
        (["--seq-len", 4096], "shorter than one sequence of 4096"),
        (["--save-scores", "/nowhere/x.npz"], "--save-scores is /nowhere/x.npz"),
    ],
)
def test_bad_flags(
    stream: Stream, evaluate: Evaluate, capsys: Any, tmp_path: Path, flags: list[object], message: str
) -> None:
    assert message in fails(capsys, evaluate, "--data", stream.shard, "--scores", stream.scores, *flags)
    assert list(tmp_path.iterdir()) == []


def test_sources_and_data_go_together(stream: Stream, evaluate: Evaluate, capsys: Any) -> None:
    assert "--data needs a neural source" in fails(capsys, evaluate, "--data", stream.shard)
    assert "--scores needs something to score" in fails(capsys, evaluate, "--scores", stream.scores)
    assert "--uniform needs the vocabulary size" in fails(capsys, evaluate, "--data", stream.shard, "--uniform")
    too_small = fails(capsys, evaluate, "--data", stream.shard, "--uniform", "--vocab-size", 20)
    assert "outside the vocabulary" in too_small
    assert "can't be read" in fails(capsys, evaluate, "--data", stream.shard, "--artifact", "missing.ngev")
    tokenizer = asset("tokenizer.model")
    assert "describe --data or --text, and neither was given" in fails(capsys, evaluate, "--tokenizer", tokenizer)


def test_bad_shards(stream: Stream, evaluate: Evaluate, capsys: Any, tmp_path: Path) -> None:
    good = stream.shard.read_bytes()
    broken = {
        "magic.bin": (b"\0" * 4 + good[4:], "begins with 0 version 1, which is n"),
        "version.bin": (good[:4] + b"\7\0\0\0" + good[8:], "begins with 20240520 version 7"),
        "short.bin": (good[:-2], "too short"),
        "long.bin": (good + b"\0\0", "too long"),
        "header.bin": (good[:1000], "less than the 1024"),
        "empty.bin": (good[:8] + b"\0" * 4 + good[12:1024], "is empty"),
    }
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, (content, message) in broken.items():
        (folder / name).write_bytes(content)
        assert message in fails(capsys, evaluate, "--data", folder / name, "--scores", stream.scores)
    assert "no such shard" in fails(capsys, evaluate, "--data", folder / "none_*.bin", "--scores", stream.scores)
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]


def test_threads_follow_the_environment_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert HardwareSettings().count_threads() == 3
    assert HardwareSettings(threads=5).count_threads() == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "0")
    assert HardwareSettings().count_threads() >= 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert HardwareSettings().count_threads() >= 1


def test_bad_device(evaluate: Evaluate, capsys: Any) -> None:
    assert "--device is 'abacus'" in fails(capsys, evaluate, "--max-tokens", 600, "--device", "abacus")


def test_tokenizer_of_another_vocabulary(tmp_path: Path, evaluate: Evaluate, capsys: Any) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["some text to train on"] * 5),
        model_prefix=str(tmp_path / "t"),
        vocab_size=270,
        byte_fallback=True,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    arguments = ("--artifact", asset("model.ngev"), "--data", tmp_path / "d.bin", "--seq-len", 256)
    write_shard(tmp_path / "d.bin", np.zeros(600, np.uint16))
    message = fails(capsys, evaluate, *arguments, "--tokenizer", tmp_path / "t.model")
    assert "has a vocabulary of 1024 tokens" in message
    write_shard(tmp_path / "d.bin", np.full(600, 1024, np.uint16))
    assert "token 1024 at position 0" in fails(capsys, evaluate, *arguments)


def test_exit_code_and_version_as_processes(stream: Stream) -> None:
    command = [sys.executable, "-m", "ngram_eval.run"]
    done = subprocess.run([*command, "--buckets", "1000"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "power of two" in done.stderr
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"ngram_eval {version('ngram_eval')}\n"


def test_console_shows_which_is_a_probability(stream: Stream, evaluate: Evaluate, capsys: Any) -> None:
    evaluate(*small(stream))
    text = capsys.readouterr().out
    assert "pr890, hashed: a pseudo-probability" in text
    assert "No bytes, so no bits per byte" in text
    assert "order 9" in text


def test_windows_are_as_long_as_the_artifact_was_trained_on(
    evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ModelConfig(vocab_size=50, width=32, layers=2, heads=2, kv_heads=2, value_layers=())
    artifact.save(tmp_path / "m.ngev", Transformer(config), QuantConfig(), 24)
    write_shard(tmp_path / "d.bin", (np.arange(300) % 50).astype(np.uint16))
    flags = ("--data", tmp_path / "d.bin", "--artifact", tmp_path / "m.ngev", "--preset", "exact")
    assert evaluate(*flags)["exact"]["config"]["window"] == {"seq_len": 24, "stride": 24, "rescore_tail": False}
    assert "warning" not in capsys.readouterr().err
    assert evaluate(*flags, "--seq-len", 48)["exact"]["config"]["window"]["seq_len"] == 48
    assert "warning: exact has windows of 48 positions, and the model was trained on 24" in capsys.readouterr().err
    command = parse(["compress", "--artifact", str(tmp_path / "m.ngev"), "IN", "OUT"], "codec")
    assert isinstance(command, Compress)
    assert command.window.seq_len == 24
