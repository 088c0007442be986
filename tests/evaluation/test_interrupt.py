"""Ctrl-C: what was scored until then is the result, whatever the preset."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from ngram_eval.config import PRESETS
from ngram_eval.models.source import Asked, UniformSource
from ngram_eval.text.stream import Stream as Tokens
from ngram_eval.text.windows import Windows
from tests.support.evaluator import Evaluate
from tests.support.streams import Stream


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "ppmd"])  # it needs a tokenizer
@pytest.mark.parametrize("calls", [1, 5])
def test_ctrl_c_leaves_a_partial_result(
    stream: Stream, evaluate: Evaluate, monkeypatch: Any, capsys: Any, tmp_path: Path, preset: str, calls: int
) -> None:
    """In the middle of the forward pass of batch `calls`; of the first, there is nothing to show."""
    said, plain = [], UniformSource.stats

    def stats(self: UniformSource, tokens: Tokens, windows: Windows, *whole: Asked) -> Any:
        said.append(windows.scored)
        if len(said) == calls:
            signal.raise_signal(signal.SIGINT)
        return plain(self, tokens, windows, *whole)

    monkeypatch.setattr(UniformSource, "stats", stats)
    monkeypatch.setattr(UniformSource, "batch_windows", 2)
    flags = ["--data", stream.shard, "--uniform", "--vocab-size", 50, "--seq-len", 64, "--stride", 64]
    with pytest.raises(SystemExit) as exit_info:
        evaluate(*flags, "--buckets", 512, "--groups", 64, "--preset", preset, "--byte-rule", "decoded")
    assert exit_info.value.code == 130
    captured = capsys.readouterr()
    assert "interrupted" in captured.err
    assert "Traceback" not in captured.err
    if calls == 1:
        assert not (tmp_path / "out.json").exists()
        return
    (found,) = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert not found["complete"]
    assert found["positions"] == sum(said[:-1])
    assert "PARTIAL" in captured.out
