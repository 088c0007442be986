"""How long an evaluation takes: measures each stage here, and predicts an evaluation of N tokens on R ranks."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from ngram_eval.config import EvalConfig
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.errors import InputError
from ngram_eval.evaluation import published
from ngram_eval.evaluation.budget.exchange import measure_exchange
from ngram_eval.evaluation.budget.measure import Costs, measure
from ngram_eval.evaluation.budget.predict import Prediction, Remedy, Setting, predict, remedies
from ngram_eval.evaluation.job import load_job, read_inputs
from ngram_eval.evaluation.schedule import sharing_of
from ngram_eval.evaluation.settings import Settings
from ngram_eval.scorers.make import check_source, windows_at_once
from ngram_eval.text.windows import target_count

STEPS = 6
"""Number of steps that `budget` reports; `measure` reports five of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """The measured costs and the predicted time of one preset."""

    preset: str
    tokens: int
    ranks: int
    sharing: str
    costs: Costs
    prediction: Prediction
    limit: float
    changes: list[Remedy]

    @property
    def fits(self) -> bool:
        """Whether the predicted time is within the limit."""
        return self.prediction.total <= self.limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The evaluation to predict, and how carefully the stages are measured."""

    tokens: int = published.TARGETS + 1
    """Length of the text to predict for; default: PR #890's validation split."""
    ranks: int = 1
    """Ranks to predict for, each as fast as one process on this machine."""
    cores: int | None = None
    """Cores of each rank; default: those this process may use. With one, engine and forward passes take turns."""
    seconds: float = published.LIMIT
    """Time limit of the evaluation."""
    rounds: int = 3
    """Measurements of each stage; the median is used."""

    def check(self) -> None:
        """Raise `InputError` for numbers out of range."""
        for name in ("tokens", "ranks", "rounds", "cores"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} is {value}: give at least 1")
        if not 0 < self.seconds < float("inf"):
            raise InputError(f"--seconds is {self.seconds}: give more than 0")


def budget(settings: Settings, name: str, config: EvalConfig, asked: Asked, step: Callable[[str], None]) -> Budget:
    """Measure and predict one preset; `step` is called `STEPS` times, with the name of the next stage."""
    job = load_job(settings, ALONE)  # imports: they are measured as part of the start
    started = time.perf_counter()
    read_inputs(load_job(settings, ALONE))
    load = time.perf_counter() - started
    check_source(config, job.source)
    windows, banded = job, None
    if settings.embedded or settings.model.artifact is not None:
        windows, banded = (
            job
            if way == settings.model.forward
            else replace(load_job(_forwarding(settings, way), ALONE), kept=job.kept)
            for way in WAYS
        )
    targets = target_count(asked.tokens, max(config.window.seq_len, job.source.train_seq_len))
    setting = Setting(
        config=config,
        targets=targets,
        ranks=asked.ranks,
        cores=asked.cores or len(os.sched_getaffinity(0)),
        batch_windows=windows_at_once(config, job.source),
        sharing=sharing_of(settings.hardware.ngram, name, config, settings.hardware.backend),
        forward=settings.model.forward,
    )
    step("collectives")
    exchange = measure_exchange(config) if asked.ranks > 1 else None
    costs = measure(
        windows,
        config,
        banded=banded,
        load=load,
        rounds=asked.rounds,
        threads=job.threads,
        exchange=exchange,
        step=step,
    )
    prediction = predict(costs, setting)
    better = list(remedies(costs, setting, asked.seconds)) if prediction.total > asked.seconds else []
    return Budget(
        preset=name,
        tokens=asked.tokens,
        ranks=asked.ranks,
        sharing=setting.sharing,
        costs=costs,
        prediction=prediction,
        limit=asked.seconds,
        changes=better,
    )


WAYS: tuple[Literal["windows", "banded"], ...] = ("windows", "banded")


def _forwarding(settings: Settings, way: Literal["windows", "banded"]) -> Settings:
    """The same model, forwarded that way, without memories."""
    model = replace(settings.model, forward=way, chunk=None, sinks=0)
    return replace(settings, model=model, data=replace(settings.data, memory=()))
