"""Predict how long an evaluation takes: `python -m ngram_eval.budget` (see --help and docs/budget.md)."""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from ngram_eval import published
from ngram_eval.budget.exchange import measure_exchange
from ngram_eval.budget.measure import Costs, measure
from ngram_eval.budget.predict import SAMPLES, Change, Prediction, Setting, changes, predict
from ngram_eval.config import EvalConfig
from ngram_eval.console import progress_bars, show_help, table_console
from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.files import STDOUT, require_writable, write_text
from ngram_eval.job import load_job, read_inputs
from ngram_eval.options import JobOptions, parse
from ngram_eval.ranks import Ranks
from ngram_eval.scorers import check_source, windows_at_once
from ngram_eval.windows import target_count

_STEPS = 5
"""Of `measure`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetOptions(JobOptions):
    """Measure what each stage of an evaluation costs on this machine, and predict one of N tokens on R ranks."""

    tokens: int = published.TARGETS + 1
    """Length of the text to predict for; default: PR #890's validation split."""
    ranks: int = 1
    """Ranks to predict for, each as fast as this machine is for one process."""
    cores: int | None = None
    """Cores of each rank; default: those this process may use. With one, engine and forward passes take turns."""
    seconds: float = published.LIMIT
    """What it has to fit into."""
    ngram: Literal["auto", "sharded", "pipelined"] = "auto"
    """How ranks share the n-gram work (`ngram-eval run --ngram`)."""
    rounds: int = 3
    """Measurements of a stage; medians are taken."""

    def check(self) -> None:
        super(BudgetOptions, self).check()
        for name in ("tokens", "ranks", "rounds", "cores"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} is {value}: give at least 1")
        if not 0 < self.seconds < float("inf"):
            raise InputError(f"--seconds is {self.seconds}: give more than 0")
        if self.ttt != "off":
            raise InputError(f"--ttt {self.ttt} is a training of its own, which is not predicted: leave it out")


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What was measured, and what follows for one preset."""

    preset: str
    tokens: int
    ranks: int
    sharing: str
    costs: Costs
    prediction: Prediction
    limit: float
    changes: list[Change]

    @property
    def fits(self) -> bool:
        """Whether the predicted time is within the limit."""
        return self.prediction.total <= self.limit


def budget(options: BudgetOptions, name: str, config: EvalConfig, *, quiet: bool) -> Budget:
    """Measure and predict one preset."""
    job = load_job(options, Ranks(0, 1))  # what is imported for it is measured as part of the start
    started = time.perf_counter()
    read_inputs(load_job(options, Ranks(0, 1)))
    load = time.perf_counter() - started
    check_source(config, job.source)
    targets = target_count(options.tokens, max(config.window.seq_len, job.source.train_seq_len))
    sharing: Literal["sharded", "pipelined"]
    sharing = ("pipelined" if config.learns_online else "sharded") if options.ngram == "auto" else options.ngram
    setting = Setting(
        config=config,
        targets=targets,
        ranks=options.ranks,
        cores=options.cores or len(os.sched_getaffinity(0)),
        batch_windows=windows_at_once(config, job.source),
        sharing=sharing,
    )
    with progress_bars(quiet=quiet) as progress:
        bar = progress.add_task(f"measuring {name}", total=_STEPS + 1)

        def step(what: str) -> None:
            progress.update(bar, advance=1, description=f"measuring {name}: {what}")

        progress.update(bar, description=f"measuring {name}: collectives")
        exchange = measure_exchange(config) if options.ranks > 1 else None
        costs = measure(
            job,
            config,
            load=load,
            rounds=options.rounds,
            threads=options.count_threads(),
            exchange=exchange,
            step=step,
        )
        progress.update(bar, completed=_STEPS + 1)
    prediction = predict(costs, setting)
    better = list(changes(costs, setting, options.seconds)) if prediction.total > options.seconds else []
    return Budget(
        preset=name,
        tokens=options.tokens,
        ranks=options.ranks,
        sharing=sharing,
        costs=costs,
        prediction=prediction,
        limit=options.seconds,
        changes=better,
    )


def time_of(seconds: float) -> str:
    """In the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            return f"{seconds / size:,.2f} {unit}"
    raise AssertionError("µs takes all")


def print_budget(one: Budget, console: Console) -> None:
    """Costs, stages with their shares, the verdict, and what would make it fit."""
    costs, predicted = one.costs, one.prediction
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in (f"{one.preset}: cost", "each", "", "here"):
        table.add_column(heading, justify="right" if heading in ("each", "here") else "left", no_wrap=True)
    for what, each, seconds in measured_rows(costs):
        table.add_row(what, time_of(seconds), each, "measured")
    console.print(table)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in (f"{one.tokens:,} tokens, {one.ranks} rank(s), {one.sharing}", "seconds", "share", ""):
        table.add_column(heading, justify="right" if heading in ("seconds", "share") else "left", no_wrap=True)
    everything = sum(predicted.stages.values())
    for stage, seconds in predicted.stages.items():
        table.add_row(stage, f"{seconds:,.2f}", f"{seconds / everything:.1%}", "predicted")
    if predicted.hidden:
        table.add_row(f"less what is done beside {predicted.beside}", f"-{predicted.hidden:,.2f}", "", "predicted")
    table.add_row("together", f"{predicted.total:,.1f}", "", "predicted", style="bold")
    low, high = published.SECONDS
    table.add_row(
        f"PR #890: {published.TARGETS:,} positions, {published.RANKS} H100", f"{low} to {high}", "", "published"
    )
    console.print(table)
    for line in verdict(one):
        console.print(line, soft_wrap=True, highlight=False)


def measured_rows(costs: Costs) -> list[tuple[str, str, float]]:
    """(what, of what, seconds) of everything that was measured."""
    length, stride = costs.shape
    rows: list[tuple[str, str, float | None]] = [
        ("tokenise (before the evaluation)", "a token", costs.tokenise),
        ("start of the process, imports", "once", costs.start),
        ("load", "once", costs.load),
        (f"forward, windows of {length}, stride {stride}", "a window", costs.windows[costs.shape]),
        ("  statistics of the logits, in it", "a window", costs.stats),
        ("forward of the first window", "once", costs.first_window),
        (f"samples ({SAMPLES})", "each", costs.look + costs.look_blended or None),
        ("look up, blend, count", "a position", costs.ngram),
        ("  look up alone, in it", "a position", costs.lookup),
        ("  count alone (update, prefill)", "a position", costs.count),
        ("memory of the tables", "once", costs.touch or None),
        ("bytes of the text", "a position", costs.bytes or None),
        ("sums for report and compare", "a position", costs.profile),
        ("collectives: scan of the tables, 2 ranks", "once", costs.scan),
        ("collectives: statistics to rank 0", "a position", costs.send),
    ]
    return [(what, each, seconds) for what, each, seconds in rows if seconds is not None]


def verdict(one: Budget) -> list[str]:
    """Whether it fits, and which single setting would make it fit."""
    total, limit = one.prediction.total, one.limit
    if one.fits:
        return [f"{one.preset}: fits {limit:g} s, {limit - total:,.1f} s to spare (predicted)."]
    lines = [f"{one.preset}: {total:,.1f} s do not fit {limit:g} s (predicted)."]
    if not one.changes:
        return [
            *lines,
            "No single one of --ranks (to 1,024), --stride, --seq-len, --ngram would make it fit (predicted).",
        ]
    lines.append("Each of these alone would make it fit (predicted):")
    for change in one.changes:
        lines.append(f"  {change.flag} {change.value}: {change.seconds:,.1f} s; {change.remark}")
    return lines


def as_json(budgets: list[Budget]) -> str:
    """All of it; keys say which numbers are measured and which predicted."""

    def plain(one: Budget) -> dict[str, Any]:
        measured = asdict(one.costs)
        measured["windows"] = [
            {"seq_len": length, "stride": stride, "seconds": seconds}
            for (length, stride), seconds in one.costs.windows.items()
        ]
        predicted = {**asdict(one.prediction), "total": one.prediction.total, "fits": one.fits}
        predicted["changes"] = [asdict(change) for change in one.changes]
        about = {"preset": one.preset, "tokens": one.tokens, "ranks": one.ranks, "sharing": one.sharing}
        return {**about, "limit": one.limit, "measured": measured, "predicted": predicted}

    told = {"targets": published.TARGETS, "ranks": published.RANKS, "seconds": published.SECONDS}
    return json.dumps({"budgets": [plain(one) for one in budgets], "published": told}, indent=2) + "\n"


HELP = """\
Measure what each stage of an evaluation costs here, and predict one of N tokens on R ranks.

example
  {prog} --data 'val_*.bin' --artifact model.ngev --tokenizer T.model --ranks 8

what is predicted
  --tokens N          length of the text (default: PR #890's split, 62,021,633)
  --ranks R           each as fast as one process here; --cores of each
  --seq-len L --stride S
  --preset NAME       (default: pr890); may be repeated
  --seconds 600       what it has to fit into
what is measured with, as for `ngram-eval run` (by default the embedded novel and model)
  --data FILE ... --tokenizer FILE
  --artifact FILE | --scores FILE | --logits FILE | --hf NAME | --uniform
  --device, --dtype, --batch-windows, --backend, --threads
  --rounds 3          medians of so many
what comes of it
  --json FILE         every number, measured or predicted; - for stdout
  --quiet             no progress, no table

If it does not fit, the single settings that would make it fit are named.
--help-all: every flag
"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m ngram_eval.budget") -> None:
    """The command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with exit_on_input_error():
        show_help(given, HELP, prog)
        options, configs = parse(given, BudgetOptions(), prog)
        require_writable("--json", options.json)
        chosen = configs if options.preset else {"pr890": configs["pr890"]}
        console = table_console(quiet=options.quiet, stdout_taken=options.json == STDOUT)
        budgets = []
        for name, config in chosen.items():
            budgets.append(budget(options, name, config, quiet=options.quiet))
            print_budget(budgets[-1], console)
        if options.json is not None:
            write_text(options.json, as_json(budgets))


if __name__ == "__main__":
    main()
