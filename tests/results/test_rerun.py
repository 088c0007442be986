"""Running results again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.evaluator import Evaluate
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
