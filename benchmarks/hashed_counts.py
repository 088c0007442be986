"""Speed and memory of the hashed counts: `python -m benchmarks.hashed_counts --data 'shards/*.bin' --out FILE.md`.

First asserts that results and tables equal those of numpy on the same tokens. Then every contestant runs once a round,
one after another in one process, and the medians are reported. The rival is the published method in numpy, written
below; the yardstick is the machine itself: random increments over all tables, nothing else.
"""

import os
import shlex
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.limits import random_increments
from benchmarks.machine import describe_machine, publish
from ngram_eval._core import HashedCounts
from ngram_eval.assets import asset
from ngram_eval.bpb import Tally
from ngram_eval.config import GateConfig, NgramConfig, WindowConfig
from ngram_eval.models.saved_scores import SavedScores
from ngram_eval.scorers.hashed.counts import Best
from ngram_eval.scorers.hashed.cpu import CpuCounts
from ngram_eval.scorers.hashed.gate import GatedBackoff
from ngram_eval.scorers.hashed.hashing import PRIMES, bucket_pair
from ngram_eval.scorers.hashed.scorer import HashedScorer
from ngram_eval.text.shards import read_shards
from ngram_eval.text.stream import Tokens
from ngram_eval.text.windows import Windows, batches, plan_windows

AHEADS = (16, 32, 64, 128)  # the machine's limit is the best of these


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure the hashed counts."""

    data: tuple[str, ...] = field(default_factory=lambda: (str(asset("sample_000000.bin")),))
    """Token shards (globs); default: the embedded sample, too short for figures worth keeping."""
    max_tokens: int | None = None
    """Tokens to use; default: all."""
    slice_tokens: int = 40_000
    """Last positions of the stream on which the published method in numpy is timed."""
    rounds: int = 5
    """Rounds; the medians are reported."""
    toy: bool = False
    """Few tokens, small tables, one round: to see that the benchmark works."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


class PublishedCache:
    """PR #890's cache as published, plain numpy: vectorised within a window, orders from the highest down."""

    def __init__(self, config: NgramConfig, gate: GateConfig, tables: NDArray[np.uint32]) -> None:
        self.config, self.gate, self.tables = config, gate, tables

    def _hash(self, tokens: Tokens, positions: NDArray[np.int64], order: int) -> list[NDArray[np.int64]]:
        mask = np.uint64(self.config.buckets - 1)
        h = np.zeros(len(positions), np.uint64)
        for k in range(order - 1):
            h ^= tokens[positions - order + 2 + k].astype(np.uint64) * np.uint64(PRIMES[k])
        full = h ^ tokens[positions + 1].astype(np.uint64) * np.uint64(PRIMES[order - 1])
        return [(h & mask).astype(np.int64), (full & mask).astype(np.int64)]

    def score(
        self, tokens: Tokens, first: int, stop: int, p_model: NDArray[np.float32], entropy: NDArray[np.float32]
    ) -> tuple[Best, NDArray[np.float64]]:
        """The best matches of a window and the values charged for its targets."""
        best = Best(np.zeros(stop - first, np.uint8), *(np.zeros(stop - first, np.uint32) for _ in range(2)))
        for order in reversed(self.config.orders):
            open_positions = np.flatnonzero(best.order == 0)
            open_positions = open_positions[first + open_positions >= order - 2]
            if len(open_positions) == 0:
                continue
            context_bucket, full_bucket = self._hash(tokens, first + open_positions, order)
            tables = self.tables[order - self.config.min_order]
            context, full = tables[0][context_bucket], tables[1][full_bucket]
            matched = (context >= self.config.min_count) & (full > 0)
            hit = open_positions[matched]
            best.order[hit], best.context[hit], best.full[hit] = order, context[matched], full[matched]
        gate = self.gate
        p_ngram = np.minimum(best.full, best.context) / np.maximum(best.context, 1)
        centre = np.array((0.0, *gate.centres))[best.order]
        alpha = gate.alpha_base + gate.alpha_range / (1 + np.exp(-gate.alpha_slope * (entropy - centre)))
        return best, np.where(best.order > 0, (1 - alpha) * p_model + alpha * p_ngram, p_model)

    def update(self, tokens: Tokens, first: int, stop: int) -> None:
        """Count positions [first, stop)."""
        for tables, order in zip(self.tables, self.config.orders, strict=True):
            positions = np.arange(max(first, order - 2), stop)
            for table, bucket in zip(tables, self._hash(tokens, positions, order), strict=True):
                np.add.at(table, bucket, 1)


def add_at(counts: NDArray[np.uint32], tokens: Tokens, config: NgramConfig, start: int, stop: int) -> None:
    """Prefill by np.add.at, an order at a time."""
    for tables, order in zip(counts, config.orders, strict=True):
        positions = np.arange(max(start, order - 2), stop)
        pair = bucket_pair(tokens, positions + 1, tokens[positions + 1], order, config.buckets)
        for table, bucket in zip(tables, pair, strict=True):
            np.add.at(table, bucket, 1)


def bincount(counts: NDArray[np.uint32], tokens: Tokens, config: NgramConfig, stop: int) -> None:
    """Prefill by np.bincount over the whole stream, an order at a time."""
    for tables, order in zip(counts, config.orders, strict=True):
        positions = np.arange(max(0, order - 2), stop)
        pair = bucket_pair(tokens, positions + 1, tokens[positions + 1], order, config.buckets)
        for table, bucket in zip(tables, pair, strict=True):
            table += np.bincount(bucket, minlength=config.buckets).astype(np.uint32)


def resident_bytes() -> int | None:
    """Memory of this process that is in use now, where the system says so."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else None


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def core(buckets: int, max_order: int) -> HashedCounts:
    """Tables for the machine's limit."""
    return HashedCounts(
        min_order=2,
        max_order=max_order,
        buckets=buckets,
        min_count=2,
        context_lag=0,
        target_backoff=True,
        threads=1,
    )


def increment_at_random(tables: HashedCounts, increments: int, ahead: int = 32) -> None:
    """The machine's limit: nothing but increments."""
    random_increments(tables.state(), increments, ahead)


def counts_of(config: NgramConfig, threads: int = 1, state: NDArray[np.uint32] | None = None) -> CpuCounts:
    """Counts whose memory has been touched, so that no timing pays for page faults in the tables."""
    counts = CpuCounts(config, threads)
    counts.state()[:] = 0 if state is None else state
    return counts


def evaluate(
    counts: CpuCounts,
    tokens: Tokens,
    windows: Windows,
    p_model: NDArray[np.float32],
    entropy: NDArray[np.float32],
) -> Tally:
    """Score, update, gate, blend and sum, in the batches of the evaluator's `--scores`."""
    scorer, source = HashedScorer(counts, GatedBackoff(GateConfig())), SavedScores(p_model, entropy)
    for batch in batches(windows, source.batch_windows):
        scorer.score(tokens, batch, source.stats(tokens, batch))
    return scorer.tally()


def speed_up_of_arithmetic(increments: int) -> float:
    """Speed-up of two threads on work without memory (tables of the L1 cache's size): what the machine gives to two."""
    threads = [threading.Thread(target=increment_at_random, args=(core(1 << 10, 2), increments)) for _ in range(2)]
    alone = seconds(lambda: increment_at_random(core(1 << 10, 2), increments))

    def together() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return 2 * alone / seconds(together)


def measure(options: Options) -> str:
    """The result, as Markdown."""
    config = NgramConfig(target_backoff=True, buckets=1 << 12 if options.toy else 1 << 22)
    rounds = 1 if options.toy else options.rounds
    tokens = read_shards(options.data, 8_000 if options.toy else options.max_tokens).tokens[:]
    stop = len(tokens) - 1
    windows = plan_windows(stop, WindowConfig())
    firsts, stops = windows.first, windows.stop
    # The slice: the windows that hold the last positions, with everything before them counted.
    cut = int(np.searchsorted(firsts, max(stop - min(options.slice_tokens, stop // 2), 0)))
    slice_start, slice_tokens = int(firsts[cut]), stop - int(firsts[cut])
    spans = list(zip(firsts[cut:].tolist(), stops[cut:].tolist(), strict=True))
    add_at_tokens = min(stop, 200_000)
    rng = np.random.default_rng(0)
    p_model = rng.random(stop).astype(np.float32)
    entropy = (6 * rng.random(stop)).astype(np.float32)

    # Equality first: no timing without it. The shard is read once before, so that its pages are not taken for ours.
    tokens.max()
    before = resident_bytes()
    counts = CpuCounts(config, 1)
    counts.update(tokens, 0, stop)
    grown = None if before is None else (resident_bytes() or 0) - before
    expected = np.zeros_like(counts.state())
    bincount(expected, tokens, config, stop)
    np.testing.assert_array_equal(counts.state(), expected)
    expected[:] = 0
    bincount(expected, tokens, config, slice_start)
    loaded = expected.copy()
    published = PublishedCache(config, GateConfig(), expected)

    def run_published() -> list[Best]:
        scored = []
        for first, last in spans:
            best, _ = published.score(tokens, first, last, p_model[first:last], entropy[first:last])
            scored.append(best)
            published.update(tokens, first, last)
        return scored

    numpy_best = run_published()
    for threads in (1, 2):
        counts = counts_of(config, threads)
        whole = counts.score_windows(tokens, firsts, stops)
        for name, ours in whole._asdict().items():
            theirs = np.concatenate([getattr(best, name) for best in numpy_best])
            np.testing.assert_array_equal(ours[slice_start:], theirs)
        np.testing.assert_array_equal(counts.state(), published.tables)

    # Interleaved rounds; every figure is tokens a second, or a ratio.
    rates: dict[str, list[float]] = {}

    def timed(name: str, positions: int, work: Callable[[], object]) -> None:
        rates.setdefault(name, []).append(positions / seconds(work))

    one, two = counts_of(config, 1), counts_of(config, 2)
    tables = core(config.buckets, config.max_order)
    increment_at_random(tables, 16 * config.buckets)  # touches the pages
    limit_tokens = min(stop, 1_000_000)
    for _ in range(rounds):
        published.tables[:] = loaded
        timed("published", slice_tokens, run_published)
        one.load_state(loaded)
        timed("fused slice", slice_tokens, lambda: one.score_windows(tokens, firsts[cut:], stops[cut:]))
        one.state()[:] = 0
        timed("fused", stop, lambda: one.score_windows(tokens, firsts, stops))
        two.state()[:] = 0
        timed("fused, two threads", stop, lambda: two.score_windows(tokens, firsts, stops))
        one.state()[:] = 0
        timed("evaluated", stop, lambda: evaluate(one, tokens, windows, p_model, entropy))
        for ahead in AHEADS:
            timed(f"limit {ahead}", limit_tokens, partial(increment_at_random, tables, 16 * limit_tokens, ahead))
        one.state()[:] = 0
        timed("update", stop, lambda: one.update(tokens, 0, stop))
        two.state()[:] = 0
        timed("update, two threads", stop, lambda: two.update(tokens, 0, stop))
        expected[:] = 0
        timed("add.at", add_at_tokens, lambda: add_at(expected, tokens, config, 0, add_at_tokens))
        expected[:] = 0
        timed("bincount", stop, lambda: bincount(expected, tokens, config, stop))
        rates.setdefault("machine, two threads", []).append(speed_up_of_arithmetic(1 << 20 if options.toy else 1 << 27))
    median = {name: statistics.median(values) for name, values in rates.items()}
    limit = max(median[f"limit {ahead}"] for ahead in AHEADS)
    ahead = max(AHEADS, key=lambda a: median[f"limit {a}"])

    def ratio(a: str, b: str) -> float:
        return statistics.median(x / y for x, y in zip(rates[a], rates[b], strict=True))

    def rate(name: str) -> str:
        low, high = min(rates[name]), max(rates[name])
        return f"{median[name] / 1e6:.3f} ({low / 1e6:.3f} to {high / 1e6:.3f})"

    sizes = (10, 12) if options.toy else range(12, 25, 2)
    by_size = []
    for log_buckets in sizes:
        sized = NgramConfig(target_backoff=True, buckets=1 << log_buckets)
        counts = counts_of(sized)
        fused = [seconds(partial(counts.score_windows, tokens, firsts, stops)) for _ in range(min(rounds, 3))]
        only = [seconds(partial(counts.update, tokens, 0, stop)) for _ in range(min(rounds, 3))]
        by_size.append((log_buckets, *(stop / statistics.median(t) / 1e6 for t in (fused, only))))

    table_bytes = 4 * 2 * config.buckets * len(config.orders)
    lines = [
        "# Hashed counts",
        "",
        f"Command: `{shlex.join(['python', '-m', 'benchmarks.hashed_counts', *sys.argv[1:]])}`",
        "",
        describe_machine(),
        "",
        f"{stop:,} positions, orders 2 to 9, {config.buckets:,} buckets a table, stride 32, one thread unless said; "
        f"{rounds} interleaved round(s), medians (and range). Checked first: tables equal numpy's over the whole "
        "stream, and the matches of the slice those of the published method.",
        "",
        "| | million tokens a second |",
        "|---|---|",
        f"| score + update, one fused call, whole stream | {rate('fused')} |",
        f"| the same, two threads | {rate('fused, two threads')} |",
        f"| the same, one thread, only the last {slice_tokens:,} positions (tables just overwritten) "
        f"| {rate('fused slice')} |",
        f"| score + update + gate + blend + sums, whole stream, as the evaluator does it | {rate('evaluated')} |",
        f"| published method in numpy, the last {slice_tokens:,} positions | {rate('published')} |",
        f"| 16 random increments a token over all tables, requested {ahead} ahead | {rate(f'limit {ahead}')} |",
        f"| update only | {rate('update')} |",
        f"| update only, two threads | {rate('update, two threads')} |",
        f"| np.add.at, the first {add_at_tokens:,} positions | {rate('add.at')} |",
        f"| np.bincount over the whole stream, an order at a time | {rate('bincount')} |",
        "",
        "| ratio | measured (median of the rounds' ratios) | target |",
        "|---|---|---|",
        f"| fused call to published numpy | {ratio('fused', 'published'):.0f} | 200 |",
        f"| fused call to published numpy, both on the slice | {ratio('fused slice', 'published'):.0f} | |",
        f"| the evaluator's whole work to published numpy | {ratio('evaluated', 'published'):.0f} | |",
        f"| fused call to the random increments | {median['fused'] / limit:.2f} | 1.3 |",
        f"| update to np.add.at | {ratio('update', 'add.at'):.1f} | 25 |",
        f"| update to np.bincount | {ratio('update', 'bincount'):.1f} | 3 |",
        f"| fused call, two threads to one | {ratio('fused, two threads', 'fused'):.2f} | 1.7 |",
        f"| update, two threads to one | {ratio('update, two threads', 'update'):.2f} | 1.7 |",
        f"| arithmetic in the L1 cache, two threads to one: what the machine had to give "
        f"| {median['machine, two threads']:.2f} | |",
        "",
        f"Memory of the tables: {table_bytes / 2**20:.2f} MiB by arithmetic, "
        + ("not measured here." if grown is None else f"{grown / 2**20:.2f} MiB resident after the first update."),
        "",
        "## Which memory level binds",
        "",
        "| buckets | both tables of an order | score + update, M tokens/s | update, M tokens/s |",
        "|---|---|---|---|",
        *(f"| 2^{b} | {2 ** (b + 3) / 2**20:g} MiB | {fused:.1f} | {only:.1f} |" for b, fused, only in by_size),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.hashed_counts")
    publish(measure(options), options.out)


if __name__ == "__main__":
    main()
