"""One sweep of cuts over the text, of which several probes make something."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.evaluator.case import AT_ONCE, Case, Questions, asked
from ngram_eval.audit.evaluator.streams import Ids

_END = 32
"""Tokens before the end, each of which is a cut."""


@dataclass(frozen=True, slots=True)
class Change:
    """A charge that differs between two runs that have the same past there."""

    cut: int
    """The first token that was replaced."""
    token: int
    """The token whose charge differs."""
    was: float
    becomes: float

    @property
    def size(self) -> float:
        """Nats; infinity for NaN."""
        return float(differences(np.array([self.was]), np.array([self.becomes]))[0])


@dataclass(frozen=True, slots=True)
class Sweep:
    """What cuts have shown."""

    cuts: Ids
    """The cuts, ascending: at cut c the tokens from c on were replaced, c by another."""
    twos: NDArray[np.float64]
    """At each cut, the sum of what two tokens had there: the text's, and another."""
    worst: Change
    """The largest change before a cut."""
    changed: int
    """Cuts before which something changed by more than the tolerance."""


def sweep(case: Case) -> Questions[Sweep]:
    """Cuts all over the text, one in each of equal parts, and at its last tokens and the starts of documents."""
    rng, last = case.rng(2), len(case.text) - 1
    parts = min(case.asking.endings, last)
    spread = 1 + ((np.arange(parts) + rng.random(parts)) * last / parts).astype(np.int64)
    starts = rng.permutation(case.starts)[: case.asking.scattered]
    near = np.concatenate([starts + step for step in (0, 1, 2, 3)])
    cuts = np.concatenate([spread, np.arange(max(last - _END, 1), last + 1), near])
    cuts = np.unique(cuts[(cuts >= 1) & (cuts <= last)])
    twos, worst, changed = np.full(len(cuts), np.nan), Change(0, 0, 0.0, 0.0), 0
    order = rng.permutation(len(cuts))
    rounds = np.array_split(order, max(case.asking.sums, len(order)) // AT_ONCE + 1)  # as many as the sums have
    if case.base.nats is None:
        for which in rounds:
            at = cuts[which][cuts[which] > case.least].tolist()
            firsts = [case.text[:cut] for cut in at]
            others = [case.replaced(cut, rng)[: cut + 1] for cut in at]
            answers = yield from asked([*firsts, *(case.text[: cut + 1] for cut in at), *others])
            totals = np.array([one.total for one in answers]).reshape(3, len(at))
            twos[which[cuts[which] > case.least]] = np.exp(totals[0] - totals[1:]).sum(axis=0)
        return Sweep(cuts, twos, worst, changed)
    base, tolerance = case.base.nats, case.evaluator.tolerance
    for which in rounds:
        answers = yield from asked([case.replaced(cut, rng) for cut in cuts[which].tolist()])
        for at, answer in zip(which.tolist(), answers, strict=True):
            cut = int(cuts[at])
            assert answer.nats is not None
            twos[at] = np.exp(-base[cut]) + np.exp(-answer.nats[cut])
            change = largest(base, answer.nats, cut)
            changed += bool(change.size > tolerance)
            worst = max(worst, change, key=lambda one: one.size)
    return Sweep(cuts, twos, worst, changed)


def largest(a: NDArray[np.float64], b: NDArray[np.float64], cut: int) -> Change:
    """The largest difference of charges before `cut`, which is at least 1."""
    off = differences(a[:cut], b[:cut])
    token = int(np.argmax(off))
    return Change(cut, token, float(a[token]), float(b[token]))


def differences(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nats between two charges of the same tokens; 0 where neither is charged or both are infinite, else infinity."""
    same = (np.isnan(a) & np.isnan(b)) | (a == b)
    with np.errstate(invalid="ignore"):
        return np.where(same, 0.0, np.nan_to_num(np.abs(a - b), nan=np.inf))
