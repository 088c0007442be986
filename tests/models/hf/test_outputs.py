"""Every flag that says where a result goes, after a Hugging Face model."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")

from ngram_eval.cli import explain, run
from tests.support.evaluator import Evaluate

CHEAP = ["--seq-len", 32, "--stride", 32, "--preset", "exact"]


def test_every_output_flag(
    models: dict[str, Path], evaluate: Evaluate, text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = ["--plot", tmp_path / "plots"] if find_spec("matplotlib") else []
    flags = ["--hf", models["llama"], "--text", text_file, *CHEAP]
    saved = tmp_path / "scores.npz"
    found = evaluate(*flags, "--report", tmp_path / "r.html", *plot, "--save-scores", saved)
    printed = capsys.readouterr()
    assert "bits per byte" in printed.out
    page = (tmp_path / "r.html").read_text()
    (model,) = [one for one in found["exact"]["inputs"] if one["role"] == "hf"]
    assert model["bytes"] is None
    assert model["sha256"] in page
    assert bool(list((tmp_path / "plots").glob("*.png"))) == bool(plot)
    assert len(np.load(saved)["p_target"]) == found["exact"]["tokens"] - 1
    out = tmp_path / "out.json"
    kept = tmp_path / "kept.json"
    kept.write_text(out.read_text())
    again = evaluate("--from-result", kept)
    assert again["exact"]["nats"] == found["exact"]["nats"]
    assert "equal" in capsys.readouterr().out
    assert evaluate(*flags, "--quiet")["exact"]["nats"] == found["exact"]["nats"]
    silent = capsys.readouterr()
    assert (silent.out, silent.err) == ("", "")


def test_json_on_standard_output(
    models: dict[str, Path], text_file: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--hf", models["gpt2"], "--text", text_file, *CHEAP, "--json", "-"]
    monkeypatch.setattr(sys, "argv", ["run", *map(str, flags)])
    run.main()
    printed = capsys.readouterr()
    assert json.loads(printed.out)["runs"][0]["neural_source"] == "hf"
    assert "bits per byte" in printed.err


def test_the_numbers_come_before_the_drawing(
    models: dict[str, Path],
    evaluate: Evaluate,
    text_file: Path,
    tmp_path: Path,
    monkeypatch: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever goes wrong in a picture, hours of scoring are not lost."""
    monkeypatch.setattr(run, "write_page", lambda path, results: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate("--hf", models["gpt2"], "--text", text_file, *CHEAP, "--report", tmp_path / "r.html")
    assert "bits per byte" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["runs"]


def test_explain_finds_words_of_a_text(
    models: dict[str, Path], text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--hf", models["llama"], "--text", text_file, *CHEAP, "--after", "the lazy", "--json", "-"]
    explain.main([str(flag) for flag in flags], "explain")
    (one,) = json.loads(capsys.readouterr().out)["predictions"]
    assert "".join(one["context"]).endswith("the lazy")
    assert one["target"]["text"] == " dog"
