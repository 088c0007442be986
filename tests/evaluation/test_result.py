"""What is in a result."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from ngram_eval.evaluation.result import Result
from tests.support.evaluator import Evaluate, small
from tests.support.streams import Stream


def test_json_has_every_field(stream: Stream, evaluate: Evaluate) -> None:
    results = evaluate(*small(stream), "--preset", "hashed", "--preset", "pr890")
    assert list(results) == ["hashed", "pr890"]
    result = results["hashed"]
    kinds = get_type_hints(Result)
    assert list(result) == list(kinds)
    for name, kind in kinds.items():
        choices = get_args(kind) if isinstance(kind, UnionType) else (kind,)
        assert isinstance(result[name], tuple(get_origin(one) or one for one in choices)), name
    assert {name for name, value in result.items() if value is None} == {
        *("vocabulary_sum", "bytes", "val_bpb", "neural_bpb", "unknown_targets"),  # no distributions, no tokenizer
        *("original_bytes", "original_bpb", "neural_original_bpb"),  # and no manifest
    }
    assert (result["complete"], result["subset"], result["depends_on_ranks"]) == (True, False, False)
    assert (result["tokens"], result["positions"], result["resumed_positions"]) == (3000, 2816, 0)
    assert result["val_loss"] == result["nats"] / 2816
    assert result["hit_rate"] == result["hits"] / 2816 == sum(result["hits_by_order"].values()) / 2816
    assert sum(result["gain_by_order"].values()) == pytest.approx(result["neural_nats"] - result["nats"])
    assert (result["neural_source"], result["neural_settings"], result["neural_reused"]) == ("scores", {}, 0)
    assert (result["world_size"], result["ngram"], result["prefill"]) == (1, "sharded", "local")
    assert result["data"] == [str(stream.shard)]
    assert [(one["role"], one["bytes"]) for one in result["inputs"]] == [
        ("data", stream.shard.stat().st_size),
        ("scores", stream.scores.stat().st_size),
    ]
    assert result["settings"]["model"]["scores"] == str(stream.scores)
    assert result["settings"]["data"]["data"] == [str(stream.shard)]
    assert result["profile"]["targets"] == 2816
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
