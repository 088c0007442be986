"""Comparing results."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ngram_eval
from ngram_eval.cli import compare as command
from ngram_eval.config import WindowConfig, preset
from ngram_eval.results.result_file import write_json
from tests.support.evaluator import Evaluate


def run(*arguments: object) -> None:
    command.main([str(argument) for argument in arguments], "ngram-eval compare")


def comparison(capsys: Any, *arguments: object) -> list[dict[str, Any]]:
    capsys.readouterr()
    run(*arguments, "--json", "-")
    captured = capsys.readouterr()
    assert "difference" in captured.err, "the table goes where the JSON does not"
    found: list[dict[str, Any]] = json.loads(captured.out)["compared"]
    return found


def refused(capsys: Any, *arguments: object) -> str:
    with pytest.raises(SystemExit) as exit_info:
        run(*arguments)
    assert exit_info.value.code == 2
    return str(capsys.readouterr().err)


def test_differences_and_intervals(results: Callable[..., Path], capsys: Any) -> None:
    a = results("a", "--preset", "exact", "--preset", "hashed")
    b = results("b", "--preset", "exact", "--preset", "hashed", "--min-count", 1, "--max-order", 4)
    found = comparison(capsys, a, b)
    assert [(one["preset"], one["against"]) for one in found] == [
        ("exact", None),
        ("hashed", None),
        ("exact", "exact"),
        ("hashed", "hashed"),
    ]
    runs = {path: {one["preset"]: one for one in json.loads(path.read_text())["runs"]} for path in (a, b)}
    for one in found[2:]:
        bits = [runs[path][one["preset"]]["nats"] / math.log(2) / 2816 for path in (a, b)]
        assert one["unit"] == "bits per token"
        assert one["difference"] == pytest.approx(bits[1] - bits[0], abs=1e-9)
        assert one["interval"]["estimate"] == pytest.approx(one["difference"], abs=1e-6)
        assert one["interval"]["low"] < one["difference"] < one["interval"]["high"]
        assert one["interval"]["units"] == 81


def test_names_that_look_like_markup_are_shown(results: Callable[..., Path], capsys: Any) -> None:
    paths = [results(name, "--preset", "exact") for name in ("run[seed1]", "run[bold]")]
    capsys.readouterr()
    run(*paths)
    printed = capsys.readouterr().out
    assert "run[seed1]" in printed
    assert "run[bold]" in printed


def test_a_score_is_not_compared_with_bits_per_byte_in_silence(results: Callable[..., Path], capsys: Any) -> None:
    a = results("a")
    message = refused(capsys, a)
    assert "pseudo-probability" in message
    assert "--mixed" in message
    assert "'hashed' is a pseudo-probability, whose score is not a code length, and its neural model alone" in refused(
        capsys, a, "--preset", "hashed", "--against", "neural"
    )
    found = {one["preset"]: one for one in comparison(capsys, a, "--mixed")}
    assert found["exact"]["mixed"]
    assert not found["hashed"]["mixed"]
    run(a, "--mixed")
    assert "MIXED: a score is compared with bits per byte" in " ".join(capsys.readouterr().out.split())
    run(a, "--preset", "hashed", "pr890")  # of one kind


def test_windows_of_another_stride_are_paired_where_both_end(results: Callable[..., Path], capsys: Any) -> None:
    a, b = results("a", "--preset", "exact"), results("b", "--preset", "exact", "--stride", 48)
    found = comparison(capsys, a, b)[1]
    assert found["interval"]["units"] == 1 + (2816 - 256) // 96 + 1  # every 96 positions, the first, and the end
    assert found["interval"]["estimate"] == pytest.approx(found["difference"], abs=1e-6)


def test_the_rescored_tail_is_counted_once(results: Callable[..., Path], capsys: Any) -> None:
    a = results("a", "--preset", "hashed", "--preset", "pr890")
    hashed, pr890 = comparison(capsys, a)
    assert hashed["interval"] is None
    assert pr890["interval"]["units"] == 81
    assert pr890["interval"]["estimate"] != pytest.approx(pr890["difference"], abs=1e-4)
    run(a)
    assert "the interval covers the positions that both scored once" in " ".join(capsys.readouterr().out.split())


def test_against_the_neural_model(results: Callable[..., Path], capsys: Any) -> None:
    (found,) = comparison(capsys, results("a", "--preset", "exact"), "--against", "neural")
    assert found["against"] == "model alone"
    assert found["difference"] == pytest.approx(found["bits"] - found["neural_bits"], abs=1e-12)
    assert found["interval"]["high"] < 0, "the memory helps on a text of repeated phrases"


@pytest.mark.parametrize(("tokens", "unpaired"), [(2000, None), (600, "fewer than 20 stretches")])
def test_runs_of_other_lengths_are_compared_over_what_both_scored(
    results: Callable[..., Path], capsys: Any, tokens: int, unpaired: str | None
) -> None:
    a, b = (
        results("a", "--preset", "exact"),
        results("b", "--preset", "exact", "--max-tokens", tokens, "--max-order", 4),
    )
    found = comparison(capsys, a, b)[1]
    (whole,), (part,) = (json.loads(path.read_text())["runs"] for path in (a, b))
    (short,) = json.loads(results("c", "--preset", "exact", "--max-tokens", tokens).read_text())["runs"]
    assert found["within"] == part["positions"] < whole["positions"]
    assert found["difference"] == pytest.approx(
        (part["nats"] - short["nats"]) / math.log(2) / found["within"], abs=1e-6
    )
    assert found["unpaired"] == unpaired
    assert (found["interval"] is None) == (unpaired is not None)
    run(a, b)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"over the first {found['within']:,} positions, which both" in shown
    assert ("score a longer text, or give a smaller --stride" in shown) == (unpaired is not None)


def test_other_texts_have_no_difference(results: Callable[..., Path], capsys: Any) -> None:
    a, b = results("a", "--preset", "exact"), results("b", "--preset", "exact")
    theirs = json.loads(b.read_text())
    for one in theirs["runs"][0]["inputs"]:
        one["sha256"] = one["sha256"][::-1]
    b.write_text(json.dumps(theirs))
    found = comparison(capsys, a, b)[1]
    assert (found["difference"], found["interval"], found["unpaired"]) == (None, None, "other data")


def test_bad_files_and_flags(results: Callable[..., Path], capsys: Any, tmp_path: Path) -> None:
    good = results("good", "--preset", "exact")
    broken = tmp_path / "broken.json"
    for content, message in (
        ("{", "is not JSON"),
        ("[]", "holds no runs"),
        ('{"runs": []}', "holds no runs"),
        ('{"runs": [{"preset": "x"}]}', "missing required field `normalised`"),
    ):
        broken.write_text(content)
        assert message in refused(capsys, broken)
    runs = json.loads(good.read_text())
    runs["runs"][0]["profile"]["along"] = "AAAA"
    broken.write_text(json.dumps(runs))
    assert "the profile of 'exact' is damaged" in refused(capsys, broken)
    assert "can't be read" in refused(capsys, tmp_path / "none.json")
    assert "the files hold exact" in refused(capsys, good, "--preset", "tilt")
    assert "--confidence is 95.0" in refused(capsys, good, "--confidence", 95)
    assert "--draws is 1" in refused(capsys, good, "--draws", 1)


def test_a_result_of_the_function_compares_but_has_no_command_line(
    evaluate: Evaluate, capsys: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 20, 3000)
    logits = rng.normal(size=(2999, 20))
    for name in ("exact", "tilt"):
        result = ngram_eval.evaluate(logits, tokens, replace(preset(name), window=WindowConfig(seq_len=64)))
        write_json(tmp_path / f"{name}.json", [result])
    exact, tilt = comparison(capsys, tmp_path / "exact.json", tmp_path / "tilt.json")
    assert exact["against"] is None
    assert tilt["interval"]["estimate"] == pytest.approx(tilt["difference"], abs=1e-6)
    with pytest.raises(SystemExit) as exit_info:
        evaluate("--from-result", tmp_path / "exact.json")
    assert exit_info.value.code == 2
    assert "called from Python" in capsys.readouterr().err
