"""Training by command line: ranks, export, and what is refused."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ngram_eval.models import artifact
from ngram_eval.train import export as export_command
from ngram_eval.train import journal, snapshot
from tests.support.training import CONFIG, TINY, TINY_FLAGS, losses_of, trainer_of


@pytest.mark.slow
def test_two_ranks_learn_what_one_does(tmp_path: Path, shard: Path) -> None:
    """Gradients, Muon's updates and the seconds are shared; sums are rounded in another order, hence a tolerance.

    The run under torchrun stops on the way and is finished by one rank: checkpoints know nothing of ranks.
    """
    folder, out = tmp_path / "two", tmp_path / "two.ngev"
    flags = [str(flag) for flag in ("--data", shard, *TINY_FLAGS, "--mtp-heads", 1, "--out", out, "--folder", folder)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    module = ["-m", "ngram_eval.train", *flags]
    text = ["--val", str(shard), "--val-tokens", "1000", "--val-every", "6"]
    done = subprocess.run([*torchrun, *module, *text, "--stop-after", "17"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, *module, *text, "--resume", "--deterministic"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "under 16,000,000" in done.stdout

    alone = trainer_of(shard, replace(CONFIG, model=replace(TINY, mtp_heads=1)))
    losses = losses_of(alone, 20)
    entries = journal.read(folder)
    assert [entry.loss for entry in entries] == pytest.approx(losses, rel=1e-4)
    assert [entry.step for entry in entries if entry.val_nats is not None] == [6, 12, 18]
    two = load_file(folder / "checkpoint.safetensors")
    for name, average in alone.weights("ema").items():
        torch.testing.assert_close(two[f"ema.{name}"], average, rtol=1e-3, atol=1e-4)
    artifact.load(out)


@pytest.mark.slow
def test_a_batch_that_ranks_cannot_share_ends_torchrun_with_a_message(tmp_path: Path, shard: Path) -> None:
    flags = [str(flag) for flag in ("--data", shard, *TINY_FLAGS, "--batch", 5, "--out", tmp_path / "m.ngev")]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*torchrun, "-m", "ngram_eval.train", *flags], capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.count(": --batch is 5: 2 ranks can't share it evenly") == 1, "one rank speaks for all"


# Export and the command line


def test_from_shards_to_an_evaluated_artifact(
    tmp_path: Path,
    shard: Path,
    call: Callable[..., None],
    evaluate: Callable[..., dict[str, dict[str, Any]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Trained, exported, loaded and scored by the command; the evaluator finds the same."""
    out = tmp_path / "m.ngev"
    call("--data", shard, *TINY_FLAGS, "--steps", 40, "--val", shard, "--val-every", 10, "--out", out)
    printed, shown = capsys.readouterr()
    model, train_seq_len = artifact.load(out)
    assert model.config == TINY
    assert train_seq_len == 32
    result = evaluate("--artifact", out, "--data", shard, "--seq-len", 32, "--stride", 32, "--preset", "hashed")[
        "hashed"
    ]
    nats = result["neural_nats"] / result["positions"]
    assert f"after:               {nats:.4f} nats a token (+-15, from {out})" in printed
    assert nats < 0.8 * np.log(20)
    lines = dict(line.split(maxsplit=1) for line in printed.splitlines()[:3])
    before = printed.splitlines()[3].removeprefix("before quantisation: ")
    assert lines["ema"] == f"(exported) {before}"
    assert before not in (lines["raw"], lines["swa"])
    assert shown.count("validation") == 3  # at 10, 20 and 30; the end is compared


def test_exporting_a_checkpoint_again(
    tmp_path: Path, shard: Path, call: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    out, again = tmp_path / "m.ngev", tmp_path / "again.ngev"
    call("--data", shard, *TINY_FLAGS, "--folder", tmp_path / "run", "--out", out)
    file = tmp_path / "run/checkpoint.safetensors"
    call(file, "--out", again, of=export_command)
    assert again.read_bytes() == out.read_bytes()
    tensors = load_file(file)
    capsys.readouterr()
    for which in ("raw", "swa"):
        flags = ("--export-weights", which, "--matrix-levels", 127, "--val", shard, "--val-tokens", 1000)
        call(file, "--out", again, *flags, of=export_command)
        values = artifact.load(again)[0].state_dict()["blocks.0.mlp.up.weight"]
        prefix = "model" if which == "raw" else which
        torch.testing.assert_close(values, tensors[f"{prefix}.blocks.0.mlp.up.weight"], atol=0.01, rtol=0)
        assert "(+-127" in capsys.readouterr().out
    other = trainer_of(shard)
    snapshot.save(tmp_path / "early.safetensors", other)
    with pytest.raises(SystemExit):
        call(tmp_path / "early.safetensors", "--export-weights", "swa", "--out", again, of=export_command)
    assert "has none yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "best"), "--preset is 'best': choose from embedded, small, pr890"),
        (("--steps", 0), "--steps is 0"),
        (("--matrix-lr", "nan"), "--matrix-lr is nan"),
        (("--matrix-levels", 200), "--matrix-levels is 200"),
        (("--layers", 0), "layers is 0"),
        (("--data", "missing_*.bin"), "missing_*.bin: no such shard"),
        (("--device", "abacus"), "--device is 'abacus'"),
        (("--out", "no/such/folder/m.ngev"), "--out is no/such/folder/m.ngev"),
        (("--batch", 1000), "training tokens"),
        (("--micro-batch", 3), "--micro-batch is 3"),
        (("--vocab-size", 19), "--vocab-size"),
        (("--resume",), "need a --folder"),
        (("--val-every", 5), "--val-every needs the text to score"),
        (("--val-tokens", 5), "--val-tokens describe --val"),
        (("--log", "paper"), "--log is 'paper': choose from csv, tensorboard, wandb"),
        (("--log-every", 0), "--log-every is 0"),
        (("--curve", "c.png"), "give --folder too"),
        (("--nonsense", 1), "nonsense"),
    ],
)
def test_bad_command_lines_exit_2(
    tmp_path: Path,
    shard: Path,
    call: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as stopped:
        call("--data", shard, "--out", tmp_path / "m.ngev", *TINY_FLAGS, *arguments)
    assert stopped.value.code == 2
    captured = capsys.readouterr().err
    assert message in captured
    assert "Traceback" not in captured
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_not_trained_into(
    tmp_path: Path, shard: Path, call: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--data", shard, "--out", tmp_path / "m.ngev", *TINY_FLAGS, "--folder", tmp_path)
    with pytest.raises(SystemExit):
        call(*flags, "--resume")
    assert "can't be read" in capsys.readouterr().err
    call(*flags, "--stop-after", 2)
    with pytest.raises(SystemExit):
        call(*flags, "--resume", "--stop-after", 2)
    assert "--stop-after is 2: the checkpoint is at step 2 already" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call(*flags)
    assert "holds a checkpoint: give --resume, or another folder" in capsys.readouterr().err


@pytest.mark.slow
def test_the_compilers_default_on_the_command_line(tmp_path: Path, shard: Path) -> None:
    """Inductor, alone and under DDP, with quantisation switched on half way; as without it, within a tolerance."""
    found = {}
    for name, before, more in (
        ("plain", [sys.executable], []),
        ("compiled", [sys.executable], ["--compile"]),
        ("ranks", [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"], ["--compile"]),
    ):
        flags = ("--data", shard, *TINY_FLAGS, "--out", tmp_path / f"{name}.ngev", "--folder", tmp_path / name)
        script = [*before, "-m", "ngram_eval.train", *map(str, flags), *more]
        done = subprocess.run(script, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found[name] = [entry.loss for entry in journal.read(tmp_path / name)]
    assert found["compiled"] == pytest.approx(found["plain"], rel=1e-3)
    assert found["ranks"] == pytest.approx(found["plain"], rel=1e-3)
