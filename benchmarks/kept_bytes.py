"""Where should a byte go? `python -m benchmarks.kept_bytes --novels FILE --model small.ngev ... --plot FILE.svg`.

Models of one recipe and one text, and memories of that text beside them: among the pairs that take as many bytes as the
embedded model alone, which is best? Each is scored on the embedded sample.
"""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from benchmarks.kept_memory import PRESETS, alone, kept_size, shares
from benchmarks.machine import describe_machine, publish
from benchmarks.mixer import Neural
from ngram_eval.assets import asset
from ngram_eval.config import preset
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.evaluation.job import load_job
from ngram_eval.evaluation.settings import EMBEDDED_SEQ_LEN, DataSettings, ModelSettings, Settings
from ngram_eval.kept.choosing import fitted, ordered
from ngram_eval.scorers.make import make_scorer
from ngram_eval.scorers.primed import PrimedScorer
from ngram_eval.text.kept import kept_of
from ngram_eval.text.stream import Tokens
from ngram_eval.text.tokenizer import Tokenizer
from ngram_eval.text.windows import target_count


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure pairs of a model and a memory."""

    novels: Path
    """The text that the models were trained on (ngram_eval/assets/README.md)."""
    model: tuple[Path, ...]
    """Models smaller than the embedded one (.ngev), trained on that text with its tokenizer."""
    parts: int = 4
    """Memories of each model: all of the text, half of it, a quarter ..."""
    max_tokens: int | None = None
    """Of the embedded sample; default: all."""
    plot: Path | None = None
    """Draw all pairs here (SVG); needs matplotlib."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


class Pair(NamedTuple):
    """A model and a memory, by their bytes, and their bits per byte."""

    model: int
    memory: int
    alone: float | None
    """Of the model alone."""
    bpb: tuple[float, ...]
    """Of both, by each preset of `PRESETS`."""

    @property
    def bytes(self) -> int:
        return self.model + self.memory

    def takes(self, most: int) -> bool:
        """Whether both together take about so many bytes."""
        return abs(self.bytes / most - 1) < 0.01


class Sized(NamedTuple):
    """A text that is kept, and the bytes of its file."""

    tokens: Tokens
    bytes: int


def pairs(model: Path, memories: list[Sized], max_tokens: int | None) -> Iterator[Pair]:
    """A model beside each memory."""
    data = DataSettings(
        data=(str(asset("sample_000000.bin")),), tokenizer=asset("tokenizer.model"), max_tokens=max_tokens
    )
    job = load_job(Settings(data=data, model=ModelSettings(artifact=model)), ALONE)
    neural, bytes_ = Neural(job, EMBEDDED_SEQ_LEN), model.stat().st_size
    for memory in memories:
        scorers = [make_scorer("cpu", preset(name), vocabulary=job.vocabulary) for name in PRESETS]
        bpb = tuple(neural.bpb(PrimedScorer(scorer, memory.tokens)) for scorer in scorers)
        yield Pair(bytes_, memory.bytes, neural.alone, bpb)


def all_pairs(options: Options) -> Iterator[Pair]:
    """Memories alone, their weights learned on them; then each model, from the smallest, beside none and beside each.

    One more takes as many bytes as the embedded model is larger: spans of the text, as `memory build` chooses them.
    """
    tokenizer, most = Tokenizer.load(asset("tokenizer.model")), asset("model.ngev").stat().st_size
    (whole,) = tokenizer.encode([options.novels.read_text(encoding="utf-8")])
    kept = kept_of(whole, tokenizer)
    memories = [Sized(tokens, kept_size(kept_of(tokens, tokenizer))) for tokens in shares(whole, options.parts)]
    sample = load_job(Settings(data=DataSettings(max_tokens=options.max_tokens)), ALONE)
    assert sample.tokenizer is not None
    tokens = sample.stream.tokens[: target_count(len(sample.stream.tokens), EMBEDDED_SEQ_LEN) + 1]
    counted = int(sample.tokenizer.target_bytes(tokens, 0, len(tokens) - 1, "decoded").sum())
    for memory in memories:
        found = (alone(name, memory.tokens, tokens, tokenizer.surfaces(), counted) for name in PRESETS)
        yield Pair(0, memory.bytes, None, tuple(found))
    order = ordered(kept, None)
    for model in sorted((*options.model, asset("model.ngev")), key=lambda path: path.stat().st_size):
        left = most - model.stat().st_size
        equal = [fitted(kept, left, order, kept_size)] if left else []
        beside = [Sized(whole[:0], 0), *(Sized(one.tokens, kept_size(one)) for one in equal), *memories]
        yield from pairs(model, beside, options.max_tokens)


def table(found: list[Pair], most: int) -> Iterator[str]:
    """Rows: every pair, those of about the embedded model's bytes in bold."""
    yield (
        "| model, bytes | memory, bytes | together | the model alone | "
        + " | ".join(f"`{name}`" for name in PRESETS)
        + " |"
    )
    yield "|--:|--:|--:|--:|" + "--:|" * len(PRESETS)
    for pair in found:
        mark = "**" if pair.takes(most) else ""
        cells = " | ".join(f"{mark}{bpb:.4f}{mark}" for bpb in pair.bpb)
        of_model = "-" if pair.alone is None else f"{pair.alone:.4f}"
        yield f"| {pair.model:,} | {pair.memory:,} | {mark}{pair.bytes:,}{mark} | {of_model} | {cells} |"


def draw(path: Path, found: list[Pair], most: int) -> None:
    """The table as curves, one of each model, from an empty memory to all of the text; stars are the pairs compared."""
    import matplotlib  # an optional extra

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "kept"  # the same file from the same figures
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(PRESETS), figsize=(9, 4), sharey=True, layout="constrained")
    for index, (name, axes) in enumerate(zip(PRESETS, panels, strict=True)):
        for model in sorted({pair.model for pair in found}):
            beside = [pair for pair in found if pair.model == model]
            curve, stars = (
                np.array([(pair.bytes, pair.bpb[index]) for pair in some]).reshape(-1, 2).T
                for some in (
                    [pair for pair in beside if pair.memory == 0 or not pair.takes(most)],
                    [pair for pair in beside if pair.takes(most)],
                )
            )
            (line,) = axes.plot(*curve, "o-", label=f"model of {model:,} bytes" if model else "memory alone")
            axes.plot(*stars, "*", markersize=13, color=line.get_color())
        axes.axvline(most, color="gray", linestyle="--")
        axes.set(title=name, xlabel="bytes of model and memory")
    panels[0].set_ylabel("bits per byte")
    panels[0].legend()
    figure.savefig(path, metadata={"Date": None})


def measure(options: Options) -> Iterator[str]:
    """The lines of the result."""
    most = asset("model.ngev").stat().st_size
    yield "# Where a byte should go: into a model, or into a memory of its text\n"
    yield f"`{shlex.join(['python', '-m', 'benchmarks.kept_bytes', *sys.argv[1:]])}`\n"
    yield describe_machine() + "\n"
    found = []
    for pair in all_pairs(options):
        print(pair, file=sys.stderr, flush=True)
        found.append(pair)
    yield from table(found, most)
    if options.plot is not None:
        draw(options.plot, found, most)


if __name__ == "__main__":
    arguments = tyro.cli(Options, prog="python -m benchmarks.kept_bytes")
    publish("\n".join(measure(arguments)) + "\n", arguments.out)
