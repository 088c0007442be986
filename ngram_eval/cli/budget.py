"""`ngram-eval budget`: predicts how long an evaluation takes here, and which setting would make it fit."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import tyro
from rich import box
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from ngram_eval.cli.console import progress_bars, show_help, table_console
from ngram_eval.cli.options import JobOptions, parse
from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.evaluation import published
from ngram_eval.evaluation.budget.budget import STEPS, Asked, Budget, budget
from ngram_eval.evaluation.budget.measure import Costs
from ngram_eval.files import STDOUT, require_writable, write_text
from ngram_eval.scorers.backends import resolve_backend
from ngram_eval.text.samples import SAMPLES


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetOptions(JobOptions):
    """Measure the time of each stage of an evaluation on this machine, and predict one of N tokens on R ranks."""

    asked: Annotated[Asked, tyro.conf.arg(name="")] = field(default_factory=Asked)

    def check(self) -> None:
        super(BudgetOptions, self).check()
        self.asked.check()
        if self.model.ttt != "off":
            raise InputError(f"--ttt {self.model.ttt} trains the model, which is not predicted: leave it out")


def time_of(seconds: float) -> str:
    """A time in s, ms or µs."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            return f"{seconds / size:,.2f} {unit}"
    raise AssertionError("every time fits µs")


def print_budget(one: Budget, console: Console) -> None:
    """Print the costs, the stages with their shares, and the verdict."""
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
        table.add_row(f"in parallel with {predicted.beside}", f"-{predicted.hidden:,.2f}", "", "predicted")
    table.add_row("total", f"{predicted.total:,.1f}", "", "predicted", style="bold")
    low, high = published.SECONDS
    table.add_row(
        f"PR #890: {published.TARGETS:,} positions, {published.RANKS} H100", f"{low} to {high}", "", "published"
    )
    console.print(table)
    for line in verdict(one):
        console.print(line, soft_wrap=True, highlight=False)


def measured_rows(costs: Costs) -> list[tuple[str, str, float]]:
    """(stage, unit, seconds per unit) of everything that was measured."""
    length, stride = costs.shape
    rows: list[tuple[str, str, float | None]] = [
        ("tokenise (before the evaluation)", "a token", costs.tokenise),
        ("start of the process, imports", "once", costs.start),
        ("load", "once", costs.load),
        ("count the kept memory", "once", costs.kept),
        (f"forward, windows of {length}, stride {stride}", "a window", costs.windows[costs.shape]),
        ("  of it: statistics of the logits", "a window", costs.stats),
        ("forward of the first window", "once", costs.first_window),
        (f"forward banded, the last {length} seen", "a position", costs.banded),
        (f"samples ({SAMPLES})", "each", costs.look or None),
        ("look up, blend, count", "a position", costs.ngram),
        ("  of it: look up alone", "a position", costs.lookup),
        ("  count alone (update, prefill)", "a position", costs.count),
        ("memory of the tables", "once", costs.touch or None),
        ("bytes of the text", "a position", costs.bytes or None),
        ("sums for report and compare", "a position", costs.profile),
        ("collectives: scan of the tables, 2 ranks", "once", costs.scan),
        ("collectives: statistics to rank 0", "a position", costs.send),
    ]
    return [(what, each, seconds) for what, each, seconds in rows if seconds is not None]


def verdict(one: Budget) -> list[str]:
    """Lines that say whether the evaluation fits, and which single settings would make it fit."""
    total, limit = one.prediction.total, one.limit
    if one.fits:
        return [f"{one.preset}: fits {limit:g} s, {limit - total:,.1f} s to spare (predicted)."]
    lines = [f"{one.preset}: {total:,.1f} s do not fit {limit:g} s (predicted)."]
    if not one.changes:
        return [
            *lines,
            "None of --ranks (to 1,024), --forward, --stride, --seq-len, --ngram alone would make it fit (predicted).",
        ]
    lines.append("Each of these alone would make it fit (predicted):")
    for change in one.changes:
        lines.append(f"  {change.flag} {change.value}: {change.seconds:,.1f} s; {change.remark}")
    return lines


def as_json(budgets: list[Budget]) -> str:
    """All numbers as JSON, under the keys `measured`, `predicted` and `published`."""

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

    figures = {"targets": published.TARGETS, "ranks": published.RANKS, "seconds": published.SECONDS}
    return json.dumps({"budgets": [plain(one) for one in budgets], "published": figures}, indent=2) + "\n"


HELP = """\
Measure the time of each stage of an evaluation here, and predict one of N tokens on R ranks.

example
  {prog} --data 'val_*.bin' --artifact model.ngev --tokenizer T.model --ranks 8

data (default: measure on the embedded novel)
  --data FILE ... --tokenizer FILE
  --memory FILE ...   kept texts, decoded and counted before
  --tokens N          length of the text to predict (default: PR #890's split, 62,021,633)
model (default: the embedded model)
  --artifact FILE | --scores FILE | --logits FILE | --hf NAME | --uniform
  --forward banded    each position is forwarded once (docs/forward_once.md)
method
  --preset NAME       (default: pr890, or hashed where that can't run); may be repeated
  --seq-len L --stride S
  --seconds 600       time limit of the evaluation
  --rounds 3          measurements of each stage; the median is used
output
  --json FILE         every number, measured or predicted; - for stdout
  --quiet             no progress, no table
hardware
  --ranks R           each as fast as one process here; --cores of each
  --device, --dtype, --batch-windows, --backend, --threads

If the evaluation does not fit, the output names the single settings that would make it fit.
--help-all: every flag
"""


def main(arguments: Sequence[str], prog: str) -> None:
    """The command line."""
    given = list(arguments)
    with exit_on_input_error():
        show_help(given, HELP, prog)
        options, configs = parse(given, BudgetOptions(), prog)
        output = options.output
        require_writable("--json", output.json)
        resolve_backend(options.hardware.backend)  # refused before a bar is shown
        chosen = options.runnable(configs, quiet=output.quiet)
        if not options.method.preset:
            chosen = dict([*chosen.items()][:1])
        console = table_console(quiet=output.quiet, stdout_taken=output.json == STDOUT)
        budgets = []
        for name, config in chosen.items():
            with progress_bars(quiet=output.quiet) as progress:
                bar = progress.add_task(f"measuring {name}", total=STEPS)

                def step(what: str, bar: TaskID = bar, name: str = name, progress: Progress = progress) -> None:
                    progress.update(bar, advance=1, description=f"measuring {name}: {what}")

                budgets.append(budget(options.settings, name, config, options.asked, step))
            print_budget(budgets[-1], console)
        if output.json is not None:
            write_text(output.json, as_json(budgets))
