"""`--forward banded` on the command line, with the embedded model: what a user runs, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ngram_eval.assets import asset
from ngram_eval.cli import audit, explain
from tests.support.evaluator import Evaluate, fails
from tests.support.streams import Stream

BANDED = ["--forward", "banded", "--chunk", 512]


def test_a_result_says_it_and_its_scores_are_saved_and_explained(
    evaluate: Evaluate, capsys: Any, tmp_path: Path
) -> None:
    saved, short = tmp_path / "scores.npz", ["--max-tokens", 1700]
    found = evaluate(*BANDED, *short, "--save-scores", saved)
    assert list(found) == ["hashed", "exact"]
    assert "Left out pr890: it is defined by windows" in capsys.readouterr().err
    assert found["exact"]["neural_settings"] == {
        "device": "cpu",
        "dtype": "float32",
        "attention": "blocks",
        "forward": "banded",
        "chunk": "chunks of 512",
        "sinks": "no sinks",
    }
    embedded = ["--data", asset("sample_000000.bin"), "--tokenizer", asset("tokenizer.model"), "--seq-len", 256]
    again = evaluate(*embedded, *short, "--scores", saved, "--preset", "exact", "--max-tokens", 1700)
    assert again["exact"]["nats"] == found["exact"]["nats"]
    with np.load(saved) as scores:
        neural_nats = -np.log(scores["p_target"][600])
    capsys.readouterr()
    explain.main([*map(str, [*BANDED, "--preset", "hashed", "--position", 600, "--json", "-", "--quiet"])], "explain")
    assert json.loads(capsys.readouterr().out)["predictions"][0]["neural_nats"] == neural_nats
    named = evaluate(*BANDED, *short, "--preset", "pr890")
    assert list(named) == ["pr890"], "asked for by name"
    assert "pr890 is defined by windows: this score is not the published method's." in capsys.readouterr().err


@pytest.mark.slow  # windows take seconds
def test_it_is_the_number_of_windows_within_a_thousandth(evaluate: Evaluate) -> None:
    banded, windows = (
        evaluate("--preset", "hashed", "--forward", forward)["hashed"]["neural_bpb"]
        for forward in ("banded", "windows")
    )
    assert windows - 0.001 <= banded <= windows + 0.001


def test_an_audit_finds_nothing(tmp_path: Path) -> None:
    out = tmp_path / "audit.json"
    sizes = ["--positions", 700, "--stride", 64, "--samples", 8, "--cuts", 1]
    with pytest.raises(SystemExit) as exit_info:
        audit.main([*map(str, [*BANDED, *sizes, "--preset", "exact", "--json", out])])
    assert exit_info.value.code == 0
    found = json.loads(out.read_text())
    assert [one["subject"] for one in found["audits"]] == ["neural", "exact"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hf", "gpt2", "--text", "a.txt"], "--hf runs a model's own attention"),
        (["--uniform", "--vocab-size", 50], "--forward banded runs a model of --artifact"),
        (["--ttt", "legal"], "a chunk of --forward banded has one model"),
        (["--chunk", 0], "--chunk is 0: give at least 1"),
        (["--sinks", -1], "--sinks is -1: give 0 for none"),
    ],
)
def test_what_does_not_go_together(
    stream: Stream, evaluate: Evaluate, capsys: Any, flags: list[object], message: str
) -> None:
    data = [] if flags[0] in ("--hf", "--ttt", "--chunk", "--sinks") else ["--data", stream.shard]
    assert message in fails(capsys, evaluate, "--forward", "banded", *data, *flags)


@pytest.mark.parametrize("flags", [["--chunk", 512], ["--sinks", 4]])
def test_settings_of_chunks_need_the_forward(evaluate: Evaluate, capsys: Any, flags: list[object]) -> None:
    assert "--chunk and --sinks belong to --forward banded" in fails(capsys, evaluate, *flags)
