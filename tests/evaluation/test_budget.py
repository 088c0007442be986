"""Budgets: the arithmetic, what is measured, and what is said of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import eval_budget
from ngram_eval.cli import budget as command
from ngram_eval.config import EvalConfig, WindowConfig, preset
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.evaluation import published
from ngram_eval.evaluation.budget import advice as advice_
from ngram_eval.evaluation.budget.budget import Asked, Budget, budget
from ngram_eval.evaluation.budget.measure import Costs, plan_of
from ngram_eval.evaluation.budget.predict import Setting, predict, remedies, window_cost
from ngram_eval.evaluation.job import load_job
from ngram_eval.evaluation.settings import Settings
from ngram_eval.kept import file as kept_file
from ngram_eval.text.kept import kept_of
from ngram_eval.text.samples import SAMPLES
from tests.support.streams import Stream

COSTS = Costs(
    start=0.5,
    load=1.5,
    first_window=0.1,
    shape=(256, 32),
    windows={(256, 32): 0.010, (256, 256): 0.024, (128, 32): 0.0055, (64, 32): 0.0035},
    batch_windows=32,
    look=0.01,
    ngram=1e-6,
    count=2e-7,
    touch=0.4,
    bytes=1e-7,
    profile=1e-7,
    scan=2.0,
    send=1e-7,
)


def setting(**changed: Any) -> Setting:
    config = preset("hashed")
    config = replace(config, window=replace(config.window, seq_len=256))
    settings: dict[str, Any] = {
        "config": config,
        "targets": 256 + 32 * 9_999,
        "ranks": 1,
        "cores": 2,
        "batch_windows": 32,
        "sharing": "sharded",
    }
    return Setting(**{**settings, **changed})


def test_one_rank_by_hand() -> None:
    """10,000 windows of 10 ms beside an engine of 1.2 us a position."""
    found = predict(COSTS, setting())
    positions = 256 + 32 * 9_999
    assert found.stages["forward passes"] == pytest.approx(9_999 * 0.010 + 0.1)
    assert found.stages["samples"] == pytest.approx(SAMPLES * 0.01)
    assert found.stages["n-gram"] == pytest.approx(0.4 + positions * 1e-6)
    engine = 0.4 + positions * 1.2e-6 + SAMPLES * 0.01
    assert found.hidden == pytest.approx(engine)
    assert found.beside == "forward passes"
    assert found.total == pytest.approx(0.5 + 1.5 + 9_999 * 0.010 + 0.1)
    in_turn = predict(COSTS, setting(cores=1))
    assert in_turn.total == pytest.approx(found.total + engine)
    assert in_turn.beside == "both in turn"


def test_a_kept_memory_is_counted_once_beside_the_model() -> None:
    found, without = predict(replace(COSTS, kept=7.0), setting()), predict(COSTS, setting())
    assert found.stages["kept"] == 7.0
    assert found.hidden == pytest.approx(without.hidden + 7.0)
    assert "kept" not in without.stages


def test_a_kept_memory_is_measured(
    stream: Stream, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ngram_eval.evaluation.budget.measure.measure_start", lambda: 0.25)
    kept_file.write(tmp_path / "a.ngm", kept_of(stream.tokens[:900], None, 50), "exact")
    flags = ["--data", stream.shard, "--uniform", "--vocab-size", 50, "--seq-len", 256, "--buckets", 512, "--rounds", 1]
    presets = ["--preset", "hashed", "--preset", "exact"]
    budgets, table = run(capsys, *flags, *presets, "--memory", tmp_path / "a.ngm")
    for one in budgets:
        assert 0 < one["measured"]["kept"] == one["predicted"]["stages"]["kept"]
    assert "count the kept memory" in table


def test_ranks_share_and_prefill() -> None:
    found = predict(COSTS, setting(ranks=8))
    assert found.prefill == "local"
    batches = -(-10_000 // 32)
    assert found.stages["forward passes"] == pytest.approx((-(-batches // 8) * 32 - 1) * 0.010 + 0.1)
    assert 0.86 * 320_224 * 2e-7 < found.stages["prefill"] < 0.88 * 320_224 * 2e-7
    long = predict(COSTS, setting(ranks=8, targets=10**9))
    assert long.prefill == "scan"
    assert long.stages["scan"] == pytest.approx(2 * 7 / 8 * 2.0)
    assert long.stages["prefill"] == pytest.approx(10**9 / 8 * 2e-7, rel=1e-2)
    slow = replace(COSTS, ngram=1e-3)
    pipelined = predict(slow, setting(ranks=8, sharing="pipelined"))
    assert pipelined.beside == "the engine"
    assert pipelined.stages["n-gram"] == pytest.approx(0.4 + 320_224 * 1e-3)
    assert pipelined.stages["exchange"] == pytest.approx(320_224 * 7 / 8 * 1e-7)


def test_windows_of_another_shape() -> None:
    def at(seq_len: int, stride: int) -> float:
        config = preset("hashed")
        return window_cost(COSTS, replace(config, window=WindowConfig(seq_len=seq_len, stride=stride)))

    assert at(256, 32) == 0.010
    assert at(128, 32) == 0.0055
    assert 0.010 < at(256, 64) < at(256, 128) < 0.024 * 1.1
    assert at(512, 32) > 1.8 * 0.010
    assert 0.0055 < at(192, 32) < 0.010


def test_what_would_make_it_fit() -> None:
    asked = setting()
    whole = predict(COSTS, asked).total
    found = {change.flag: change for change in remedies(COSTS, asked, whole / 2)}
    assert set(found) == {"--ranks", "--stride", "--seq-len"}
    assert found["--ranks"].value == "3"  # 2 would leave a little more than half
    for flag, one in found.items():
        assert one.seconds <= whole / 2, flag
    stride = int(found["--stride"].value)
    for value, fits in ((stride, True), (stride - 1, False)):
        window = replace(asked.config.window, stride=value)
        changed = replace(asked, config=replace(asked.config, window=window))
        assert (predict(COSTS, changed).total <= whole / 2) == fits
    assert list(remedies(COSTS, asked, 1.0)) == [], "the start alone takes longer"
    engine_bound = replace(COSTS, ngram=1e-3)
    pipelined = setting(ranks=4, sharing="pipelined")
    flags = {c.flag: c.value for c in remedies(engine_bound, pipelined, predict(engine_bound, pipelined).total / 2)}
    assert flags["--ngram"] == "sharded"


def run(capsys: Any, *arguments: object) -> tuple[list[dict[str, Any]], str]:
    capsys.readouterr()
    command.main([str(argument) for argument in (*arguments, "--json", "-")], "ngram-eval budget")
    captured = capsys.readouterr()
    return json.loads(captured.out)["budgets"], captured.err


def test_forwarding_once_is_predicted_and_named() -> None:
    """A tenth of a millisecond a position; windows take 10 ms for 32 positions."""
    costs, asked = replace(COSTS, banded=1e-4, look=0.0), setting(targets=256 + 999 * 32)
    windows = predict(costs, asked)
    banded = predict(costs, replace(asked, forward="banded"))
    assert banded.stages["forward passes"] == pytest.approx(1000 * 32 * 1e-4)
    assert windows.stages["forward passes"] == pytest.approx(999 * 0.010 + 0.1)
    (named,) = (change for change in remedies(costs, asked, banded.total) if change.flag == "--forward")
    assert (named.value, named.seconds) == ("banded", banded.total)
    flags = {change.flag for change in remedies(costs, replace(asked, forward="banded"), banded.total / 1.4)}
    assert flags == {"--ranks"}, "a stride changes no forward"
    assert "--forward" not in {change.flag for change in remedies(COSTS, asked, windows.total / 2)}, "no model of ours"


@pytest.mark.parametrize("forward", ["windows", "banded"])
def test_forwarding_once_is_measured(capsys: Any, monkeypatch: pytest.MonkeyPatch, forward: str) -> None:
    monkeypatch.setattr("ngram_eval.evaluation.budget.measure.measure_start", lambda: 0.25)
    flags = ["--max-tokens", 1200, "--chunk", 256][: 4 if forward == "banded" else 2]
    asked = ["--preset", "hashed", "--rounds", 3, "--stride", 64, "--tokens", 10**8, "--seconds", 10]
    (one,), table = run(capsys, *flags, "--forward", forward, *asked)
    measured, predicted = one["measured"], one["predicted"]
    window = next(w for w in measured["windows"] if (w["seq_len"], w["stride"]) == (256, 64))
    assert 0 < measured["banded"] < window["seconds"] / 64
    each = measured["banded"] if forward == "banded" else window["seconds"] / 64
    assert predicted["stages"]["forward passes"] == pytest.approx(1e8 * each, rel=0.01)
    assert "forward banded, the last 256 seen" in table


def test_long_windows_are_answered_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same model on the same text, were each window to take so many seconds."""
    job = load_job(Settings(), ALONE)
    config = preset("hashed")
    config = replace(config, window=replace(config.window, seq_len=256, stride=8))
    monkeypatch.setattr(advice_, "_POSITIONS_A_SECOND", 1)
    windows = len(plan_of(job, config))
    for seconds, expected in ((601.0, "10 minutes"), (36_000.0, "10.0 hours"), (599.0, None)):
        monkeypatch.setattr(advice_, "measure_window", lambda *_, each=seconds / windows: (each, 1))
        line = advice_.advice(job, config)
        assert (line is None) == (expected is None)
        assert expected is None or f"will take about {expected}" in str(line)
    slow_stride = replace(config, window=replace(config.window, stride=32))
    monkeypatch.setattr(advice_, "measure_window", lambda *_: (1e6, 1))
    assert advice_.advice(job, slow_stride) is None, "a quarter is no tenth"


def test_it_measures_and_predicts(stream: Stream, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ngram_eval.evaluation.budget.measure.measure_start", lambda: 0.25)
    flags = ["--data", stream.shard, "--uniform", "--vocab-size", 50, "--seq-len", 256, "--buckets", 512, "--rounds", 1]
    budgets, table = run(capsys, *flags, "--preset", "hashed", "--preset", "exact", "--tokens", 10_000_000)
    assert [one["preset"] for one in budgets] == ["hashed", "exact"]
    for one in budgets:
        measured, predicted = one["measured"], one["predicted"]
        assert measured["start"] == 0.25
        assert 0 < measured["ngram"] < 1e-3
        if one["preset"] == "hashed":
            assert 0 < measured["count"] < 1e-3
        else:
            assert measured["count"] is None, "what learns online is never prefilled"
        assert measured["scan"] is None, "one rank exchanges nothing"
        assert {(w["seq_len"], w["stride"]) for w in measured["windows"]} == {
            (256, 32),
            (256, 256),
            (128, 32),
            (64, 32),
        }
        assert predicted["total"] == pytest.approx(sum(predicted["stages"].values()) - predicted["hidden"])
        assert predicted["fits"] == (predicted["total"] <= 600)
    assert budgets[0]["measured"]["lookup"] < budgets[0]["measured"]["ngram"] * 5
    assert table.count("measured") > 10
    assert table.count("predicted") > 10
    assert "502 to 588" in table
    assert "fits 600 s" in table
    assert f"{published.TARGETS:,} positions" in table
    (late,), table = run(capsys, *flags, "--preset", "exact", "--tokens", 10**9, "--seconds", 5)
    assert not late["predicted"]["fits"]
    assert "do not fit 5 s" in table


def test_without_a_preset_it_takes_one_that_can_run(
    stream: Stream, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ngram_eval.evaluation.budget.measure.measure_start", lambda: 0.25)
    (tmp_path / "text.txt").write_text("bytes have no pieces " * 40)
    flags = ["--seq-len", 256, "--buckets", 512, "--rounds", 1, "--uniform"]
    (one,), _ = run(capsys, *flags, "--data", stream.shard, "--vocab-size", 50)
    assert one["preset"] == "pr890"
    (one,), _ = run(capsys, *flags, "--text", tmp_path / "text.txt")
    assert one["preset"] == "hashed", "pr890 counts bytes by pieces of SentencePiece"


@pytest.mark.slow
def test_two_ranks_exchange(capsys: Any, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ngram_eval.evaluation.budget.measure.measure_start", lambda: 0.25)
    flags = ["--data", stream.shard, "--uniform", "--vocab-size", 50, "--seq-len", 256, "--buckets", 512, "--rounds", 1]
    (found,), _ = run(capsys, *flags, "--preset", "hashed", "--ranks", 4)
    assert 0 < found["measured"]["scan"] < 10
    assert 0 < found["measured"]["send"] < 1e-3
    assert found["ranks"] == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tokens", 0], "--tokens is 0"),
        (["--ranks", 0], "--ranks is 0"),
        (["--seconds", 0], "--seconds is 0"),
        (["--preset", "pr890", "--uniform", "--text", __file__], "give --byte-rule decoded"),
        (["--tokens", 200], "shorter than one sequence of 256"),
        (["--ttt", "legal"], "is not predicted"),
        pytest.param(["--max-tokens", 400], "the text holds one window of", marks=pytest.mark.slow),
    ],
)
def test_bad_flags(capsys: Any, flags: list[object], message: str) -> None:
    with pytest.raises(SystemExit) as exit_info:
        command.main([str(flag) for flag in flags], "ngram-eval budget")
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    """At toy size, with one check; whether predictions hold is for a quiet machine, not for tests."""
    options = eval_budget.Options(presets=("hashed",), max_tokens=600, rounds=1, ranks=2)

    def small(settings: Settings, name: str, config: EvalConfig, asked: Asked, step: Callable[[str], None]) -> Budget:
        settings = replace(settings, data=replace(settings.data, max_tokens=600))
        return budget(settings, name, config, replace(asked, rounds=1), step)

    monkeypatch.setattr(eval_budget, "budget", small)
    whole, checks = eval_budget.predict_published(options), [eval_budget.check("hashed", 600)]
    text = eval_budget.report(options, whole, checks)
    assert text.count("(predicted)") >= 3
    assert "## What a stage costs here (measured)" in text
    assert f"| hashed | 1 | {checks[0].predicted:.2f} | {checks[0].measured:.2f} |" in text
    assert np.isfinite(checks[0].ratio)
    exactly = replace(checks[0], predicted=checks[0].measured)
    assert eval_budget.off(options, [exactly]) == []
    assert eval_budget.off(options, [replace(exactly, predicted=exactly.measured * 1.11)]) == ["hashed: 1.110"]
