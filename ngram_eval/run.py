"""Score a token stream in bits per byte: `python -m ngram_eval.run` (see --help).

`evaluate` is the whole method in six steps: tokens → windows → logits → counts → blend → bits per byte.
"""

import sys
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ngram_eval.bpb import Tally
from ngram_eval.config import ByteRule, EvalConfig, WindowConfig
from ngram_eval.counts import Tokens
from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.files import require_writable
from ngram_eval.job import Job, load_job
from ngram_eval.neural import RememberingSource, save_scores
from ngram_eval.options import JobOptions, Options, parse
from ngram_eval.prefill import prefill_stop
from ngram_eval.ranks import Ranks, joined_ranks
from ngram_eval.report import print_table, summarise, write_json
from ngram_eval.samples import choose_samples, cut, look
from ngram_eval.scorers import make_scorer
from ngram_eval.timing import Stopwatch
from ngram_eval.tokens import Tokenizer
from ngram_eval.windows import Windows, batches, plan_windows, share, target_count

SAMPLES = 64
"""Positions at which the sum over the vocabulary is taken, for the result's `vocabulary_sum`."""


def evaluate(job: Job, name: str, config: EvalConfig, clock: Stopwatch, progress: Progress) -> Tally:
    """What this rank's share of the stream costs under `config`; the ranks' tallies add up to the result."""
    tokens, source, options, ranks = job.stream.tokens, job.source, job.options, job.ranks
    targets = target_count(len(tokens), max(config.window.seq_len, source.train_seq_len))
    windows = plan_windows(targets, config.window)
    mine = share(windows, ranks.rank, ranks.world, config.window, options.batch_windows)
    before = prefill_stop(mine, config.ngram)
    task = progress.add_task(name, total=before + mine.scored)

    with clock.stage("prefill"):
        scorer = make_scorer(job.backend, config, options.count_threads(), source)
        scorer.prefill(tokens, before, lambda positions: progress.advance(task, positions))

    samples = choose_samples(targets, SAMPLES if source.gives_all else 0, config.window)
    beside = Tally()
    for batch in batches(mine, source.batch_windows):
        with clock.stage("neural"):
            stats = source.stats(tokens, batch)
        entry = 0
        for looks, part in cut(batch, samples, scorer.window_wise):
            with clock.stage("samples"):
                for position in looks:
                    beside.add_vocabulary(look(scorer, source, tokens, batch, position)[0])
            with clock.stage("n-gram"):
                scorer.score(tokens, part, stats.part(slice(entry, entry + part.scored)))  # counts, then blend
            entry += part.scored
        if job.tokenizer is not None:
            with clock.stage("bytes"):
                count_bytes(beside, tokens, job.tokenizer, batch, config.byte_rule)
        progress.advance(task, batch.scored)
    return scorer.tally() + beside


def count_bytes(tally: Tally, tokens: Tokens, tokenizer: Tokenizer, windows: Windows, rule: ByteRule) -> None:
    """Add the bytes and the unknown targets of the scored positions."""
    for first, stop in windows.spans():
        decoded = int(tokenizer.target_bytes(tokens, first, stop, "decoded").sum())
        tally.decoded_bytes += decoded
        tally.bytes += decoded if rule == "decoded" else int(tokenizer.target_bytes(tokens, first, stop, rule).sum())
        tally.unknown_targets += tokenizer.unknown_targets(tokens, first, stop)


def runnable(options: JobOptions, configs: dict[str, EvalConfig], ranks: Ranks) -> dict[str, EvalConfig]:
    """The presets without those that can't run here, if nobody named any; else raises `InputError` for such a one."""
    kept = {}
    for name, config in configs.items():
        if config.scorer == "exact" and (ranks.world > 1 or options.backend == "triton"):
            why = f"--preset {name} learns position by position: it needs one rank and --backend cpu or reference"
            if options.preset:
                raise InputError(why)
            if ranks.rank == 0:
                print(f"Left out {name}: {why}.", file=sys.stderr)
        else:
            kept[name] = config
    return kept


def run(options: Options, configs: dict[str, EvalConfig], ranks: Ranks, console: Console) -> None:
    """Evaluate every preset and report on rank 0."""
    configs = runnable(options, configs, ranks)
    clock = Stopwatch()
    require_writable("--json", options.json)
    require_writable("--save-scores", options.save_scores)
    with clock.stage("load"):
        job = load_job(options, ranks)
    remembering = None
    runs_model = options.artifact is not None or options.embedded
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
            tally = evaluate(job, name, config, clock, progress)
            reused = remembering.reused - reused_before if remembering else 0
            tallies, seconds, reuses = zip(*ranks.gather((tally, clock.seconds, reused)), strict=True)
            slowest = {stage: max(one.get(stage, 0.0) for one in seconds) for one in seconds for stage in one}
            results.append(summarise(job, name, config, reduce(add, tallies), slowest, sum(reuses)))
            clock = Stopwatch()

    if options.save_scores is not None and remembering is not None:
        write_all_scores(job, remembering, config.window, options.save_scores)
    if ranks.rank == 0:
        if options.json is not None:
            write_json(options.json, results)
        print_table(results, console)


def write_all_scores(job: Job, source: RememberingSource, config: WindowConfig, path: Path) -> None:
    """Gather the statistics of every rank, add the positions behind the cut, and write all N - 1 on rank 0."""
    known = np.flatnonzero(~np.isnan(source.p_target))
    parts = job.ranks.gather((known, source.p_target[known], source.entropy[known]))
    if job.ranks.rank > 0:
        return
    for positions, p_target, entropy in reversed(parts):  # a position scored on two ranks keeps the lower one's
        source.p_target[positions], source.entropy[positions] = p_target, entropy
    cut = int(np.isnan(source.p_target).argmax()) if np.isnan(source.p_target).any() else len(source.p_target)
    windows = plan_windows(len(source.p_target), replace(config, rescore_tail=False))
    behind = windows[windows.stop > cut]
    for batch in batches(replace(behind, first=np.maximum(behind.first, cut)), source.batch_windows):
        source.stats(job.stream.tokens, batch)
    save_scores(path, source.p_target, source.entropy, source.train_seq_len)


def main() -> None:
    """The command line."""
    with exit_on_input_error(), joined_ranks() as ranks:
        options, configs = parse(sys.argv[1:], Options(), "python -m ngram_eval.run")
        run(options, configs, ranks, Console())


if __name__ == "__main__":
    main()
