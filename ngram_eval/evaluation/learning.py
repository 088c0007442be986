"""What scorers learn on a kept memory's text, by scoring it once with the model (`ngram-eval memory learn`)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import EvalConfig, WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.evaluation.job import Job, learning_key
from ngram_eval.evaluation.reader import Reader
from ngram_eval.models.saved_scores import RememberingSource
from ngram_eval.models.source import UniformSource
from ngram_eval.scorers.make import check_source, make_scorer, windows_at_once
from ngram_eval.text.windows import Grid, Plan, target_count
from ngram_eval.timing import Stopwatch, Track


def learned_on(job: Job, configs: Mapping[str, EvalConfig], track: Track) -> dict[str, Mapping[str, NDArray[Any]]]:
    """Key of method and model -> what its scorer learned on the text of `job.kept`, for each preset that learns.

    Each position is scored once, in windows that overlap by half. Raises `InputError` for a preset that only counts.
    """
    assert job.kept is not None, "it is what is learned on"
    if not job.model:
        raise InputError(
            "what is learned on a memory needs a model that can be run on it: --artifact, --hf or --uniform"
        )
    tokens, found = job.kept.tokens, {}
    source = job.source.original if isinstance(job.source, RememberingSource) else job.source
    for name, config in configs.items():
        if not config.learns_online:
            raise InputError(f"--preset {name} only counts: give exact, tilt, mixer or ppmd")
        check_source(config, source)
        length = min(source.train_seq_len or config.window.seq_len, len(tokens) - 1)
        here = replace(config, window=WindowConfig(seq_len=length, stride=max(length // 2, 1)))
        plan = Plan(target_count(len(tokens), length), here.window)
        scorer = make_scorer(job.backend, here, job.threads, job.vocabulary)
        tree = None if source.name == UniformSource.name else scorer.tree
        grid = Grid(plan, windows_at_once(here, source))
        rows = here.needs_rows and tree is None
        reader = Reader(tokens, source, grid, np.zeros(0, np.int64), rows, Stopwatch(), None, tree)
        advance = track(name, plan.targets)
        for reading in reader.read(grid.cut(range(len(plan)))):
            scorer.score(tokens, reading.windows, reading.stats)
            advance(reading.windows.scored)
        found[learning_key(config, job.model)] = scorer.learned()
    return found
