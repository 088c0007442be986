"""The result of one preset, as `--json` writes it."""

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from typing import Any

from ngram_eval.bpb import Tally, as_nats, bits_per_byte
from ngram_eval.config import EvalConfig
from ngram_eval.evaluation.job import Input, Job, learning_key
from ngram_eval.evaluation.profile import Profile
from ngram_eval.evaluation.settings import Settings

_PACKAGES = ("ngram_eval", "numpy", "torch", "triton", "sentencepiece", "transformers", "tokenizers")


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Result:
    """One object of the JSON's `runs`. Without a tokenizer, bytes and quantities per byte are None."""

    preset: str
    normalised: bool
    """Whether the values over the vocabulary sum to 1, so that nats are a code length."""
    vocabulary_sum: float | None
    """Mean, over sampled positions, of the sum over the vocabulary; None where only target probabilities are known."""
    complete: bool
    """False if ctrl-C ended the run; the sums are then over what was scored before."""
    subset: bool
    """Whether only a part of the data was evaluated: --max-tokens cut the stream, or ctrl-C ended the run."""
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
    """Bits per byte; a pseudo-probability's is only a score, not a code length."""
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
    """Nats that the memory saved against the model alone, by matched order; 0: no order matched. None where the matched
    order is not known (tables on a GPU)."""
    neural_source: str
    neural_settings: dict[str, str]
    """Device, precision and attention kernel, if a model was run."""
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
    """Wall-clock seconds by stage, of the slowest rank."""
    data: list[str]
    inputs: list[dict[str, Any]]
    """Every file that was read: its role, path, bytes and sha256."""
    memory: dict[str, Any] | None
    """What was counted before the first token: sha256 of its tokens, how many, bytes of its text, of its files and of
    the model's file (None for a model that is no file); whether weights learned on it came along. None without one."""
    settings: dict[str, Any] | None
    """Data, model and hardware (`Settings`); `--from-result` runs them again with `config`. None for a result of
    `ngram_eval.evaluate`."""
    config: dict[str, Any]
    """The method (`EvalConfig`)."""
    versions: dict[str, str]
    finished: str
    """When the evaluation ended, in UTC: 2026-11-28T21:40:00+00:00."""
    arguments: list[str] | None = None
    """The flags of `ngram-eval run`, for a reader; None for a result of `ngram_eval.evaluate`."""
    profile: dict[str, Any]
    """Sums of each window and more, packed (docs/formats.md)."""

    def __repr__(self) -> str:
        return f"<{'; '.join(f'{name}: {value}' for name, value in self._told())}>"

    def _told(self) -> list[tuple[str, str]]:
        """(name, value) of what a reader asks first; a pseudo-probability's bits are called a score."""
        unit, of_all, neural = "bits per byte", self.val_bpb, self.neural_bpb
        if of_all is None:
            unit, of_all, neural = "nats per token", self.val_loss, self.neural_nats / self.positions
        name = unit if self.normalised else f"score ({unit}, not normalised)"
        partial = "" if self.complete else ", PARTIAL"
        return [
            ("preset", self.preset + partial),
            (name, f"{of_all:.4f}"),
            (f"model alone: {unit}", f"{neural:.4f}"),
            ("positions", f"{self.positions:,}"),
            ("hit rate", f"{self.hit_rate:.2%}"),
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The sums of all ranks, and how they were computed."""

    tally: Tally
    profile: Profile
    seconds: dict[str, float]
    """Wall-clock seconds by stage, of the slowest rank."""
    reused: int
    sharing: str
    prefill: str | None
    resumed_positions: int
    complete: bool
    finished: str
    """The time on rank 0, in UTC."""


def summarise(
    job: Job, name: str, config: EvalConfig, found: Found, inputs: Sequence[Input], settings: Settings | None
) -> Result:
    """The result of a preset; without `settings` it can't be run again."""
    stream, manifest, tally, profile = job.stream, job.manifest, found.tally, found.profile
    nats, neural_nats, hits = as_nats(tally.nats), as_nats(tally.neural_nats), sum(tally.hits_by_order.values())
    # The manifest gives sizes of the whole text; the scored part is known in decoded bytes.
    original = (
        round(tally.decoded_bytes * manifest.original_bytes / manifest.decoded_bytes)
        if manifest is not None and manifest.decoded_bytes
        else 0
    )
    return Result(
        preset=name,
        normalised=config.normalised,
        vocabulary_sum=as_nats(tally.vocabulary_sums) / tally.sampled if tally.sampled else None,
        complete=found.complete,
        subset=stream.total > len(stream.tokens) or not found.complete,
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
        neural_settings=job.source.settings,
        neural_reused=found.reused,
        world_size=job.ranks.world,
        ngram=found.sharing,
        prefill=found.prefill,
        depends_on_ranks=config.depends_on_ranks and found.sharing == "sharded",
        resumed_positions=found.resumed_positions,
        backend=job.backend,
        threads=job.threads,
        seconds={stage: round(value, 6) for stage, value in found.seconds.items()},
        data=[str(path) for path in stream.paths],
        inputs=[asdict(one) for one in inputs],
        memory=_kept(job, config, inputs),
        settings=None if settings is None else settings.to_json(),
        config=config.to_json(),
        versions={"python": platform.python_version(), **installed_versions()},
        finished=found.finished,
        profile=profile.packed(),
    )


def _kept(job: Job, config: EvalConfig, inputs: Sequence[Input]) -> dict[str, Any] | None:
    if job.kept is None:
        return None
    sizes = {role: [one.bytes for one in inputs if one.role == role] for role in ("memory", "artifact")}
    return {
        "sha256": job.kept.sha256,
        "tokens": len(job.kept.tokens),
        "text_bytes": job.kept.text_bytes,
        "bytes": sum(size or 0 for size in sizes["memory"]),
        "learned": bool(job.settings.data.learn and config.learns_online)
        or learning_key(config, job.model) in job.kept.learned,
        "model_bytes": next(iter(sizes["artifact"]), None),
    }


def installed_versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    installed = {package: next(iter(distributions(name=package)), None) for package in _PACKAGES}
    return {package: found.version for package, found in installed.items() if found is not None}
