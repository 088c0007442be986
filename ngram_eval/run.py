"""Score a token stream in bits per byte: `python -m ngram_eval.run` (see --help).

`evaluate` is the whole method in six steps: tokens → windows → logits → counts → blend → bits per byte.
"""

import sys
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ngram_eval.bpb import Tally
from ngram_eval.checkpoint import Checkpoint, Record
from ngram_eval.config import EvalConfig, WindowConfig
from ngram_eval.counts import ON_DEVICE
from ngram_eval.engine import Engine
from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.files import require_writable
from ngram_eval.job import Job, fingerprint, load_job
from ngram_eval.neural import RememberingSource, save_scores
from ngram_eval.options import JobOptions, Options, parse
from ngram_eval.ranks import Ranks, first_rank_speaks, joined_ranks
from ngram_eval.reading import Reader
from ngram_eval.report import Shared, print_table, summarise, write_json
from ngram_eval.samples import choose_samples
from ngram_eval.scorers import check_source, make_scorer, windows_at_once
from ngram_eval.sharing import pipelined, sharded
from ngram_eval.timing import Stopwatch
from ngram_eval.windows import Grid, Plan, batches, plan_windows, target_count

SAMPLES = 64
"""Positions at which the sum over the vocabulary is taken, for the result's `vocabulary_sum`."""


class Evaluated(NamedTuple):
    """What one rank found; `tally` of all ranks and `before` add up to the result."""

    tally: Tally
    """What its share of the stream costs."""
    before: Tally
    """What an earlier run had found whose checkpoint this one goes on from."""
    prefill: str | None
    """How a sharded rank got the counts before its stretch."""


def evaluate(
    job: Job, options: Options, name: str, config: EvalConfig, clock: Stopwatch, progress: Progress
) -> Evaluated:
    """Evaluate this rank's share of the stream under `config`."""
    tokens, source, ranks = job.stream.tokens, job.source, job.ranks
    targets = target_count(len(tokens), max(config.window.seq_len, source.train_seq_len))
    plan = Plan(targets, config.window)
    sharing, saved, before = options.sharing(name, config), None, Record()
    if options.checkpoint is not None:
        with clock.stage("checkpoint"):
            here = options.checkpoint / name
            saved = Checkpoint(here, fingerprint(job, config, sharing), ranks, options.every)
            before = saved.begin(options.resume)

    scorer = make_scorer(job.backend, config, options.count_threads(), job.vocabulary)  # counts and blend
    if before.done:
        scorer.load_learned(before.learned)
    samples = choose_samples(targets, SAMPLES if source.gives_all else 0, config.window)
    grid = Grid(plan, windows_at_once(config, source))
    reader = Reader(tokens, source, grid, samples, scorer.needs_rows, clock)  # logits
    bar = progress.add_task(name, total=None)
    engine = Engine(
        tokens=tokens,
        plan=plan,
        scorer=scorer,
        tokenizer=job.tokenizer,
        byte_rule=config.byte_rule,
        clock=clock,
        expect=lambda positions: progress.update(bar, total=positions),
        advance=lambda positions: progress.advance(bar, positions),
        checkpoint=saved,
    )
    if sharing == "pipelined":
        return Evaluated(pipelined(reader, engine, before, ranks), before.tally, None)
    tally, prefill = sharded(reader, engine, before, config, ranks, options.batch_windows, options.prefill)
    return Evaluated(tally, before.tally, prefill)


def runnable(options: JobOptions, configs: dict[str, EvalConfig], ranks: Ranks) -> dict[str, EvalConfig]:
    """The presets without those that can't run here, if nobody named any; else raises `InputError` for such a one."""
    kept = {}
    for name, config in configs.items():
        counts_there = options.backend == "cuda" and config.scorer == "exact" and config.exact.tilt == "off"
        why = None
        if config.learns_online and options.backend in ON_DEVICE and not counts_there:
            why = f"--preset {name} learns position by position: it needs --backend cpu or reference"
        if config.byte_rule == "piece" and options.hf and not options.tokenizer:
            why = f"--preset {name} counts bytes by a formula on SentencePiece models: --hf needs --byte-rule decoded"
        if why is None:
            kept[name] = config
        elif options.preset:
            raise InputError(why)
        elif ranks.rank == 0:
            print(f"Left out {name}: {why}.", file=sys.stderr)
    return kept


def run(options: Options, configs: dict[str, EvalConfig], ranks: Ranks, console: Console) -> None:
    """Evaluate every preset and report on rank 0."""
    configs = runnable(options, configs, ranks)
    for name, config in configs.items():
        options.sharing(name, config)  # refused now rather than after the presets before
    clock = Stopwatch()
    require_writable("--json", options.json)
    require_writable("--save-scores", options.save_scores)
    with clock.stage("load"):
        job = load_job(options, ranks)
    for config in configs.values():
        check_source(config, job.source)
    remembering = None
    runs_model = options.artifact is not None or options.hf is not None or options.embedded
    if options.save_scores is not None or (runs_model and len(configs) > 1):
        seq_len = next(iter(configs.values())).window.seq_len
        remembering = RememberingSource(job.source, len(job.stream.tokens) - 1, seq_len)
        job = replace(job, source=remembering)

    results = []
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"))
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, *times, console=Console(stderr=True), disable=ranks.rank > 0) as progress:
        for name, config in configs.items():
            reused_before = remembering.reused if remembering else 0
            found = evaluate(job, options, name, config, clock, progress)
            asked_again = options.save_scores is not None or name != list(configs)[-1]
            if remembering is not None and ranks.world > 1 and asked_again:
                with clock.stage("exchange"):
                    remembering.exchange(ranks)
            reused = remembering.reused - reused_before if remembering else 0
            tallies, seconds, reuses = zip(*ranks.gather((found.tally, clock.seconds, reused)), strict=True)
            slowest = {stage: max(one.get(stage, 0.0) for one in seconds) for one in seconds for stage in one}
            shared = Shared(options.sharing(name, config), found.prefill, found.before.positions)
            whole = reduce(add, tallies, found.before)
            results.append(summarise(job, name, config, whole, slowest, sum(reuses), shared))
            clock = Stopwatch()

    if ranks.rank == 0:
        if options.save_scores is not None and remembering is not None:
            write_all_scores(job, remembering, config.window, options.save_scores)
        if options.json is not None:
            write_json(options.json, results)
        print_table(results, console)


def write_all_scores(job: Job, source: RememberingSource, config: WindowConfig, path: Path) -> None:
    """Add the statistics of the positions behind the cut to those of every rank, and write all N - 1."""
    cut = int(np.isnan(source.p_target).argmax()) if np.isnan(source.p_target).any() else len(source.p_target)
    windows = plan_windows(len(source.p_target), replace(config, rescore_tail=False))
    behind = windows[windows.stop > cut]
    for batch in batches(replace(behind, first=np.maximum(behind.first, cut)), source.batch_windows):
        source.stats(job.stream.tokens, batch)
    save_scores(path, source.p_target, source.entropy, source.train_seq_len)


def main() -> None:
    """The command line."""
    with exit_on_input_error():
        with first_rank_speaks():
            options, configs = parse(sys.argv[1:], Options(), "python -m ngram_eval.run")
        with joined_ranks(options.rank_timeout) as ranks:
            run(options, configs, ranks, Console())


if __name__ == "__main__":
    main()
