"""What a probe finds, how far it looked, and the verdict and exit code that follow.

Every audit uses these, whatever it audits: a scorer, a function, a file, a whole evaluator.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from ngram_eval.bpb import NotAProbability
from ngram_eval.errors import FAILED, INCONCLUSIVE

Verdict = Literal["pass", "refuted", "inconclusive", "not applicable"]
"""`inconclusive`: it was asked, and the answer settles nothing; `not applicable`: it could not be asked."""

Outcome = Literal["pass", "refuted", "inconclusive"]
"""The verdict on a whole subject."""

EXIT_CODES: dict[Outcome, int] = {"pass": 0, "refuted": FAILED, "inconclusive": INCONCLUSIVE}

SURE = 0.95
"""Probability with which the smallest fault that a probe finds is found."""


class NotApplicable(Exception):
    """A probe does not apply to this subject; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a probe looked: `asked` of the `of` places where a fault could be, one drawn from each of equal parts."""

    asked: int
    of: int
    what: str = "positions"

    def found(self, share: float) -> float:
        """Least probability that a fault at this share of the places is found.

        A sample misses it with (1 - share of its part); by the inequality of means their product is at most this.
        """
        return 1.0 if self.asked >= self.of and share > 0 else 1 - (1 - share) ** self.asked

    @property
    def smallest(self) -> float:
        """The smallest share of places at which a fault is found with `SURE`; 1 if nothing was asked."""
        if self.asked >= self.of:
            return 1 / max(self.of, 1)
        return float(1 - (1 - SURE) ** (1 / self.asked)) if self.asked else 1.0

    @property
    def missed(self) -> str:
        """How likely a fault at few of the places is missed; empty if all were looked at."""
        if self.asked >= self.of:
            return ""
        return f"a fault at 1 % of the {self.what} with {1 - self.found(0.01):.0%}, at {percent(self.smallest)} with 5%"

    @property
    def places(self) -> str:
        """How many of how many."""
        return f"all {self.of:,} {self.what}" if self.asked >= self.of else f"{self.asked:,} of {self.of:,} {self.what}"

    def __str__(self) -> str:
        if self.asked >= self.of:
            return self.places
        return (
            f"{self.places}; a fault at {percent(self.smallest)} of them or more is found "
            f"with {SURE:.0%}, one at 1 % with {self.found(0.01):.0%}"
        )


def percent(share: float) -> str:
    """A share with two digits: 2.3 %."""
    return f"{100 * share:.2g} %"


@dataclass(frozen=True, slots=True)
class Finding:
    """The finding of a probe."""

    verdict: Verdict
    value: float | None
    """The probe's number, in the unit of its row."""
    evidence: str
    details: dict[str, Any] = field(default_factory=dict)
    """The evidence in machine-readable form."""
    reach: Reach | None = None
    """How far it looked; None for what is asked once, of the whole."""


def finding(
    holds: bool, value: float, evidence: str, reach: Reach | None = None, details: dict[str, Any] | None = None
) -> Finding:
    """A finding that passes if `holds`, else refutes."""
    return Finding("pass" if holds else "refuted", value, evidence, details or {}, reach)


SomeCase = TypeVar("SomeCase", contravariant=True)


class Probe(NamedTuple, Generic[SomeCase]):
    """A row of an audit."""

    name: str
    unit: str
    """Unit of its number."""
    ask: Callable[[SomeCase], Finding]
    essential: bool = False
    """Whether nobody can be said to have passed who did not pass this."""
    misses: str = ""
    """What it can't find, beyond what its reach leaves out."""
    proves: bool = True
    """Whether what it finds is a contradiction; else it is evidence, which may have another reason."""

    @property
    def asks(self) -> str:
        """What must hold: the first line of its docstring."""
        return (self.ask.__doc__ or self.name).strip().splitlines()[0]

    def missed(self, found: "Finding") -> str:
        """What this finding can have missed, and at what rate; empty if it could not be asked."""
        if found.verdict == "not applicable":
            return ""
        by_chance = "" if found.reach is None else found.reach.missed
        return "; ".join(one for one in (by_chance, self.misses) if one)


def ask(probe: Probe[SomeCase], case: SomeCase) -> Finding:
    """The finding of a probe, or the reason why it does not apply.

    What charges no probability for the text that a probe hands it is refuted by that.
    """
    try:
        return probe.ask(case)
    except NotApplicable as reason:
        return Finding("not applicable", None, str(reason))
    except NotAProbability as error:
        return Finding("refuted", None, str(error))


@dataclass(frozen=True, slots=True)
class Audited:
    """A subject, the probes that it was asked, and their findings."""

    subject: str
    probes: tuple[Probe[Any], ...]
    findings: tuple[Finding, ...]

    def numbers(self, verdict: Verdict) -> list[int]:
        """Numbers of the probes with this verdict; they start at 1."""
        return [number for number, one in enumerate(self.findings, 1) if one.verdict == verdict]

    @property
    def unsettled(self) -> list[str]:
        """Names of the essential probes that it did not pass."""
        pairs = zip(self.probes, self.findings, strict=True)
        return [probe.name for probe, one in pairs if probe.essential and one.verdict != "pass"]

    @property
    def outcome(self) -> Outcome:
        """Refuted by any probe; inconclusive if an essential one was not passed; else a pass."""
        if self.numbers("refuted"):
            return "refuted"
        return "inconclusive" if self.unsettled else "pass"

    @property
    def smallest(self) -> float | None:
        """The smallest share of positions at which every essential probe finds a fault; None if none has a reach."""
        pairs = zip(self.probes, self.findings, strict=True)
        reaches = [one.reach for probe, one in pairs if probe.essential and one.reach is not None]
        return max((one.smallest for one in reaches if one.what == "positions"), default=None)


def outcome_of(audited: Iterable[Audited]) -> Outcome:
    """The verdict on an audit: that on its worst subject."""
    outcomes = {one.outcome for one in audited}
    return "refuted" if "refuted" in outcomes else "inconclusive" if "inconclusive" in outcomes else "pass"
