"""How fast is the CUDA backend on this GPU? `python -m benchmarks.gpu.cuda`, which prints Markdown.

Compares hashed tables with Triton's kernels of the same, the table of exact counts with the bandwidth, exact
counts and their model with the C++ backend. What is compared is first checked to be equal. With a build for the host
(a dry run) sizes are toys and the numbers mean nothing. Exits with 1 if anything failed.
"""

import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from triton.testing import get_dram_gbps

from benchmarks.gpu.cases import FIRST, Inputs, repeating_tokens
from benchmarks.gpu.clock import seconds
from benchmarks.gpu.prediction import Assumptions, Sizes
from benchmarks.limits.keys import RandomKeys
from ngram_eval.config import ExactConfig, WindowConfig
from ngram_eval.extensions import load_cuda, stream_of
from ngram_eval.kernels import score_windows, tables
from ngram_eval.kernels.gating import gate_numbers
from ngram_eval.models.transformer_source import DeviceStats
from ngram_eval.scorers.exact.cuda import CudaModel
from ngram_eval.scorers.hashed.device_scorer import CudaScorer, TritonScorer
from ngram_eval.text.windows import batches, plan_windows

CORE, DEVICE = load_cuda()
TOY = CORE.on_host
SIZES = (
    Sizes(vocab=64, buckets=1 << 8, prefill=1 << 11, lookup=1 << 9, batch=64, stride=8, seq_len=64) if TOY else Sizes()
)
ROUNDS = 2 if TOY else 20
LEVELS = 4 if TOY else 24
BANDWIDTH = Assumptions().bandwidth if TOY else 1e9 * float(get_dram_gbps())


def row(*cells: object) -> None:
    """One row of a table, at once."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def head(*cells: str) -> None:
    """The head of a table."""
    row(*cells)
    row(*["---"] * len(cells))


def micros(call: Callable[[], object]) -> float:
    """Median microseconds of a call on the device, with an empty L2 cache."""
    return 1e6 * median(seconds(call, ROUNDS, DEVICE))


def on_the_clock(call: Callable[[], object]) -> float:
    """Seconds of one call by the host's clock, with what the device still had to do."""
    _synchronize()
    started = time.perf_counter()
    call()
    _synchronize()
    return time.perf_counter() - started


def _synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize(DEVICE)


def hashed() -> None:
    """Update, lookup and windows: CUDA's and Triton's, on the same tables."""
    inputs = Inputs(SIZES, DEVICE)
    ngram = inputs.config.ngram
    core = CORE.HashedTables(
        device=DEVICE.index or 0,
        min_order=ngram.min_order,
        max_order=ngram.max_order,
        buckets=ngram.buckets,
        min_count=ngram.min_count,
        context_lag=ngram.context_lag,
        target_backoff=ngram.target_backoff,
    )
    stream, shape = stream_of(DEVICE), (len(ngram.orders), SIZES.lookup)
    contexts, fulls = torch.empty((2, *shape), dtype=torch.int32, device=DEVICE)
    values = torch.empty(SIZES.batch, dtype=torch.float64, device=DEVICE)
    firsts = FIRST + SIZES.prefill + np.arange(0, SIZES.batch, SIZES.stride)
    stops = firsts + SIZES.stride
    bounds = torch.from_numpy(np.stack([firsts, stops, np.cumsum(stops - firsts)])).to(DEVICE)
    charges = (gate_numbers(inputs.config.gate), inputs.p_target, inputs.entropy, values, *inputs.totals)
    scratch = torch.empty_like(inputs.ids)
    best = (
        torch.empty(SIZES.batch, dtype=torch.uint8, device=DEVICE),
        *torch.empty((2, SIZES.batch), dtype=torch.int32, device=DEVICE),
    )

    def triton_windows() -> None:
        score_windows.score_listed(
            inputs.tables, inputs.tokens, 0, inputs.listed, scratch, ngram,
            gate=inputs.gate, stats=(inputs.p_target, inputs.entropy), totals=inputs.totals,
        )  # fmt: skip

    span = (FIRST, FIRST + SIZES.prefill)
    look = (FIRST, FIRST + SIZES.lookup)
    every = {
        "update": (
            SIZES.prefill,
            lambda: core.update(stream, inputs.tables, inputs.tokens, 0, *span),
            lambda: tables.update(inputs.tables, inputs.tokens, 0, *span, ngram),
        ),
        "lookup": (
            SIZES.lookup,
            lambda: core.lookup(stream, inputs.tables, inputs.tokens, 0, *look, contexts, fulls),
            lambda: tables.lookup(inputs.tables, inputs.tokens, 0, FIRST, contexts, fulls, ngram),
        ),
        "windows": (
            SIZES.batch,
            lambda: core.score_windows(
                stream, inputs.tables, inputs.tokens, 0, firsts, stops, bounds, best=best, charges=charges
            ),
            triton_windows,
        ),
    }
    print("\n### Hashed tables\n")
    head("", "positions", "CUDA, µs", "Triton, µs", "Triton / CUDA")
    for name, (positions, cuda, triton) in every.items():
        results = []
        for call in (cuda, triton):
            inputs.reset()
            contexts.fill_(-1)
            fulls.fill_(-1)
            call()
            results.append([one.clone() for one in (inputs.tables, contexts, fulls, *inputs.totals)])
        for one, other in zip(results[0][:3] + results[0][4:], results[1][:3] + results[1][4:], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
        nats = [
            result[3].sum(dim=0).double() @ torch.tensor([2.0**-26, 2.0**-52] * 2, device=DEVICE, dtype=torch.float64)
            for result in results
        ]
        torch.testing.assert_close(*nats, rtol=1e-12, atol=0)
        inputs.reset()
        ours, theirs = micros(cuda), micros(triton)
        row(name, f"{positions:,}", f"{ours:,.1f}", f"{theirs:,.1f}", f"{theirs / ours:.2f}")

    print(
        f"\nThe scorer in the evaluator, statistics given, by the host's clock: µs for {SIZES.batch:,} positions, in "
        "batches of so many positions.\n"
    )
    head("positions a batch", "CudaScorer", "TritonScorer")
    planned = plan_windows((4 if TOY else 256) * SIZES.batch, WindowConfig(seq_len=SIZES.stride, stride=SIZES.stride))
    for size in (SIZES.batch, 16 * SIZES.batch):
        cells, tallies = [], []
        for make in (CudaScorer, TritonScorer):
            scorer = make(inputs.config)
            generator = torch.Generator().manual_seed(1)
            p_target = torch.rand(planned.scored, dtype=torch.float64, generator=generator).to(DEVICE)
            entropy = 6 * torch.rand(planned.scored, generator=generator).to(DEVICE)

            def score(size: int = size, scorer: Any = scorer, p_target: Any = p_target, entropy: Any = entropy) -> None:
                entry = 0
                for batch in batches(planned, size // SIZES.stride):
                    part = slice(entry, entry := entry + batch.scored)
                    scorer.score(inputs.stream, batch, DeviceStats(p_target[part], entropy[part]))

            score()
            tallies.append(scorer.tally())
            cells.append(1e6 * median(on_the_clock(score) for _ in range(3)) * SIZES.batch / planned.scored)
        assert tallies[0].hits_by_order == tallies[1].hits_by_order
        assert abs(tallies[0].nats - tallies[1].nats) <= 1e-12 * tallies[1].nats
        row(f"{size:,}", *(f"{cell:,.1f}" for cell in cells))


def keys() -> None:
    """Random keys into the table of exact counts: nothing but probing and compare-and-swap."""
    slots = 1 << (10 if TOY else 28)
    print(
        f"\n### The table of exact counts\n\nPseudo-random keys into {slots:,} slots of 16 bytes "
        f"({slots * 16 / 2**30:.2f} GiB), in 10⁹ keys a second; the last 10 % of the slots at each load, "
        "added and then looked up. Floor: one sector of 32 bytes a look-up, one read and written back an addition, at "
        f"{BANDWIDTH / 1e12:.2f} TB/s: "
        f"{BANDWIDTH / 32e9:.0f} and {BANDWIDTH / 64e9:.0f}.\n"
    )
    loads = (0.35, 0.5, 0.7, 0.8)
    head("threads a bucket", *(f"{what}, {load:.0%} full" for load in loads for what in ("added", "found")))
    for lanes in (1, 2, 4, 8):
        table = RandomKeys(on_host=TOY, device=DEVICE.index or 0, slots=slots, lanes=lanes)
        table.add(0, 8)
        table.find(0, 8)
        cells, done = [], 0
        asked = 8
        for load in loads:
            stop = int(load * slots)
            start = stop - slots // 10
            table.add(done, start)
            added = on_the_clock(partial(table.add, start, stop))
            found = on_the_clock(partial(table.find, start, stop))
            asked += stop - start
            assert table.found() == asked, "keys that were added are not there"
            cells += [f"{(stop - start) / added / 1e9:.2f}", f"{(stop - start) / found / 1e9:.2f}"]
            done = stop
        row(lanes, *cells)
        del table


def exact() -> None:
    """Counting, and scoring with the model, against C++."""
    from ngram_eval.scorers.exact.cpu import CpuModel  # the C++ backend may be missing

    config = ExactConfig()
    counted, scored = (2_000, 1_000) if TOY else (1_000_000, 200_000)
    tokens = repeating_tokens(counted, SIZES.vocab)
    cpu = CpuModel(LEVELS, config)
    by_cpu = on_the_clock(lambda: cpu.append(tokens))
    print(
        f"\n### Exact counts\n\nOrders 1 to {LEVELS}, {counted:,} tokens: M tokens a second counted, beside C++ on one "
        f"thread: {counted / by_cpu / 1e6:.2f}. The n-grams kept are compared, and what is known of 50 tokens.\n"
    )
    head(
        "positions a batch", *(f"{lanes} threads a bucket" for lanes in (1, 2, 4, 8)), "bytes an n-gram", "slots taken"
    )
    for batch in (256, 1024, 2048, 4096):
        cells: list[str] = []
        for lanes in (1, 2, 4, 8):
            CudaModel(LEVELS, config, lanes=lanes, batch=batch).append(tokens[:2000])
            model = CudaModel(LEVELS, config, lanes=lanes, batch=batch)
            cells.append(f"{counted / on_the_clock(partial(model.append, tokens)) / 1e6:.2f}")
            size = model.size()
            assert size["nodes"] == cpu.size()["nodes"]
            for token in range(50):
                known, expected = model.evidence(token), cpu.evidence(token)
                known[-1:, [1, 5]] = expected[-1:, [1, 5]]  # continuation counts of the longest are never read
                np.testing.assert_array_equal(known, expected)
        row(f"{batch:,}", *cells, f"{size['bytes'] / size['nodes']:.0f}", f"{size['nodes'] / size['slots']:.2f}")

    p = np.full(scored, 1 / SIZES.vocab)
    entropy = np.full(scored, np.log(SIZES.vocab), np.float32)
    part = tokens[:scored]
    print(f"\nScored with the model ({scored:,} tokens, every probability compared bit for bit), M tokens a second:\n")
    head("tokens a call", "counts on the GPU, weights on the host", "C++, one thread")
    for at_once in (SIZES.batch, scored):
        rates, charged = [], []
        for make in (CudaModel, CpuModel):
            found: list[Any] = []

            def score(at_once: int = at_once, make: Any = make, found: list[Any] = found) -> None:
                model = make(LEVELS, config)
                for start in range(0, scored, at_once):
                    here = slice(start, start + at_once)
                    found.append(model.score(part[here], p[here], entropy[here], together=False)[0])

            rates.append(f"{scored / on_the_clock(score) / 1e6:.2f}")
            charged.append(np.concatenate(found))
        np.testing.assert_array_equal(charged[0], charged[1])
        row(f"{at_once:,}", *rates)


def sections() -> Iterator[Callable[[], None]]:
    """What is measured."""
    yield from (hashed, keys, exact)


def main() -> None:
    """Everything, printed as it is measured."""
    if TOY:
        print("**A dry run on the host: its numbers mean nothing.**\n")
    print(f"GPU: {CORE.describe(DEVICE.index or 0)}. Medians of {ROUNDS} calls, each with an empty L2 cache.")
    failed = 0
    for section in sections():
        try:
            section()
        except Exception:
            failed = 1
            print(f"\n**{section.__name__} FAILED**\n\n```\n{traceback.format_exc()}```\n", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
