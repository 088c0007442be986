"""Times every kernel on the GPU and prints Markdown; `benchmarks/gpu_suite.sh` calls it.

Against its floor from bytes (`benchmarks.gpu_prediction`), against plain PyTorch and `torch.compile` of the same
(`benchmarks.gpu_peers`), and against the C++ backend. What is compared is first checked to be equal. Under
TRITON_INTERPRET=1 it is a dry run at toy sizes, whose numbers mean nothing. Exits with 1 if anything failed.
"""

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import triton
from numpy.typing import NDArray
from torch import Tensor
from triton.testing import get_dram_gbps

from benchmarks import gpu_peers as peers
from benchmarks.gpu_clock import seconds
from benchmarks.gpu_prediction import (
    EVALUATION,
    STEP,
    TARGETS,
    Assumptions,
    Sizes,
    evaluation,
    kernels,
    predicted_evaluation,
)
from ngram_eval.config import WindowConfig, preset
from ngram_eval.counts import Counts, make_counts
from ngram_eval.forward import ModelSource, choose_dtype
from ngram_eval.kernels import hashing, mass, stats, tables, windows
from ngram_eval.kernels.runtime import INTERPRETED, kernel_device
from ngram_eval.kernels.step import FusedStep
from ngram_eval.model import ModelConfig, Transformer
from ngram_eval.windows import batches, plan_windows

SOFTCAP = 30.0
FIRST = 64
"""First position that is counted: from here on every order has a whole context."""
TOY = Sizes(vocab=64, buckets=1 << 8, prefill=1 << 11, lookup=1 << 9, batch=64, stride=8, seq_len=64)
TOY_MODEL = ModelConfig(vocab_size=64, width=32, layers=2, heads=2, kv_heads=2, value_layers=(1,))
FORWARD_WINDOWS = 32
H100 = Assumptions()

T = TypeVar("T")


class Case(NamedTuple):
    """Something that kernels do, and how else it is done."""

    name: str
    launches: tuple[str, ...]
    """Of `gpu_prediction.kernels`: what the floor is made of."""
    ours: Callable[[], object]
    peer: Callable[..., Any]
    """Of `gpu_peers`."""
    arguments: tuple[Any, ...]
    """Of the peer."""
    result: Callable[[], tuple[Tensor, ...]] = tuple
    """What `ours` has computed, to compare with what the peer returns; both may also count into the tables."""
    outputs: tuple[Tensor, ...] = ()
    """Where `ours` writes: overwritten before the comparison."""
    cpu: Callable[[Counts], NDArray[np.int64] | None] | None = None
    """The same on the C++ backend; may return the positions by matched order."""


@dataclass
class Bench:
    """The inputs of all cases, and what went wrong."""

    sizes: Sizes
    rounds: int
    device: torch.device = field(default_factory=kernel_device)
    failures: list[str] = field(default_factory=list)
    microseconds: dict[str, float] = field(default_factory=dict)
    """Medians by name."""

    def __post_init__(self) -> None:
        sizes = self.sizes
        hashed = preset("hashed")
        self.config = replace(hashed, ngram=replace(hashed.ngram, buckets=sizes.buckets))
        self.rules = peers.Rules.of(self.config, SOFTCAP, self.device)
        self.stream = repeating_tokens(FIRST + sizes.prefill + sizes.batch + 1, sizes.vocab)
        self.tokens = torch.from_numpy(self.stream.astype(np.int64)).to(self.device)
        self.prefilled = torch.arange(FIRST, FIRST + sizes.prefill, device=self.device)
        generator = torch.Generator().manual_seed(0)
        logits = (4 * torch.randn(sizes.batch, sizes.vocab, generator=generator)).bfloat16().to(self.device)
        # A step with its inputs in place; what it works out for itself, PyTorch works out here.
        self.step = FusedStep.allocate(
            self.config,
            tables.empty_tables(self.config.ngram, self.device),
            logits,
            torch.from_numpy(self.stream).to(self.device),
            windows=sizes.batch // sizes.stride,
            softcap=SOFTCAP,
        )
        entries = torch.arange(sizes.batch, device=self.device)
        self.step.listed.positions.copy_(FIRST + sizes.prefill + entries)
        self.step.listed.before.copy_(entries // sizes.stride * sizes.stride)
        self.step.listed.rows.copy_(entries // sizes.stride)
        self.step.targets.copy_(self.tokens[self.step.listed.positions + 1])
        for buffer, values in zip(
            (self.step.p_target, self.step.entropy), peers.stats(self.rules, logits, self.step.targets), strict=True
        ):
            buffer.copy_(values)
        self.step.ids.copy_(peers.bucket(self.rules, self.tokens, self.step.listed.positions))
        self.log_sum = torch.logsumexp(SOFTCAP * torch.tanh(logits.float() / SOFTCAP), dim=1)
        peers.update(self.rules, self.step.tables, self.tokens, self.prefilled)
        self.counted = self.step.tables.clone()

    def attempt(self, what: str, function: Callable[[], T]) -> T | None:
        """The function's value; None if it fails, which is remembered."""
        try:
            return function()
        except Exception:
            self.failures.append(f"### {what}\n\n```\n{traceback.format_exc()}```\n")
            return None

    def reset(self) -> None:
        """Tables and sums as they were at the start."""
        self.step.tables.copy_(self.counted)
        self.step.charges.sums.zero_()
        self.step.charges.hits.zero_()

    def check(self, case: Case, peer: Callable[..., Any]) -> None:
        """Raise `AssertionError` unless kernels and peer compute the same: integers exactly, floats to 1e-5."""
        self.reset()
        for output in case.outputs:
            output.fill_(-1)
        case.ours()
        found, ours = [one.clone() for one in case.result()], self.step.tables.clone()
        self.reset()
        returned = peer(*case.arguments)
        expected = () if returned is None else returned if isinstance(returned, tuple) else (returned,)
        for one, other in zip((ours, *found), (self.step.tables, *expected), strict=True):
            exact = not one.is_floating_point()
            torch.testing.assert_close(
                one, other, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-5, check_dtype=False
            )

    def check_cpu(self, case: Case, counts: Counts) -> None:
        """The same for the C++ backend: tables, and positions by matched order."""
        assert case.cpu is not None
        self.reset()
        case.ours()
        counts.load_state(self.counted.cpu().numpy().view(np.uint32))
        hits = case.cpu(counts)
        np.testing.assert_array_equal(self.step.tables.cpu().numpy().view(np.uint32), counts.state())
        if hits is not None:
            np.testing.assert_array_equal(self.step.charges.hits.cpu().numpy(), hits)


def repeating_tokens(count: int, vocab: int) -> NDArray[np.uint16]:
    """Tokens as frequent as words are, in phrases that come back, so that every order matches."""
    rng = np.random.default_rng(0)
    frequency = 1 / (np.arange(vocab) + 10)
    pool = rng.choice(vocab, 1 << 18, p=frequency / frequency.sum()).astype(np.uint16)
    starts = rng.integers(0, len(pool) - 12, count // 12 + 1)
    return np.ascontiguousarray(pool[starts[:, None] + np.arange(12)].ravel()[:count])


def cases(bench: Bench) -> list[Case]:
    """Every kernel, and the launches that go together."""
    sizes, step, rules, ngram = bench.sizes, bench.step, bench.rules, bench.config.ngram
    positions, orders = step.listed.positions, len(ngram.orders)
    looked_up = bench.prefilled[: sizes.lookup]
    contexts, fulls = torch.empty((2, orders, sizes.lookup), dtype=torch.int32, device=bench.device)
    masses = torch.empty(sizes.batch, dtype=torch.float64, device=bench.device)
    ids, scratch = step.ids.long(), torch.empty_like(step.ids)
    charging: dict[str, Any] = {
        "gate": step.gate,
        "stats": (step.p_target, step.entropy),
        "charges": step.charges,
    }
    given = (positions, step.listed.before, sizes.stride)

    def charged() -> tuple[Tensor, ...]:
        return step.charges.nats()[:, 0], step.charges.hits

    def update_cpu(counts: Counts) -> None:
        counts.update(bench.stream, FIRST, FIRST + sizes.prefill)

    def windows_cpu(counts: Counts) -> NDArray[np.int64]:
        firsts = FIRST + sizes.prefill + np.arange(0, sizes.batch, sizes.stride)
        best = counts.score_windows(bench.stream, firsts, firsts + sizes.stride)
        return np.bincount(best.order, minlength=10)

    return [
        Case(
            "update",
            ("update",),
            lambda: tables.update(step.tables, step.tokens, 0, FIRST, FIRST + sizes.prefill, ngram),
            peers.update,
            (rules, step.tables, bench.tokens, bench.prefilled),
            cpu=update_cpu,
        ),
        Case(
            "lookup",
            ("lookup",),
            lambda: tables.lookup(step.tables, step.tokens, 0, FIRST, contexts, fulls, ngram),
            peers.lookup,
            (rules, step.tables, bench.tokens, looked_up),
            result=lambda: (torch.stack([contexts, fulls], dim=1),),
            outputs=(contexts, fulls),
        ),
        Case(
            "stats",
            ("stats",),
            lambda: stats.neural_stats(step.logits, step.targets, step.p_target, step.entropy, softcap=SOFTCAP),
            peers.stats,
            (rules, step.logits, step.targets),
            result=lambda: (step.p_target, step.entropy),
            outputs=(step.p_target, step.entropy),
        ),
        Case(
            "bucket",
            ("bucket",),
            lambda: hashing.list_buckets(step.ids, step.tokens, 0, positions, ngram),
            peers.bucket,
            (rules, bench.tokens, positions),
            result=lambda: (step.ids,),
            outputs=(step.ids,),
        ),
        Case(
            "score",
            ("score",),
            lambda: windows.score_buckets(step.tables, step.ids, step.listed, ngram, **charging),
            peers.score,
            (rules, step.tables, ids, step.listed.before, sizes.stride, step.p_target, step.entropy),
            result=charged,
        ),
        Case(
            "add",
            ("add",),
            lambda: windows.add_buckets(step.tables, step.ids, positions, ngram),
            peers.add,
            (step.tables, ids),
        ),
        Case(
            "windows: bucket, score, add",
            ("bucket", "score", "add"),
            lambda: windows.score_listed(step.tables, step.tokens, 0, step.listed, scratch, ngram, **charging),
            peers.windows,
            (rules, step.tables, bench.tokens, *given, step.p_target, step.entropy),
            result=charged,
            cpu=windows_cpu,
        ),
        Case(
            "step: stats and windows",
            STEP,
            step,
            peers.step,
            (rules, step.tables, bench.tokens, *given, step.logits, step.targets),
            result=charged,
        ),
        Case(
            "mass, with its buckets",
            ("bucket", "mass"),
            lambda: mass.vocabulary_mass(
                step.tables,
                step.tokens,
                0,
                positions,
                scratch,
                ngram,
                gate=step.gate,
                vocab=sizes.vocab,
                logits=step.logits,
                log_sum=bench.log_sum,
                entropy=step.entropy,
                mass=masses,
                softcap=SOFTCAP,
            ),
            peers.mass,
            (rules, step.tables, bench.tokens, positions, step.logits, bench.log_sum, step.entropy),
            result=lambda: (masses,),
            outputs=(masses,),
        ),
    ]


def measure(bench: Bench, case: Case, bandwidth: float, cpu: Counts | None) -> str:
    """The case's row of the table."""
    predicted = [kernels(H100, bench.sizes)[name] for name in case.launches]

    def timed(ours: Callable[[], object], rounds: int = bench.rounds) -> list[float]:
        return [1e6 * one for one in seconds(ours, rounds, bench.device)]

    def of_peer(peer: Callable[..., Any]) -> float:
        bench.check(case, peer)
        return median(timed(lambda: peer(*case.arguments)))

    def of_cpu() -> float:
        assert case.cpu is not None
        assert cpu is not None
        bench.check_cpu(case, cpu)
        return 1e6 * median(seconds(lambda: case.cpu and case.cpu(cpu), 3, torch.device("cpu")))

    plain = bench.attempt(f"{case.name}, against PyTorch", lambda: of_peer(case.peer))
    ours = bench.attempt(case.name, lambda: timed(case.ours))
    # In a dry run the graph is only traced, as compiling it takes minutes.
    compiler: dict[str, Any] = {"backend": "eager"} if INTERPRETED else {}
    compiled = bench.attempt(
        f"{case.name}, against torch.compile",
        lambda: of_peer(torch.compile(case.peer, fullgraph=True, dynamic=False, **compiler)),
    )
    on_cpu = bench.attempt(f"{case.name}, against C++", of_cpu) if case.cpu and cpu else None
    middle = median(ours) if ours else None
    if middle is not None:
        bench.microseconds[case.name] = middle
    floor = 1e6 * sum(kernel.floor(bandwidth) for kernel in predicted)
    cells = [
        case.name,
        f"{predicted[0].positions:,}",
        f"{middle:,.1f} ({min(ours):,.1f} to {max(ours):,.1f})" if ours else "FAILED",
        f"{1e6 * sum(kernel.floor(nominal_bandwidth()) for kernel in predicted):,.2f}",
        f"{floor:,.2f}",
        f"{middle / floor:,.1f}" if middle else "-",
        f"{1e6 * sum(kernel.seconds(H100) for kernel in predicted):,.1f}",
        *(against(other, middle) for other in (plain, compiled)),
        against(on_cpu, middle) if case.cpu and cpu else "-",
    ]
    return f"| {' | '.join(cells)} |"


def against(other: float | None, ours: float | None) -> str:
    """A peer's time, and how many times ours that is."""
    return "FAILED" if other is None else f"{other:,.1f}" + (f" ({other / ours:,.1f}x)" if ours else "")


def nominal_bandwidth() -> float:
    """Bytes a second of the GPU's memory by its clock and width."""
    return H100.bandwidth if INTERPRETED else 1e9 * float(get_dram_gbps())


def copy_bandwidth(bench: Bench) -> float:
    """Bytes a second that a copy within the GPU's memory reaches, reads and writes together."""
    source = torch.zeros(1 << 14 if INTERPRETED else 1 << 30, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    return 2 * len(source) / median(seconds(lambda: target.copy_(source), bench.rounds, bench.device))


def replayed(bench: Bench) -> list[float]:
    """Microseconds of the step replayed from a CUDA graph, which is first checked to do what the step does."""
    graph = torch.cuda.CUDAGraph()
    bench.reset()
    bench.step()
    expected = [one.clone() for one in (bench.step.tables, *bench.step.charges)]
    bench.reset()
    with torch.cuda.graph(graph):
        bench.step()
    graph.replay()
    for one, other in zip((bench.step.tables, *bench.step.charges), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    return [1e6 * one for one in seconds(graph.replay, bench.rounds, bench.device)]


def forward_seconds(bench: Bench) -> float:
    """Of a window in a batch of 32: the published model (untrained) with the statistics of its scored positions."""
    source = ModelSource(
        Transformer(TOY_MODEL if INTERPRETED else ModelConfig()),
        train_seq_len=bench.sizes.seq_len,
        batch_windows=FORWARD_WINDOWS,
        device=bench.device,
        dtype=choose_dtype("auto", bench.device),
        use_kernels=True,
    )
    cut = WindowConfig(seq_len=bench.sizes.seq_len, stride=bench.sizes.stride)
    planned = plan_windows(bench.sizes.seq_len + FORWARD_WINDOWS * cut.stride, cut)[1:]
    (batch,) = batches(planned, FORWARD_WINDOWS)
    return median(seconds(lambda: source.stats(bench.stream, batch), min(bench.rounds, 10), bench.device)) / len(batch)


def load_cpu(bench: Bench) -> Counts | None:
    """The C++ backend on one thread, if it could be built."""
    try:
        return make_counts("cpu", bench.config.ngram, 1)
    except Exception as error:
        print(f"The C++ backend was skipped: {error}.\n")
        return None


def main() -> None:
    """Everything, printed as it is measured."""
    if INTERPRETED:
        print("**A dry run in Triton's interpreter, at toy sizes, by the host's clock: its numbers mean nothing.**\n")
    name = "none" if INTERPRETED else torch.cuda.get_device_name()
    print(
        f"GPU: {name}; torch {torch.__version__} (CUDA {torch.version.cuda}), triton {triton.__version__}, "
        f"numpy {np.__version__}\n"
    )
    sizes = TOY if INTERPRETED else Sizes()
    bench = Bench(sizes, rounds=2 if INTERPRETED else 30)
    cpu = load_cpu(bench)
    bandwidth = copy_bandwidth(bench)
    idle = median(seconds(lambda: None, bench.rounds, bench.device))
    print(
        f"A copy within its memory reaches {bandwidth / 1e12:.2f} of the nominal {nominal_bandwidth() / 1e12:.2f} TB/s. "
        f"Medians (and ranges) of {bench.rounds} calls in µs, each with an empty L2 cache and enqueued before it starts; "
        f"an empty interval reads {1e6 * idle:.1f} µs. {len(bench.config.ngram.orders)} orders, {sizes.buckets:,} "
        f"buckets, {sizes.vocab:,} tokens, windows of {sizes.stride} scored positions, logits in bfloat16. Floors are the "
        "least bytes over the nominal and the copy's bandwidth. PyTorch and C++ (one thread, host's clock) were checked "
        "to compute the same: integers exactly, floats to 1e-5.\n"
    )
    print(
        "| | positions | µs | floor, nominal | floor, copy | times that | predicted for an H100 SXM | PyTorch | "
        "torch.compile | C++ |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for case in cases(bench):
        print(measure(bench, case, bandwidth, cpu), flush=True)

    graph = None
    if INTERPRETED:
        print("\nThe step in a CUDA graph was skipped: there is no GPU.")
    else:
        graph = bench.attempt("the step in a CUDA graph", lambda: replayed(bench))
        print(
            f"\nThe step replayed from a CUDA graph: {median(graph):,.1f} µs ({min(graph):,.1f} to {max(graph):,.1f})."
            if graph
            else "\nThe step in a CUDA graph FAILED."
        )
    forward = bench.attempt("the forward pass", lambda: forward_seconds(bench))
    print(f"\n## The whole evaluation, {TARGETS:,} positions\n")
    print("Predicted for H100 SXM GPUs, and the medians above in the same formulas.\n")
    print("\n".join([*EVALUATION, *predicted_evaluation("predicted", H100, sizes)]))
    steps = {"measured": bench.microseconds.get("step: stats and windows"), "with a graph": graph and median(graph)}
    for source, step in steps.items():
        update = bench.microseconds.get("update")
        if step and update and forward:
            print("\n".join(evaluation(source, sizes, update=update / 1e6, step=step / 1e6, forward=forward)))
    if bench.failures:
        print(f"\n## {len(bench.failures)} failures\n")
        print("\n".join(bench.failures))
    sys.exit(int(bool(bench.failures)))


if __name__ == "__main__":
    main()
