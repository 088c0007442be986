"""Predicts the time of an evaluation from the costs of its stages. Nothing is measured here."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import EvalConfig
from ngram_eval.distributed.prefill import faster_prefill, prefill_cuts
from ngram_eval.evaluation.budget.measure import Costs
from ngram_eval.text.samples import SAMPLES
from ngram_eval.text.windows import Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """An evaluation to predict: method, length, and machine."""

    config: EvalConfig
    targets: int
    """Positions to score."""
    ranks: int
    cores: int
    """Cores of each rank: with one, engine and forward passes take turns; with more, they run at the same time."""
    batch_windows: int
    """Windows of a batch; a batch is never split between ranks."""
    sharing: Literal["sharded", "pipelined"]
    forward: Literal["windows", "banded"] = "windows"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Predicted seconds of the slowest rank."""

    stages: dict[str, float]
    """Stage -> seconds."""
    beside: str
    """The side that takes longer: forward passes, engine, or both in turn."""
    hidden: float
    """Seconds in `stages` that run at the same time as something longer."""
    prefill: str
    """How ranks get the counts before their stretch: none, local or scan."""

    @property
    def total(self) -> float:
        """Seconds from the start of the command to its end."""
        return sum(self.stages.values()) - self.hidden


def predict(costs: Costs, setting: Setting) -> Prediction:
    """The time of an evaluation in which each rank is as fast as this machine.

    The forward side is first window + windows x cost, or with a banded forward positions x cost; the engine's side is
    kept memories + prefill + scan + positions x cost + samples. Sharded, each rank has an equal part of both;
    pipelined, all ranks share one engine. The last rank is the slowest: it counts everything before its stretch.
    """
    config, ranks = setting.config, setting.ranks
    plan = Plan(setting.targets, config.window)
    scored = setting.targets + (config.window.seq_len - config.window.stride if config.window.rescore_tail else 0)
    batches = -(-len(plan) // setting.batch_windows)
    mine = min(-(-batches // ranks) * setting.batch_windows, len(plan))  # windows of the rank that has most
    passes = (mine - 1) * window_cost(costs, config) + costs.first_window
    if setting.forward == "banded":
        assert costs.banded is not None, "it was measured for a model that can"
        passes = mine * config.window.stride * costs.banded
    forward = {"forward passes": passes}
    part = 1 if setting.sharing == "pipelined" else ranks
    engine = {
        "kept": costs.kept or 0.0,
        "prefill": 0.0,
        "scan": 0.0,
        "exchange": 0.0,
        "n-gram": costs.touch + scored / part * costs.ngram,
    }
    way = "none"
    if setting.sharing == "pipelined":
        engine["exchange"] = scored * (ranks - 1) / ranks * (costs.send or 0.0)
    elif ranks > 1:
        cuts = prefill_cuts(plan, ranks, setting.batch_windows, config.ngram)
        way = faster_prefill(cuts, config.ngram)
        counted = cuts[-1] if way == "local" else max(np.diff([*cuts, cuts[-1]]).tolist())
        engine["prefill"] = counted * (costs.count or 0.0)
        engine["scan"] = 2 * (ranks - 1) / ranks * (costs.scan or 0.0) if way == "scan" else 0.0
    engine["samples"] = min(SAMPLES, setting.targets) / part * costs.look
    engine |= {"bytes": scored / part * costs.bytes, "profile": scored / part * costs.profile}
    sides = sum(forward.values()), sum(engine.values())
    hidden = min(sides) if setting.cores > 1 else 0.0
    waited = "both in turn" if not hidden else "forward passes" if sides[0] >= sides[1] else "the engine"
    stages = {"start": costs.start, "load": costs.load, **forward, **engine}
    kept = {stage: seconds for stage, seconds in stages.items() if seconds}
    return Prediction(stages=kept, beside=waited, hidden=hidden, prefill=way)


def window_cost(costs: Costs, config: EvalConfig) -> float:
    """Seconds of one window's forward: as measured, or for another shape by a model fitted to the measured shapes.

    The model is a x length + b x length^2 + c x stride: matrix products and attention run over the whole window, the
    head and the end of the last block only over the scored positions.
    """
    asked = config.window.seq_len, config.window.stride
    if asked in costs.windows:
        return costs.windows[asked]
    terms = np.array([_terms(shape) for shape in costs.windows])
    weights = np.maximum(np.linalg.lstsq(terms, np.array(list(costs.windows.values())), rcond=None)[0], 0.0)
    known = float(_terms(costs.shape) @ weights)
    scale = float(_terms(asked) @ weights) / known if known else asked[0] / costs.shape[0]
    return costs.windows[costs.shape] * scale


def _terms(shape: tuple[int, int]) -> NDArray[np.float64]:
    length, stride = shape
    return np.array([length / 1e3, (length / 1e3) ** 2, stride / 1e3])


@dataclass(frozen=True, kw_only=True, slots=True)
class Remedy:
    """One changed setting with which the evaluation fits the limit."""

    flag: str
    value: str
    seconds: float
    remark: str


def remedies(costs: Costs, setting: Setting, limit: float) -> Iterator[Remedy]:
    """Settings that alone keep the evaluation within `limit` seconds, each changed as little as possible."""
    window = setting.config.window

    def shaped(seq_len: int, stride: int) -> Setting:
        changed = replace(window, seq_len=seq_len, stride=stride)
        return replace(setting, config=replace(setting.config, window=changed))

    tried: list[tuple[str, str, Iterator[tuple[str, Setting]]]] = [
        (
            "--ranks",
            "the same result (pr890: another)",
            ((str(ranks), replace(setting, ranks=ranks)) for ranks in range(setting.ranks + 1, 1025)),
        ),
        (
            "--forward",
            f"another result, by a thousandth or so: each position sees the last {window.seq_len:,}, forwarded once",
            iter([("banded", replace(setting, forward="banded"))] if costs.banded is not None else []),
        ),
        (
            "--stride",
            "another result: less context for most positions",
            ((str(s), shaped(window.seq_len, s)) for s in range(window.stride + 1, window.seq_len + 1)),
        ),
        (
            "--seq-len",
            "another result: less context",
            ((str(n), shaped(n, window.stride)) for n in range(window.seq_len - 1, window.stride - 1, -1)),
        ),
    ]
    other: Literal["sharded", "pipelined"] = "sharded" if setting.sharing == "pipelined" else "pipelined"
    if setting.ranks > 1 and not setting.config.learns_online:
        tried.append(("--ngram", "the same result", iter([(other, replace(setting, sharing=other))])))
    for flag, remark, settings in tried:
        if setting.forward == "banded" and flag in ("--forward", "--stride", "--seq-len"):
            continue  # no window is forwarded
        if fits := _first_that_fits(costs, list(settings), limit):
            yield Remedy(flag=flag, value=fits[0], seconds=fits[1], remark=remark)


def _first_that_fits(costs: Costs, settings: list[tuple[str, Setting]], limit: float) -> tuple[str, float] | None:
    """(value, seconds) of the first setting within `limit`, found by halving: later settings take less time."""
    if not settings or predict(costs, settings[-1][1]).total > limit:
        return None
    low, high = 0, len(settings) - 1
    while low < high:
        middle = (low + high) // 2
        if predict(costs, settings[middle][1]).total <= limit:
            high = middle
        else:
            low = middle + 1
    return settings[low][0], predict(costs, settings[low][1]).total
