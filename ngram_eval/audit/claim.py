"""Claims about an evaluation (`--claim`) that the audit checks."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

from ngram_eval.files import read_input
from ngram_eval.structured import MOST_BYTES, Count, build, parse


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Claims about an evaluation, None if not claimed: the fields of a --claim file."""

    positions: Count | None = None
    """Number of positions charged for."""
    nats: float | None = None
    """Sum of their charges, in nats."""
    loss: float | None = None
    """Their mean, in nats a position."""
    bpb: float | None = None
    """Their sum in bits, over the bytes."""
    bytes: Count | None = None
    """Bytes of their targets."""
    subset: bool | None = None
    """Whether only a first part of the data was evaluated."""
    megabytes: float | None = None
    """Size of the artifact, in MB of 1,000,000 bytes."""
    document_start: Count | None = None
    """The token that starts a document; the claim is that documents are scored independently."""
    tokens: Count | None = None
    """Number of tokens of the whole data."""
    sha256: str | None = None
    """The sha256 of the data's files, one after another."""

    @property
    def of_all(self) -> bool:
        """Whether it says something of a whole evaluation, which a part of the data can't show."""
        return any(one is not None for one in (self.positions, self.nats, self.loss, self.bytes, self.bpb))

    def __or__(self, other: "Claim") -> "Claim":
        """The claim with its missing fields taken from `other`."""
        own = {one.name: getattr(self, one.name) for one in fields(Claim)}
        return replace(other, **{name: value for name, value in own.items() if value is not None})


def load_claim(path: Path) -> Claim:
    """Read a --claim file: JSON with fields of `Claim`, or a result of `ngram_eval.run`. Raises `InputError`."""
    remedy = f"give --claim a JSON object with some of {', '.join(one.name for one in fields(Claim))}, or a result"
    found = parse(read_input(path, remedy, MOST_BYTES), path, remedy)
    runs = found.get("runs") if isinstance(found, dict) else None
    if isinstance(runs, list) and runs:
        return build(runs[0], _Result, path, remedy, whole=False).claim
    return build(found, Claim, path, remedy)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Result:
    """What a result says that is a claim."""

    positions: Count
    nats: float
    bytes: Count | None
    subset: bool

    @property
    def claim(self) -> Claim:
        return Claim(positions=self.positions, nats=self.nats, bytes=self.bytes, subset=self.subset)
