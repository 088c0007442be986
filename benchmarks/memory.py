"""What `NgramMemory` costs a token of a decoding loop: `python -m benchmarks.memory --out FILE.md`.

The loop itself, without a model: a distribution in, the blend out, one token observed. The tokens are real text, spread
over each vocabulary; the same loop is checked against the evaluator's charges first.
"""

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.machine import describe_machine, publish
from ngram_eval import NgramMemory
from ngram_eval.assets import asset
from ngram_eval.config import preset
from ngram_eval.models.source import Stats
from ngram_eval.scorers.make import make_scorer
from ngram_eval.text.shards import read_shards
from ngram_eval.text.windows import Windows


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Time distribution, observe and copy."""

    data: tuple[str, ...] = (str(asset("sample_000000.bin")),)
    """Token shards."""
    vocabularies: tuple[int, ...] = (1024, 49152, 262144)
    """Sizes of the distributions."""
    observed: int = 30_000
    """Tokens in the memory when the clock starts."""
    steps: int = 200
    """Tokens timed."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


def spread(tokens: NDArray[np.integer], vocab_size: int) -> NDArray[np.uint32]:
    """The tokens as others below `vocab_size`, different ones different where there is room."""
    return (tokens.astype(np.uint64) * 2654435761 % vocab_size).astype(np.uint32)


def check(tokens: NDArray[np.uint32], row: NDArray[np.float64]) -> None:
    """The loop gives each token what the evaluator charges for it."""
    memory, scorer = NgramMemory(), make_scorer("cpu", preset("exact"))
    memory.observe(tokens[:1])
    found = []
    for token in tokens[1:]:
        found.append(memory.distribution(row)[token])
        memory.observe([token], row[None])
    n = len(tokens) - 1
    window = Windows(np.array([0]), np.array([0]), np.array([n]), n)
    stats = Stats(np.full(n, row[0]), np.full(n, np.log(len(row)), np.float32))
    np.testing.assert_allclose(found, scorer.score(tokens, window, stats).values, rtol=1e-6)


def measure(options: Options) -> str:
    """The Markdown report."""
    stream = read_shards(options.data, options.observed + options.steps).tokens[:]
    lines = []
    for vocab_size in options.vocabularies:
        tokens, row = spread(stream, vocab_size), np.full(vocab_size, 1 / vocab_size)
        check(tokens[:300], row)
        memory = NgramMemory()
        started = time.perf_counter()
        memory.observe(tokens[: options.observed])
        counting = (time.perf_counter() - started) / options.observed
        seconds: dict[str, list[float]] = {"distribution": [], "observe": []}
        for token in tokens[options.observed :]:
            started = time.perf_counter()
            memory.distribution(row)
            between = time.perf_counter()
            memory.observe([token], row[None])
            seconds["distribution"].append(between - started)
            seconds["observe"].append(time.perf_counter() - between)
        started = time.perf_counter()
        memory.copy()
        copying = time.perf_counter() - started
        middle = [np.median(values) * 1e6 for values in seconds.values()]
        lines.append(
            f"| {vocab_size:,} | {middle[0]:,.0f} | {middle[1]:,.0f} | {counting * 1e6:.2f} | {copying * 1e3:,.0f} |"
        )
    command = shlex.join(["python", "-m", "benchmarks.memory", *sys.argv[1:]])
    return (
        "\n".join(
            [
                "# The memory on a decoding loop",
                "",
                f"Command: `{command}`",
                "",
                describe_machine(),
                "",
                f"{options.observed:,} tokens of text observed, then {options.steps:,} steps, one thread; medians.",
                "",
                "| vocabulary | distribution (µs) | observe, learning (µs) | observe, counting only (µs) | copy (ms) |",
                "|---|---|---|---|---|",
                *lines,
            ]
        )
        + "\n"
    )


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.memory")
    publish(measure(options), options.out)


if __name__ == "__main__":
    main()
