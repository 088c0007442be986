"""Draws the loss curve: `python -m ngram_eval.train.curve RUN_FOLDER curve.png`, or `--curve` of a training run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.files import replacing, require_writable
from ngram_eval.results.page.plots import require_matplotlib
from ngram_eval.train.journal import Entry, read


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Draw the loss curve of a run."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The run's folder, which holds log.jsonl."""
    out: Annotated[Path, tyro.conf.Positional]
    """The PNG to write."""


def draw(entries: list[Entry], path: Path) -> None:
    """Draw training and validation loss over steps, and the learning rate, as a PNG."""
    from matplotlib.figure import Figure  # an optional extra

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([e.step for e in entries], [e.loss for e in entries], lw=1, label="training")
    scored = [(e.step, e.val_nats) for e in entries if e.val_nats is not None]
    if scored:
        steps, nats = zip(*scored, strict=True)
        axes.plot(steps, nats, marker="o", ms=3, label="validation (averaged weights)")
    axes.set(xlabel="step", ylabel="nats a token")
    top = sorted(e.loss for e in entries)[int(0.95 * (len(entries) - 1))]  # the first steps would flatten the rest
    axes.set_ylim(top=top)
    axes.legend(loc="upper right")
    rates = axes.twinx()
    rates.plot([e.step for e in entries], [e.lr for e in entries], lw=1, color="grey", ls=":")
    rates.set(ylabel="learning rate x", ylim=(0, 1.05))
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=90)


def main() -> None:
    """The command line."""
    with exit_on_input_error():
        options = tyro.cli(Options, prog="python -m ngram_eval.train.curve")
        require_matplotlib("the curve")
        require_writable("OUT", options.out)
        entries = read(options.folder)
        if not entries:
            raise InputError(f"{options.folder}/log.jsonl is empty: there is nothing to draw yet")
        draw(entries, options.out)


if __name__ == "__main__":
    main()
