"""The byte mixture as a preset: on the command line, in the audit, from checkpoints, on any number of ranks."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest

from ngram_eval import evaluate as evaluate_model
from ngram_eval.assets import asset
from ngram_eval.cli import audit, explain
from ngram_eval.codec.method import code_presets
from ngram_eval.config import EvalConfig, NgramConfig, PpmdConfig, preset
from ngram_eval.distributed.ranks import Ranks
from ngram_eval.errors import InputError
from ngram_eval.evaluation import engine, evaluate
from ngram_eval.evaluation.job import load_job
from ngram_eval.evaluation.settings import CheckpointSettings, DataSettings, HardwareSettings, ModelSettings, Settings
from ngram_eval.models import source as neural
from ngram_eval.text.shards import read_shards
from ngram_eval.timing import Stopwatch
from tests.support.evaluator import Evaluate, fails
from tests.support.threads import on_ranks

TOKENS = 1500
DATA = ["--data", asset("sample_000000.bin"), "--tokenizer", asset("tokenizer.model"), "--max-tokens", TOKENS]
FLAGS = [*DATA, "--uniform", "--seq-len", 64, "--stride", 64, "--preset", "ppmd"]
SUMS = ("nats", "neural_nats", "positions", "bytes", "hits_by_order", "vocabulary_sum")


def test_it_is_printed_as_a_score(evaluate: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate(*FLAGS)["ppmd"]
    assert not found["normalised"]
    assert found["vocabulary_sum"] > 1.2
    assert 0 < found["nats"] < found["neural_nats"]
    assert found["config"]["ppmd"] == {
        "byte_gate": "blind",
        "byte_share": "spread",
        "sure_above": 0.9,
        "model_weight": 0.9,
        "model_weight_sure": 0.05,
    }
    printed = capsys.readouterr().out
    assert "score (not normalised)" in printed
    assert " bits per byte   " not in printed.replace("model alone: bits per byte", "")
    assert "do not sum to 1, so its score is not a code length" in " ".join(printed.split())


@pytest.mark.parametrize("flags", [["--byte-gate", "target", "--sure-above", 0.5], ["--byte-share", "marginal"]])
def test_backends_and_batches_give_the_same_bits(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch, flags: list[object]
) -> None:
    plain = evaluate(*FLAGS)["ppmd"]
    found = evaluate(*FLAGS, *flags)["ppmd"]
    assert found["nats"] != plain["nats"], "the flags count"
    monkeypatch.setattr(neural.UniformSource, "batch_windows", 3)
    again = evaluate(*FLAGS, *flags, "--stride", 7, "--samples", 3)["ppmd"]
    assert [again[name] for name in SUMS[:-1]] == [found[name] for name in SUMS[:-1]]
    slow = evaluate(*FLAGS, *flags, "--max-tokens", 200, "--samples", 0, "--backend", "reference")["ppmd"]
    fast = evaluate(*FLAGS, *flags, "--max-tokens", 200, "--samples", 0)["ppmd"]
    assert [slow[name] for name in SUMS] == [fast[name] for name in SUMS]


def test_any_number_of_ranks_gives_the_same_bits() -> None:
    settings = Settings(
        data=DataSettings(data=(str(asset("sample_000000.bin")),), tokenizer=asset("tokenizer.model"), max_tokens=800),
        model=ModelSettings(uniform=True),
        hardware=HardwareSettings(threads=1),
    )
    base = preset("ppmd")
    config = replace(base, window=base.window.of_length(64))

    def share(ranks: Ranks) -> evaluate.Share:
        job = load_job(settings, ranks)
        job.source.batch_windows = 2
        return evaluate.evaluate(job, "it", config, saving=CheckpointSettings(), clock=Stopwatch())

    alone, three = (reduce(add, (one.tally for one in on_ranks(world, share))) for world in (1, 3))
    assert alone == three
    assert alone.sampled == settings.samples


class Interrupted(Exception):
    """Stands for whatever ends a process."""


def test_resuming_gives_the_same_bits(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A checkpoint holds no counts: the bytes before are counted again."""
    monkeypatch.setattr(neural.UniformSource, "batch_windows", 5)
    saving = ["--checkpoint", tmp_path / "state", "--every", 1]
    original, left = engine.Engine.score, iter(range(2))

    def limited(self: engine.Engine, reading: Any) -> None:
        if next(left, None) is None:
            raise Interrupted
        original(self, reading)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Engine, "score", limited)
        with pytest.raises(Interrupted):
            evaluate(*FLAGS, *saving)
    resumed, whole = evaluate(*FLAGS, *saving, "--resume")["ppmd"], evaluate(*FLAGS)["ppmd"]
    assert resumed["resumed_positions"] == 2 * 5 * 64
    assert [resumed[name] for name in SUMS] == [whole[name] for name in SUMS]
    rerun = evaluate("--from-result", tmp_path / "out.json")["ppmd"]
    assert rerun["nats"] == whole["nats"]


def test_an_explanation_adds_up(capsys: pytest.CaptureFixture[str], evaluate: Evaluate) -> None:
    position = 1203
    arguments = [*FLAGS, "--position", position, "--json", "-", "--quiet"]
    explain.main([str(one) for one in arguments], "explain")
    (one,) = json.loads(capsys.readouterr().out)["predictions"]
    tokens = read_shards([str(asset("sample_000000.bin"))]).tokens
    assert one["target"]["token"] == int(tokens[:][position + 1])
    told = one["explanation"]
    assert sum(order["weight"] for order in told["orders"]) == pytest.approx(told["weight"])
    assert told["order"] == max(order["order"] for order in told["orders"] if order["context"])
    assert told["orders"][0]["context"] > 3000, "order 1 has seen every byte"
    until = [evaluate(*FLAGS, "--stride", 1, "--seq-len", 1, "--max-tokens", position + n)["ppmd"] for n in (1, 2)]
    assert one["nats"] == pytest.approx(until[1]["nats"] - until[0]["nats"], abs=1e-9)


@pytest.mark.parametrize("gate", ["blind", "target"])
def test_the_audit_refutes_it(capsys: pytest.CaptureFixture[str], tmp_path: Any, gate: str) -> None:
    """Its sum and what it costs renormalised; and of the gate that sees the target, that it does."""
    arguments = [*FLAGS, "--positions", 700, "--samples", 24, "--cuts", 1, "--seed", 0]
    arguments += ["--byte-gate", gate, "--sure-above", 0.4, "--json", tmp_path / "audit.json"]
    with pytest.raises(SystemExit, match="1"):
        audit.main([str(one) for one in arguments])
    found = {one["subject"]: one["probes"] for one in json.loads((tmp_path / "audit.json").read_text())["audits"]}
    numbers = {probe["number"] for probe in found["ppmd"] if probe["verdict"] == "refuted"}
    assert {1, 10} <= numbers
    assert (3 in numbers) == (gate == "target")
    assert not {2, 4, 5, 6, 8} & numbers
    assert "only up to rounding" in capsys.readouterr().out


def test_what_needs_a_probability_or_a_tokenizer_refuses_it(
    capsys: pytest.CaptureFixture[str], evaluate: Evaluate
) -> None:
    assert "ppmd" not in code_presets()
    no_tokenizer = ["--data", asset("sample_000000.bin"), "--uniform", "--vocab-size", 1024, "--seq-len", 64]
    message = fails(capsys, evaluate, *no_tokenizer, "--preset", "ppmd")
    assert "needs the bytes of tokens" in message
    assert "give --tokenizer, or another --preset" in message
    with pytest.raises(InputError, match="needs the bytes of tokens"):
        evaluate_model(np.zeros((9, 4)), [0, 1, 2, 3, 0, 1, 2, 3, 0, 1], replace(preset("ppmd"), window=short()))
    assert "it needs --backend cpu or reference" in fails(capsys, evaluate, *FLAGS, "--backend", "triton")
    assert "--ngram pipelined" in fails(capsys, evaluate, *FLAGS, "--ngram", "sharded")


def short() -> Any:
    return preset("ppmd").window.of_length(8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PpmdConfig(sure_above=1.5), "sure_above is 1.5"),
        (lambda: PpmdConfig(model_weight=-0.1), "model_weight is -0.1"),
        (lambda: PpmdConfig(model_weight_sure=2), "model_weight_sure is 2"),
        (lambda: EvalConfig(scorer="ppmd", ngram=NgramConfig(max_order=8)), "max_order is 8.*give 1 to 7"),
        (lambda: EvalConfig(scorer="ppmd", ngram=NgramConfig(max_order=6, context_gap=True)), "context_gap"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_scores_of_targets_are_enough_for_the_published_share(evaluate: Evaluate, tmp_path: Any) -> None:
    """The vocabulary of --scores is not known; the tokenizer's is."""
    np.savez(tmp_path / "s.npz", p_target=np.full(TOKENS - 1, 1 / 1024), entropy=np.ones(TOKENS - 1, np.float32))
    flags = [*DATA, "--scores", tmp_path / "s.npz", "--seq-len", 64, "--stride", 64, "--preset", "ppmd"]
    found = evaluate(*flags)["ppmd"]
    assert found["nats"] == evaluate(*FLAGS)["ppmd"]["nats"]
    assert found["vocabulary_sum"] is None
    with pytest.raises(SystemExit, match="2"):
        evaluate(*flags, "--byte-share", "marginal")
