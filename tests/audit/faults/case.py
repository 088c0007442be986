"""What a fault is: a subject, the data that shows it, and the probes that must find it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.case import Case, Data, Probing
from ngram_eval.audit.claim import Claim
from ngram_eval.audit.finding import Audited, Finding, ask
from ngram_eval.audit.probes import PROBES
from ngram_eval.audit.subject import Drawn, Glimpse, Subject, Trace
from tests.support.planted import LENGTH, Tokens

ROUTE = "a process of its own (`--evaluator`) shows it"


class Setting(NamedTuple):
    """What an audit is given."""

    subject: Subject
    tokens: Tokens
    claim: Claim = Claim()
    known: dict[str, Any] = {}
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

    def case(self, tokens: Tokens, folder: Path) -> Case:
        """The case that an audit makes of it; its subject counts what it is asked."""
        setting = self.build(tokens[:LENGTH], folder)
        data = Data(tokens=setting.tokens, total=len(setting.tokens), **setting.known)
        subject = Counted(setting.subject)
        return Case(subject, data, Probing(samples=setting.samples, seed=0), setting.claim)


def audited(case: Case) -> Audited:
    """What all probes find."""
    return Audited(case.subject.name, PROBES, tuple(ask(probe, case) for probe in PROBES))


def find(case: Case, number: int) -> Finding:
    """What one probe finds."""
    return ask(PROBES[number - 1], case)


@dataclass(frozen=True, eq=False)
class Counted(Subject):
    """A subject that counts the positions it is asked to score."""

    inner: Subject
    asked: list[int] = field(default_factory=lambda: [0])

    def __getattribute__(self, name: str) -> Any:
        if name in _OWN:
            return super().__getattribute__(name)
        return getattr(super().__getattribute__("inner"), name)

    def score(self, tokens: Tokens) -> Trace:
        trace = self.inner.score(tokens)
        self.asked[0] += len(trace.values)
        return trace

    def glimpses(self, tokens: Tokens, samples: NDArray[np.int64]) -> Iterator[Glimpse]:
        self.asked[0] += int(samples[-1]) + 1
        return self.inner.glimpses(tokens, samples)

    def draw(self, tokens: Tokens, rng: np.random.Generator) -> Drawn:
        drawn = self.inner.draw(tokens, rng)
        self.asked[0] += len(drawn.tokens)
        return drawn

    def with_buckets(self, buckets: int) -> Subject:
        return replace(self, inner=self.inner.with_buckets(buckets))

    def without_memory(self) -> Subject:
        return replace(self, inner=self.inner.without_memory())

    def variants(self) -> dict[str, tuple[Subject, float]]:
        return {name: (replace(self, inner=one), limit) for name, (one, limit) in self.inner.variants().items()}


_OWN = {"inner", "asked", "score", "glimpses", "draw", "with_buckets", "without_memory", "variants", "__class__"}
_OWN |= {"__dataclass_fields__", "__dict__"}


def what(thing: Any) -> str:
    """The first docstring line."""
    return (thing.__doc__ or "").strip().splitlines()[0].rstrip(".")


def words(name: str) -> str:
    """TargetInAlpha, target_in_alpha -> target in alpha."""
    spaced = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)
    return spaced.replace("_", " ").strip()
