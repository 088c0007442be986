"""Tokens a second of the mixer, beside those of an earlier build: `python -m benchmarks.mixer_speed --text FILE`.

Each preset of each build has a process of its own. They take turns of a few thousand tokens, so that whatever else the
machine does meets both; seconds are of processor time, and a ratio is the median over turns. Beside a large vocabulary,
what a model says comes as whole distributions or as the probabilities of the decisions on the token's path.
"""

import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.builds import extension, process_apart
from benchmarks.machine import describe_machine, publish
from benchmarks.mixer import Text, load_text
from ngram_eval.bpb import bits_per_byte, nats_of
from ngram_eval.config import preset
from ngram_eval.models.branches import Tree
from ngram_eval.scorers.mixer.model import Spelling, unspelt
from ngram_eval.text.stream import Tokens

EARLIER = {"mixer": {"hashed": 20, "sets": 5}, "mixer-fast": {"hashed": 9, "sets": 4}}
"""Presets of 26 November (commit f74720e), whose extension `--against` is for, as that takes them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure the mixer's speed, on one thread."""

    text: Path
    """A text of some megabytes; it is only read."""
    against: Path | None = None
    """The extension of 26 November (_core….so) to compare with."""
    tokens: int = 1_500_000
    """Most tokens of the text."""
    turn: int = 5_000
    """Tokens of a turn."""
    groups: tuple[int, ...] = (24, 10)
    """Logarithms of numbers of groups; 2^10 of them fit into a cache."""
    vocab_size: int = 49_152
    """Tokens of the large vocabulary."""
    counted: int = 500_000
    """Tokens that are only counted before a model's distributions are taken."""
    rows: int = 400
    """Distributions, handed over 25 times."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


class Build(NamedTuple):
    """An extension and a preset."""

    extension: Path | None
    preset: str

    def settings(self) -> dict[str, int]:
        """Of its mixer."""
        if self.extension is not None:
            return EARLIER[self.preset]
        config = preset(self.preset).mixer
        return {
            "hashed": config.contexts,
            "sets": config.weight_sets,
            "matches": config.matches,
            "exact_order": config.exact_order,
            "runs": config.runs,
            "cells": config.cells,
        }

    def mixer(self, spelling: Spelling, log2: int, weight: float) -> Any:
        """An empty mixer with 2^log2 groups, in this process."""
        return extension(self.extension).Mixer(
            rank=spelling.rank, surfaces=spelling.surfaces, groups=1 << log2, weight=weight, **self.settings()
        )


_mixer: Any = None  # of this process


def begin(build: Build, spelling: Spelling, log2: int) -> None:
    """Start the process's mixer."""
    global _mixer
    _mixer = build.mixer(spelling, log2, preset("mixer").mixer.start_weight)


def turn(tokens: Tokens, row: NDArray[np.float64]) -> tuple[float, float]:
    """(processor seconds, nats) of the next tokens."""
    start = time.process_time()
    p, _ = _mixer.score(tokens, row)
    return time.process_time() - start, float(nats_of(p).sum())


def alone(text: Text, builds: list[Build], log2: int, size: int) -> tuple[list[list[float]], list[float]]:
    """(seconds of every turn, bits per byte), of each build, without a model."""
    vocab_size = len(text.spelling.surfaces)
    row = np.full((1, vocab_size), 1 / vocab_size)
    seconds: list[list[float]] = [[] for _ in builds]
    nats = [0.0] * len(builds)
    with ExitStack() as stack:
        pools = [stack.enter_context(process_apart()) for _ in builds]
        for pool, build in zip(pools, builds, strict=True):
            pool.submit(begin, build, text.spelling, log2).result()
        for at in range(0, len(text.tokens), size):
            for i, pool in enumerate(pools):
                took, more = pool.submit(turn, text.tokens[at : at + size], row).result()
                seconds[i].append(took)
                nats[i] += more
    return seconds, [float(bits_per_byte(one, text.bytes) or np.nan) for one in nats]


def ratio(before: list[float], now: list[float]) -> float:
    """The median over turns."""
    return statistics.median(b / n for b, n in zip(before, now, strict=True))


def alone_rows(text: Text, options: Options) -> Iterator[str]:
    """Rows of a table, by preset and number of groups."""
    earlier = [] if options.against is None else [options.against]
    before, ratios = " before, bpb | before, tokens/s |" * len(earlier), " ratio |" * len(earlier)
    yield f"| | groups |{before} bpb | tokens/s |{ratios}"
    yield "|---|---|" + "---|---|---|" * len(earlier) + "---|---|"
    for log2 in options.groups:
        for name in EARLIER:
            builds = [*(Build(path, name) for path in earlier), Build(None, name)]
            seconds, bpb = alone(text, builds, log2, options.turn)
            rates = [f"{options.turn / statistics.median(took):,.0f}" for took in seconds]
            cells = [cell for pair in zip([f"{one:.4f}" for one in bpb], rates, strict=True) for cell in pair]
            cells += [f"{ratio(took, seconds[-1]):.2f}" for took in seconds[:-1]]
            yield f"| `{name}` | 2^{log2} | {' | '.join(cells)} |"


def beside_a_model(build: Build, stream: Tokens, options: Options, *, paths: bool) -> list[float]:
    """Processor seconds of scoring the stream's last tokens, in 25 parts, in this process."""
    rng, parts = np.random.default_rng(0), 25
    spelling = Spelling(unspelt(options.vocab_size).surfaces, rng.permutation(options.vocab_size).astype(np.uint32))
    mixer = build.mixer(spelling, 24, preset("mixer").mixer.start_weight / 4)
    scored = parts * options.rows
    mixer.append(stream[:-scored])
    rows = rng.random((options.rows, options.vocab_size))
    rows /= rows.sum(axis=1, keepdims=True)
    tokens = [stream[at : at + options.rows] for at in range(len(stream) - scored, len(stream), options.rows)]
    seconds = []
    tree = Tree(spelling.rank)  # all sums first: on a GPU they would leave the processor's caches alone, too
    for part, said in [(part, tree.branches(rows, part) if paths else rows) for part in tokens]:
        start = time.process_time()
        (mixer.score_paths if paths else mixer.score)(part, said)
        seconds.append(time.process_time() - start)
    return seconds


def large_rows(text: Text, options: Options) -> Iterator[str]:
    """Rows of a table: the mixer's own share beside a model of a large vocabulary."""
    pairs = text.tokens[: len(text.tokens) // 2 * 2].reshape(-1, 2).astype(np.int64)
    stream = ((pairs[:, 0] * len(text.spelling.surfaces) + pairs[:, 1]) % options.vocab_size).astype(np.uint16)
    stream = stream[: options.counted + 25 * options.rows]
    name_of = "distributions, before" if options.against is not None else "distributions"
    yield from (f"| | {name_of} | paths | ratio |", "|---|---|---|---|")
    for name in EARLIER:
        found = []
        for path, paths in ((options.against, False), (None, True)):
            with process_apart() as pool:
                call = pool.submit(beside_a_model, Build(path, name), stream, options, paths=paths)
                found.append(statistics.median(call.result()) / options.rows * 1e6)
        yield f"| `{name}` | {found[0]:.1f} | {found[1]:.1f} | {found[0] / found[1]:.1f} |"


def measure(options: Options) -> str:
    """The Markdown report."""
    text = load_text(options.text, options.tokens)
    words = [Path(word).name if Path(word).exists() else word for word in sys.argv[1:]]
    lines = [
        "# The mixer's speed",
        "",
        f"Command: `{shlex.join(['python', '-m', 'benchmarks.mixer_speed', *words])}`",
        "",
    ]
    lines += [describe_machine(), ""]
    lines += [
        f"Alone on {options.text.name}: {len(text.tokens):,} tokens of {len(text.spelling.surfaces)} pieces, "
        f"{text.bytes:,} bytes, one thread, in turns of {options.turn:,} tokens; medians of processor time.",
        "",
        *alone_rows(text, options),
        "",
        f"Beside a model of {options.vocab_size:,} tokens (the text's tokens in pairs; ranks and distributions at "
        f"random), microseconds of one thread a token, the median of 25 times {options.rows} tokens after "
        f"{options.counted:,} that were only counted. The sums on the paths are taken beside the forward pass and not "
        "counted here.",
        "",
        *large_rows(text, options),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    arguments = tyro.cli(Options, prog="python -m benchmarks.mixer_speed")
    publish(measure(arguments), arguments.out)
