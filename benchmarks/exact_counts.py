"""Speed and memory of exact counts: `python -m benchmarks.exact_counts --data 'shards/*.bin' --out FILE.md`.

The yardstick is the machine itself: random increments over tables as large as the model's, requested ahead of use, in
the same run. Seconds are those that the busiest thread was running, so that who else uses the machine counts less. Each
call has a process of its own. Rounds are interleaved; medians are reported.
"""

import hashlib
import math
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

from benchmarks.builds import extension, process_apart
from benchmarks.limits import random_increments
from benchmarks.machine import describe_machine, publish
from ngram_eval.assets import asset
from ngram_eval.config import ExactConfig
from ngram_eval.scorers.exact.model import make_model
from ngram_eval.text.shards import read_shards
from ngram_eval.text.stream import Tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure exact counts and their blend, on one thread and two."""

    data: tuple[str, ...] = field(default_factory=lambda: (str(asset("sample_000000.bin")),))
    """Token shards (globs); default: the embedded sample, too short for figures worth keeping."""
    tokens: tuple[int, ...] = (1_000_000, 4_000_000, 16_000_000, 60_000_000)
    """Stream lengths to measure, where the data has as many."""
    max_order: int = 9
    """Highest order."""
    rounds: int = 3
    """Rounds; the medians are reported."""
    against: Path | None = None
    """Another build of the C++ extension (_core….so), which must give the same numbers, to compare with."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


class Line(NamedTuple):
    """One stream length."""

    tokens: int
    seconds: dict[str, float]
    """Of each kind of call, the busiest thread's."""
    bytes: int
    nodes: int
    levels: float
    """Contexts that had occurred, a position."""
    access: float
    """Seconds of one prefetched random increment over as many bytes."""

    def rate(self, kind: str) -> str:
        """Million tokens a second."""
        return f"{self.tokens / self.seconds[kind] / 1e6:.2f}"


COUNTED, SCORED, AHEAD = "count alone", "score and count, one thread", "score and count, two threads"


def busiest(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and the seconds of processor time of this thread or of all others, whichever is more."""
    others, own = time.process_time() - time.thread_time(), time.thread_time()
    result = work()
    own = time.thread_time() - own
    return result, max(own, time.process_time() - time.thread_time() - others)


class Call(NamedTuple):
    """One call of a new model, and what it gave."""

    seconds: float
    size: dict[str, int]
    levels: float
    digest: str
    """Of the probabilities and orders."""


def call(build: Path | None, tokens: Tokens, max_order: int, kind: str) -> Call:
    """Count or score a stream by a build of the extension, in this process."""
    core = extension(build)
    threads = {"threads": 2} if kind == AHEAD else {}  # an earlier build knows of no threads
    model = core.ExactModel(max_order=max_order, chain=True, tilt="off", tilt_factor=1, tilt_confidence=0, **threads)
    if kind == COUNTED:
        _, seconds = busiest(lambda: model.append(tokens))
        return Call(seconds, model.size(), 0.0, "")
    n, vocab = len(tokens), int(tokens.max()) + 1
    base, entropy = np.full(n, 1 / vocab), np.full(n, math.log(vocab), np.float32)
    (p, order), seconds = busiest(lambda: model.score(tokens, base, entropy, together=False))
    return Call(seconds, model.size(), float(order.mean()), hashlib.sha256(p.tobytes() + order.tobytes()).hexdigest())


def call_apart(*arguments: Any) -> Call:
    """The same in a new process: two builds do not fit into one."""
    with process_apart() as pool:
        return pool.submit(call, *arguments).result()


def random_access(size: int) -> float:
    """Seconds of a random increment over about `size` bytes, the best of several distances of the request."""
    buckets = 1 << max(10, round(math.log2(size / 8)))
    tables = extension(None).HashedCounts(
        min_order=1, max_order=1, buckets=buckets, min_count=1, context_lag=0, target_backoff=False, threads=1
    )
    tables.state()[:] = 0  # touched
    increments, best = 4_000_000, math.inf
    for ahead in (16, 32, 64):
        seconds = busiest(partial(random_increments, tables.state(), increments, ahead))[1]
        best = min(best, seconds / increments)
    return best


def measure_length(tokens: Tokens, options: Options) -> Line:
    """The medians of the rounds."""
    seconds: dict[str, list[float]] = {}
    access, digests = [], set()
    for _ in range(options.rounds):
        for kind in (COUNTED, SCORED, AHEAD):
            if options.against is not None and kind != AHEAD:
                before = call_apart(options.against, tokens, options.max_order, kind)
                seconds.setdefault(f"{kind}, before", []).append(before.seconds)
                digests.add((kind == COUNTED, before.digest))
            now = call_apart(None, tokens, options.max_order, kind)
            seconds.setdefault(kind, []).append(now.seconds)
            digests.add((kind == COUNTED, now.digest))
        access.append(random_access(now.size["bytes"]))
    assert len(digests) == 2, "builds or threads differ in what they charge"
    medians = {kind: statistics.median(times) for kind, times in seconds.items()}
    return Line(len(tokens), medians, now.size["bytes"], now.size["nodes"], now.levels, statistics.median(access))


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
    kinds = list(lines[0].seconds)
    rows = [
        f"| {line.tokens / 1e6:g} M | {' | '.join(map(line.rate, kinds))} "
        f"| {line.levels:.2f} | {line.nodes / 1e6:.2f} M | {line.bytes / line.nodes:.0f} | {line.bytes / 1e9:.2f} "
        f"| {line.seconds[COUNTED] / line.tokens / (line.levels + 1) * 1e9:.1f} | {line.access * 1e9:.1f} |"
        for line in lines
    ]
    report = [
        "# Exact counts",
        "",
        f"Command: `{shlex.join(['python', '-m', 'benchmarks.exact_counts', *sys.argv[1:]])}`",
        "",
        describe_machine(),
        "",
        f"Orders 1 to {options.max_order}, after each position, {options.rounds} round(s), medians; M tokens a second "
        "that the busiest thread was running. All builds and numbers of threads gave the same probabilities. "
        "A position looks up a random line (an n-gram) in each known context and in the first unknown one, and one of "
        "the index where the context has had several successors. The floor is one random increment over tables of as "
        "many bytes, requested ahead, in the same run.",
        "",
        f"| tokens | {' | '.join(kinds)} | known contexts a position | distinct n-grams kept | bytes each, all in | GB "
        "| ns a context, count alone | floor, ns |",
        "|" + "---|" * (len(kinds) + 7),
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
