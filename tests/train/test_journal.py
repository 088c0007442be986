"""Logs of training."""

import csv
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ngram_eval.errors import InputError
from ngram_eval.results.page import plots
from ngram_eval.train import curve, journal
from ngram_eval.train.journal import Entry


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
    with pytest.raises(InputError, match=r"curve needs matplotlib: pip install 'ngram_eval\[plot\]'"):
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
