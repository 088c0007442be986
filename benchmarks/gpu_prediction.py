"""What the kernels must move, what they move, and the times that follow: `python -m benchmarks.gpu_prediction`.

Arithmetic, not measurement: bytes are counted from the kernels as written, times follow from an H100's data sheet and
from the assumptions below. `benchmarks/gpu_suite.sh` measures the same things on a GPU.
"""

import shlex
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import tyro

from benchmarks.machine import publish
from ngram_eval.config import preset
from ngram_eval.kernels.windows import AT_ONCE
from ngram_eval.model import ModelConfig, Transformer

TARGETS = 62_021_632
"""Positions of the published validation split (parameter-golf, FineWeb, 1024 tokens)."""
PUBLISHED = (502, 588)
"""Seconds that PR #890's evaluation took on 8 H100."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Assumptions:
    """An H100 SXM: the first four by its data sheet, the rest assumed."""

    bandwidth: float = 3.35e12
    """Bytes a second of the memory."""
    flops: float = 989e12
    """Dense bfloat16 operations a second."""
    multiprocessors: int = 132
    clock: float = 1.755e9
    """Cycles a second."""
    sector: int = 32
    """Bytes moved by one random access."""
    random_efficiency: float = 0.5
    """Share of the bandwidth that random sectors reach."""
    atomics: float = 1e11
    """Atomic adds a second to tables that the L2 cache holds."""
    launch: float = 2.5e-6
    """Seconds from the end of one kernel to the start of the next, launched ahead or from a graph."""
    memory_wait: float = 0.8e-6
    """Seconds until a random load from memory returns."""
    cache_wait: float = 0.3e-6
    """The same from L2."""
    utilisation: float = 0.4
    """Share of `flops` that the forward reaches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Predict what the evaluation takes on GPUs."""

    assumptions: Assumptions = Assumptions()
    """What the times follow from."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """One launch."""

    name: str
    over: str
    positions: int
    least: float
    """Bytes a position: inputs read once, outputs written once, of the tables only the counts themselves."""
    streamed: float
    """Bytes a position that are moved in order."""
    random: float = 0.0
    """Bytes a position of the sectors that random accesses move."""
    waits: float
    """Seconds of round trips that follow one another."""
    work: float = 0.0
    """Seconds of comparing, or of atomic adds in the L2 cache."""

    def seconds(self, a: Assumptions) -> float:
        """Of the launch: its waits, and the larger of traffic and work."""
        traffic = self.streamed / a.bandwidth + self.random / (a.bandwidth * a.random_efficiency)
        return a.launch + self.waits + max(self.positions * traffic, self.work)


def kernels(a: Assumptions) -> dict[str, Kernel]:
    """Every kernel of an evaluation with 1024 tokens in bfloat16, orders 2 to 9, 2^22 buckets and stride 32."""
    config = preset("hashed").ngram
    orders, vocab, token, result = len(config.orders), 1024, 2, 12
    tables = 2 * orders
    ids, listed, counts, sectors = 4 * tables, 24, 4 * tables, a.sector * tables
    logits = 2 * vocab
    chunk = 1 << 22
    # Each position against all before it, half of AT_ONCE on average, in every table: a compare and an add.
    comparing = AT_ONCE * AT_ONCE / 2 * tables * 2 / (a.multiprocessors * 128 * a.clock)
    found = [
        Kernel(
            name="update",
            over="prefill, 2^22 positions",
            positions=chunk,
            least=token + 2 * counts * config.buckets / chunk,
            streamed=token * tables + 2 * counts * config.buckets / chunk,
            waits=a.memory_wait,
            work=chunk * tables / a.atomics,
        ),
        Kernel(
            name="stats",
            over="1024 positions",
            positions=AT_ONCE,
            least=logits + 8 + result,
            streamed=logits + 8 + result,
            waits=2 * a.memory_wait,
        ),
        Kernel(
            name="bucket",
            over="1024 positions",
            positions=AT_ONCE,
            least=token + 8 + ids,
            streamed=token + 8 + ids,
            waits=2 * a.cache_wait,
        ),
        Kernel(
            name="score",
            over="1024 positions",
            positions=AT_ONCE,
            least=ids + counts + listed + result,
            streamed=ids + listed + result,
            random=sectors,
            waits=a.memory_wait + 2 * a.cache_wait + AT_ONCE / 128 * a.cache_wait,
            work=comparing,
        ),
        Kernel(
            name="add",
            over="1024 positions",
            positions=AT_ONCE,
            least=ids + 8 + 2 * counts,
            streamed=ids + 8,
            random=sectors,  # `score` has just read them into the L2 cache; they are written back
            waits=a.cache_wait,
        ),
        Kernel(
            name="mass",
            over="1024 positions",
            positions=AT_ONCE,
            least=logits + 4 * orders * (vocab + 1),
            streamed=logits + result,
            random=a.sector * orders * (vocab + 1),
            waits=a.memory_wait * vocab / 256,
        ),
    ]
    return {kernel.name: kernel for kernel in found}


def forward_flops() -> float:
    """Operations of the published model's forward a token: matrices twice, and causal attention over 2048 positions."""
    with torch.device("meta"):
        model = Transformer(ModelConfig())
    tables = model.config.vocab_size * model.config.width  # the head is one more product with them
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2 and min(p.shape) >= 64) - tables
    return 2 * (matrices + tables) + model.config.layers * 4 * model.config.width * 2048 / 2


def predict(a: Assumptions) -> str:
    """The tables, as Markdown."""
    found = kernels(a)
    lines = [
        "# Predicted times on H100 SXM GPUs",
        "",
        f"Command: `{shlex.join(['python', '-m', 'benchmarks.gpu_prediction', *sys.argv[1:]])}`",
        "",
        "**A prediction: nothing here was measured.** Orders 2 to 9, 2^22 buckets, 1024 tokens, stride 32, logits in "
        "bfloat16. Assumed: " + ", ".join(f"{f.name} {getattr(a, f.name):g}" for f in fields(a)) + " (meanings in "
        "`benchmarks/gpu_prediction.py`).",
        "",
        "| kernel | launched over | bytes a position, at least | moved | bandwidth alone, µs | predicted, µs |",
        "|---|---|---|---|---|---|",
    ]
    for k in found.values():
        floor = k.positions * k.least / a.bandwidth
        lines.append(
            f"| {k.name} | {k.over} | {k.least:,.0f} | {k.streamed + k.random:,.0f} | {1e6 * floor:,.2f} | "
            f"{1e6 * k.seconds(a):,.1f} |"
        )
    lines += [
        "",
        f"The whole evaluation, {TARGETS:,} positions, on the slowest rank; PR #890 took {PUBLISHED[0]} to "
        f"{PUBLISHED[1]} s on 8 GPUs:",
        "",
        "| | 1 GPU | 8 GPUs |",
        "|---|---|---|",
    ]
    shares: dict[str, list[float]] = {
        "prefill": [],
        "statistics": [],
        "lookups, gate, blend, sums, counts": [],
        "forward passes": [],
    }
    per_batch = sum(found[name].seconds(a) for name in ("bucket", "score", "add"))
    for ranks in (1, 8):
        scored = TARGETS / ranks
        shares["prefill"].append((TARGETS - scored) / found["update"].positions * found["update"].seconds(a))
        shares["statistics"].append(scored / AT_ONCE * found["stats"].seconds(a))
        shares["lookups, gate, blend, sums, counts"].append(scored / AT_ONCE * per_batch)
        shares["forward passes"].append(scored / 32 * 2048 * forward_flops() / (a.flops * a.utilisation))
    lines += [f"| {name} | {one:,.2f} s | {eight:,.2f} s |" for name, (one, eight) in shares.items()]
    one, eight = (sum(values[i] for values in shares.values()) for i in (0, 1))
    lines.append(f"| together | {one:,.0f} s | {eight:,.0f} s |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.gpu_prediction")
    publish(predict(options.assumptions), options.out)


if __name__ == "__main__":
    main()
