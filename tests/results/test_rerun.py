"""Running results again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.evaluator import Evaluate, fails
from tests.support.streams import Stream


def test_a_result_is_run_again(results: Callable[..., Path], evaluate: Evaluate, capsys: Any) -> None:
    path = results("a", "--preset", "exact", "--preset", "hashed", "--max-order", 5)
    before = path.read_bytes()
    again = evaluate("--from-result", path)
    assert path.read_bytes() == before, "it goes where the new command line says"
    assert again["exact"]["config"]["ngram"]["max_order"] == 5
    printed = capsys.readouterr().out
    assert f"exact: equal to {path}, bit for bit" in printed
    assert f"hashed: equal to {path}, bit for bit" in printed
    assert again["exact"]["settings"] == json.loads(before)["runs"][0]["settings"]


def test_another_spelling_of_the_flag_runs_again_too(
    results: Callable[..., Path], evaluate: Evaluate, capsys: Any
) -> None:
    path = results("a", "--preset", "exact", "--max-order", 5)
    assert evaluate("--from_result", path)["exact"]["config"]["ngram"]["max_order"] == 5
    assert f"exact: equal to {path}, bit for bit" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["json", "save_scores", "report", "plot", "checkpoint"])
def test_what_a_result_names_is_not_written(
    results: Callable[..., Path], evaluate: Evaluate, capsys: Any, tmp_path: Path, name: str
) -> None:
    """Were it a file of somebody else's: in its arguments, or among its settings."""
    theirs, precious = json.loads(results("a", "--preset", "exact").read_text()), tmp_path / "precious"
    (run,) = theirs["runs"]
    for flag in (f"--{name.replace('_', '-')}", f"--{name}"):
        run["arguments"] += [flag, str(precious)]
    (tmp_path / "kept/theirs.json").write_text(json.dumps(theirs))
    assert evaluate("--from-result", tmp_path / "kept/theirs.json")["exact"]["nats"] == run["nats"]
    for part in ("data", "hardware"):
        run["settings"][part][name] = str(precious)
        (tmp_path / "kept/theirs.json").write_text(json.dumps(theirs))
        said = fails(capsys, evaluate, "--from-result", tmp_path / "kept/theirs.json")
        assert f"does not know '{part}.{name}'" in said
        del run["settings"][part][name]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "out.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["data"].update(no_such=1), "does not know 'data.no_such'"),
        (lambda s: s["hardware"].update(threads="2"), "got `str` - at `$.hardware.threads`"),
        (lambda s: s["hardware"].update(threads=True), "got `bool` - at `$.hardware.threads`"),
        (lambda s: s["hardware"].update(dtype="int8"), "$.hardware.dtype"),
        (lambda s: s["hardware"].update(threads=0), "--threads is 0"),
        (lambda s: s["data"].update(data="d.bin"), "$.data.data"),
        (lambda s: s["data"].update(data=[1]), "$.data.data[0]"),
        (lambda s: s["model"].update(scores=3), "$.model.scores"),
        (lambda s: s.update(model=[]), "$.model"),
        (lambda s: s.update(output={"json": "x"}), "'output'"),
    ],
)
def test_settings_that_are_none_are_one_line(
    results: Callable[..., Path], evaluate: Evaluate, capsys: Any, change: Callable[[Any], object], message: str
) -> None:
    path = results("a", "--preset", "exact")
    theirs = json.loads(path.read_text())
    change(theirs["runs"][0]["settings"])
    path.write_text(json.dumps(theirs))
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        evaluate("--from-result", path)
    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: run["config"].update(no_such=1), "no_such"),
        (lambda run: run["config"]["window"].update(no_such=1), "no_such"),
        (lambda run: run["config"]["window"].update(stride="8"), "stride"),
        (lambda run: run["config"]["ngram"].update(max_order=2.5), "max_order"),
        (lambda run: run["config"].update(window=None), "window"),
        (lambda run: run.update(config=[]), "config"),
        (lambda run: run.update(settings=None, arguments=None), "called from Python"),
        (lambda run: run.update(settings=None, arguments=["--no-such-flag"]), "no-such-flag"),
    ],
)
def test_a_method_that_is_none_is_refused(
    results: Callable[..., Path], evaluate: Evaluate, capsys: Any, change: Callable[[Any], object], message: str
) -> None:
    path = results("a", "--preset", "exact")
    theirs = json.loads(path.read_text())
    change(theirs["runs"][0])
    path.write_text(json.dumps(theirs))
    assert message in fails(capsys, evaluate, "--from-result", path)


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
