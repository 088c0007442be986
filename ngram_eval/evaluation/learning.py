"""A kept memory's own text, scored with a model: what presets learn on it, and how bad the model is at it."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import EvalConfig, WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.evaluation.job import Job, learning_key, model_identity
from ngram_eval.evaluation.reader import Reader, Reading
from ngram_eval.evaluation.settings import ModelSettings, Settings
from ngram_eval.models.branches import Tree
from ngram_eval.models.saved_scores import RememberingSource
from ngram_eval.models.source import NeuralSource, UniformSource
from ngram_eval.scorers.make import check_source, make_scorer, windows_at_once
from ngram_eval.text.kept import KeptMemory
from ngram_eval.text.stream import Tokens
from ngram_eval.text.windows import Grid, Plan, target_count
from ngram_eval.timing import Stopwatch, Track


def learned_on(job: Job, configs: Mapping[str, EvalConfig], track: Track) -> dict[str, Mapping[str, NDArray[Any]]]:
    """Key of method and model -> what its scorer learned on the text of `job.kept`, for each preset that learns.

    Raises `InputError` for a preset that only counts.
    """
    found: dict[str, Mapping[str, NDArray[Any]]] = {}
    for name, config in configs.items():
        if not config.learns_online:
            raise InputError(f"--preset {name} only counts: give exact, tilt, mixer or ppmd")
        scorer = make_scorer(job.backend, config, job.threads, job.vocabulary)
        tokens, source = _own(job)
        check_source(config, source)
        for reading in _readings(tokens, source, config, scorer.tree, track, name):
            scorer.score(tokens, reading.windows, reading.stats)
        found[learning_key(config, job.model)] = scorer.learned()
    return found


def learned_before(kept: KeptMemory, config: EvalConfig, model: ModelSettings, source: str) -> dict[str, NDArray[Any]]:
    """What a memory's file keeps as learned by this method beside this model; settings that name none are not known.

    Nothing where it keeps nothing of both, with a `UserWarning` that names `source` where it keeps something of others.
    """
    if not kept.learned:
        return {}
    known = model != ModelSettings()
    identity = model_identity(Settings(model=model), kept.vocab_size) if known else ""
    found = kept.learned.get(learning_key(config, identity))
    if found is None:
        warnings.warn(
            f"{source} holds weights, none of {config.scorer} beside {'this model' if known else 'a model not named'}: "
            "it is only counted; give artifact=, hf= or uniform= of the model that `ngram-eval memory learn` was given",
            stacklevel=3,
        )
    return dict(found or {})


def model_on(job: Job, track: Track) -> NDArray[np.float64]:
    """The model's probability of each token of the text of `job.kept`, (N,); of those without one its mean."""
    tokens, source = _own(job)
    p = np.full(len(tokens), np.nan)
    for reading in _readings(tokens, source, EvalConfig(), None, track, "the model"):
        p[reading.windows.positions() + 1] = reading.stats.p_target
    p[np.isnan(p)] = np.exp(np.nanmean(np.log(np.maximum(p, 1e-30))))
    return p


def _own(job: Job) -> tuple[Tokens, NeuralSource]:
    assert job.kept is not None, "it is what is scored"
    if not job.model:
        raise InputError("a memory's own text needs a model that can be run on it: --artifact, --hf or --uniform")
    return job.kept.tokens, job.source.original if isinstance(job.source, RememberingSource) else job.source


def _readings(
    tokens: Tokens, source: NeuralSource, config: EvalConfig, tree: Tree | None, track: Track, title: str
) -> Iterator[Reading]:
    """The model's statistics of each position but the last few, once, in windows that overlap by half."""
    length = min(source.train_seq_len or config.window.seq_len, len(tokens) - 1)
    config = replace(config, window=WindowConfig(seq_len=length, stride=max(length // 2, 1)))
    plan = Plan(target_count(len(tokens), length), config.window)
    tree = None if source.name == UniformSource.name else tree
    grid, rows = Grid(plan, windows_at_once(config, source)), config.needs_rows and tree is None
    reader = Reader(tokens, source, grid, np.zeros(0, np.int64), rows, Stopwatch(), None, tree)
    advance = track(title, plan.targets)
    for reading in reader.read(grid.cut(range(len(plan)))):
        yield reading
        advance(reading.windows.scored)
