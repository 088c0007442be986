"""Writes and reads result files (`--json`)."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ngram_eval.config import WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.evaluation.profile import Profile
from ngram_eval.evaluation.result import Result
from ngram_eval.files import read_input, write_text
from ngram_eval.structured import MOST_BYTES, Count, Size, build, parse
from ngram_eval.text.windows import Plan

REMEDY = "evaluate again, or give a file that `ngram-eval run --json` wrote"


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """A file that was read for a result."""

    role: str
    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """Of the method, what every version tells; `--from-result` reads all of it."""

    window: WindowConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """What is read of a run in a file: fields of `ngram_eval.evaluation.result.Result`."""

    preset: str
    normalised: bool
    complete: bool
    tokens: Count
    positions: Size
    nats: float
    neural_nats: float
    bytes: Count | None
    inputs: tuple[InputFile, ...]
    config: Method
    settings: dict[str, Any] | None = None
    arguments: tuple[str, ...] | None = None
    """The flags of `ngram-eval run`: of a file of version 0.1, what a re-run reads."""
    profile: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run(Fields):
    """One preset's result."""

    sums: Profile
    """`profile`, unpacked."""
    everything: dict[str, Any]
    """The whole JSON object."""


def read_runs(path: Path) -> list[Run]:
    """The runs of a result file. Raises `InputError` for anything else."""
    found = parse(read_input(path, REMEDY, MOST_BYTES), path, REMEDY)
    runs = found.get("runs") if isinstance(found, dict) else None
    if not isinstance(runs, list) or not runs:
        raise InputError(f"{path} holds no runs: give a file that `ngram-eval run --json` wrote")
    return [_read(run, path) for run in runs]


def _read(run: Any, path: Path) -> Run:
    fields = build(run, Fields, path, REMEDY, whole=False)
    named = f"{path}: the profile of {fields.preset!r}"
    sums = Profile.unpacked(fields.profile, named, REMEDY)
    if not sums.fits(Plan(sums.targets, fields.config.window)):
        raise InputError(f"{named} is damaged (it is of other windows than its config): {REMEDY}")
    return Run(**{name: getattr(fields, name) for name in Fields.__slots__}, sums=sums, everything=run)


def run_of(result: Result) -> Run:
    """The result as it is read back from a file."""
    return _read(plain(result), Path(result.preset))


def write_json(path: Path, results: list[Result]) -> None:
    """Write `{"runs": [...]}` atomically, one object per preset, or print it (`-`). It never holds NaN or Infinity."""
    text = json.dumps({"runs": [asdict(result) for result in results]}, indent=2, allow_nan=False)
    write_text(path, text + "\n")


def plain(result: Result) -> dict[str, Any]:
    """A result as plain JSON."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(result), allow_nan=False))
    return found
