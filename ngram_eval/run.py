"""Score a token stream in bits per byte: `python -m ngram_eval.run` (see --help).

`evaluate` is the whole method in six steps: tokens → windows → logits → counts → blend → bits per byte.
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import reduce
from itertools import chain
from operator import add
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress

from ngram_eval.bpb import Tally
from ngram_eval.checkpoint import Checkpoint, Record
from ngram_eval.config import EvalConfig, WindowConfig
from ngram_eval.console import progress_bars, show_help, table_console
from ngram_eval.counts import ON_DEVICE
from ngram_eval.engine import Engine
from ngram_eval.errors import INTERRUPTED, InputError, exit_on_input_error
from ngram_eval.files import STDOUT, require_writable
from ngram_eval.interrupt import Interrupt
from ngram_eval.job import Job, fingerprint, load_job, read_inputs
from ngram_eval.neural import RememberingSource, save_scores
from ngram_eval.options import JobOptions, Options, parse
from ngram_eval.page import draw_all, require_matplotlib, write_page
from ngram_eval.profile import Profile
from ngram_eval.ranks import Ranks, first_rank_speaks, joined_ranks
from ngram_eval.reading import Reader
from ngram_eval.report import Result, Shared, print_table, summarise, write_json
from ngram_eval.rerun import Again
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
    profile: Profile
    """What its share looks like."""
    profile_before: Profile | None
    """What that of the earlier run looked like."""
    complete: bool
    """Whether nothing interrupted it."""


def evaluate(
    job: Job,
    options: Options,
    name: str,
    config: EvalConfig,
    clock: Stopwatch,
    progress: Progress,
    interrupt: Interrupt | None = None,
) -> Evaluated:
    """Evaluate this rank's share of the stream under `config`, or what of it comes before an interrupt."""
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
    reader = Reader(tokens, source, grid, samples, scorer.needs_rows, clock, interrupt)  # logits
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
    prefill = None
    if sharing == "pipelined":
        tally = pipelined(reader, engine, before, ranks)
    else:
        tally, prefill = sharded(reader, engine, before, config, ranks, options.batch_windows, options.prefill)
    complete = interrupt is None or not interrupt.asked
    return Evaluated(tally, before.tally, prefill, engine.profile, before.profile, complete)


def whole_profile(found: Evaluated, ranks: Ranks) -> Profile:
    """The profile of all ranks and of the earlier run; every rank calls this."""
    profile = found.profile
    ranks.all_reduce(profile.along, "sum")
    ranks.all_reduce(profile.cells, "sum")
    weighted, samples = zip(*ranks.gather((profile.weighted, profile.samples)), strict=True)
    profile = replace(profile, weighted=any(weighted), samples=sorted(chain.from_iterable(samples)))
    return profile if found.profile_before is None else profile + found.profile_before


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


def run(
    options: Options, configs: dict[str, EvalConfig], ranks: Ranks, arguments: Sequence[str], again: Again | None
) -> int:
    """Evaluate every preset and report on rank 0; the exit code. `arguments` are those of the command line."""
    configs = runnable(options, configs, ranks)
    for name, config in configs.items():
        options.sharing(name, config)  # refused now rather than after the presets before
    clock = Stopwatch()
    require_writable("--json", options.json)
    require_writable("--save-scores", options.save_scores)
    require_writable("--report", options.report)
    if options.plot is not None:
        require_matplotlib("--plot")
    with clock.stage("load"):
        job = load_job(options, ranks)
        inputs = read_inputs(job, quiet=options.quiet or ranks.rank > 0)
    if again is not None:
        again.check_inputs(inputs)
    for config in configs.values():
        check_source(config, job.source)
    remembering = None
    runs_model = options.artifact is not None or options.hf is not None or options.embedded
    if options.save_scores is not None or (runs_model and len(configs) > 1):
        seq_len = next(iter(configs.values())).window.seq_len
        remembering = RememberingSource(job.source, len(job.stream.tokens) - 1, seq_len)
        job = replace(job, source=remembering)

    results = []
    interrupt = Interrupt() if ranks.world == 1 else None  # ranks would each stop somewhere else
    quiet = options.quiet or ranks.rank > 0
    with progress_bars(quiet=quiet) as progress, interrupt or nullcontext():
        for name, config in configs.items():
            reused_before = remembering.reused if remembering else 0
            found = evaluate(job, options, name, config, clock, progress, interrupt)
            if not found.complete and not (found.tally + found.before).positions:
                break
            asked_again = options.save_scores is not None or name != list(configs)[-1]
            if remembering is not None and ranks.world > 1 and asked_again:
                with clock.stage("exchange"):
                    remembering.exchange(ranks)
            reused = remembering.reused - reused_before if remembering else 0
            tallies, seconds, reuses = zip(*ranks.gather((found.tally, clock.seconds, reused)), strict=True)
            slowest = {stage: max(one.get(stage, 0.0) for one in seconds) for one in seconds for stage in one}
            shared = Shared(options.sharing(name, config), found.prefill, found.before.positions, found.complete)
            whole, profile = reduce(add, tallies, found.before), whole_profile(found, ranks)
            more: Any = {"profile": profile, "inputs": inputs, "arguments": arguments}
            results.append(summarise(job, name, config, whole, slowest, sum(reuses), shared, **more))
            clock = Stopwatch()
            if not found.complete:
                break

    interrupted = interrupt is not None and interrupt.asked
    if interrupted:
        print("interrupted: what was scored until then follows" if results else "interrupted", file=sys.stderr)
    if ranks.rank == 0 and results:
        if options.save_scores is not None and remembering is not None and not interrupted:
            write_all_scores(job, remembering, config.window, options.save_scores)
        write_results(options, results)
    if interrupted:
        return INTERRUPTED
    return 0 if again is None or ranks.rank > 0 else again.verdict(results, shown(options))


def write_results(options: Options, results: list[Result]) -> None:
    """Everything that was asked for: JSON, page, charts, table."""
    if options.json is not None:
        write_json(options.json, results)
    if options.report is not None:
        write_page(options.report, results)
    if options.plot is not None:
        draw_all(options.plot, results)
    print_table(results, shown(options))


def shown(options: Options) -> Console:
    """Where tables go."""
    return table_console(quiet=options.quiet, stdout_taken=STDOUT in (options.json, options.report))


def write_all_scores(job: Job, source: RememberingSource, config: WindowConfig, path: Path) -> None:
    """Add the statistics of the positions behind the cut to those of every rank, and write all N - 1."""
    cut = int(np.isnan(source.p_target).argmax()) if np.isnan(source.p_target).any() else len(source.p_target)
    windows = plan_windows(len(source.p_target), replace(config, rescore_tail=False))
    behind = windows[windows.stop > cut]
    for batch in batches(replace(behind, first=np.maximum(behind.first, cut)), source.batch_windows):
        source.stats(job.stream.tokens, batch)
    save_scores(path, source.p_target, source.entropy, source.train_seq_len)


HELP = """\
Score a token stream in bits per byte: a language model, an n-gram memory, and both together.

example
  {prog} --data 'shards/val_*.bin' --artifact model.ngev --tokenizer T.model \\
      --preset exact --json out.json

what is scored (by default the embedded novel with the embedded model)
  --data FILE ...     token shards (.bin): names or quoted patterns, one stream
  --tokenizer FILE    SentencePiece model of the data: without it no bytes, no bits per byte
  --max-tokens N      only the first N tokens; the result is flagged as a subset
by which model
  --artifact FILE     a model of ours (.ngev); --ttt legal adapts it as it goes
  --scores FILE       .npz with p_target and entropy of every position, of any model
  --logits FILE       .npy of logits, (positions, vocabulary), of any model
  --hf NAME           a Hugging Face model, with --text FILE ... or --data
  --uniform           1/V for every token: the n-gram memory alone
and by which method
  --preset NAME       pr890 (as published), hashed (mended), exact, tilt, mixer (probabilities)
  --seq-len L --stride S    windows of L positions, each scoring S new ones
what comes of it
  --json FILE         all results; - for stdout
  --report FILE       one HTML page with charts; --plot DIR for PNG files
  --save-scores FILE  the model's statistics, for --scores
  --from-result FILE  run a --json file again and say whether it is equal
  --checkpoint DIR    save progress there; --resume goes on from it
  --quiet             no progress, no table
on what
  --device, --dtype   torch device and precision; --batch-windows of one forward pass
  --backend NAME      count tables: cpu (default), triton, cuda (GPU), reference; --threads N

--help-all: every flag, with the method's settings and those of many ranks (docs/distributed.md)
"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m ngram_eval.run") -> None:
    """The command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with exit_on_input_error():
        with first_rank_speaks():
            show_help(given, HELP, prog)
            again = Again.named_in(given)
            given = given if again is None else [*again.arguments, *given]
            options, configs = parse(given, Options(), prog)
        with joined_ranks(options.rank_timeout) as ranks:
            code = run(options, configs, ranks, given, again)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
