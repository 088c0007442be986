"""Training that stops and goes on."""

import csv
import json
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from ngram_eval.errors import InputError
from ngram_eval.models.artifact import QuantConfig
from ngram_eval.train import journal, snapshot
from ngram_eval.train.loop import RunOptions, train
from ngram_eval.train.trainer import Trainer
from tests.support.training import CONFIG, TINY, TINY_FLAGS, same, trainer_of


def test_twenty_steps_are_ten_and_ten(tmp_path: Path, shard: Path, call: Callable[..., None]) -> None:
    """Losses, artifact and the final state, bit for bit; the log goes on where the checkpoint was written."""
    flags = ("--data", shard, *TINY_FLAGS, "--mtp-heads", 1, "--log", "csv")
    call(*flags, "--out", tmp_path / "whole.ngev", "--folder", tmp_path / "whole")
    for stop in (10, 17):
        folder, out = tmp_path / f"parts{stop}", tmp_path / f"parts{stop}.ngev"
        call(*flags, "--out", out, "--folder", folder, "--stop-after", stop)
        assert not out.exists()
        (line, *_) = (folder / "log.jsonl").read_text().splitlines()
        with (folder / "log.jsonl").open("a") as file:  # as a run leaves it that went on and died
            file.write(line.replace('"step": 1,', f'"step": {stop + 1},') + "\n")
        call(*flags, "--out", out, "--folder", folder, "--resume")
        assert out.read_bytes() == (tmp_path / "whole.ngev").read_bytes()
        assert same(load_file(folder / "checkpoint.safetensors"), load_file(tmp_path / "whole/checkpoint.safetensors"))
        logs = [journal.read(one) for one in (folder, tmp_path / "whole")]
        assert [(e.step, e.loss, e.lr) for e in logs[0]] == [(e.step, e.loss, e.lr) for e in logs[1]]
        assert [e.step for e in logs[0]] == list(range(1, 21))
        with (folder / "log.csv").open(newline="") as file:
            assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 21))


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(
    tmp_path: Path, shard: Path, call: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    flags = ("--data", shard, *TINY_FLAGS, "--quiet")
    call(*flags, "--out", tmp_path / "whole.ngev")
    capsys.readouterr()
    original = Trainer.take_step

    def interrupted(self: Trainer) -> None:
        original(self)
        if self.step == 7 and "checkpoint" not in str(list(tmp_path.glob("parts/*.safetensors"))):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "take_step", interrupted)
    parts = ("--out", tmp_path / "parts.ngev", "--folder", tmp_path / "parts")
    with pytest.raises(SystemExit) as stopped:
        call(*flags, *parts)
    assert stopped.value.code == 130
    captured = capsys.readouterr()
    assert "Stopped at step 7; continue with --resume." in captured.out
    assert captured.err == "", "quiet"
    assert not (tmp_path / "parts.ngev").exists()
    call(*flags, *parts, "--resume")
    assert (tmp_path / "parts.ngev").read_bytes() == (tmp_path / "whole.ngev").read_bytes()


def test_checkpoints_on_the_way_and_no_unpickling(tmp_path: Path, shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for place in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
        monkeypatch.setattr(place, never)
    saved = []
    monkeypatch.setattr(snapshot, "save", lambda path, trainer: saved.append(trainer.step))
    train(trainer_of(shard), RunOptions(folder=tmp_path / "often", checkpoint_every=6))
    assert saved == [6, 12, 18, 20]
    monkeypatch.undo()
    for place in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
        monkeypatch.setattr(place, never)
    train(trainer_of(shard), RunOptions(folder=tmp_path, stop_after=5))
    assert snapshot.read_config(tmp_path / "checkpoint.safetensors") == CONFIG
    trainer = trainer_of(shard)
    snapshot.resume(tmp_path / "checkpoint.safetensors", trainer)
    assert trainer.step == 5


def test_saving_a_checkpoint_is_atomic(tmp_path: Path, shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"the one before")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        snapshot.save(path, trainer_of(shard))
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]


def test_other_settings_and_damaged_checkpoints_are_refused(tmp_path: Path, shard: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    snapshot.save(path, trainer_of(shard))
    for change, message in (
        ({"batch": 2}, "batch is 2, .* was made with 4"),
        ({"model": replace(TINY, mlp_hidden=32)}, "mlp_hidden is 32, .* was made with 24"),
        ({"quant": QuantConfig()}, "float16_max_elements is 65536, .* was made with 100"),
    ):
        with pytest.raises(InputError, match=message):
            snapshot.resume(path, trainer_of(shard, replace(CONFIG, **change)))
    data = path.read_bytes()
    for length in (0, 7, 100, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"damaged|not a checkpoint"):
            snapshot.resume(path, trainer_of(shard))
    tensors = trainer_of(shard).state()
    save_file(tensors, path)
    with pytest.raises(InputError, match="not a checkpoint of this release"):
        snapshot.resume(path, trainer_of(shard))
    del tensors["ema.smear"]
    metadata = {"format": "ngram_eval checkpoint 1", "config": json.dumps(asdict(CONFIG))}
    save_file(tensors, path, metadata)
    with pytest.raises(InputError, match=r"not a checkpoint of this model.*ema\.smear"):
        snapshot.resume(path, trainer_of(shard))
    with pytest.raises(InputError, match="can't be read"):
        snapshot.resume(tmp_path / "none", trainer_of(shard))
