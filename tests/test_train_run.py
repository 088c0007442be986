"""Runs from end to end: learning, resuming, ranks, the wall clock, logs, export, and the command line."""

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ngram_eval.distributed.ranks import ALONE
from ngram_eval.errors import InputError
from ngram_eval.models import artifact
from ngram_eval.models.artifact import QuantConfig
from ngram_eval.models.transformer import Linear
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.results.page import plots
from ngram_eval.text.shards import read_shards, write_shard
from ngram_eval.train import __main__ as command
from ngram_eval.train import curve, journal, snapshot
from ngram_eval.train import export as export_command
from ngram_eval.train.config import TrainConfig
from ngram_eval.train.journal import Entry
from ngram_eval.train.loop import RunOptions, train
from ngram_eval.train.trainer import Trainer

TINY = ModelConfig(
    vocab_size=20,
    layers=2,
    width=16,
    heads=2,
    kv_heads=2,
    mlp_hidden=24,
    table_dtype="float32",
    table_init_std=0.02,
    bigram_slots=16,
    bigram_width=4,
    rope_dims=4,
    rope_train_len=256,
    xsa_layers=2,
    value_layers=(1,),
    value_width=4,
)
CONFIG = TrainConfig(
    model=TINY,
    quant=QuantConfig(float16_max_elements=100, scale_floor=False),
    seq_len=32,
    batch=4,
    micro_batch=0,
    shuffle=True,
    steps=20,
    max_seconds=0.0,
    warmup_steps=0,
    warmdown_steps=12,
    momentum=0.95,
    momentum_start=0.85,
    momentum_warmup=10,
    grad_clip=1.0,
    ema=0.9,
    swa_every=2,
    swa_below=0.5,
)
"""20 steps; the rate falls from step 8, weights are quantised and collected from step 15."""
TINY_FLAGS = (
    *("--vocab-size", 20, "--layers", 2, "--width", 16, "--heads", 2, "--kv-heads", 2, "--mlp-hidden", 24),
    *("--bigram-slots", 16, "--bigram-width", 4, "--rope-dims", 4, "--xsa-layers", 2),
    *("--value-layers", 1, "--value-width", 4, "--float16-max-elements", 100),
    *("--seq-len", 32, "--batch", 4, "--steps", 20, "--warmdown-steps", 12, "--momentum-warmup", 10, "--ema", 0.9),
    *("--swa-every", 2, "--swa-below", 0.5, "--device", "cpu", "--log-every", 1),
)
"""`CONFIG` on the command line."""
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,000 tokens that mostly count upwards: easy to learn."""
    rng = np.random.default_rng(0)
    steps = np.where(rng.random(4000) < 0.9, 1, rng.integers(0, 20, 4000))
    path = tmp_path_factory.mktemp("train") / "train_000000.bin"
    write_shard(path, (np.cumsum(steps) % 20).astype(np.uint16))
    return path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The command line in this process."""

    def main(*arguments: object, of: Any = command) -> None:
        monkeypatch.setattr(artifact, "code_bytes", lambda: 1)  # takes seconds; test_artifact.py covers it
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
        of.main()

    return main


def trainer_of(shard: Path, config: TrainConfig = CONFIG, **more: Any) -> Trainer:
    stream = read_shards([str(shard)]).tokens
    return Trainer(config, stream, ranks=ALONE, device=CPU, **more)


def losses_of(trainer: Trainer, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        trainer.take_step()
        losses.append(trainer.mean_nats())
    return losses


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two states are equal bit for bit, but for the seconds."""
    one["counters"][1] = other["counters"][1] = 0
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Learning


def test_it_overfits_one_batch(shard: Path, tmp_path: Path) -> None:
    tokens = np.fromfile(shard, "<u2", offset=1024)[:129]  # one batch of four sequences, again and again
    write_shard(tmp_path / "one.bin", tokens)
    config = replace(
        CONFIG, shuffle=False, steps=150, warmdown_steps=50, model=replace(TINY, mtp_heads=1, depth_gate=True)
    )
    trainer = trainer_of(tmp_path / "one.bin", config)
    losses = losses_of(trainer, 150)
    assert losses[0] == pytest.approx(np.log(20), rel=0.1)
    assert losses[-1] < 0.1
    assert trainer.done


def test_accumulated_gradients_are_those_of_the_whole_batch(shard: Path) -> None:
    whole = losses_of(trainer_of(shard), 12)
    for micro in (1, 2):
        parts = losses_of(trainer_of(shard, replace(CONFIG, micro_batch=micro)), 12)
        assert parts != whole  # sums are rounded in another order
        assert parts == pytest.approx(whole, rel=1e-4)


def test_seeds_decide_everything(shard: Path) -> None:
    one, again, other = (trainer_of(shard, replace(CONFIG, seed=seed)) for seed in (1, 1, 2))
    assert losses_of(one, 20) == losses_of(again, 20) != losses_of(other, 20)
    assert same(one.state(), again.state())


def test_warm_up_steps_leave_nothing_behind(shard: Path) -> None:
    plain, warmed = trainer_of(shard), trainer_of(shard, replace(CONFIG, warmup_steps=4))
    warmed.warm_up()
    assert warmed.step == 0
    assert warmed.seconds == 0
    assert not any(module.fake_quantise for module in warmed.model.modules() if isinstance(module, Linear))
    assert losses_of(plain, 20) == losses_of(warmed, 20)
    assert same(plain.state(), warmed.state())


def test_averages_begin_when_they_should(shard: Path) -> None:
    trainer = trainer_of(shard)
    with pytest.raises(InputError, match="--export-weights is 'swa', but in 0 steps none"):
        trainer.weights("swa")
    kept, ema = [], {name: weight.clone() for name, weight in trainer.weights("raw").items()}
    for step in range(20):
        trainer.take_step()
        quantised = any(module.fake_quantise for module in trainer.model.modules() if isinstance(module, Linear))
        assert quantised == (step >= 15)  # the first whose multiplier, (20 - step) / 12, is below 0.5
        if step in (15, 17, 19):
            kept.append({name: weight.clone() for name, weight in trainer.weights("raw").items()})
        ema = {name: 0.9 * average + 0.1 * trainer.weights("raw")[name] for name, average in ema.items()}
    for name in ema:
        torch.testing.assert_close(trainer.weights("ema")[name], ema[name])
        torch.testing.assert_close(trainer.weights("swa")[name], torch.stack([one[name] for one in kept]).mean(0))
    assert trainer.swa.count == 3


def test_the_wall_clock_ends_a_run(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At half a second a step, 10 seconds are 20 steps; the rate falls over the last 12 of them."""
    clock = iter(np.arange(0, 1000, 0.5))
    monkeypatch.setattr("ngram_eval.train.trainer.time.perf_counter", lambda: float(next(clock)))
    trainer, rates = trainer_of(shard, replace(CONFIG, steps=10_000, max_seconds=10.0)), []
    while not trainer.done:
        trainer.take_step()
        rates.append(trainer.multiplier)
    assert trainer.step == 20
    assert rates == pytest.approx([min(1, (20 - step) / 12) for step in range(20)])


def test_quantisation_once_begun_goes_on(shard: Path) -> None:
    """Also where the multiplier, measured in time, rises again, and in a run that resumes there."""
    first, second = trainer_of(shard), trainer_of(shard)
    first._quantise()
    second.load_state(first.state())
    for trainer in (first, second):
        trainer.take_step()
        assert trainer.multiplier == 1
        assert all(module.fake_quantise for module in trainer.model.modules() if isinstance(module, Linear))


def test_divergence_is_reported(shard: Path) -> None:
    trainer = trainer_of(shard)
    trainer.take_step()
    with torch.no_grad():
        trainer.model.embedding.fill_(float("nan"))
    trainer.take_step()
    with pytest.raises(InputError, match="loss is nan at step 2: the training diverged"):
        trainer.mean_nats()


def test_compiled_runs_learn_the_same(shard: Path) -> None:
    """With quantisation half way; the compiler's default is tried by a slow test."""
    torch._dynamo.reset()
    plain, compiled = trainer_of(shard), trainer_of(shard)
    compiled._objective = cast(torch.nn.Module, torch.compile(compiled._objective, backend="aot_eager"))
    assert losses_of(compiled, 20) == pytest.approx(losses_of(plain, 20), rel=1e-3)


# Checkpoints


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
    assert snapshot.read_config(tmp_path / "snapshot.safetensors") == CONFIG
    trainer = trainer_of(shard)
    snapshot.resume(tmp_path / "snapshot.safetensors", trainer)
    assert trainer.step == 5


def test_saving_a_checkpoint_is_atomic(tmp_path: Path, shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "snapshot.safetensors"
    path.write_bytes(b"the one before")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        snapshot.save(path, trainer_of(shard))
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]


def test_other_settings_and_damaged_checkpoints_are_refused(tmp_path: Path, shard: Path) -> None:
    path = tmp_path / "snapshot.safetensors"
    snapshot.save(path, trainer_of(shard))
    for change, message in (
        ({"batch": 2}, "--batch is 2, .* was made with 4"),
        ({"model": replace(TINY, mlp_hidden=32)}, "--mlp-hidden is 32, .* was made with 24"),
        ({"quant": QuantConfig()}, "--float16-max-elements is 65536, .* was made with 100"),
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
    metadata = {"format": snapshot.FORMAT, "config": json.dumps(asdict(CONFIG))}
    save_file(tensors, path, metadata)
    with pytest.raises(InputError, match=r"not a checkpoint of this model.*ema\.smear"):
        snapshot.resume(path, trainer_of(shard))
    with pytest.raises(InputError, match="can't be read"):
        snapshot.resume(tmp_path / "none", trainer_of(shard))


# Ranks


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


# Logs


def entries() -> list[Entry]:
    return [
        Entry(step=10, seconds=1.0, loss=3.0, lr=1.0, tokens_per_second=100.0),
        Entry(step=20, seconds=2.0, loss=2.5, lr=0.5, tokens_per_second=100.0, val_nats=2.6, val_bpb=1.7),
    ]


def test_logs_to_further_sinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights & Biases is stood in for; TensorBoard too, unless it is installed."""
    seen: list[Any] = []
    run = SimpleNamespace(log=lambda values, step: seen.append((step, values)), finish=lambda: seen.append("end"))

    def init(**settings: Any) -> SimpleNamespace:
        seen.append(settings)
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    scalars: list[Any] = []
    writer = SimpleNamespace(add_scalar=lambda *one: scalars.append(one), close=lambda: scalars.append("end"))

    def summary_writer(folder: str) -> SimpleNamespace:
        scalars.append(folder)
        return writer

    board = SimpleNamespace(SummaryWriter=summary_writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    with journal.open_sinks(tmp_path, ("csv", "tensorboard", "wandb")) as sinks:
        for entry in entries():
            for sink in sinks:
                sink.write(entry)
    assert journal.read(tmp_path) == entries()
    assert seen[0]["name"] == tmp_path.name
    assert seen[2] == (20, asdict(entries()[1]))
    assert "val_bpb" not in seen[1][1]
    assert scalars[0] == str(tmp_path / "tensorboard")
    assert ("loss", 2.5, 20) in scalars
    assert seen[-1] == scalars[-1] == "end"
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [row["val_bpb"] for row in rows] == ["", "1.7"]


def test_missing_extras_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, sink in (("wandb", "wandb"), ("torch.utils.tensorboard", "tensorboard")):
        monkeypatch.setitem(sys.modules, module, None)
        message = rf"pip install 'ngram_eval\[{sink}\]'"
        with pytest.raises(InputError, match=message), journal.open_sinks(tmp_path, (sink,)):
            pass
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--curve needs matplotlib: pip install 'ngram_eval\[plot\]'"):
        plots.require_matplotlib("--curve")


def test_the_live_line(capsys: pytest.CaptureFixture[str]) -> None:
    with journal.Live(100) as live:
        live.show(19, 80.0)
        live.show(20, 61.0, entries()[1])
    assert capsys.readouterr().err == (
        "step 20: loss 2.500 nats, lr x0.50, 100 tokens/s, validation 2.6000 nats, 1.7000 bits per byte, 1:01 left\n"
    )


def test_the_curve(tmp_path: Path, call: Callable[..., None]) -> None:
    pytest.importorskip("matplotlib")
    with journal.open_sinks(tmp_path, ()) as (log,):
        for entry in entries():
            log.write(entry)
    call(tmp_path, tmp_path / "curve.png", of=curve)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


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
