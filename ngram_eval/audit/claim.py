"""Claims about an evaluation (`--claim`) that the audit checks."""

import json
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ngram_eval.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Claims about an evaluation, None if not claimed: the fields of a --claim file."""

    positions: int | None = None
    """Number of positions charged for."""
    nats: float | None = None
    """Sum of their charges, in nats."""
    bytes: int | None = None
    """Bytes of their targets."""
    subset: bool | None = None
    """Whether only a first part of the data was evaluated."""
    megabytes: float | None = None
    """Size of the artifact, in MB of 1,000,000 bytes."""
    document_start: int | None = None
    """The token that starts a document; the claim is that documents are scored independently."""

    def __or__(self, other: "Claim") -> "Claim":
        """The claim with its missing fields taken from `other`."""
        own = {one.name: getattr(self, one.name) for one in fields(Claim)}
        return replace(other, **{name: value for name, value in own.items() if value is not None})


def load_claim(path: Path) -> Claim:
    """Read a --claim file: JSON with fields of `Claim`, or a result of `ngram_eval.run`. Raises `InputError`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not JSON ({error}); check --claim") from error
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
