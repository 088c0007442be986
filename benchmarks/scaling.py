"""How the n-gram work grows with ranks and tables: `python -m benchmarks.scaling --out FILE.md --plot FILE.svg`.

For 1, 2, 4 and 8 ranks, both ways of prefill (`ngram_eval.distributed.prefill`), and tables of 2^18 to 2^24 buckets:
positions a rank counts, CPU seconds, bytes it sends, and what the loopback interface saw. Then whole evaluations,
sharded and pipelined. Ranks are real processes under torchrun that exchange by gloo; there may be fewer cores than
ranks, so that seconds of CPU are given beside those of the clock. Both ways must leave the same tables on every rank.
"""

import hashlib
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks.machine import describe_machine, publish
from ngram_eval.config import preset
from ngram_eval.distributed.prefill import prefill_cuts, scan
from ngram_eval.distributed.ranks import Ranks, joined_ranks
from ngram_eval.scorers.hashed.cpu import CpuCounts
from ngram_eval.scorers.hashed.scorer import count_positions
from ngram_eval.text.shards import write_shard
from ngram_eval.text.windows import Plan

BATCH = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure how prefill and evaluation scale."""

    tokens: int = 8_000_000
    """Length of the stream, drawn from a Zipf distribution over 1024 tokens; weak scaling gives each rank an eighth."""
    worlds: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of ranks."""
    log_buckets: tuple[int, ...] = (18, 20, 22, 24)
    """Tables: log2 of their buckets."""
    rounds: int = 3
    """Repetitions; medians are reported."""
    eval_tokens: int = 6_000
    """Tokens of the embedded sample in the whole evaluations."""
    toy: bool = False
    """Tiny sizes, to see that the benchmark works."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""
    plot: Path | None = None
    """Draw the curves here, .svg or .png; needs matplotlib (`pip install -e '.[plot]'`)."""
    worker: str = ""
    """Used by the benchmark itself."""


@dataclass(frozen=True)
class Case:
    """One prefill to measure, and what it took: the largest value of any rank."""

    world: int
    tokens: int
    log_buckets: int
    way: Literal["scan", "local"]
    counted: int = 0
    cpu: float = 0.0
    """Seconds of CPU of the rank with most."""
    clock: float = 0.0
    """Seconds until the last rank was ready."""
    scan_cpu: float = 0.0
    sent: int = 0
    """Bytes that a rank sends, by the algorithm."""
    loopback: int = 0
    """Bytes that all ranks sent, as the loopback interface counted them."""


def loopback_bytes() -> int:
    """Bytes sent over the loopback interface so far; 0 where the system does not say."""
    table = Path("/proc/net/dev")
    for line in table.read_text().splitlines() if table.exists() else []:
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[8])
    return 0


def cpu_seconds() -> float:
    """Seconds of CPU that all threads of this process took."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def stream_of(tokens: int) -> "np.ndarray[Any, np.dtype[np.uint16]]":
    """A stream that is the same on every rank."""
    return (np.random.default_rng(0).zipf(1.2, tokens) % 1024).astype(np.uint16)


def measure_case(case: Case, tokens: "np.ndarray[Any, np.dtype[np.uint16]]", ranks: Ranks) -> tuple[Case, str]:
    """(the case measured, sha256 of this rank's tables)."""
    import torch

    config = preset("hashed")
    ngram = type(config.ngram)(buckets=1 << case.log_buckets, target_backoff=True)
    plan = Plan(len(tokens) - 1, config.window)
    cuts = prefill_cuts(plan, ranks.world, BATCH, ngram)
    counts = CpuCounts(ngram, 1)
    counts.state()[:] = 0  # pages are touched now, not in the time measured
    ranks.gather(None)
    bytes_before, sent_before, cpu_before, started = loopback_bytes(), ranks.sent, cpu_seconds(), time.perf_counter()
    last = ranks.rank + 1 == ranks.world
    if case.way == "local":
        span = (0, cuts[ranks.rank])
    else:
        span = (0, 0) if last else (cuts[ranks.rank], cuts[ranks.rank + 1])
    count_positions(counts, tokens, *span, lambda positions: None)
    scan_before = cpu_seconds()
    if case.way == "scan" and ranks.world > 1:
        scan(torch.from_numpy(counts.state().view(np.int32)), ranks)
    scan_cpu, cpu, clock = cpu_seconds() - scan_before, cpu_seconds() - cpu_before, time.perf_counter() - started
    sent = ranks.sent - sent_before
    everyone = ranks.gather((span[1] - span[0], cpu, clock, scan_cpu, sent))
    largest = [max(values) for values in zip(*everyone, strict=True)]
    loopback = loopback_bytes() - bytes_before
    counted, cpu, clock, scan_cpu, sent = largest
    measured = replace(
        case, counted=int(counted), cpu=cpu, clock=clock, scan_cpu=scan_cpu, sent=int(sent), loopback=loopback
    )
    return measured, hashlib.sha256(counts.state().data).hexdigest()


def work(cases: list[Case], rounds: int) -> list[Case]:
    """Measure cases on the ranks of a torchrun; on rank 0 the medians."""
    with joined_ranks(300.0) as ranks:
        found = []
        digests: dict[tuple[int, int], set[str]] = {}
        for case in cases:
            tokens = stream_of(case.tokens)
            runs = []
            for _ in range(rounds):
                run, digest = measure_case(case, tokens, ranks)
                runs.append(run)
                digests.setdefault((case.tokens, case.log_buckets), set()).add(digest)
            middle = {
                name: statistics.median(getattr(run, name) for run in runs)
                for name in ("cpu", "clock", "scan_cpu", "loopback")
            }
            found.append(Case(**{**asdict(runs[0]), **middle}))
        assert all(len(same) == 1 for same in digests.values()), "both ways leave the same tables"
        return found


def run_cases(cases: list[Case], rounds: int) -> list[Case]:
    """Measure each number of ranks in one torchrun."""
    measured = []
    for world in sorted({case.world for case in cases}):
        mine = [case for case in cases if case.world == world]
        with tempfile.TemporaryDirectory() as folder:
            order, result = Path(folder) / "order.json", Path(folder) / "result.json"
            order.write_text(json.dumps({"cases": [asdict(case) for case in mine], "rounds": rounds}))
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]
            command += ["-m", "benchmarks.scaling", "--worker", str(order)]
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            measured += [Case(**case) for case in json.loads(result.read_text())]
    return measured


@dataclass(frozen=True)
class Evaluation:
    """One evaluation by the command line."""

    preset: str
    ngram: str
    world: int
    seconds: dict[str, float]
    """Of its stages; the slowest rank's."""
    positions: int
    nats: float


def run_evaluation(name: str, ngram: str, world: int, source: list[str]) -> Evaluation:
    """One evaluation by torchrun; its times leave out the sums over the vocabulary."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]
        command += ["-m", "ngram_eval.run", *source, "--preset", name, "--ngram", ngram, "--json", str(out)]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        (run,) = json.loads(out.read_text())["runs"]
    return Evaluation(name, ngram, world, run["seconds"], run["positions"], run["nats"])


SHARINGS = (("hashed", "sharded"), ("hashed", "pipelined"), ("exact", "pipelined"))


def run_evaluations(options: Options) -> list[tuple[str, Evaluation]]:
    """With the embedded model, and with scores that cost nothing, so that the engine is what takes time."""
    worlds = [2] if options.toy else [world for world in options.worlds if world <= 4]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        shard, scores = Path(folder) / "data.bin", Path(folder) / "scores.npz"
        tokens = stream_of(20_000 if options.toy else options.tokens // 2)
        write_shard(shard, tokens)
        rng = np.random.default_rng(0)
        np.savez(scores, p_target=rng.random(len(tokens) - 1), entropy=rng.random(len(tokens) - 1).astype(np.float32))
        sources = {
            "the embedded model": ["--max-tokens", str(1_000 if options.toy else options.eval_tokens)],
            "scores from a file": ["--data", str(shard), "--scores", str(scores)],
        }
        if options.toy:
            del sources["the embedded model"]
        for label, source in sources.items():
            for name, ngram in SHARINGS[1:2] if options.toy else SHARINGS:
                for world in worlds:
                    runs = [
                        run_evaluation(name, ngram, world, source) for _ in range(1 if options.toy else options.rounds)
                    ]
                    stages = {stage for run in runs for stage in run.seconds}
                    seconds = {s: statistics.median(run.seconds.get(s, 0.0) for run in runs) for s in stages}
                    found.append((label, Evaluation(name, ngram, world, seconds, runs[0].positions, runs[0].nats)))
    for label in sources:
        for name in {run.preset for _, run in found}:
            assert len({run.nats for where, run in found if where == label and run.preset == name}) == 1, "one answer"
    return found


def mib(size: float) -> str:
    return f"{size / 2**20:,.1f}"


def table(cases: list[Case]) -> list[str]:
    """One row a case."""
    lines = [
        "| ranks | tokens | buckets | prefill | most positions a rank counts | CPU s, busiest rank | of these the scan "
        "| clock s, slowest rank | MiB a rank sends | MiB over loopback, all ranks |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for c in cases:
        lines.append(
            f"| {c.world} | {c.tokens:,} | 2^{c.log_buckets} | {c.way} | {c.counted:,} | {c.cpu:.2f} "
            f"| {c.scan_cpu:.2f} | {c.clock:.2f} | {mib(c.sent)} | {mib(c.loopback)} |"
        )
    return lines


def report(options: Options, groups: dict[str, list[Case]], evaluations: list[tuple[str, Evaluation]]) -> str:
    """The result as Markdown."""
    text = [
        "# Scaling over ranks",
        "",
        f"Command: `{shlex.join(['python', '-m', 'benchmarks.scaling', *sys.argv[1:]])}`",
        "",
        describe_machine() + f"; gloo over loopback; medians of {options.rounds}.",
        "",
        "Checked: on every rank `scan` and `local` leave tables of one sha256. Orders 2 to 9, one thread a rank.",
    ]
    for title, cases in groups.items():
        text += ["", f"## {title}", "", *table(cases)]
    text += [
        "",
        "## Whole evaluations",
        "",
        "Seconds of the clock by stage, the slowest rank's. `neural` is the forward passes; they and the engine "
        "(`prefill`, `scan`, `n-gram`) run beside each other; `waiting` is the forward passes' for the engine, "
        "`receiving` the engine's for other ranks. Every evaluation of a preset gave the same nats, to the bit.",
        "",
        "| neural source | preset | shared | ranks | positions | neural | prefill | scan | n-gram | waiting "
        "| receiving |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for label, run in evaluations:
        stages = [run.seconds.get(s, 0.0) for s in ("neural", "prefill", "scan", "n-gram", "waiting", "receiving")]
        text.append(
            f"| {label} | {run.preset} | {run.ngram} | {run.world} | {run.positions:,} | "
            + " | ".join(f"{value:.2f}" for value in stages)
            + " |"
        )
    return "\n".join(text) + "\n"


def draw(path: Path, groups: dict[str, list[Case]]) -> None:
    """CPU seconds and positions of the busiest rank against the number of ranks."""
    import matplotlib  # an optional extra

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "scaling"  # the same file from the same figures
    import matplotlib.pyplot as plt

    figure, rows = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for axes, title in zip(rows, list(groups)[:2], strict=True):
        for way, color in (("local", "tab:red"), ("scan", "tab:blue")):
            cases = [case for case in groups[title] if case.way == way and case.world > 1]
            worlds = [case.world for case in cases]
            axes.plot(worlds, [case.cpu for case in cases], "o-", color=color, label=f"{way}: all")
            counting = [case.cpu - case.scan_cpu for case in cases]
            axes.plot(worlds, counting, "o--", color=color, alpha=0.5, label=f"{way}: counting")
        axes.set_title(title)
        axes.set_xscale("log", base=2)
        axes.set_xticks(worlds, [str(world) for world in worlds])
        axes.set_xlabel("ranks")
        axes.set_ylabel("CPU seconds of the busiest rank, prefill")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def measure(options: Options) -> tuple[dict[str, list[Case]], list[tuple[str, Evaluation]]]:
    """Everything."""
    worlds, tokens = options.worlds, options.tokens
    sizes, rounds = options.log_buckets, options.rounds
    if options.toy:
        worlds, tokens, sizes, rounds = (2,), 20_000, (8, 10), 1
    usual = sizes[len(sizes) // 2]
    ways: tuple[Literal["local", "scan"], ...] = ("local", "scan")
    groups = {
        f"Strong scaling: {tokens:,} tokens": [Case(w, tokens, usual, way) for way in ways for w in worlds],
        f"Weak scaling: {tokens // 8:,} tokens a rank": [
            Case(w, tokens // 8 * w, usual, way) for way in ways for w in worlds
        ],
        "Tables": [Case(w, tokens, size, way) for w in worlds if w > 1 for size in sizes for way in ways],
    }
    measured = run_cases(list({case: None for cases in groups.values() for case in cases}), rounds)
    by_key = {(case.world, case.tokens, case.log_buckets, case.way): case for case in measured}
    found = {
        title: [by_key[case.world, case.tokens, case.log_buckets, case.way] for case in cases]
        for title, cases in groups.items()
    }
    return found, run_evaluations(options)


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.scaling")
    if options.worker:
        order = json.loads(Path(options.worker).read_text())
        measured = work([Case(**case) for case in order["cases"]], order["rounds"])
        if os.environ["RANK"] == "0":
            Path(options.worker).with_name("result.json").write_text(json.dumps([asdict(case) for case in measured]))
        return
    groups, evaluations = measure(options)
    publish(report(options, groups, evaluations), options.out)
    if options.plot is not None:
        draw(options.plot, groups)


if __name__ == "__main__":
    main()
