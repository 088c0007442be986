"""What results say of the stream: sums of windows, by order, by entropy; the same however the work is split."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ngram_eval.config import WindowConfig
from ngram_eval.evaluation import profile as module
from ngram_eval.evaluation.profile import ENTROPY_BINS, UNIT, Profile
from ngram_eval.text.windows import Plan
from tests.support.evaluator import Evaluate
from tests.support.streams import Stream


def small(stream: Stream, *more: object) -> list[object]:
    return ["--data", stream.shard, "--scores", stream.scores, "--seq-len", 256, "--buckets", 512, *more]


def profile_of(run: dict[str, Any]) -> Profile:
    return Profile.unpacked(run["profile"])


def test_the_parts_add_up_to_the_result(stream: Stream, evaluate: Evaluate) -> None:
    for name, run in evaluate(*small(stream)).items():
        found = profile_of(run)
        nats, neural, sizes, positions = found.along.sum(axis=0)
        assert positions == run["positions"]
        assert nats / UNIT == pytest.approx(run["nats"], rel=1e-8)
        assert neural / UNIT == pytest.approx(run["neural_nats"], rel=1e-8)
        assert sizes == 0, "there is no tokenizer"
        assert found.cells[0].sum() == run["positions"]
        assert found.cells[1].sum() == nats
        by_order = found.cells[0].sum(axis=1)
        assert {str(n): by_order[n] for n in range(1, 33) if by_order[n]} == {
            n: hits for n, hits in run["hits_by_order"].items() if hits
        }
        assert sum(run["gain_by_order"].values()) == pytest.approx(run["neural_nats"] - run["nats"], rel=1e-6)
        assert found.weighted == (name != "exact")
        windows = WindowConfig(**run["config"]["window"])
        assert len(found.along) == found.windows_each * len(Plan(found.targets, windows))


def test_a_window_s_entry_is_its_own(stream: Stream, evaluate: Evaluate) -> None:
    """Window 3 by hand: the uniform model charges ln V at each of its positions, and bytes are its targets'."""
    flags = ["--stride", 64, "--buckets", 4096, "--preset", "hashed"]
    run = evaluate("--max-tokens", 900, *flags)["hashed"]
    found = profile_of(run)
    assert found.along[:, 3].tolist() == [256, *[64] * 8]
    assert found.along[:, 2].sum() == run["bytes"]
    part = evaluate("--max-tokens", 513, *flags)["hashed"]  # the first five windows
    np.testing.assert_array_equal(profile_of(part).along, found.along[:5])
    assert run["nats"] != part["nats"]


def test_the_gate_s_weights_are_those_of_the_formula(stream: Stream, evaluate: Evaluate) -> None:
    run = evaluate(*small(stream, "--preset", "hashed", "--alpha-range", 0, "--alpha-fixed", 0.25))["hashed"]
    positions, _, _, weight = profile_of(run).cells
    assert weight[0].sum() == 0, "nothing matched, nothing weighs"
    assert weight[1:].sum() == pytest.approx(0.25 * UNIT * positions[1:].sum())
    assert positions.shape == (33, ENTROPY_BINS)
    entropies = stream.entropy[: run["positions"]]
    expected = np.bincount(np.minimum((entropies * 4).astype(int), ENTROPY_BINS - 1), minlength=ENTROPY_BINS)
    np.testing.assert_array_equal(positions.sum(axis=0), expected)


def test_long_streams_have_several_windows_in_an_entry(
    stream: Stream, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = profile_of(evaluate(*small(stream, "--preset", "hashed"))["hashed"])
    monkeypatch.setattr(module, "MOST_STRETCHES", 30)
    coarse = profile_of(evaluate(*small(stream, "--preset", "hashed"))["hashed"])
    assert coarse.windows_each == 3
    assert len(coarse.along) == 27
    np.testing.assert_array_equal(coarse.along, np.add.reduceat(fine.along, np.arange(0, 81, 3)))


def test_packing() -> None:
    plan = Plan(1000, WindowConfig(seq_len=100, stride=10))
    made = Profile.empty(plan)
    made.along[3] = [2**62, -5, 7, 9]
    made.cells[2, 32, 63] = 11
    made = replace(made, weighted=True, samples=[(5, 1.5, 2.25, None), (9, 0.5, 1.0, 0.125)])
    back = Profile.unpacked(made.packed())
    np.testing.assert_array_equal(back.along, made.along)
    np.testing.assert_array_equal(back.cells, made.cells)
    assert (back.targets, back.windows_each, back.weighted, back.samples) == (1000, 1, True, made.samples)
    for damage in ({"along": "!"}, {"along": made.packed()["along"][:-8]}, {"cells": made.packed()["along"]}, {}):
        broken = {**made.packed(), **damage} if damage else {"along": 1}
        with pytest.raises(ValueError, match=r"profile|reshape"):
            Profile.unpacked(broken)


def test_a_resumed_run_has_the_whole_profile(
    stream: Stream, evaluate: Evaluate, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ngram_eval.evaluation import engine

    arguments = small(stream, "--preset", "hashed", "--batch-windows", 20)
    whole = evaluate(*arguments)["hashed"]
    monkeypatch.setattr("ngram_eval.models.saved_scores.SavedScores.batch_windows", 20)
    original, left = engine.Engine.score, iter(range(2))

    def limited(self: engine.Engine, reading: Any) -> None:
        if next(left, None) is None:
            raise RuntimeError("killed")
        original(self, reading)

    state = ["--checkpoint", tmp_path / "state", "--every", 1]
    with monkeypatch.context() as patch:
        patch.setattr(engine.Engine, "score", limited)
        with pytest.raises(RuntimeError, match="killed"):
            evaluate(*arguments, *state)
    resumed = evaluate(*arguments, *state, "--resume")["hashed"]
    assert resumed["resumed_positions"] > 0
    assert resumed["profile"] == whole["profile"]
