"""Results: what one preset's evaluation found, as JSON and as a table."""

import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from ngram_eval.bpb import Tally, as_nats, bits_per_byte
from ngram_eval.config import EvalConfig
from ngram_eval.files import write_text
from ngram_eval.hashing import MAX_ORDER
from ngram_eval.job import Input, Job
from ngram_eval.profile import Profile

_PACKAGES = ("ngram_eval", "numpy", "torch", "triton", "sentencepiece", "transformers", "tokenizers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One object of the JSON's `runs`. Bytes, and what is divided by them, are None without a tokenizer."""

    preset: str
    normalised: bool
    """Whether the values over the vocabulary sum to 1, so that nats are a code length."""
    vocabulary_sum: float | None
    """Mean, over sampled positions, of the sum over the vocabulary; None where only target probabilities are known."""
    complete: bool
    """Whether all was evaluated; false where ctrl-C ended the run, and the sums are of what was scored until then."""
    subset: bool
    """Whether less than the data was evaluated: --max-tokens cut the stream, or ctrl-C ended the run."""
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
    gain_by_order: dict[str, float] | None
    """Nats that the memory saved against the model alone, by matched order; 0: where nothing matched. None where they
    are not known by order (tables on a GPU)."""
    neural_source: str
    neural_settings: dict[str, str]
    """Device, precision and attention kernel, where a model was run."""
    neural_reused: int
    """Positions whose neural statistics an earlier preset of the same call had computed."""
    world_size: int
    ngram: str
    """How the ranks shared the n-gram work: sharded or pipelined."""
    prefill: str | None
    """How sharded ranks got the counts before their stretch: scan or local."""
    depends_on_ranks: bool
    """Whether another number of ranks would give another result."""
    resumed_positions: int
    """Positions that an earlier run had scored before this one went on from its checkpoint."""
    backend: str
    threads: int
    seconds: dict[str, float]
    """Wall-clock time by stage, the slowest rank's."""
    data: list[str]
    inputs: list[dict[str, Any]]
    """Every file that was read: its role, path, bytes and sha256."""
    config: dict[str, Any]
    versions: dict[str, str]
    command: list[str]
    arguments: list[str] | None
    """The command line without what only says where results go: `--from-result` runs it again. None for a result of
    `ngram_eval.evaluate`."""
    profile: dict[str, Any]
    """Sums of each window and more, packed (docs/formats.md)."""


class Shared(NamedTuple):
    """How the ranks shared an evaluation: fields of `Result`."""

    ngram: str
    prefill: str | None
    resumed_positions: int
    complete: bool = True


_OUTPUTS = {"--json": 1, "--save-scores": 1, "--report": 1, "--plot": 1, "--checkpoint": 1, "--every": 1}
_OUTPUTS |= {"--from-result": 1, "--resume": 0, "--quiet": 0}
"""Flags that do not decide a result -> values that follow them."""


def deciding(arguments: Sequence[str]) -> list[str]:
    """A command line without the flags that only say where results go and what is shown on the way."""
    kept, skip = [], 0
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if skip:
            skip -= 1
        elif flag in _OUTPUTS:
            skip = 0 if value else _OUTPUTS[flag]
        else:
            kept.append(argument)
    return kept


def summarise(
    job: Job,
    name: str,
    config: EvalConfig,
    tally: Tally,
    seconds: dict[str, float],
    reused: int,
    shared: Shared,
    *,
    profile: Profile,
    inputs: Sequence[Input],
    arguments: Sequence[str] | None,
) -> Result:
    """The result of a preset from the tally and the profile of all ranks."""
    options, stream, manifest = job.options, job.stream, job.manifest
    nats, neural_nats, hits = as_nats(tally.nats), as_nats(tally.neural_nats), sum(tally.hits_by_order.values())
    # The manifest knows the whole text; what part of it was scored is known in decoded bytes.
    original = (
        round(tally.decoded_bytes * manifest.original_bytes / manifest.decoded_bytes)
        if manifest is not None and manifest.decoded_bytes
        else 0
    )
    return Result(
        preset=name,
        normalised=config.normalised,
        vocabulary_sum=as_nats(tally.vocabulary_sums) / tally.sampled if tally.sampled else None,
        subset=stream.total > len(stream.tokens) or not shared.complete,
        tokens=len(stream.tokens),
        positions=tally.positions,
        nats=nats,
        val_loss=nats / tally.positions,
        neural_nats=neural_nats,
        bytes=tally.bytes if job.tokenizer else None,
        val_bpb=bits_per_byte(nats, tally.bytes),
        neural_bpb=bits_per_byte(neural_nats, tally.bytes),
        original_bytes=original or None,
        original_bpb=bits_per_byte(nats, original),
        neural_original_bpb=bits_per_byte(neural_nats, original),
        unknown_targets=tally.unknown_targets if job.tokenizer else None,
        hits=hits,
        hit_rate=hits / tally.positions,
        hits_by_order={str(order): tally.hits_by_order.get(order, 0) for order in config.ngram.orders},
        gain_by_order={str(n): gain for n, gain in profile.gain_by_order().items() if n in (0, *config.ngram.orders)}
        if profile.cells.any()
        else None,
        neural_source=job.source.name,
        neural_reused=reused,
        world_size=job.ranks.world,
        **shared._asdict(),
        depends_on_ranks=config.depends_on_ranks and shared.ngram == "sharded",
        backend=job.backend,
        threads=options.count_threads(),
        neural_settings=job.source.settings,
        seconds={stage: round(value, 6) for stage, value in seconds.items()},
        data=[str(path) for path in stream.paths],
        inputs=[asdict(one) for one in inputs],
        config=asdict(config),
        versions={"python": platform.python_version(), **installed_versions()},
        command=sys.argv,
        arguments=None if arguments is None else deciding(arguments),
        profile=profile.packed(),
    )


def installed_versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    installed = {package: next(iter(distributions(name=package)), None) for package in _PACKAGES}
    return {package: found.version for package, found in installed.items() if found is not None}


def write_json(path: Path, results: list[Result]) -> None:
    """Write `{"runs": [...]}` atomically, one object a preset, or print it (`-`). Never holds NaN or Infinity."""
    text = json.dumps({"runs": [asdict(result) for result in results]}, indent=2, allow_nan=False)
    write_text(path, text + "\n")


def print_table(results: list[Result], console: Console) -> None:
    """The results side by side, one column each; a pseudo-probability is called a score, never bits per byte."""
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
    """(label, one value a result) of every row of the table."""
    rows = []

    def row(label: str, value: Callable[[Result], str]) -> None:
        rows.append((label, [value(result) for result in results]))

    row("neural only: bits per byte", lambda r: _number(r.neural_bpb))
    if any(r.normalised for r in results):
        row("bits per byte", lambda r: _number(r.val_bpb if r.normalised else None))
    if not all(r.normalised for r in results):
        row("score (not normalised)", lambda r: _number(None if r.normalised else r.val_bpb))
    if any(r.config["byte_rule"] == "decoded" and r.original_bytes not in (None, r.bytes) for r in results):
        row("neural only, over original bytes", lambda r: _number(r.neural_original_bpb))
        row("with n-grams, over original bytes", lambda r: _number(r.original_bpb))
    if any(r.vocabulary_sum is not None for r in results):
        row("sum over the vocabulary", lambda r: _number(r.vocabulary_sum))
    row("neural only: nats per token", lambda r: _number(r.neural_nats / r.positions))
    row("nats per token", lambda r: _number(r.val_loss))
    row("tokens", lambda r: f"{r.tokens:,}")
    row("positions scored", lambda r: f"{r.positions:,}")
    row("bytes", lambda r: _count(r.bytes))
    if any(r.unknown_targets for r in results):
        row("unknown targets", lambda r: _count(r.unknown_targets))
    row("hit rate", lambda r: f"{r.hit_rate:.2%}")
    orders = {int(n) for r in results for n in r.hits_by_order}
    if max(orders) > MAX_ORDER:
        row(f"  orders {MAX_ORDER + 1} to {max(orders)}", _high_order_rate)
    for order in sorted(orders & set(range(MAX_ORDER + 1)), reverse=True):
        row(f"  order {order}", partial(_order_rate, str(order)))
    for stage in dict.fromkeys(stage for r in results for stage in r.seconds):
        row(f"seconds: {stage}", partial(_stage_seconds, stage))
    return rows


def notes(results: list[Result]) -> list[str]:
    """What has to be known to read the table."""
    first = results[0]
    said = []
    pseudo = [r.preset for r in results if not r.normalised]
    if pseudo:
        said.append(
            f"{', '.join(pseudo)}: a pseudo-probability. Its values over the vocabulary sum to more than 1, "
            "so its score is no code length and does not compare with bits per byte."
        )
    split = [r.preset for r in results if r.depends_on_ranks and r.world_size > 1]
    if split:
        said.append(
            f"{', '.join(split)}: as published, another number of ranks than {first.world_size} gives another result."
        )
    for result in results:
        if result.resumed_positions:
            share = f"{result.resumed_positions:,} of {result.positions:,} positions"
            said.append(f"{result.preset}: {share} were scored before this run went on from its checkpoint.")
    for result in results:
        if not result.complete:
            said.append(
                f"{result.preset}: PARTIAL. Interrupted after {result.positions:,} positions; these are their figures, "
                "not those of the whole text."
            )
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


def _order_rate(order: str, result: Result) -> str:
    return f"{result.hits_by_order.get(order, 0) / result.positions:.2%}"


def _high_order_rate(result: Result) -> str:
    hits = sum(count for order, count in result.hits_by_order.items() if int(order) > MAX_ORDER)
    return f"{hits / result.positions:.2%}"


def _stage_seconds(stage: str, result: Result) -> str:
    return f"{result.seconds.get(stage, 0.0):.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def plain(result: Result) -> dict[str, Any]:
    """A result as reading its JSON gives it."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(result), allow_nan=False))
    return found
