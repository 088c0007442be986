"""Checkpoints: the progress of an evaluation on disk, from which a killed run resumes (`--checkpoint`, `--resume`).

A checkpoint holds which windows have been scored, the exact sums over them, and what the scorer has learned. It holds
no counts: they are a function of the tokens before, and counting those again costs less than writing the tables every
time (docs/distributed.md has the figures). So a checkpoint has at most about a megabyte (`exact`: two) and can be
written often, and a run can resume on another number of ranks.

A folder holds one `start` file, with what was done when the run began or was last resumed, and one file per rank, with
what it has done since. Each file carries a sha256 of its contents and is always replaced whole. Resuming first writes a
`start` file of the next generation, which includes all other files; these are then removed, so nothing counts twice.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ngram_eval import __version__
from ngram_eval.bpb import FRACTION_BITS, Tally
from ngram_eval.config import EvalConfig
from ngram_eval.distributed.ranks import Ranks
from ngram_eval.errors import InputError
from ngram_eval.evaluation.job import SOURCES, Job, learning_key, read_inputs
from ngram_eval.evaluation.profile import Profile
from ngram_eval.files import read_input, replacing
from ngram_eval.scorers.backends import ON_DEVICE
from ngram_eval.structured import Count, build, parse
from ngram_eval.text.windows import Plan

MAGIC = b"NGRMCKPT"


FORMAT = "ngram_eval checkpoint 2"


Fingerprint = dict[str, Any]
"""The settings that a run must share with the run whose checkpoint it resumes; plain JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """The windows that have been scored, and their sums."""

    done: list[range] = field(default_factory=list)
    """Windows scored: disjoint runs, ascending."""
    tally: Tally = field(default_factory=Tally)
    """Sums over these windows."""
    learned: dict[str, NDArray[Any]] = field(default_factory=dict)
    """What the scorer had learned after the last window (`Scorer.learned`)."""
    profile: Profile | None = None
    """Profile of these windows."""

    def with_more(self, later: "Record") -> "Record":
        """Both records together; raises `ValueError` for a window that is in both."""
        return Record(
            done=joined([*self.done, *later.done]),
            tally=self.tally + later.tally,
            learned=later.learned or self.learned,
            profile=self.profile + later.profile if self.profile and later.profile else self.profile or later.profile,
        )

    def check(self, plan: Plan, source: object) -> None:
        """Raise `InputError` where this can't be of these windows: whoever wrote the files can also make digests."""
        tally, windows = self.tally, self.done[-1].stop if self.done else 0
        scored = sum(map(plan.scored, self.done)) if windows <= len(plan) else -1
        # No position is charged more than 70 nats; a sum over the vocabulary may be anything that is a float.
        sums = (tally.nats, tally.neural_nats, tally.bytes, tally.decoded_bytes, *tally.hits_by_order.values())
        most = (70 * (scored + 1)) << FRACTION_BITS
        if (
            (self.profile is not None and not self.profile.fits(plan))
            or tally.positions != scored
            or not all(0 <= one <= most for one in sums)
            or not (0 <= tally.sampled <= scored and abs(tally.vocabulary_sums) < 1 << 1000)
        ):
            raise InputError(f"{source} holds sums that its windows can't have: remove the folder and begin again")

    def remaining(self, rows: range) -> list[range]:
        """The windows of `rows` that have not been scored, in runs."""
        left, start = [], rows.start
        for done in self.done:
            left.append(range(start, min(max(done.start, start), rows.stop)))
            start = max(start, done.stop)
        left.append(range(min(start, rows.stop), rows.stop))
        return [one for one in left if one]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stored:
    """The JSON in a file."""

    format: str
    done: list[tuple[Count, Count]]
    tally: Tally
    profile: dict[str, Any] | None
    fingerprint: dict[str, Any]


def joined(runs: Iterable[range]) -> list[range]:
    """The runs in ascending order, adjacent ones merged. Raises `ValueError` where two overlap."""
    merged: list[range] = []
    for run in sorted((run for run in runs if run), key=lambda run: run.start):
        if merged and run.start < merged[-1].stop:
            raise ValueError(f"windows {run.start} to {min(run.stop, merged[-1].stop) - 1} were scored twice")
        if merged and run.start == merged[-1].stop:
            merged[-1] = range(merged[-1].start, run.stop)
        else:
            merged.append(run)
    return merged


class Checkpoint:
    """The checkpoint folder of one preset's evaluation, for one rank; all ranks must see the same folder."""

    def __init__(self, folder: Path, fingerprint: Fingerprint, ranks: Ranks, every: int) -> None:
        self._folder, self._ranks, self.every = folder, ranks, every
        self._fingerprint: Fingerprint = json.loads(json.dumps(fingerprint))
        self._generation = 0

    def begin(self, resume: bool) -> Record:
        """The record of earlier runs, empty without `resume`. Every rank calls this before it calls `write`.

        Raises `InputError` for a checkpoint that is damaged, of another evaluation, or there without `resume`.
        """
        record = Record()
        if self._ranks.rank == 0:
            record = self._take_over(resume)
        record, self._generation = self._ranks.broadcast((record, self._generation))
        return record

    def write(self, record: Record) -> None:
        """Replace this rank's file with `record`, which covers what it has done since `begin`."""
        self._write(f"rank-{self._generation:04}-{self._ranks.rank:05}.ckpt", record)

    def _take_over(self, resume: bool) -> Record:
        self._folder.mkdir(parents=True, exist_ok=True)
        for unfinished in self._folder.glob(".*.ckpt.*"):  # no other run is at work here
            unfinished.unlink()
        starts = sorted(self._folder.glob("start-*.ckpt"))
        if starts and not resume:
            raise InputError(
                f"--checkpoint {self._folder} holds the checkpoint of an earlier run: give --resume to go on from it, "
                "or an empty folder"
            )
        record = Record()
        if starts:
            generation = int(re.sub(r"\D", "", starts[-1].stem))
            record = self._read(starts[-1], "remove the folder and begin again")
            remedy = "remove it, and what it records is scored again"
            for path in sorted(self._folder.glob(f"rank-{generation:04}-*.ckpt")):
                try:
                    record = record.with_more(self._read(path, remedy))
                except ValueError as error:
                    raise InputError(f"{path} does not go with the others ({error}): {remedy}") from error
            self._generation = generation + 1
        old = list(self._folder.glob("*.ckpt"))
        self._write(f"start-{self._generation:04}.ckpt", record)
        for path in old:
            path.unlink()
        return record

    def _write(self, name: str, record: Record) -> None:
        text = json.dumps(
            {
                "format": FORMAT,
                "done": [[rows.start, rows.stop] for rows in record.done],
                "tally": asdict(record.tally),
                "profile": record.profile.packed() if record.profile else None,
                "fingerprint": self._fingerprint,
            }
        )
        body = save({"json": np.frombuffer(text.encode(), np.uint8), **record.learned})
        with replacing(self._folder / name) as file:
            file.write(MAGIC + hashlib.sha256(body).digest() + body)

    def _read(self, path: Path, remedy: str) -> Record:
        content = read_input(path, remedy)
        digest, body = content[len(MAGIC) : len(MAGIC) + 32], content[len(MAGIC) + 32 :]
        if not content.startswith(MAGIC) or hashlib.sha256(body).digest() != digest:
            raise InputError(f"{path} is damaged or not a checkpoint (its sha256 does not match): {remedy}")
        try:
            learned = load(body)
            text = learned.pop("json").tobytes()
        except (SafetensorError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a checkpoint of this version ({error!r}): {remedy}") from error
        found = build(parse(text, path, remedy), _Stored, path, remedy)
        if found.format != FORMAT:
            raise InputError(f"{path} is not a checkpoint of this version (its format is {found.format!r}): {remedy}")
        record = Record(
            done=[range(start, stop) for start, stop in found.done],
            tally=found.tally,
            learned=learned,
            profile=Profile.unpacked(found.profile, path, remedy) if found.profile else None,
        )
        self._compare(path, found.fingerprint)
        return record

    def _compare(self, path: Path, theirs: Fingerprint) -> None:
        """Raise `InputError` unless the checkpoint's fingerprint, but for the version, is that of this evaluation."""
        mine, theirs = _flat(self._fingerprint), _flat(theirs)
        for name in sorted((mine.keys() | theirs.keys()) - {"version"}):
            if mine.get(name) != theirs.get(name):
                raise InputError(
                    f"{path} is of another evaluation: {name} was {theirs.get(name)!r}, here it is {mine.get(name)!r}; "
                    "evaluate as before, or give another --checkpoint folder"
                )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def fingerprint(job: Job, config: EvalConfig, sharing: str) -> dict[str, Any]:
    """All settings and files that decide an evaluation's sums, as plain JSON."""
    ranks, inputs = job.ranks, read_inputs(job)
    source_sha256 = next((one.sha256 for one in inputs if one.role in SOURCES), None)
    by_ranks = config.depends_on_ranks and sharing == "sharded"
    return {
        "version": __version__,
        "data": {Path(one.path).name: one.sha256 for one in inputs if one.role == "data"},
        "tokens": len(job.stream.tokens),
        "tokenizer": job.tokenizer.sha256 if job.tokenizer else None,
        "neural source": {
            "name": job.source.name,
            "sha256": source_sha256,
            "train_seq_len": job.source.train_seq_len,
            "vocab_size": job.source.vocab_size,
            "batch_windows": job.source.batch_windows,
            "settings": {
                name: value.split(":")[0] if name == "device" else value for name, value in job.source.settings.items()
            },
        },
        "backend": job.backend if job.backend in ON_DEVICE else "cpu",  # cpu and reference: equal floats, bit for bit
        "number of ranks": ranks.world if by_ranks else "any",
        "config": config.to_json(),
        "memory": job.kept
        and {"sha256": job.kept.sha256, "learned": learning_key(config, job.model) in job.kept.learned},
    }
