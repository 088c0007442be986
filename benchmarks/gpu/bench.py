"""How fast is each Triton kernel on this GPU, and how fast would an evaluation be? `python -m benchmarks.gpu.bench`.

Compares each with its floor from bytes and its predicted time (`prediction.py`), with plain PyTorch and `torch.compile`
of the same (`peers.py`), and with the C++ backend; prints Markdown. What is compared is first checked to be equal.
Under TRITON_INTERPRET=1 it is a dry run at toy sizes, whose numbers mean nothing. Exits with 1 if anything failed.
"""

import sys
import traceback
from collections.abc import Callable
from statistics import median
from typing import Any, TypeVar

import numpy as np
import torch
import triton
from triton.testing import get_dram_gbps

from benchmarks.gpu.cases import Case, Inputs, cases
from benchmarks.gpu.clock import seconds
from benchmarks.gpu.prediction import (
    EVALUATION,
    Assumptions,
    Sizes,
    evaluation,
    kernels,
    predicted_evaluation,
)
from ngram_eval.config import WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.evaluation.published import TARGETS
from ngram_eval.kernels.runtime import INTERPRETED, kernel_device
from ngram_eval.models.banded_attention import BandKernel, band_kernel
from ngram_eval.models.banded_source import BandedSource, default_chunk
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.models.transformer_source import DeviceStats, TransformerSource, choose_dtype
from ngram_eval.scorers.hashed.counts import Counts, make_counts
from ngram_eval.scorers.hashed.device_scorer import TritonScorer
from ngram_eval.text.windows import Windows, batches, plan_windows

TOY = Sizes(vocab=64, buckets=1 << 8, prefill=1 << 11, lookup=1 << 9, batch=64, stride=8, seq_len=64)
TOY_MODEL = ModelConfig(vocab_size=64, width=32, layers=2, heads=2, kv_heads=2, value_layers=(1,))
FORWARD_WINDOWS = 32
H100 = Assumptions()

T = TypeVar("T")


class Bench:
    """The inputs, what has been measured on them, and what went wrong."""

    def __init__(self, sizes: Sizes, rounds: int) -> None:
        self.sizes, self.rounds, self.device = sizes, rounds, kernel_device()
        self.inputs = Inputs(sizes, self.device)
        self.microseconds: dict[str, float] = {}  # medians, by name of the case
        self.failures: list[str] = []

    def attempt(self, what: str, function: Callable[[], T]) -> T | None:
        """The function's value; None if it fails, which is remembered."""
        try:
            return function()
        except Exception:
            self.failures.append(f"### {what}\n\n```\n{traceback.format_exc()}```\n")
            return None

    def check(self, case: Case, peer: Callable[..., Any]) -> None:
        """Raise `AssertionError` unless kernels and peer compute the same: integers exactly, floats to 1e-5."""
        self.inputs.reset()
        for output in case.outputs:
            output.fill_(-1)
        case.ours()
        found, ours = [one.clone() for one in case.result()], self.inputs.tables.clone()
        self.inputs.reset()
        returned = peer(*case.arguments)
        expected = () if returned is None else returned if isinstance(returned, tuple) else (returned,)
        for one, other in zip((ours, *found), (self.inputs.tables, *expected), strict=True):
            exact = not one.is_floating_point()
            torch.testing.assert_close(
                one, other, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-5, check_dtype=False
            )

    def check_cpu(self, case: Case, counts: Counts) -> None:
        """Check the C++ backend likewise: tables, and positions by matched order."""
        assert case.cpu is not None
        self.inputs.reset()
        case.ours()
        counts.load_state(self.inputs.counted.cpu().numpy().view(np.uint32))
        hits = case.cpu(counts)
        np.testing.assert_array_equal(self.inputs.tables.cpu().numpy().view(np.uint32), counts.state())
        if hits is not None:
            np.testing.assert_array_equal(self.inputs.totals.hits.cpu().numpy(), hits)


def measure(bench: Bench, case: Case, bandwidth: float, cpu: Counts | None) -> str:
    """The case's row of the table."""

    def timed(call: Callable[[], object]) -> list[float]:
        return [1e6 * one for one in seconds(call, bench.rounds, bench.device)]

    def of_peer(peer: Callable[..., Any]) -> float:
        bench.check(case, peer)
        return median(timed(lambda: peer(*case.arguments)))

    def of_cpu(call: Callable[[Counts], object], counts: Counts) -> float:
        bench.check_cpu(case, counts)
        return 1e6 * median(seconds(lambda: call(counts), 3, torch.device("cpu")))

    # In a dry run the graph is traced and run as it is: compiling it takes a minute.
    compiler: dict[str, Any] = {"backend": "eager"} if INTERPRETED else {}
    plain = bench.attempt(f"{case.name}, against PyTorch", lambda: of_peer(case.peer))
    ours = bench.attempt(case.name, lambda: timed(case.ours))
    compiled = bench.attempt(
        f"{case.name}, against torch.compile",
        lambda: of_peer(torch.compile(case.peer, fullgraph=True, dynamic=False, **compiler)),
    )
    on_cpu = "-"
    if case.cpu is not None and cpu is not None:
        call = case.cpu
        on_cpu = against(bench.attempt(f"{case.name}, against C++", lambda: of_cpu(call, cpu)), ours)
    if ours:
        bench.microseconds[case.name] = median(ours)

    launches = [kernels(H100, bench.sizes)[name] for name in case.launches]
    nominal, reached = (1e6 * sum(one.floor(by) for one in launches) for by in (nominal_bandwidth(), bandwidth))
    cells = [
        case.name,
        f"{launches[0].positions:,}",
        f"{median(ours):,.1f} ({min(ours):,.1f} to {max(ours):,.1f})" if ours else "FAILED",
        f"{nominal:,.2f}",
        f"{reached:,.2f}",
        f"{median(ours) / reached:,.1f}" if ours else "-",
        f"{1e6 * sum(one.seconds(H100) for one in launches):,.1f}",
        against(plain, ours),
        against(compiled, ours),
        on_cpu,
    ]
    return f"| {' | '.join(cells)} |"


def against(other: float | None, ours: list[float] | None) -> str:
    """A peer's time, and how many times ours that is."""
    if other is None:
        return "FAILED"
    return f"{other:,.1f} ({other / median(ours):,.1f}x)" if ours else f"{other:,.1f}"


def nominal_bandwidth() -> float:
    """Bytes a second of the GPU's memory by its clock and width."""
    return H100.bandwidth if INTERPRETED else 1e9 * float(get_dram_gbps())


def copy_bandwidth(bench: Bench) -> float:
    """Bytes a second that a copy within the GPU's memory reaches, reads and writes together."""
    source = torch.zeros(1 << 14 if INTERPRETED else 1 << 30, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    return 2 * len(source) / median(seconds(lambda: target.copy_(source), bench.rounds, bench.device))


def forward_seconds(bench: Bench, compiled: bool) -> float:
    """Seconds of a window in a batch of 32: the published model (untrained), and statistics of the scored positions."""
    source = TransformerSource(
        Transformer(TOY_MODEL if INTERPRETED else ModelConfig()),
        train_seq_len=bench.sizes.seq_len,
        batch_windows=FORWARD_WINDOWS,
        device=bench.device,
        dtype=choose_dtype("auto", bench.device),
        use_kernels=True,
        compiled=compiled,
    )
    cut = WindowConfig(seq_len=bench.sizes.seq_len, stride=bench.sizes.stride)
    planned = plan_windows(bench.sizes.seq_len + FORWARD_WINDOWS * cut.stride, cut)[1:]
    (batch,) = batches(planned, FORWARD_WINDOWS)
    rounds = min(bench.rounds, 10)
    return median(seconds(lambda: source.stats(bench.inputs.stream, batch), rounds, bench.device)) / len(batch)


def banded_kernels(bench: Bench) -> list[tuple[BandKernel, bool]]:
    """(kernel, compiled) of `--forward banded` that can run here; `flex` uncompiled would hold all scores."""
    if INTERPRETED:
        return [("blocks", False)]
    known = band_kernel(bench.device, choose_dtype("auto", bench.device), 0, compiled=False)
    found: list[tuple[BandKernel, bool]] = [("blocks", False), ("blocks", True), ("flex", True)]
    return found if known == "blocks" else [*found, (known, False), (known, True)]


def banded_seconds(bench: Bench, kernel: BandKernel, compiled: bool, expected: list[Any]) -> float:
    """Seconds of a scored position of a full chunk; its statistics are compared with the first kernel's."""
    length = bench.sizes.seq_len
    torch.manual_seed(0)
    model = Transformer(TOY_MODEL if INTERPRETED else ModelConfig())
    for parameter in model.parameters():
        if parameter.numel() and not parameter.any():  # output projections begin at zero
            torch.nn.init.normal_(parameter, std=0.02)
    source = BandedSource(
        model,
        chunk=128 if INTERPRETED else default_chunk(model.config, length, bench.device),
        kernel=kernel,
        train_seq_len=length,
        batch_windows=1,
        device=bench.device,
        dtype=choose_dtype("auto", bench.device),
        use_kernels=True,
        compiled=compiled,
    )
    stop = length + source.chunk
    windows = Windows(np.array([stop - length]), np.array([length]), np.array([stop]), length)
    texts = iter(np.random.default_rng(0).integers(model.config.vocab_size, size=(64, stop + 1), dtype=np.uint16))
    entropy = source.stats(next(texts), windows).entropy
    expected.append(entropy)
    difference = float(np.abs(entropy - expected[0]).mean())
    if not difference <= 0.05:
        raise AssertionError(f"entropies differ by {difference} nats on average, more than bfloat16 explains")
    rounds = min(bench.rounds, 10)
    return median(seconds(lambda: source.stats(next(texts), windows), rounds, bench.device)) / source.chunk


def print_banded(bench: Bench) -> None:
    """`--forward banded` with each kernel, and what it makes of the whole evaluation."""
    print(f"\n## Forwarding each position once, {TARGETS:,} positions\n")
    print("The published model, untrained, with its statistics; medians of whole chunks, lead-in included.\n")
    print("| attention | `--compile` | µs a position | forward passes, s |\n|---|---|---|---|")
    expected: list[Any] = []
    for kernel, compiled in banded_kernels(bench):
        each = bench.attempt(
            f"banded, {kernel}, compiled: {compiled}",
            lambda kernel=kernel, compiled=compiled: banded_seconds(bench, kernel, compiled, expected),  # type: ignore[misc]
        )
        cells = ("FAILED", "-") if each is None else (f"{each * 1e6:.3f}", f"{each * TARGETS:,.1f}")
        print(f"| {kernel} | {'yes' if compiled else 'no'} | {cells[0]} | {cells[1]} |", flush=True)


def scorer_seconds(bench: Bench) -> float:
    """Seconds of a batch in `--backend triton` after the forward: host and GPU together, by the host's clock."""
    sizes, inputs = bench.sizes, bench.inputs
    cut = WindowConfig(seq_len=sizes.stride, stride=sizes.stride)
    windows = plan_windows((4 if INTERPRETED else 64) * sizes.batch, cut)
    scorer = TritonScorer(inputs.config, at_once=sizes.batch)
    stats = DeviceStats(inputs.p_target, inputs.entropy)

    def score() -> None:
        for batch in batches(windows, sizes.batch // sizes.stride):
            scorer.score(inputs.stream, batch, stats)
        scorer.tally()

    return median(seconds(score, 3, torch.device("cpu"))) * sizes.batch / windows.scored


def print_setting(bench: Bench, bandwidth: float) -> None:
    """What the table was measured on, and how to read it."""
    sizes = bench.sizes
    if INTERPRETED:
        print("**A dry run in Triton's interpreter, at toy sizes, by the host's clock: its numbers mean nothing.**\n")
    idle = median(seconds(lambda: None, bench.rounds, bench.device))
    print(
        f"GPU: {'none' if INTERPRETED else torch.cuda.get_device_name()}; torch {torch.__version__} "
        f"(CUDA {torch.version.cuda}), triton {triton.__version__}, numpy {np.__version__}. A copy within its memory "
        f"reaches {bandwidth / 1e12:.2f} of the nominal {nominal_bandwidth() / 1e12:.2f} TB/s.\n\n"
        f"Orders 2 to 9, {sizes.buckets:,} buckets, {sizes.vocab:,} tokens, windows of {sizes.stride} scored "
        f"positions, logits in bfloat16. Medians (and ranges) of {bench.rounds} calls in µs, "
        "each with an empty L2 cache and everything enqueued before it starts; an interval with nothing in it reads "
        f"{1e6 * idle:.1f} µs. Floors are the least bytes over the nominal and over the copy's bandwidth. PyTorch and "
        "C++ (one thread, host's clock) were first checked to compute the same: integers exactly, floats to 1e-5.\n"
    )


def print_table(bench: Bench, bandwidth: float) -> None:
    """One row a case."""
    cpu: Counts | None = None
    try:
        cpu = make_counts("cpu", bench.inputs.config.ngram, 1)
    except InputError as error:
        print(f"C++ was skipped: {error}.\n")
    print(
        "| | positions | µs | floor, nominal | floor, copy | times that | predicted for an H100 SXM | PyTorch | "
        "torch.compile | C++ |\n|---|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for case in cases(bench.inputs):
        print(measure(bench, case, bandwidth, cpu), flush=True)


def print_evaluation(bench: Bench) -> None:
    """What batches take outside the table, and what all of it makes of the whole evaluation."""
    update = bench.microseconds.get("update")
    forward = bench.attempt("the forward pass", lambda: forward_seconds(bench, compiled=False))
    compiled = None if INTERPRETED else bench.attempt("--compile", lambda: forward_seconds(bench, compiled=True))
    known = "dry run" if INTERPRETED else "measured"
    steps = {
        known: bench.microseconds.get("step: stats and windows"),
        f"{known}, as `--backend triton` runs": bench.attempt("the scorer", lambda: 1e6 * scorer_seconds(bench)),
    }
    print(f"\n## The whole evaluation, {TARGETS:,} positions\n")
    print(
        "Predicted for H100 SXM GPUs, and from medians by the same formulas: of the step above, and "
        "of `TritonScorer.score`, with what the host does for it. Forward passes are those of the published model, "
        "untrained.\n"
    )
    print("\n".join([*EVALUATION, *predicted_evaluation("predicted", H100, bench.sizes)]))
    for source, step in steps.items():
        if update and step and forward:
            rows = evaluation(source, bench.sizes, update=update / 1e6, step=step / 1e6, forward=forward)
            print("\n".join(rows))
    if update and compiled and (step := steps[known]):
        rows = evaluation(f"{known}, `--compile`", bench.sizes, update=update / 1e6, step=step / 1e6, forward=compiled)
        print("\n".join(rows))


def main() -> None:
    """Everything, printed as it is measured."""
    bench = Bench(TOY, rounds=2) if INTERPRETED else Bench(Sizes(), rounds=30)
    bandwidth = copy_bandwidth(bench)
    print_setting(bench, bandwidth)
    print_table(bench, bandwidth)
    print_evaluation(bench)
    print_banded(bench)
    if bench.failures:
        print(f"\n## What failed: {len(bench.failures)}\n")
        print("\n".join(bench.failures))
    sys.exit(int(bool(bench.failures)))


if __name__ == "__main__":
    main()
