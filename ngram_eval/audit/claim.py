"""What is said of an evaluation (`--claim`), to be checked."""

import json
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ngram_eval.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What is said of an evaluation; None where nothing is. The fields of a --claim file."""

    positions: int | None = None
    """Positions charged for."""
    nats: float | None = None
    """Their sum."""
    bytes: int | None = None
    """Bytes of their targets."""
    subset: bool | None = None
    """Whether only a first part of the data was evaluated."""
    megabytes: float | None = None
    """Size of the artifact, in MB of 1,000,000 bytes."""
    document_start: int | None = None
    """A token that starts a document, and each is said to be scored without those before it."""

    def __or__(self, other: "Claim") -> "Claim":
        """What is claimed here, and where that is nothing, what the other claims."""
        own = {one.name: getattr(self, one.name) for one in fields(Claim)}
        return replace(other, **{name: value for name, value in own.items() if value is not None})


def load_claim(path: Path) -> Claim:
    """Read a --claim file: JSON with fields of `Claim`, or a result of `ngram_eval.run`. Raises `InputError`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no JSON ({error}); check --claim") from error
    runs = found.get("runs") if isinstance(found, dict) else None
    if runs is not None:
        found = {key: value for key, value in runs[0].items() if key in ("positions", "nats", "bytes", "subset")}
    names = [one.name for one in fields(Claim)]
    if not isinstance(found, dict) or not found.keys() <= set(names):
        raise InputError(f"{path}: give a JSON object with some of {', '.join(names)}")
    for name, value in found.items():
        if value is not None and not (isinstance(value, (int, float)) and math.isfinite(value)):
            raise InputError(f"{path}: {name} is {value!r}; give a number")
    return Claim(**found)
