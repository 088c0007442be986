"""Comparing results, running them again, and how sure differences are."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ngram_eval
from conftest import Stream
from ngram_eval.cli import compare as command
from ngram_eval.config import WindowConfig, preset
from ngram_eval.results.bootstrap import block_length, difference
from ngram_eval.results.result_file import write_json

Evaluate = Callable[..., dict[str, dict[str, Any]]]


def autoregressive(rng: np.random.Generator, n: int, rho: float) -> NDArray[np.float64]:
    noise = rng.normal(size=n + 200)
    series = np.zeros(n + 200)
    for i in range(1, n + 200):
        series[i] = rho * series[i - 1] + noise[i]
    return series[200:]


def test_the_block_grows_with_the_dependence() -> None:
    rng = np.random.default_rng(0)
    lengths = [np.mean([block_length(autoregressive(rng, 2000, rho)) for _ in range(20)]) for rho in (0.0, 0.5, 0.9)]
    assert lengths[0] < 5 < lengths[1] < 20 < lengths[2] < 120
    assert block_length(np.zeros(50)) == 1


@pytest.mark.parametrize(("rho", "at_least"), [(0.0, 0.90), (0.7, 0.86)])
def test_the_interval_covers_the_truth_as_often_as_it_says(rho: float, at_least: float) -> None:
    """Of a known difference, 0.3; drawn one by one, dependent stretches would be far too sure of it."""
    rng, covered, naive, runs = np.random.default_rng(1), 0, 0, 200
    sizes = np.full(400, 10.0)
    for seed in range(runs):
        shared = rng.normal(5, 1, 400)
        one, other = 10 * (shared + 0.3 + autoregressive(rng, 400, rho)), 10 * shared
        found = difference(one, other, sizes, sizes, draws=200, confidence=0.95, seed=seed)
        assert found is not None
        covered += found.low <= 0.3 <= found.high
        step = 1.96 * float((one - other).std()) / 10 / math.sqrt(400)
        naive += abs(found.estimate - 0.3) <= step
    assert at_least <= covered / runs <= 0.99
    assert (naive / runs < 0.75) == (rho > 0.5)


def test_few_stretches_have_no_interval() -> None:
    ones = np.ones(19)
    assert difference(ones, ones, ones, ones, draws=100, confidence=0.95, seed=0) is None


@pytest.fixture
def results(stream: Stream, evaluate: Evaluate, tmp_path: Path) -> Callable[..., Path]:
    """Evaluate the small stream with further flags; the result file."""

    def make(name: str, *flags: object) -> Path:
        tmp_path.joinpath("kept").mkdir(exist_ok=True)
        common = ["--data", stream.shard, "--scores", stream.scores, "--seq-len", 256, "--buckets", 512]
        evaluate(*common, *flags)
        return (tmp_path / "out.json").rename(tmp_path / "kept" / f"{name}.json")

    return make


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


def test_a_score_is_not_compared_with_bits_per_byte_in_silence(results: Callable[..., Path], capsys: Any) -> None:
    a = results("a")
    message = refused(capsys, a)
    assert "pseudo-probability" in message
    assert "--mixed" in message
    assert "'hashed' is a pseudo-probability, whose score is no code length, and its neural model alone" in refused(
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
    assert "the interval is of the positions that both scored once" in " ".join(capsys.readouterr().out.split())


def test_against_the_neural_model(results: Callable[..., Path], capsys: Any) -> None:
    (found,) = comparison(capsys, results("a", "--preset", "exact"), "--against", "neural")
    assert found["against"] == "neural alone"
    assert found["difference"] == pytest.approx(found["bits"] - found["neural_bits"], abs=1e-12)
    assert found["interval"]["high"] < 0, "the memory helps on a text of repeated phrases"


def test_other_texts_are_not_paired(results: Callable[..., Path], capsys: Any) -> None:
    a, b = results("a", "--preset", "exact"), results("b", "--preset", "exact", "--max-tokens", 2000)
    found = comparison(capsys, a, b)[1]
    assert found["interval"] is None
    assert found["unpaired"] == "other tokens"


def test_bad_files_and_flags(results: Callable[..., Path], capsys: Any, tmp_path: Path) -> None:
    good = results("good", "--preset", "exact")
    broken = tmp_path / "broken.json"
    for content, message in (
        ("{", "is no JSON"),
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


# Running again


def test_a_result_is_run_again(results: Callable[..., Path], evaluate: Evaluate, capsys: Any) -> None:
    path = results("a", "--preset", "exact", "--preset", "hashed", "--max-order", 5)
    before = path.read_bytes()
    again = evaluate("--from-result", path)
    assert path.read_bytes() == before, "it goes where the new command line says"
    assert again["exact"]["config"]["ngram"]["max_order"] == 5
    printed = capsys.readouterr().out
    assert f"exact: equal to {path}, to the bit" in printed
    assert f"hashed: equal to {path}, to the bit" in printed
    assert again["exact"]["settings"] == json.loads(before)["runs"][0]["settings"]


def test_a_result_that_differs_says_where(results: Callable[..., Path], evaluate: Evaluate, capsys: Any) -> None:
    path = results("a", "--preset", "exact")
    with pytest.raises(SystemExit) as exit_info:
        evaluate("--from-result", path, "--max-order", 4)
    assert exit_info.value.code == 1
    printed = capsys.readouterr().out
    assert "exact: DIFFERENT: nats was " in printed
    assert "config.ngram.max_order was 24, is 4" in printed


def test_other_files_are_refused(
    stream: Stream, results: Callable[..., Path], evaluate: Evaluate, capsys: Any, tmp_path: Path
) -> None:
    path = results("a", "--preset", "hashed")
    rng = np.random.default_rng(0)
    other = tmp_path / "other.npz"
    np.savez(other, p_target=rng.random(2999), entropy=rng.random(2999).astype(np.float32))
    with pytest.raises(SystemExit) as exit_info:
        evaluate("--from-result", path, "--scores", other)
    assert exit_info.value.code == 2
    message = capsys.readouterr().err
    assert "is not the file that" in message
    assert str(stream.scores) in message


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
