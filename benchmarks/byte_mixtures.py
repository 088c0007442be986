"""Byte-level PPM-D mixtures, claimed and true: `python -m benchmarks.byte_mixtures --text FILE --out FILE.md`.

The embedded model on the embedded novel, and on a larger text. For the gates and weights of the submissions, and for
others between them: the score that the mixture claims, the sum of its values over the tokens, and what the text costs
when every value is divided by that sum, as a code would have to. Beside them the same mixture with the model's true
share of each byte, the model alone, and two scorers that stay probabilities (presets `exact` and `mixer`).
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.collisions import Line, line_of
from benchmarks.machine import describe_machine, publish
from ngram_eval.assets.build import HELD_OUT
from ngram_eval.config import PpmdConfig, WindowConfig, preset
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.evaluation.job import Job, load_job
from ngram_eval.evaluation.settings import EMBEDDED_SEQ_LEN, DataSettings, Settings
from ngram_eval.files import replacing
from ngram_eval.models.source import Stats
from ngram_eval.scorers.base import NeuralScorer, Scorer
from ngram_eval.scorers.make import make_scorer, windows_at_once
from ngram_eval.text.samples import choose_samples, cut, entropy_of
from ngram_eval.text.shards import TokenStream
from ngram_eval.text.tokenizer import Tokenizer
from ngram_eval.text.windows import batches, plan_windows, target_count


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure what byte-level mixtures claim, and what is true of it."""

    text: Path | None = None
    """A larger text; of the six novels that the embedded model is made from, only the one that it has not seen."""
    stride: int = 128
    """Of the windows over the larger text; the embedded novel has 32."""
    samples: int = 1024
    """Positions at which the values are added up over the vocabulary."""
    toy: bool = False
    """A short stretch and two thresholds, to see that the benchmark works."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""
    plot: Path | None = None
    """Draw the larger text's figures here, .svg or .png; needs matplotlib (`pip install -e '.[plot]'`)."""


PUBLISHED = {
    "target gate (#1785, withdrawn)": PpmdConfig(byte_gate="target"),
    "blind gate (#1795)": PpmdConfig(),
    "blind gate (#1991)": PpmdConfig(sure_above=0.8, model_weight=0.99, model_weight_sure=0.2),
    "blind gate (#2098)": PpmdConfig(sure_above=0.7, model_weight=0.99, model_weight_sure=0.3),
}
SWEPT = {
    "0.9 / 0.05, blind": PpmdConfig(),
    "0.99 / 0.3, blind": PpmdConfig(model_weight=0.99, model_weight_sure=0.3),
    "0.9 / 0.05, target": PpmdConfig(byte_gate="target"),
}
"""The model's weight where PPM-D is not sure and where it is, and the gate -> the mixture, at any threshold."""
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)

Sweep = dict[str, dict[float, Line]]


@dataclass(frozen=True, slots=True)
class Found:
    """The lines of one text."""

    title: str
    positions: int
    published: dict[str, Line]
    marginal: dict[str, Line]
    beside: dict[str, Line]
    sweep: Sweep


def measure_all_at_once(job: Job, scorers: dict[str, Scorer], window: WindowConfig, samples: int) -> dict[str, Line]:
    """One pass: every scorer gets the same distributions of the model."""
    tokens, source, tokenizer = job.stream.tokens, job.source, job.tokenizer
    assert tokenizer is not None
    targets = target_count(len(tokens), window.seq_len)
    chosen = choose_samples(targets, samples, window)
    charged: dict[str, list[NDArray[np.float64]]] = {name: [] for name in scorers}
    sums: dict[str, list[float]] = {name: [] for name in scorers}
    at_once = windows_at_once(replace(preset("mixer"), window=window), source)
    for batch in batches(plan_windows(targets, window), at_once):
        positions, rows = batch.positions(), source.probabilities(tokens, batch)
        p_target = rows[np.arange(len(rows)), tokens[int(positions[0]) + 1 : int(positions[-1]) + 2]]
        entropy = np.array([entropy_of(row) for row in rows], np.float32)
        for name, scorer in scorers.items():
            entry = 0
            for looks, part in cut(batch, chosen, window_wise=False):
                for position in looks:
                    row = int(position - positions[0])
                    values = scorer.distribution(tokens, position, rows[row], float(entropy[row]))
                    sums[name].append(float(values.sum()))
                of = slice(entry, entry + part.scored)
                charged[name].append(scorer.score(tokens, part, Stats(p_target[of], entropy[of], rows[of])).values)
                entry += part.scored
    sizes = tokenizer.target_bytes(tokens, 0, targets, "decoded")
    return {name: line_of(np.concatenate(charged[name]), np.array(sums[name]), chosen, sizes) for name in scorers}


def measure_text(title: str, job: Job, window: WindowConfig, options: Options) -> Found:
    """All lines of one text."""
    configs = {**PUBLISHED, **{_marginal(name): replace(c, byte_share="marginal") for name, c in PUBLISHED.items()}}
    thresholds = THRESHOLDS[::5] if options.toy else THRESHOLDS
    configs |= {f"{name} {at}": replace(c, sure_above=at) for name, c in SWEPT.items() for at in thresholds}

    def made(name: str, ppmd: PpmdConfig = PpmdConfig()) -> Scorer:  # noqa: B008
        return make_scorer(job.backend, replace(preset(name), ppmd=ppmd), 1, job.vocabulary)

    scorers: dict[str, Scorer] = {name: made("ppmd", config) for name, config in configs.items()}
    beside = {"the model alone": NeuralScorer(), "preset `exact`": made("exact"), "preset `mixer`": made("mixer")}
    lines = measure_all_at_once(job, scorers | beside, window, 16 if options.toy else options.samples)
    return Found(
        title,
        target_count(len(job.stream.tokens), window.seq_len),
        {name: lines[name] for name in PUBLISHED},
        {name: lines[_marginal(name)] for name in PUBLISHED},
        {name: lines[name] for name in beside},
        {name: {at: lines[f"{name} {at}"] for at in thresholds} for name in SWEPT},
    )


def _marginal(name: str) -> str:
    return f"{name}, marginal"


def measure(options: Options) -> Iterator[Found]:
    """The embedded novel, then the larger text."""
    job = load_job(Settings(data=DataSettings(max_tokens=600 if options.toy else None)), ALONE)
    window = WindowConfig(seq_len=EMBEDDED_SEQ_LEN, stride=32)
    yield measure_text("The embedded novel", job, window, options)
    if options.text is not None:
        assert isinstance(job.tokenizer, Tokenizer)
        text = options.text.read_text(encoding="utf-8")
        (tokens,) = job.tokenizer.encode([text[max(text.find(HELD_OUT), 0) :]])
        larger = replace(job, stream=TokenStream(tokens[: 600 if options.toy else None], (), len(tokens)))
        yield measure_text("The larger text", larger, replace(window, stride=options.stride), options)


def report(found: list[Found]) -> str:
    """The result as Markdown."""
    text = [
        "# Byte-level mixtures, claimed and true",
        "",
        f"Command: `{' '.join(['python -m benchmarks.byte_mixtures', *sys.argv[1:]])}`",
        "",
        describe_machine(),
        "",
        "Preset `ppmd` on the embedded model, contexts of up to 5 bytes. Bits per byte, lower is better. Threshold: "
        "confidence above which PPM-D is sure; weights: of the model, where PPM-D is not sure and where it is. Of the "
        "last three columns, at sampled positions.",
    ]
    for one in found:
        text += ["", f"## {one.title}, {one.positions:,} positions", "", *_heading("mixture | threshold | weights")]
        text += [f"| {name} | {_settings(PUBLISHED[name])} | {_cells(line)} |" for name, line in one.published.items()]
        text += [
            f"| {name}, marginal share | {_settings(PUBLISHED[name])} | {_cells(line)} |"
            for name, line in one.marginal.items()
        ]
        text += [f"| {name} | | | {_cells(line)} |" for name, line in one.beside.items()]
        text += ["", *_heading("weights, gate | threshold")]
        text += [f"| {name} | {at} | {_cells(line)} |" for name, of in one.sweep.items() for at, line in of.items()]
    return "\n".join(text) + "\n"


def _heading(first: str) -> list[str]:
    columns = f"| {first} | claimed | mean Σ | claimed at the samples | renormalised |"
    return [columns, "|---" * (columns.count("|") - 1) + "|"]


def _settings(config: PpmdConfig) -> str:
    return f"{config.sure_above} | {config.model_weight} / {config.model_weight_sure}"


def _cells(line: Line) -> str:
    return f"{line.claimed:.3f} | {line.vocabulary_sum:.3g} | {line.at_samples:.3f} | {line.renormalised:.3f}"


def draw(path: Path, found: Found) -> None:
    """Claimed and renormalised bits per byte against the threshold."""
    import matplotlib  # an optional extra

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "byte_mixtures"  # the same file from the same figures
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 5), layout="constrained")
    for (name, of), style in zip(found.sweep.items(), ("o-", "s--", "^:"), strict=True):
        at = list(of)
        axes.plot(at, [one.renormalised for one in of.values()], style, color="tab:red", label=f"{name}: renormalised")
        axes.plot(at, [one.claimed for one in of.values()], style, color="tab:blue", label=f"{name}: claimed")
    for (name, line), color in zip(found.beside.items(), ("black", "tab:green", "tab:olive"), strict=True):
        label = f"{name.replace('`', '')}, Σ = {line.vocabulary_sum:.3g}"
        axes.axhline(line.claimed, color=color, linewidth=1.2, label=label)
    axes.set_xlabel("threshold of the gate: confidence above which PPM-D has the larger weight")
    axes.set_ylabel("bits per byte")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", fontsize=8, ncols=3)
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix[1:], metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.byte_mixtures")
    found = list(measure(options))
    publish(report(found), options.out)
    if options.plot is not None:
        draw(options.plot, found[-1])


if __name__ == "__main__":
    main()
