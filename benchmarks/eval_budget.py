"""What an evaluation costs, and whether predictions of it hold: `python -m benchmarks.eval_budget --out FILE.md`.

`ngram-eval budget` measures the stages and predicts PR #890's validation split on 8 ranks like this machine. Then the
prediction for a text that fits here is checked against the evaluation itself, a process started from nothing, several
times. Stages are measured anew each time, just before and just after the run, and the mean of both predictions is
taken: other work may share the machine and come and go. The median of the ratios must be within 10 %, or the script
fails.
"""

import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.machine import describe_machine, publish
from ngram_eval.cli.budget import BudgetOptions, measured_rows, time_of, verdict
from ngram_eval.cli.options import parse
from ngram_eval.config import EvalConfig
from ngram_eval.evaluation import published
from ngram_eval.evaluation.budget.budget import Budget, budget

TOLERANCE = 0.10


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure the stages of an evaluation, predict, and check predictions against evaluations."""

    presets: tuple[str, ...] = ("hashed", "exact")
    """Checked."""
    max_tokens: int = 33_955
    """Tokens of the embedded sample in the checked evaluations; default: all."""
    rounds: int = 5
    """Checks of each preset; the median of their ratios decides."""
    ranks: int = 8
    """Of the prediction for PR #890's validation split."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One prediction and the run it was for; seconds from the start of the process to its end."""

    preset: str
    predicted: float
    measured: float
    forward: tuple[float, float]
    """Of these the forward passes, predicted and measured."""

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted / self.measured


def check(name: str, max_tokens: int) -> Check:
    """Measure and predict, run what was predicted, and measure and predict again."""
    flags = ["--preset", name, "--max-tokens", str(max_tokens)]
    options, configs = parse([*flags, "--tokens", str(max_tokens), "--rounds", "9"], BudgetOptions(), "budget")
    before = budget(options.settings, name, configs[name], options.asked, lambda step: None).prediction
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, "-m", "ngram_eval.run", *flags, "--quiet", "--json", str(out)]
        started = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - started
        (run,) = json.loads(out.read_text())["runs"]
    after = budget(options.settings, name, configs[name], options.asked, lambda step: None).prediction
    forward = statistics.mean(one.stages["forward passes"] for one in (before, after)), run["seconds"]["neural"]
    predicted = statistics.mean([before.total, after.total])
    return Check(preset=name, predicted=predicted, measured=seconds, forward=forward)


def predict_published(options: Options) -> Budget:
    """PR #890's split, with the embedded model's cost of a window."""
    asked, configs = parse(["--preset", "pr890", "--ranks", str(options.ranks)], BudgetOptions(), "budget")
    config: EvalConfig = configs["pr890"]
    return budget(asked.settings, "pr890", config, asked.asked, lambda step: None)


def report(options: Options, whole: Budget, checks: list[Check]) -> str:
    """The result as Markdown."""
    low, high = published.SECONDS
    text = [
        "# The budget of an evaluation",
        "",
        f"Command: `{shlex.join(['python', '-m', 'benchmarks.eval_budget', *sys.argv[1:]])}`",
        "",
        describe_machine() + "; one thread a process.",
        "",
        "## What a stage costs here (measured)",
        "",
        "The embedded model (1.3 M parameters) on the embedded sample, preset `pr890`.",
        "",
        "| stage | cost | of |",
        "|---|---|---|",
        *(f"| {what.strip()} | {time_of(seconds)} | {each} |" for what, each, seconds in measured_rows(whole.costs)),
        "",
        f"## {published.TARGETS:,} positions on {whole.ranks} ranks like this machine (predicted)",
        "",
        "| stage | seconds | share |",
        "|---|---|---|",
    ]
    everything = sum(whole.prediction.stages.values())
    for stage, seconds in whole.prediction.stages.items():
        text.append(f"| {stage} | {seconds:,.2f} | {seconds / everything:.1%} |")
    text += [
        f"| less what is done beside {whole.prediction.beside} | -{whole.prediction.hidden:,.2f} | |",
        f"| **together (predicted)** | **{whole.prediction.total:,.1f}** | |",
        f"| PR #890 on {published.RANKS} H100, another model (published) | {low} to {high} | |",
        "",
        *verdict(whole),
        "",
        "## Predictions against evaluations",
        "",
        f"The first {options.max_tokens:,} tokens of the embedded sample on one rank: `ngram-eval run` as a process of "
        "its own, predicted by the mean of `ngram-eval budget` just before and just after.",
        "",
        "| preset | round | predicted, s | measured, s | predicted / measured | forward passes: predicted, measured |",
        "|---|---|---|---|---|---|",
    ]
    for number, one in enumerate(checks):
        text.append(
            f"| {one.preset} | {number % options.rounds + 1} | {one.predicted:.2f} | {one.measured:.2f} | "
            f"{one.ratio:.3f} | {one.forward[0]:.2f}, {one.forward[1]:.2f} |"
        )
    for name in options.presets:
        ratio = statistics.median(one.ratio for one in checks if one.preset == name)
        text.append(f"| {name} | median | | | **{ratio:.3f}** | |")
    return "\n".join(text) + "\n"


def off(options: Options, checks: list[Check]) -> list[str]:
    """The presets whose median prediction is off by more than `TOLERANCE`."""
    medians = {name: statistics.median(one.ratio for one in checks if one.preset == name) for name in options.presets}
    return [f"{name}: {ratio:.3f}" for name, ratio in medians.items() if abs(ratio - 1) > TOLERANCE]


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.eval_budget")
    whole = predict_published(options)
    checks = [check(name, options.max_tokens) for name in options.presets for _ in range(options.rounds)]
    publish(report(options, whole, checks), options.out)
    if wrong := off(options, checks):
        sys.exit(f"predictions are off by more than {TOLERANCE:.0%}: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
