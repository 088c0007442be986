"""What is in a result."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.support.evaluator import Evaluate, small
from tests.support.streams import Stream


def test_json_has_every_field(stream: Stream, evaluate: Evaluate) -> None:
    results = evaluate(*small(stream), "--preset", "hashed", "--preset", "pr890")
    assert list(results) == ["hashed", "pr890"]
    result = results["hashed"]
    asked = [
        "preset",
        "normalised",
        "nats",
        "positions",
        "bytes",
        "val_loss",
        "val_bpb",
        "neural_nats",
        "neural_bpb",
        "hits",
        "hit_rate",
        "hits_by_order",
        "world_size",
        "backend",
        "seconds",
        "config",
        "versions",
    ]
    assert set(asked) <= set(result)
    assert result["bytes"] is None
    assert result["val_bpb"] is None
    assert result["neural_bpb"] is None
    assert result["vocabulary_sum"] is None
    assert result["config"]["window"] == {"seq_len": 256, "stride": 32, "rescore_tail": False}
    assert result["config"]["ngram"]["context_gap"] is False
    assert results["pr890"]["config"]["ngram"]["context_gap"] is True
    assert result["versions"]["ngram_eval"] == version("ngram_eval")
    assert result["backend"] == "cpu"
    assert set(result["seconds"]) >= {"neural", "n-gram", "waiting"}


def test_an_interrupted_write_leaves_the_old_result(stream: Stream, evaluate: Evaluate, monkeypatch: Any) -> None:
    before = evaluate(*small(stream), "--preset", "hashed")

    def broken(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", broken)
        with pytest.raises(SystemExit):
            evaluate(*small(stream), "--preset", "pr890")
    out = Path(sys.argv[-1])
    assert json.loads(out.read_text())["runs"][0] == before["hashed"]
    assert [file.name for file in out.parent.iterdir()] == ["out.json"]
