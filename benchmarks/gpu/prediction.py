"""How long should the Triton kernels and an evaluation take on H100 GPUs? `python -m benchmarks.gpu.prediction`.

Arithmetic, not measurement: bytes are counted from the kernels as written, times follow from an H100's data sheet and
from the assumptions below. `benchmarks/gpu/bench.py` measures the same things on a GPU, compares them with these times
and puts them into the same formulas.
"""

import shlex
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from benchmarks.machine import publish
from ngram_eval.config import preset
from ngram_eval.evaluation.published import SECONDS, TARGETS
from ngram_eval.kernels.score_windows import AT_ONCE
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig


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
class Sizes:
    """What is launched: the published evaluation."""

    vocab: int = 1024
    buckets: int = 1 << 22
    prefill: int = 1 << 22
    """Positions of an update."""
    lookup: int = 1 << 20
    """Positions of a lookup without windows."""
    batch: int = AT_ONCE
    """Positions scored together."""
    stride: int = 32
    """Scored positions of a window."""
    seq_len: int = 2048
    """Positions of a window."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """One launch."""

    name: str
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

    def floor(self, bandwidth: float) -> float:
        """Seconds in which the least bytes pass, and nothing else happens."""
        return self.positions * self.least / bandwidth

    def seconds(self, a: Assumptions) -> float:
        """Seconds of the launch: its waits, and the larger of traffic and work."""
        traffic = self.streamed / a.bandwidth + self.random / (a.bandwidth * a.random_efficiency)
        return a.launch + self.waits + max(self.positions * traffic, self.work)


def kernels(a: Assumptions, sizes: Sizes) -> dict[str, Kernel]:
    """Every kernel of an evaluation with logits in bfloat16, tokens in 16 bits and the orders of the presets."""
    orders, token, result = len(preset("hashed").ngram.orders), 2, 12
    tables = 2 * orders
    ids, listed, counts, sectors = 4 * tables, 24, 4 * tables, a.sector * tables
    logits = 2 * sizes.vocab
    sweep = 2 * counts * sizes.buckets / sizes.prefill  # every table read and written once
    # Each position against all before it, half of the batch on average, in every table: a compare and an add.
    comparing = sizes.batch**2 / 2 * tables * 2 / (a.multiprocessors * 128 * a.clock)
    found = [
        Kernel(
            name="update",
            positions=sizes.prefill,
            least=token + sweep,
            streamed=token * tables + sweep,
            waits=a.memory_wait,
            work=sizes.prefill * tables / a.atomics,
        ),
        Kernel(
            name="lookup",
            positions=sizes.lookup,
            least=token + 2 * counts,
            streamed=token * orders + counts,
            random=sectors,
            waits=2 * a.memory_wait,
        ),
        Kernel(
            name="stats",
            positions=sizes.batch,
            least=logits + 8 + result,
            streamed=logits + 8 + result,
            waits=2 * a.memory_wait,
        ),
        Kernel(
            name="bucket",
            positions=sizes.batch,
            least=token + 8 + ids,
            streamed=token + 8 + ids,
            waits=2 * a.cache_wait,
        ),
        Kernel(
            name="score",
            positions=sizes.batch,
            least=ids + counts + listed + result,
            streamed=ids + listed + result,
            random=sectors,
            waits=a.memory_wait + 2 * a.cache_wait + sizes.batch / 128 * a.cache_wait,
            work=comparing,
        ),
        Kernel(
            name="add",
            positions=sizes.batch,
            least=ids + 8 + 2 * counts,
            streamed=ids + 8,
            random=sectors,  # `score` has just read them into the L2 cache; they are written back
            waits=a.cache_wait,
        ),
    ]
    return {kernel.name: kernel for kernel in found}


STEP = ("stats", "bucket", "score", "add")
"""The launches for one batch: logits into statistics, then its windows."""


def forward_flops(sizes: Sizes) -> float:
    """Operations of the published model's forward a token: matrices twice, and causal attention over a window."""
    with torch.device("meta"):
        model = Transformer(ModelConfig())
    tables = model.config.vocab_size * model.config.width  # the head is one more product with them
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2 and min(p.shape) >= 64) - tables
    return 2 * (matrices + tables) + model.config.layers * 4 * model.config.width * sizes.seq_len / 2


EVALUATION = ["| | prefill, s | steps, s | forward passes, s | together, s |", "|---|---|---|---|---|"]
"""Head of the table that `evaluation` makes rows of."""


def evaluation(source: str, sizes: Sizes, *, update: float, step: float, forward: float) -> list[str]:
    """Seconds of the whole evaluation on 1 and on 8 GPUs, from those of an update, a step, and a window's forward.

    The last rank is the slowest: it counts what all others score before it scores its own share.
    """
    rows = []
    for ranks in (1, 8):
        scored = TARGETS / ranks
        prefill = (TARGETS - scored) / sizes.prefill * update
        steps, forwards = scored / sizes.batch * step, scored / sizes.stride * forward
        gpus = "1 GPU" if ranks == 1 else f"{ranks} GPUs"
        together = prefill + steps + forwards
        rows.append(f"| {source}, {gpus} | {prefill:,.2f} | {steps:,.2f} | {forwards:,.1f} | {together:,.1f} |")
    return rows


def predicted_evaluation(source: str, a: Assumptions, sizes: Sizes) -> list[str]:
    """`evaluation` by the predicted times."""
    found = kernels(a, sizes)
    return evaluation(
        source,
        sizes,
        update=found["update"].seconds(a),
        step=sum(found[name].seconds(a) for name in STEP),
        forward=sizes.seq_len * forward_flops(sizes) / (a.flops * a.utilisation),
    )


def predict(a: Assumptions) -> str:
    """The tables, as Markdown."""
    sizes = Sizes()
    lines = [
        "# Predicted times on H100 SXM GPUs",
        "",
        f"Command: `{shlex.join(['python', '-m', 'benchmarks.gpu.prediction', *sys.argv[1:]])}`",
        "",
        "**A prediction: nothing here was measured.** Orders 2 to 9, 2^22 buckets, 1024 tokens, stride 32, logits in "
        "bfloat16. Assumed: " + ", ".join(f"{f.name} {getattr(a, f.name):g}" for f in fields(a)) + " (meanings in "
        "`benchmarks/gpu/prediction.py`).",
        "",
        "| kernel | positions | bytes a position, at least | moved | floor by bandwidth, µs | predicted, µs |",
        "|---|---|---|---|---|---|",
    ]
    for k in kernels(a, sizes).values():
        lines.append(
            f"| {k.name} | {k.positions:,} | {k.least:,.0f} | {k.streamed + k.random:,.0f} | "
            f"{1e6 * k.floor(a.bandwidth):,.2f} | {1e6 * k.seconds(a):,.1f} |"
        )
    lines += [
        "",
        f"The whole evaluation, {TARGETS:,} positions, on the slowest rank; a step is {', '.join(STEP[:-1])} and "
        f"{STEP[-1]} of {sizes.batch} positions. PR #890 took {SECONDS[0]} to {SECONDS[1]} s on 8 GPUs.",
        "",
        *EVALUATION,
        *predicted_evaluation("predicted", a, sizes),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    import tyro  # here and not above: benchmarks/gpu/suite.sh takes the formulas where it may be missing

    options = tyro.cli(Options, prog="python -m benchmarks.gpu.prediction")
    publish(predict(options.assumptions), options.out)


if __name__ == "__main__":
    main()
