"""Results as a table, with the notes needed to read it."""

from collections.abc import Callable
from functools import partial
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ngram_eval.config import MAX_HASHED_ORDER, SIZE_LIMIT, EvalConfig
from ngram_eval.evaluation.result import Result
from ngram_eval.scorers.make import orders_of
from ngram_eval.structured import build

TIMING = "seconds: "
"""Begins the labels of rows that hold the time of a stage."""
STAGES = {
    "load": ("loading", "Files were opened and the model was loaded."),
    "neural": ("forward passes", "The model gave the probability of each target, or saved scores were read."),
    "n-gram": ("n-gram memory", "The memory looked up, blended, charged and counted."),
    "samples": ("sampled distributions", "At sampled positions the values of the whole vocabulary were computed."),
    "bytes": ("bytes of targets", "The tokenizer gave the bytes of each target."),
    "profile": ("sums for charts", "What was charged was added up by window, order and entropy."),
    "waiting": ("waiting for the memory", "The forward passes were ahead, and the memory had not caught up."),
    "receiving": ("waiting for ranks", "The memory waited for forward passes of other ranks."),
    "learn": ("learning", "The text of --memory was scored with the model first."),
    "prefill": ("counting only", "Positions were counted that others, or an earlier run, have scored."),
    "scan": ("adding up tables", "Ranks added up their tables."),
    "exchange": ("exchange of statistics", "Ranks sent each other the model's statistics, for the next preset."),
    "checkpoint": ("checkpoints", "Checkpoints were read and written."),
    "live": ("live view", "The page and the logs of the running evaluation were written."),
}
"""Stage of a `Stopwatch` -> (its name for readers, what was done in it)."""


def print_table(results: list[Result], console: Console) -> None:
    """Print the results, one column each; a pseudo-probability is called a score, never bits per byte."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("")
    for result in results:
        table.add_column(result.preset, justify="right")
    for label, values in table_rows(results):
        table.add_row(label, *values)
    console.print(table)
    for note in notes(results):
        console.print(note, soft_wrap=True, highlight=False)


def table_rows(results: list[Result]) -> list[tuple[str, list[str]]]:
    """(label, one value per result) of every row of the table."""
    rows = []

    def row(label: str, value: Callable[[Result], str]) -> None:
        rows.append((label, [value(result) for result in results]))

    row("model alone: bits per byte", lambda r: _number(r.neural_bpb))
    if any(r.normalised for r in results):
        row("bits per byte", lambda r: _number(r.val_bpb if r.normalised else None))
    if not all(r.normalised for r in results):
        row("score (not normalised)", lambda r: _number(None if r.normalised else r.val_bpb))
    if any(r.config["byte_rule"] == "decoded" and r.original_bytes not in (None, r.bytes) for r in results):
        row("model alone, over original bytes", lambda r: _number(r.neural_original_bpb))
        row("with n-grams, over original bytes", lambda r: _number(r.original_bpb))
    if any(r.vocabulary_sum is not None for r in results):
        row("sum over the vocabulary", lambda r: _number(r.vocabulary_sum))
    row("model alone: nats per token", lambda r: _number(r.neural_nats / r.positions))
    row("nats per token", lambda r: _number(r.val_loss))
    row("tokens", lambda r: f"{r.tokens:,}")
    row("positions scored", lambda r: f"{r.positions:,}")
    row("bytes", lambda r: _count(r.bytes))
    if any(r.unknown_targets for r in results):
        row("unknown targets", lambda r: _count(r.unknown_targets))
    for label, with_target in (("context seen", False), ("context and target seen", True)):
        if any(needs_target(r) is with_target for r in results):
            row(label, partial(_hit_rate, with_target))
    orders = {n for r in results for n in _orders(r)}
    if max(orders) > MAX_HASHED_ORDER:
        row(f"  orders {MAX_HASHED_ORDER + 1} to {max(orders)}", partial(_order_rate, range(MAX_HASHED_ORDER + 1, 256)))
    for order in sorted(orders & set(range(MAX_HASHED_ORDER + 1)), reverse=True):
        row(f"  order {order}", partial(_order_rate, range(order, order + 1)))
    for stage in dict.fromkeys(stage for r in results for stage in r.seconds):
        row(f"{TIMING}{STAGES[stage][0]}", partial(_stage_seconds, stage))
    return rows


def notes(results: list[Result]) -> list[str]:
    """The notes needed to read the table."""
    first = results[0]
    said = []
    pseudo = [r.preset for r in results if not r.normalised]
    if pseudo:
        said.append(
            f"{', '.join(pseudo)}: a pseudo-probability. Its values over the vocabulary do not sum to 1, "
            "so its score is not a code length and does not compare with bits per byte."
        )
    split = [r.preset for r in results if r.depends_on_ranks and r.world_size > 1]
    if split:
        said.append(
            f"{', '.join(split)}: as published, another number of ranks than {first.world_size} gives another result."
        )
    for result in results:
        if result.resumed_positions:
            share = f"{result.resumed_positions:,} of {result.positions:,} positions"
            said.append(f"{result.preset}: {share} were scored before this run resumed from its checkpoint.")
    for result in results:
        if not result.complete:
            said.append(
                f"{result.preset}: PARTIAL. Interrupted after {result.positions:,} positions; the figures are for "
                "these, not for the whole text."
            )
    if first.memory is not None:
        said.append(_memory(first.memory))
    if first.subset and first.complete:
        said.append(f"Subset: only the first {first.tokens:,} tokens of the data were evaluated (--max-tokens).")
    if first.bytes is None:
        said.append("No bytes, so no bits per byte: give the data's --tokenizer.")
    reused = [r.preset for r in results if r.neural_reused]
    if reused:
        said.append(f"{', '.join(reused)}: neural statistics reused from the preset before.")
    settings = f"{first.neural_source}, {first.backend} tables, {first.threads} thread(s), {first.world_size} rank(s)"
    said.append(f"Neural source {settings}" + "".join(f", {v}" for v in first.neural_settings.values()) + ".")
    return said


def _memory(memory: dict[str, Any]) -> str:
    """What was counted before the text, and its size beside the limit of a contest's artifact."""
    size, model = memory["bytes"], memory["model_bytes"]
    whole = f"{size:,} bytes" if model is None else f"{size:,} bytes, with the model's {model:,} {size + model:,}"
    return (
        f"Memory {memory['sha256'][:12]}...: {memory['tokens']:,} tokens counted before the text, in {whole} "
        f"of {SIZE_LIMIT:,} (code not counted)."
    )


def config_of(result: Result) -> EvalConfig:
    """The method of a result."""
    return build(result.config, EvalConfig, f"the config of {result.preset!r}", "evaluate again")


def needs_target(result: Result) -> bool:
    """Whether an order matches only if the target has followed its context; else the context alone decides."""
    return config_of(result).ngram.target_backoff


def _orders(result: Result) -> list[int]:
    return orders_of(config_of(result))


def _hit_rate(with_target: bool, result: Result) -> str:
    return f"{result.hit_rate:.2%}" if needs_target(result) is with_target else "-"


def _order_rate(orders: range, result: Result) -> str:
    """The share of positions that matched one of the orders; "-" for a preset that has none of them."""
    there = [str(order) for order in _orders(result) if order in orders]
    if not there:
        return "-"
    return f"{sum(result.hits_by_order.get(order, 0) for order in there) / result.positions:.2%}"


def _stage_seconds(stage: str, result: Result) -> str:
    return f"{result.seconds.get(stage, 0.0):.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
