"""What is in a result."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from ngram_eval import evaluate as evaluate_api
from ngram_eval import preset
from ngram_eval.evaluation.result import Result
from ngram_eval.results.notebook import NotebookResult
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
        *("original_bytes", "original_bpb", "neural_original_bpb", "memory"),  # no manifest, and no memory
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


def test_a_result_is_plain_and_prints_what_is_asked_first(stream: Stream) -> None:
    rows = np.random.default_rng(0).normal(size=(len(stream.tokens) - 1, 50))
    config = preset("hashed")
    config = replace(config, window=replace(config.window, seq_len=256))
    result = evaluate_api(rows, stream.tokens, config)
    assert f"score (nats per token, not normalised): {result.val_loss:.4f}" in repr(result)
    assert len(repr(result)) < 200
    assert isinstance(result, NotebookResult)
    assert f"<td>{result.hit_rate:.2%}</td>" in result._repr_html_()
    told = repr(replace(result, complete=False, normalised=True, val_bpb=1.5, neural_bpb=2.25, preset="<b>"))
    assert told.startswith("<preset: <b>, PARTIAL; bits per byte: 1.5000; model alone: bits per byte: 2.2500;")
    assert "&lt;b&gt;" in replace(result, preset="<b>")._repr_html_()

    def leaves(value: Any) -> Iterator[Any]:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else None
        yield from (value,) if inner is None else chain.from_iterable(map(leaves, inner))

    assert {type(leaf) for leaf in leaves(asdict(result))} <= {str, int, float, bool, type(None)}
