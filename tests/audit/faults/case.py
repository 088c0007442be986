"""What a fault is: a subject, the data that shows it, and the probes that must find it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.case import Case, Data, Probing
from ngram_eval.audit.claim import Claim
from ngram_eval.audit.finding import Audited, Finding, ask
from ngram_eval.audit.probes import PROBES
from ngram_eval.audit.subject import Drawn, Glimpse, Subject, Trace
from ngram_eval.audit.subjects.function import FunctionSubject
from tests.support.planted import LENGTH, Tokens


@dataclass(frozen=True)
class Setting:
    """What an audit is given."""

    subject: Subject
    tokens: Tokens
    claim: Claim = field(default_factory=Claim)
    known: dict[str, Any] = field(default_factory=dict)
    """Further fields of `Data`."""
    samples: int = 24


@dataclass(frozen=True)
class Fault:
    """A fault; or, with no probe that finds it, the reason why nobody can from outside."""

    name: str
    what: str
    kind: str
    """function, scorer, model, claim, data."""
    build: Callable[[Tokens, Path], Setting]
    found_by: tuple[int, ...]
    unseen: str = ""

    def case(self, tokens: Tokens, folder: Path, asked: list[int] | None = None) -> Case:
        """The case that an audit makes of it; `asked` counts the positions that its subject is asked for."""
        setting = self.build(tokens[:LENGTH], folder)
        data = Data(tokens=setting.tokens, total=len(setting.tokens), **setting.known)
        subject = setting.subject if asked is None else counted(setting.subject, asked)
        return Case(subject, data, Probing(samples=setting.samples, seed=0), setting.claim)

    def row(self, passes: float) -> str:
        """Its row in docs/audit_cases.md; `passes` over the text are what the first probe costs that finds it."""
        found = ", ".join(f"{number} {PROBES[number - 1].name}" for number in self.found_by)
        cost = f"{passes:.1f}" if self.kind != "claim" else "none"
        return (
            f"| {self.name} | {self.what} | {found} | {cost} |" if self.found_by else f"| {self.name} | {self.what} |"
        )


def audited(case: Case) -> Audited:
    """What all probes find."""
    return Audited(case.subject.name, PROBES, tuple(ask(probe, case) for probe in PROBES))


def find(case: Case, number: int) -> Finding:
    """What one probe finds."""
    return ask(PROBES[number - 1], case)


def counted(subject: Subject, asked: list[int]) -> Subject:
    """The subject, each of whose positions is counted in `asked[0]`."""
    if isinstance(subject, FunctionSubject):
        function = subject.function

        def asking(past: NDArray[np.integer], state: dict[str, Any]) -> Any:
            asked[0] += 1
            return function(past, state)

        return replace(subject, function=asking)
    kind = type(subject)

    class Counted(kind):  # type: ignore[misc, valid-type]
        def score(self, tokens: Tokens, wanted: NDArray[np.int64] | None = None) -> Trace:
            trace: Trace = super().score(tokens, wanted)
            asked[0] += len(trace.values)
            return trace

        def glimpses(self, tokens: Tokens, samples: NDArray[np.int64]) -> Iterator[Glimpse]:
            asked[0] += int(samples[-1]) + 1
            return iter(super().glimpses(tokens, samples))

        def draw(self, tokens: Tokens, rng: np.random.Generator) -> Drawn:
            drawn: Drawn = super().draw(tokens, rng)
            asked[0] += len(drawn.tokens)
            return drawn

    made: Subject = Counted(**{one.name: getattr(subject, one.name) for one in fields(subject)})  # type: ignore[arg-type]
    return made


def what(thing: Any) -> str:
    """The first docstring line."""
    return (thing.__doc__ or "").strip().splitlines()[0].rstrip(".")


def words(name: str) -> str:
    """TargetInAlpha, target_in_alpha -> target in alpha."""
    spaced = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)
    return spaced.replace("_", " ").strip()
