"""Speed and memory of exact counts: `python -m benchmarks.exact_counts --data 'shards/*.bin' --out FILE.md`.

The yardstick is the machine itself: random increments over tables as large as the model's, requested ahead of use, in
the same run. Rounds are interleaved; medians are reported.
"""

import math
import shlex
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from benchmarks.limits import random_increments
from benchmarks.machine import describe_machine, publish
from ngram_eval._core import HashedCounts
from ngram_eval.assets import asset
from ngram_eval.config import ExactConfig
from ngram_eval.scorers.exact.model import make_model
from ngram_eval.text.shards import read_shards
from ngram_eval.text.stream import Tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure exact counts and their blend, one thread."""

    data: tuple[str, ...] = field(default_factory=lambda: (str(asset("sample_000000.bin")),))
    """Token shards (globs); default: the embedded sample, too short for figures worth keeping."""
    tokens: tuple[int, ...] = (1_000_000, 4_000_000, 16_000_000, 60_000_000)
    """Stream lengths to measure, where the data has as many."""
    max_order: int = 9
    """Highest order."""
    rounds: int = 3
    """Rounds; the medians are reported."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


class Line(NamedTuple):
    """One stream length."""

    tokens: int
    scored: float
    """Seconds to score and count, the base's probabilities given."""
    counted: float
    """Seconds to count alone."""
    bytes: int
    nodes: int
    levels: float
    """Contexts that had occurred, a position."""
    access: float
    """Seconds of one prefetched random increment over as many bytes."""

    @property
    def lookups(self) -> float:
        """Random lines a position: index and node, of each known context and of the first unknown."""
        return 2 * (self.levels + 1)


def random_access(size: int) -> float:
    """Seconds of a random increment over about `size` bytes, the best of several distances of the request."""
    buckets = 1 << max(10, round(math.log2(size / 8)))
    tables = HashedCounts(
        min_order=1, max_order=1, buckets=buckets, min_count=1, context_lag=0, target_backoff=False, threads=1
    )
    tables.state()[:] = 0  # touched
    increments, best = 4_000_000, math.inf
    for ahead in (16, 32, 64):
        start = time.perf_counter()
        random_increments(tables.state(), increments, ahead)
        best = min(best, (time.perf_counter() - start) / increments)
    return best


def measure_length(tokens: Tokens, options: Options) -> Line:
    """The medians of the rounds."""
    n, vocab = len(tokens), int(tokens.max()) + 1
    base, entropy = np.full(n, 1 / vocab), np.full(n, math.log(vocab), np.float32)
    scored, counted, access = [], [], []
    for _ in range(options.rounds):
        model = make_model("cpu", options.max_order, ExactConfig())
        start = time.perf_counter()
        _, order = model.score(tokens, base, entropy, together=False)
        scored.append(time.perf_counter() - start)
        size = model.size()
        del model
        model = make_model("cpu", options.max_order, ExactConfig())
        start = time.perf_counter()
        model.append(tokens)
        counted.append(time.perf_counter() - start)
        del model
        access.append(random_access(size["bytes"]))
    seconds, alone, one = map(statistics.median, (scored, counted, access))
    return Line(n, seconds, alone, size["bytes"], size["nodes"], float(order.mean()), one)


def distribution_seconds(tokens: Tokens, vocab: int, max_order: int) -> tuple[float, float]:
    """Median and 99th percentile of one whole distribution, within the first million tokens."""
    tokens = tokens[:1_000_000]
    base, half = np.full((1, vocab), 1 / vocab), len(tokens) // 2
    model = make_model("cpu", max_order, ExactConfig())
    model.append(tokens[:half])
    times = []
    for position in range(half, min(half + 5_000, len(tokens))):
        start = time.perf_counter()
        model.distribution(base[0], math.log(vocab))
        times.append(time.perf_counter() - start)
        model.append(tokens[position : position + 1])
    return statistics.median(times), float(np.quantile(times, 0.99))


def measure(options: Options) -> str:
    """The Markdown report."""
    tokens = read_shards(options.data).tokens[:]
    lengths = [n for n in options.tokens if n <= len(tokens)] or [len(tokens)]
    lines = [measure_length(tokens[:n], options) for n in lengths]
    vocab = 1024
    rows = [
        f"| {line.tokens / 1e6:g} M | {line.tokens / line.scored / 1e6:.2f} | {line.tokens / line.counted / 1e6:.2f} "
        f"| {line.levels:.2f} | {line.nodes / 1e6:.2f} M | {line.bytes / line.nodes:.0f} | {line.bytes / 1e9:.2f} "
        f"| {line.counted / line.tokens / line.lookups * 1e9:.1f} | {line.access * 1e9:.1f} "
        f"| {line.lookups * line.access * line.tokens / line.scored:.2f} "
        f"| {line.lookups * line.access * line.tokens / line.counted:.2f} |"
        for line in lines
    ]
    report = [
        "# Exact counts",
        "",
        f"Command: `{shlex.join(['python', '-m', 'benchmarks.exact_counts', *sys.argv[1:]])}`",
        "",
        describe_machine(),
        "",
        f"Orders 1 to {options.max_order}, after each position, one thread, {options.rounds} round(s), medians. "
        "A position looks up two random lines (index, n-gram) in each known context and in the first unknown one. "
        "The floor is one random increment over tables of as many bytes, requested ahead, in the same run.",
        "",
        "| tokens | score + count, M tokens/s | count alone, M tokens/s | known contexts a position "
        "| distinct n-grams kept | bytes each, all in | GB | ns a lookup, count alone | floor, ns "
        "| score + count: share of the floor's rate | count alone: share |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *rows,
    ]
    if int(tokens.max()) < vocab:
        median, tail = distribution_seconds(tokens, vocab, options.max_order)
        report += [
            "",
            f"A whole distribution over {vocab} tokens: {median * 1e6:.1f} us (99th percentile {tail * 1e6:.1f}).",
        ]
    return "\n".join(report) + "\n"


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.exact_counts")
    publish(measure(options), options.out)


if __name__ == "__main__":
    main()
