"""Results: what one preset's evaluation found, as JSON and as a table."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ngram_eval.files import replacing


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One object of the JSON's `runs`. Bytes, and what is divided by them, are None without a tokenizer."""

    preset: str
    normalised: bool
    """Whether the values over the vocabulary sum to 1, so that nats are a code length."""
    vocabulary_sum: float | None
    """Audited mean sum over the vocabulary; None where it was not audited."""
    subset: bool
    """Whether --max-tokens cut the stream."""
    tokens: int
    """Tokens of the stream, after --max-tokens and before the cut to whole sequences."""
    positions: int
    """Positions scored; one scored twice counts twice."""
    nats: float
    val_loss: float
    """Nats a position."""
    neural_nats: float
    """Nats of the neural model alone over the same positions."""
    bytes: int | None
    """Bytes of the scored targets under the preset's byte rule."""
    val_bpb: float | None
    """Bits per byte; for a pseudo-probability a score, not a code length."""
    neural_bpb: float | None
    original_bytes: int | None
    """The scored targets' share of the text before the tokenizer's normalisation, where a manifest knows its size."""
    original_bpb: float | None
    """Bits per original byte."""
    neural_original_bpb: float | None
    unknown_targets: int | None
    """Targets that are the tokenizer's unknown piece: their bytes are lost, so bpb is too high."""
    hits: int
    """Positions at which some order matched."""
    hit_rate: float
    hits_by_order: dict[str, int]
    neural_source: str
    neural_settings: dict[str, str]
    """Device, precision and attention kernel, where a model was run."""
    neural_reused: int
    """Positions whose neural statistics an earlier preset of the same call had computed."""
    world_size: int
    backend: str
    threads: int
    seconds: dict[str, float]
    """Wall-clock time by stage, the slowest rank's."""
    data: list[str]
    config: dict[str, Any]
    versions: dict[str, str]
    command: list[str]


def write_json(path: Path, results: list[Result]) -> None:
    """Write `{"runs": [...]}` atomically, one object a preset. Never holds NaN or Infinity."""
    text = json.dumps({"runs": [asdict(result) for result in results]}, indent=2, allow_nan=False)
    with replacing(path) as file:
        file.write(text.encode() + b"\n")


def print_table(results: list[Result], console: Console) -> None:
    """The results side by side, one column each; a pseudo-probability is called a score, never bits per byte."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("")
    for name in ("neural only", *(result.preset for result in results)):
        table.add_column(name, justify="right")
    first = results[0]

    def row(label: str, neural: str, *values: str) -> None:
        table.add_row(label, neural, *values)

    row("bits per byte", _number(first.neural_bpb), *(_number(r.val_bpb if r.normalised else None) for r in results))
    if not all(r.normalised for r in results):
        row("score (not normalised)", "-", *(_number(None if r.normalised else r.val_bpb) for r in results))
    if any(r.config["byte_rule"] == "decoded" and r.original_bytes not in (None, r.bytes) for r in results):
        row(
            "  per original byte",
            _number(first.neural_original_bpb),
            *(_number(r.original_bpb) for r in results),
        )
    row("nats per token", _number(first.neural_nats / first.positions), *(_number(r.val_loss) for r in results))
    row("tokens", f"{first.tokens:,}", *(f"{r.tokens:,}" for r in results))
    row("positions scored", f"{first.positions:,}", *(f"{r.positions:,}" for r in results))
    row("bytes", _count(first.bytes), *(_count(r.bytes) for r in results))
    if any(r.unknown_targets for r in results):
        row("unknown targets", _count(first.unknown_targets), *(_count(r.unknown_targets) for r in results))
    row("hit rate", "", *(f"{r.hit_rate:.2%}" for r in results))
    for order in sorted({int(n) for r in results for n in r.hits_by_order}, reverse=True):
        row(f"  order {order}", "", *(f"{r.hits_by_order.get(str(order), 0) / r.positions:.2%}" for r in results))
    for stage in dict.fromkeys(stage for r in results for stage in r.seconds):
        row(f"seconds: {stage}", "", *(f"{r.seconds.get(stage, 0.0):.2f}" for r in results))
    console.print(table)
    for note in _notes(results):
        console.print(note, soft_wrap=True, highlight=False)


def _notes(results: list[Result]) -> list[str]:
    first = results[0]
    notes = []
    pseudo = [r.preset for r in results if not r.normalised]
    if pseudo:
        notes.append(
            f"{', '.join(pseudo)}: a pseudo-probability. Its values over the vocabulary sum to more than 1, "
            "so its score is no code length and does not compare with bits per byte."
        )
    if first.subset:
        notes.append(f"Subset: only the first {first.tokens:,} tokens of the data were evaluated (--max-tokens).")
    if first.bytes is None:
        notes.append("No bytes, so no bits per byte: give the data's --tokenizer.")
    reused = [r.preset for r in results if r.neural_reused]
    if reused:
        notes.append(f"{', '.join(reused)}: neural statistics reused from the preset before.")
    settings = f"{first.neural_source}, {first.backend} tables, {first.threads} thread(s), {first.world_size} rank(s)"
    notes.append(f"Neural source {settings}" + "".join(f", {v}" for v in first.neural_settings.values()) + ".")
    return notes


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
