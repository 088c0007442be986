"""Writes and reads result files (`--json`)."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ngram_eval.errors import InputError
from ngram_eval.evaluation.profile import Profile
from ngram_eval.evaluation.result import Result
from ngram_eval.files import write_text

Run = dict[str, Any]
"""One preset's result: the fields of `ngram_eval.evaluation.result.Result`, as JSON."""


_NEEDED = ("preset", "normalised", "nats", "neural_nats", "positions", "bytes", "config", "inputs")


def read_runs(path: Path) -> list[Run]:
    """The runs of a result file, each with a valid profile (`profile_of`). Raises `InputError` for any other file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): give a file that --json wrote") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): give a file that `ngram-eval run --json` wrote") from error
    runs = found.get("runs") if isinstance(found, dict) else None
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise InputError(f"{path} holds no runs: give a file that `ngram-eval run --json` wrote")
    for run in runs:
        missing = [name for name in (*_NEEDED, "profile") if name not in run]
        if missing:
            raise InputError(
                f"{path} has no {missing[0]!r} in the run of {run.get('preset', '?')!r}: it is damaged, or an earlier "
                "version wrote it; evaluate again"
            )
        try:
            profile_of(run)
        except ValueError as error:
            raise InputError(
                f"{path}: the profile of {run['preset']!r} is damaged ({error}): evaluate again"
            ) from error
    return runs


def profile_of(run: Run) -> Profile:
    """The profile of a run: sums along the stream and by order."""
    return Profile.unpacked(run["profile"])


def write_json(path: Path, results: list[Result]) -> None:
    """Write `{"runs": [...]}` atomically, one object per preset, or print it (`-`). It never holds NaN or Infinity."""
    text = json.dumps({"runs": [asdict(result) for result in results]}, indent=2, allow_nan=False)
    write_text(path, text + "\n")


def plain(result: Result) -> dict[str, Any]:
    """A result as plain JSON."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(result), allow_nan=False))
    return found
