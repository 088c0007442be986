"""What an hour of training gave: `python -m benchmarks.small_training RUN_FOLDER --artifact m.ngev ... --out FILE.md`.

Reads the run's log, exports its checkpoint with several ranges of integers, and has `python -m ngram_eval.run` score
the held-out text: the model alone by sliding windows of several strides, and with the n-gram memory.
"""

import json
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from benchmarks.machine import describe_machine, publish
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.models import artifact
from ngram_eval.models.transformer import Transformer, parameter_count
from ngram_eval.text.shards import read_shards
from ngram_eval.text.tokenizer import Tokenizer
from ngram_eval.train import journal, snapshot
from ngram_eval.train.averaging import put
from ngram_eval.train.config import ExportWeights
from ngram_eval.train.loop import CHECKPOINT
from ngram_eval.train.validate import Validation


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Make the table of a run."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    artifact: Path
    """Its artifact."""
    data: str
    """The held-out shard."""
    tokenizer: Path
    """The shards' tokenizer."""
    command: str
    """The command that trained, for the record."""
    strides: tuple[int, ...] = (256, 64, 32)
    """Strides of the sliding windows."""
    presets: tuple[str, ...] = ("hashed", "pr890", "exact")
    """Scored at the last stride."""
    ranges: tuple[int, ...] = (7, 10, 15, 31, 127)
    """Ranges of integers to compare."""
    max_tokens: int | None = None
    """Tokens of the held-out text for the sliding windows; default: all."""
    compared_tokens: int | None = 65_537
    """Tokens of it for comparing weights and quantisations."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


def comparison(options: Options) -> list[str]:
    """Weights and quantisations under the same windows, which do not overlap."""
    file, cpu = options.folder / CHECKPOINT, torch.device("cpu")
    config = snapshot.read_config(file)
    tokens = read_shards([options.data], options.compared_tokens).tokens[:]
    validation = Validation(tokens, Tokenizer.load(options.tokenizer), seq_len=config.seq_len, device=cpu, ranks=ALONE)
    model = Transformer(config.model)
    lines = ["| weights | quantisation | scale floor | bits per byte | artifact, bytes |", "|---|---|---|---|---|"]
    kinds: tuple[ExportWeights, ...] = ("raw", "swa", "ema")
    for which in kinds:
        put(snapshot.read_weights(file, which), model)
        lines.append(f"| {which} | none | | {validation.score(model).bpb:.4f} | |")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.ngev"
        cases = [(levels, False) for levels in options.ranges] + [(levels, True) for levels in (15, 31, 127)]
        put(snapshot.read_weights(file, config.export_weights), model)
        for levels, floor in cases:
            size = artifact.save(
                path, model, replace(config.quant, matrix_levels=levels, scale_floor=floor), config.seq_len
            )
            loaded, _ = artifact.load(path)
            score = validation.score(loaded)
            lines.append(
                f"| {config.export_weights} | ±{levels} | {'yes' if floor else 'no'} | {score.bpb:.4f} | {size:,} |"
            )
    return [f"{validation.targets:,} held-out tokens, windows that do not overlap:", "", *lines]


def evaluate(options: Options, stride: int, presets: tuple[str, ...], seq_len: int) -> dict[str, dict[str, Any]]:
    """The evaluator's results by preset."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        flags = [
            *("--artifact", options.artifact, "--tokenizer", options.tokenizer, "--data", options.data),
            *("--seq-len", seq_len, "--stride", stride, "--json", out),
            *(("--max-tokens", options.max_tokens) if options.max_tokens else ()),
            *(flag for preset in presets for flag in ("--preset", preset)),
        ]
        subprocess.run([sys.executable, "-m", "ngram_eval.run", *map(str, flags)], check=True, capture_output=True)
        return {one["preset"]: one for one in json.loads(out.read_text())["runs"]}


def sliding(options: Options, seq_len: int) -> list[str]:
    """The evaluator's table."""
    lines = [
        "| stride | | bits per byte of the model alone | with the memory | sum over the vocabulary |",
        "|---|---|---|---|---|",
    ]
    for stride in options.strides:
        last = stride == options.strides[-1]
        for name, one in evaluate(options, stride, options.presets if last else ("hashed",), seq_len).items():
            label = "bits per byte" if one["normalised"] else "score, not normalised"
            memory = f"{one['val_bpb']:.4f} ({label}) | {one['vocabulary_sum']:.4f}" if last else " | "
            lines.append(f"| {stride} | {name if last else 'neural'} | {one['neural_bpb']:.4f} | {memory} |")
            positions = one["positions"]
    return [f"{positions:,} held-out positions by `python -m ngram_eval.run`, windows of {seq_len}:", "", *lines]


def measure(options: Options) -> str:
    """The result as Markdown."""
    entries = journal.read(options.folder)
    model, seq_len = artifact.load(options.artifact)
    config = snapshot.read_config(options.folder / CHECKPOINT)
    last, step = entries[-1], config.batch * config.seq_len
    tokens = last.step * step
    return (
        "\n".join(
            [
                "# An hour of training on two CPU cores",
                "",
                f"Trained by: `{options.command}`",
                "",
                f"Table by: `{shlex.join(['python', '-m', 'benchmarks.small_training', *sys.argv[1:]])}`",
                "",
                f"{describe_machine()}, torch {torch.__version__}",
                "",
                f"{parameter_count(model):,} parameters; {last.step:,} steps of {step:,} tokens in "
                f"{last.seconds:,.0f} s ({tokens:,} tokens, {tokens / last.seconds:,.0f} tokens/s); training loss "
                f"{last.loss:.3f} nats a token at the end; artifact {options.artifact.stat().st_size:,} bytes.",
                "",
                *sliding(options, seq_len),
                "",
                *comparison(options),
            ]
        )
        + "\n"
    )


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.small_training")
    publish(measure(options), options.out)


if __name__ == "__main__":
    main()
