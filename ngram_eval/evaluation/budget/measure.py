"""The costs of an evaluation's stages on this machine, each measured on the code that the evaluation runs."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from ngram_eval.config import EvalConfig
from ngram_eval.errors import InputError
from ngram_eval.evaluation.engine import Engine
from ngram_eval.evaluation.job import Job
from ngram_eval.evaluation.reader import Reading
from ngram_eval.models.source import NeuralStats, Stats, statistics
from ngram_eval.scorers.backends import ON_DEVICE
from ngram_eval.scorers.base import Scorer
from ngram_eval.scorers.hashed.counts import around, make_counts
from ngram_eval.scorers.make import make_scorer, windows_at_once
from ngram_eval.scorers.primed import PrimedScorer
from ngram_eval.text.samples import entropy_of
from ngram_eval.text.tokenizer import Tokenizer
from ngram_eval.text.windows import Grid, Plan, Windows
from ngram_eval.timing import Stopwatch

MOST_POSITIONS = 1_000_000
"""Most positions that the engine is measured on."""
_PIECES = 65_536
"""Most tokens whose text is tokenised again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """Seconds, medians of several rounds; None where a stage does not exist."""

    start: float
    """Start of the process, with its imports."""
    load: float
    """Loading data, tokenizer and model, and decoding kept memories."""
    kept: float | None = None
    """Counting kept memories, once."""
    first_window: float
    """Forward of the first window, which scores all its positions."""
    shape: tuple[int, int]
    """(seq_len, stride) of the evaluation."""
    windows: dict[tuple[int, int], float]
    """(seq_len, stride) -> forward of one later window, in a batch: for `shape` and a few others."""
    batch_windows: int
    """Windows of that batch."""
    banded: float | None = None
    """Forward of one scored position with `--forward banded`, its share of the lead-in included."""
    stats: float | None = None
    """Part of a window's forward: from logits to the target's probability and the entropy."""
    look: float = 0.0
    """The scorer's whole distribution at one sampled position."""
    ngram: float
    """Look-up, blend and count, per position."""
    count: float | None
    """Counting alone, per position (prefill, `update`)."""
    lookup: float | None = None
    """Look-up alone, per position; part of `ngram`."""
    touch: float
    """First use of the tables' memory, once."""
    bytes: float
    """Counting the bytes of the targets, per position."""
    profile: float
    """Sums along the stream and by order, per position."""
    tokenise: float | None = None
    """Tokenising, per token; happens before the evaluation."""
    scan: float | None = None
    """Exchanging and adding up the tables of two ranks."""
    send: float | None = None
    """Sending one position's statistics from one rank to another."""


def median_of(rounds: int, work: Callable[[], object]) -> float:
    """Median seconds of `work()` over `rounds` calls."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def measure_start() -> float:
    """Seconds to start a process of the evaluator and to import what the job has imported here."""
    heavy = [name for name in ("torch", "transformers") if name in sys.modules]
    command = [sys.executable, "-c", f"import {', '.join(['ngram_eval.run', *heavy])}"]
    return median_of(3, lambda: subprocess.run(command, check=True, capture_output=True))


def plan_of(job: Job, config: EvalConfig, positions: int | None = None) -> Plan:
    """The evaluation's windows, over at most `positions` positions."""
    targets = job.targets(config.window)
    return Plan(targets if positions is None else min(targets, positions), config.window)


def measure_window(job: Job, config: EvalConfig, rounds: int, budget: float = 4.0) -> tuple[float, int]:
    """(seconds of one window's forward, windows in the measured batch), from the middle of the stream.

    A batch that would take longer than `budget` seconds is made smaller; this hardly changes the time per window.
    """
    plan = plan_of(job, config)
    if len(plan) < 2:
        raise InputError(
            f"the text holds one window of {config.window.seq_len:,} positions, and budget measures a later one: give "
            "a longer text, or a shorter --seq-len"
        )
    size = windows_at_once(config, job.source)
    middle = max(min(len(plan) // 2, len(plan) - size - config.window.seq_len // config.window.stride - 2), 1)

    def forward(windows: int) -> None:
        read(job, plan, range(middle, min(middle + windows, len(plan))), rows=config.needs_rows)

    started = time.perf_counter()
    forward(1)
    alone = time.perf_counter() - started
    here = max(1, min(size, len(plan) - middle, int(budget / max(alone, 1e-9))))
    forward(min(here, 4))  # warm
    return median_of(rounds, lambda: forward(here)) / here, here


def measure_banded(job: Job, config: EvalConfig, rounds: int) -> float:
    """Seconds of a scored position with the source of `--forward banded`, in as many chunks as threads share."""
    import torch  # the source has loaded it

    from ngram_eval.models.banded_source import BandedSource

    source, length = job.source, config.window.seq_len
    assert isinstance(source, BandedSource), "budget loads it"
    chunks = torch.get_num_threads() if source.device.type == "cpu" else 1
    texts = iter(range(rounds + 1))
    first = min(length, len(job.stream.tokens) - 2 - rounds)

    def forward() -> int:
        skipped = next(texts)  # another text each time: the chunks of the last are kept
        tokens = job.stream.tokens[skipped : skipped + length + chunks * source.chunk + 1]
        stop = len(tokens) - 1
        windows = Windows(np.array([0]), np.array([first]), np.array([stop]), length)
        stats = source.stats(tokens, windows)
        _ = stats.p_target, stats.entropy
        return stop - first

    return median_of(rounds, forward) / forward()


def read(job: Job, plan: Plan, which: range, *, rows: bool) -> None:
    """Run the forward passes of the windows `which`, and copy their statistics to the host."""
    windows = plan[which.start : which.stop]
    shape = windows.stop - windows.start
    same = windows[(shape == shape[0]) & (windows.stop - windows.first == (windows.stop - windows.first)[0])]
    stats = statistics(job.source, job.stream.tokens, same, rows=rows)
    _ = stats.p_target, stats.entropy


def measure_stats(job: Job, config: EvalConfig, rounds: int) -> float | None:
    """Seconds to turn one window's logits into statistics; None where the source runs no model here."""
    if not job.source.gives_all or job.source.name in ("uniform", "logits"):
        return None
    import torch  # a source that runs a model has loaded it

    from ngram_eval.models.transformer_source import target_stats

    device = job.source.settings.get("device", "cpu")
    logits = torch.zeros(32 * config.window.stride, job.source.vocab_size, device=device)
    targets = torch.zeros(len(logits), dtype=torch.int64, device=device)
    return median_of(rounds, lambda: target_stats(logits, targets)[1].cpu()) / 32


def measure_engine(job: Job, config: EvalConfig, threads: int) -> dict[str, float]:
    """Seconds per position of the engine's stages, over the first positions of the stream, with made-up statistics.

    What is counted before the stream is counted first, in `kept` seconds.
    `touch` is the time that a first pass takes more than a second one: the system hands out the tables' memory once.
    A scorer that learns online makes one pass only, since it would know a text that it sees twice; it has no prefill.
    `look` is the time of the scorer's whole distribution at a position, after all positions before it are scored.
    """
    plan, tokens = plan_of(job, config, MOST_POSITIONS), job.stream.tokens
    grid = Grid(plan, windows_at_once(config, job.source))
    scorer: Scorer = make_scorer(job.backend, config, threads, job.vocabulary)
    found = {}
    if job.kept is not None:
        primed = PrimedScorer(scorer, job.kept.tokens)
        start = time.perf_counter()
        primed.whole(tokens)
        scorer, found["kept"] = primed, time.perf_counter() - start
    rng = np.random.default_rng(0)

    def readings() -> "list[Reading]":
        made = []
        for batch in range(len(grid)):
            rows = grid.rows(batch)
            windows = plan[rows.start : rows.stop]
            p = rng.random(windows.scored)
            whole = None
            if config.needs_rows:
                whole = np.full((windows.scored, job.source.vocab_size), 1 / job.source.vocab_size)
            stats: NeuralStats = Stats(p, (4 * p).astype(np.float32), whole)
            made.append(Reading(rows, windows, stats, {}))
        return made

    def passed() -> dict[str, float]:
        clock = Stopwatch()
        engine = Engine(
            tokens=tokens,
            plan=plan,
            scorer=scorer,
            tokenizer=job.tokenizer,
            byte_rule=config.byte_rule,
            clock=clock,
        )
        engine.run(made)
        return {stage: clock.seconds.get(stage, 0.0) for stage in ("n-gram", "bytes", "profile")}

    *made, last = readings()
    first = passed()
    look = measure_look(job, scorer, int(last.windows.first[0]))
    again = first if config.learns_online else passed()
    positions = max(sum(reading.windows.scored for reading in made), 1)
    found |= {stage: seconds / positions for stage, seconds in again.items()}
    found["touch"] = max(first["n-gram"] - again["n-gram"], 0.0)
    found["look"] = look
    if not config.learns_online:
        start = time.perf_counter()
        scorer.prefill(tokens, 0, plan.targets, lambda positions: None)
        found["count"] = (time.perf_counter() - start) / plan.targets
    return found


def measure_look(job: Job, scorer: Scorer, position: int) -> float:
    """Seconds for the scorer's whole distribution at the next position and the explanation of its charge."""
    if not job.source.gives_all:
        return 0.0
    tokens, size = job.stream.tokens, job.source.vocab_size
    neural, target = np.full(size, 1 / size), int(tokens[position + 1 : position + 2][0])

    def look() -> None:
        scorer.distribution(tokens, position, neural, entropy_of(neural))
        scorer.explain(tokens, position, neural, entropy_of(neural), target)

    return median_of(5, look)


def measure_lookup(job: Job, config: EvalConfig, threads: int) -> float | None:
    """Seconds per position of the look-up alone, in tables that hold the stream; None for tables without a look-up."""
    if config.scorer != "hashed" or job.backend in ON_DEVICE:
        return None
    counts, tokens = make_counts(job.backend, config.ngram, threads), job.stream.tokens
    stop = min(len(tokens) - 1, MOST_POSITIONS // 4)
    part, base = around(tokens, 0, stop, config.ngram)
    counts.update(part, 0, stop - base)
    return median_of(3, lambda: counts.lookup(part, 0, stop - base)) / stop


def measure_tokenise(job: Job) -> float | None:
    """Seconds per token to encode text again, line by line; None without a SentencePiece tokenizer."""
    if not isinstance(job.tokenizer, Tokenizer):
        return None
    tokenizer, tokens = job.tokenizer, job.stream.tokens[:_PIECES]
    lines = tokenizer.decode(tokens).splitlines(keepends=True)
    return median_of(3, lambda: tokenizer.encode(lines)) / len(tokens)


def other_shapes(config: EvalConfig) -> list[tuple[int, int]]:
    """(seq_len, stride) to measure besides that of `config`; `window_cost` predicts other shapes from them."""
    length, stride = config.window.seq_len, config.window.stride
    shapes = [(length, min(8 * stride, length)), (max(length // 2, stride), stride), (max(length // 4, stride), stride)]
    return [shape for shape in dict.fromkeys(shapes) if shape != (length, stride)]


def with_shape(config: EvalConfig, shape: tuple[int, int]) -> EvalConfig:
    """The same method with windows of another (seq_len, stride)."""
    return replace(config, window=replace(config.window, seq_len=shape[0], stride=shape[1]))


def measure(
    job: Job,
    config: EvalConfig,
    *,
    banded: Job | None,
    load: float,
    rounds: int,
    threads: int,
    exchange: tuple[float, float] | None,
    step: Callable[[str], None],
) -> Costs:
    """Measure every stage of windows, and the forward passes of the same model in the job `banded`.

    `step` is called with the name of the next; `exchange` is (scan, send) of `exchange.py`.
    """
    step("start")
    start = measure_start()
    step("forward passes")
    plan = plan_of(job, config)
    first = median_of(1, lambda: read(job, plan, range(1), rows=config.needs_rows))
    shape = config.window.seq_len, config.window.stride
    window, batch = measure_window(job, config, rounds)
    others = {other: measure_window(job, with_shape(config, other), 1)[0] for other in other_shapes(config)}
    step("statistics")
    stats = measure_stats(job, config, rounds)
    step("n-gram engine")
    engine = measure_engine(job, config, threads)
    lookup = measure_lookup(job, config, threads)
    step("tokeniser")
    return Costs(
        start=start,
        load=load,
        kept=engine.get("kept"),
        first_window=first,
        shape=shape,
        windows={shape: window, **others},
        batch_windows=batch,
        banded=None if banded is None else measure_banded(banded, config, rounds),
        stats=stats,
        look=engine["look"],
        ngram=engine["n-gram"],
        count=engine.get("count"),
        lookup=lookup,
        touch=engine["touch"],
        bytes=engine["bytes"],
        profile=engine["profile"],
        tokenise=measure_tokenise(job),
        scan=exchange[0] if exchange else None,
        send=exchange[1] if exchange else None,
    )
