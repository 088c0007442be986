"""What is gained by running the last block and the head at scored positions only? `python -m benchmarks.last_block`.

Three ways to the same logits of a window's last `stride` positions, as an evaluation asks for them: all positions
through everything, as the published evaluator does; the output head at the scored positions only; the last block at the
scored positions only as well (`last=`, what `ngram_eval.models.transformer_source` calls). One thread, in turns.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from torch import Tensor

from benchmarks.machine import describe_machine, publish
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.train.config import embedded, pr890

_TOLERANCE = 1e-4
"""Largest difference of a logit (float32; kernels differ with the number of rows)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure the gain."""

    stride: int = 32
    """Scored positions of a window."""
    rounds: int = 7
    """Each way is timed once a round; medians are reported."""
    toy: bool = False
    """Two small models and two rounds, to see that the benchmark works."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


@dataclass(frozen=True, slots=True)
class Case:
    """A model and the windows it is given."""

    name: str
    config: ModelConfig
    windows: int
    seq_len: int


def cases(toy: bool) -> list[Case]:
    """The embedded model and the published one, or versions of them cut down."""
    if toy:
        small = replace(embedded().model, layers=2, value_layers=(1,), xsa_layers=2)
        return [Case("toy", small, 2, 64), Case("toy, one block", replace(small, layers=1, value_layers=()), 1, 63)]
    return [Case("embedded", embedded().model, 32, 256), Case("pr890", pr890().model, 1, 2048)]


def randomised(config: ModelConfig) -> Transformer:
    """A model whose output projections are not zero, as they are before training: every block must count."""
    torch.manual_seed(0)
    model = Transformer(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(std=0.02)
    return model


def largest_difference(logits: list[Tensor]) -> float:
    """Largest difference between the first and each other; NaN if any is NaN (which Python's max would lose)."""
    return float(torch.stack([(other - logits[0]).abs().max() for other in logits[1:]]).max())


def measure_case(case: Case, stride: int, rounds: int) -> tuple[float, dict[str, list[float]]]:
    """(largest difference between the logits, way -> seconds of each round)."""
    model = randomised(case.config)
    tokens = torch.randint(case.config.vocab_size, (case.windows, case.seq_len))
    ways: dict[str, Callable[[], Tensor]] = {
        "everything at all positions": lambda: model(tokens)[:, -stride:],
        "head at scored positions": lambda: model.logits(model.hidden(tokens)[:, -stride:]),
        "last block and head at scored positions": lambda: model(tokens, last=stride),
    }
    logits = [way() for way in ways.values()]  # also the warm-up
    difference = largest_difference(logits)
    if not difference <= _TOLERANCE:
        raise AssertionError(f"{case.name}: logits differ by {difference}, more than {_TOLERANCE}")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return difference, seconds


def measure(options: Options) -> str:
    """The result as Markdown."""
    rounds = 2 if options.toy else options.rounds
    torch.set_num_threads(1)
    lines = [
        "# The last block and the output head at scored positions only",
        "",
        f"Command: `{' '.join(['python -m benchmarks.last_block', *sys.argv[1:]])}`",
        "",
        f"{describe_machine()}, torch {torch.__version__}",
        "",
        f"Stride {options.stride}, float32, one thread; {rounds} interleaved rounds, medians (and range). "
        f"Logits were equal within the differences given (tolerance {_TOLERANCE:g}).",
    ]
    for case in cases(options.toy):
        difference, seconds = measure_case(case, options.stride, rounds)
        base = next(iter(seconds.values()))
        lines += [
            "",
            f"## {case.name}: {case.windows} window(s) of {case.seq_len} positions, {case.config.layers} blocks",
            "",
            f"Largest difference of a logit: {f'{difference:.1e}' if difference else 'none, equal bit for bit'}.",
            "",
            "| computed | seconds | times as fast (median of the rounds' ratios) |",
            "|---|---|---|",
        ]
        for name, times in seconds.items():
            ratio = statistics.median(a / b for a, b in zip(base, times, strict=True))
            lines.append(
                f"| {name} | {statistics.median(times):.4f} ({min(times):.4f} to {max(times):.4f}) | {ratio:.3f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.last_block")
    with torch.inference_mode():
        publish(measure(options), options.out)


if __name__ == "__main__":
    main()
