"""A model and scorers small enough to read, and the bugs that the field has met, planted in them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.probes import PROBES, Case, Finding, ask
from ngram_eval.audit.subject import Subject
from ngram_eval.audit.subjects import (
    MakeScorer,
    ScorerSubject,
    SharedSource,
    other_sources,
)
from ngram_eval.bpb import Tally
from ngram_eval.config import EvalConfig, WindowConfig, preset
from ngram_eval.models.source import Asked, NeuralSource, NeuralStats, Stats
from ngram_eval.scorers.base import HostCharged, NeuralScorer, Scorer
from ngram_eval.scorers.hashed.counts import make_counts
from ngram_eval.scorers.hashed.gate import GatedBackoff
from ngram_eval.scorers.hashed.scorer import HashedScorer
from ngram_eval.scorers.make import make_scorer
from ngram_eval.text.windows import Windows

VOCAB, LENGTH, START = 50, 901, 0
WINDOW = WindowConfig(seq_len=64, stride=16)
Tokens = Any  # what is planted here reads arrays only, token by token
Array = NDArray[np.float64]


def probe(subject: Subject, tokens: Tokens, **arguments: Any) -> dict[int, Finding]:
    """What every probe finds, by its number."""
    tokenizer = arguments.pop("tokenizer", None)
    case = Case(subject, tokens, tokenizer, stride=WINDOW.stride, **{"samples": 24, **arguments})
    return {number: ask(one, case) for number, one in enumerate(PROBES, 1)}


def refuted(findings: dict[int, Finding]) -> set[int]:
    return {number for number, one in findings.items() if one.verdict == "refuted"}


# A model and scorers small enough to read


class Model:
    """A neural source: a token's successor depends on it, the token before (smeared in), and the window's first."""

    name, batch_windows, train_seq_len, gives_all, vocab_size = "toy", 4, 0, True, VOCAB

    def __init__(self) -> None:
        self.settings: dict[str, str] = {}
        self.weights = np.random.default_rng(3).normal(0, 1.5, (3, VOCAB, VOCAB))

    def before(self, tokens: Tokens, windows: Windows, row: int, position: int) -> int | None:
        """The token smeared into `position` of a window."""
        return int(tokens[position - 1]) if position > windows.start[row] else None

    def probabilities(self, tokens: Tokens, windows: Windows) -> Array:
        rows = []
        for row, (start, first, stop) in enumerate(zip(windows.start, windows.first, windows.stop, strict=True)):
            for position in range(first, stop):
                logits = self.weights[0, tokens[position]].copy()
                for place, weight in ((position, 0.5), (int(start), 0.2)):
                    if (smeared := self.before(tokens, windows, row, place)) is not None:
                        logits += weight * self.weights[1, smeared]
                p = np.exp(logits - logits.max())
                rows.append(p / p.sum())
        return np.stack(rows)

    def stats(self, tokens: Tokens, windows: Windows, whole: Asked | None = None) -> Stats:
        p = self.probabilities(tokens, windows)
        entropy = -(p * np.log(p)).sum(axis=1).astype(np.float32)
        rows = None if whole is None else p[whole]
        return Stats(p[np.arange(len(p)), tokens[windows.positions() + 1]], entropy, rows)


class RolledSmear(Model):
    """The smear comes around: the first position of a window gets its last token."""

    def before(self, tokens: Tokens, windows: Windows, row: int, position: int) -> int | None:
        if position == windows.start[row]:
            return int(tokens[min(windows.start[row] + windows.seq_len, len(tokens) - 1)])
        return super().before(tokens, windows, row, position)


class SmearOverRows(Model):
    """The smear runs over the rows of a batch: the first position of a window gets the last token of the row before."""

    def before(self, tokens: Tokens, windows: Windows, row: int, position: int) -> int | None:
        if position == windows.start[row] and row > 0:
            return int(tokens[windows.stop[row - 1] - 1])
        return super().before(tokens, windows, row, position)


class Documents(Model):
    """Sees one document alone."""

    def before(self, tokens: Tokens, windows: Windows, row: int, position: int) -> int | None:
        return None if position == windows.start[row] or tokens[position] == START else int(tokens[position - 1])

    def probabilities(self, tokens: Tokens, windows: Windows) -> Array:
        return super().probabilities(tokens, replace(windows, start=np.maximum(windows.first - 1, 0)))


class SmearOverDocuments(Documents):
    """The smear at a document's start comes from the document before."""

    def before(self, tokens: Tokens, windows: Windows, row: int, position: int) -> int | None:
        return None if position == windows.start[row] else int(tokens[position - 1])


class Bigram(Scorer):
    """An honest memory: exact counts of pairs, mixed in with a weight that the context alone decides."""

    normalised, window_wise = True, True

    def __init__(self, backend: str, config: EvalConfig, source: NeuralSource) -> None:
        self.pairs = np.zeros((VOCAB, VOCAB))
        self.charged = Tally()

    def weight(self, tokens: Tokens, position: int, target: int) -> float:
        return 0.3

    def estimate(self, row: Array) -> Array:
        return np.asarray(row / row.sum())

    def distribution(self, tokens: Tokens, position: int, probabilities: Array, entropy: float) -> Array:
        row = self.pairs[tokens[position]]
        if not row.any():
            return probabilities
        weight = np.array([self.weight(tokens, position, token) for token in range(VOCAB)])
        mixed: Array = (1 - weight) * probabilities + weight * self.estimate(row)
        return mixed

    def charge(self, tokens: Tokens, position: int, p_target: float) -> float:
        row, target = self.pairs[tokens[position]], int(tokens[position + 1])
        weight = self.weight(tokens, position, target) if row.any() else 0.0
        return (1 - weight) * p_target + (weight * float(self.estimate(row)[target]) if weight else 0.0)

    def count(self, tokens: Tokens, start: int, stop: int) -> None:
        np.add.at(self.pairs, (tokens[start:stop], tokens[start + 1 : stop + 1]), 1)

    def prefill(self, tokens: Tokens, start: int, stop: int, advance: Callable[[int], None]) -> None:
        self.count(tokens[:], start, stop)

    def window(self, tokens: Tokens, start: int, first: int, stop: int, p_target: Array) -> list[float]:
        values = [self.charge(tokens, p, float(q)) for p, q in zip(range(first, stop), p_target, strict=True)]
        self.count(tokens, first, stop)
        return values

    def score(self, tokens: Tokens, windows: Windows, stats: NeuralStats) -> HostCharged:
        values: list[float] = []
        for start, first, stop in zip(windows.start, windows.first, windows.stop, strict=True):
            p_target = stats.p_target[len(values) : len(values) + int(stop - first)]
            values += self.window(tokens, int(start), int(first), int(stop), p_target)
        p = np.array(values)
        self.charged.add(p, p, np.zeros(len(p), np.uint8))
        return HostCharged(p)

    def tally(self) -> Tally:
        return self.charged


class Stepwise(Bigram):
    """The same, each position counted before the next is scored."""

    window_wise = False

    def window(self, tokens: Tokens, start: int, first: int, stop: int, p_target: Array) -> list[float]:
        return [
            value
            for p, q in zip(range(first, stop), p_target, strict=True)
            for value in super(Stepwise, self).window(tokens, start, p, p + 1, np.array([q]))
        ]


# The bugs


class TargetInAlpha(Bigram):
    """The weight is larger where the target was seen."""

    def weight(self, tokens: Tokens, position: int, target: int) -> float:
        return 0.6 if self.pairs[tokens[position], target] else 0.1


class TargetInAlphaOfAll(Bigram):
    """The same for the weight of all tokens: they add up to 1, whatever the target, which they depend on."""

    def weight(self, tokens: Tokens, position: int, target: int) -> float:
        return 0.6 if self.pairs[tokens[position], tokens[position + 1]] else 0.1


class TargetInAlphaDenied(Bigram):
    """The target moves the weight when it comes to charging; what is shown does not."""

    def charge(self, tokens: Tokens, position: int, p_target: float) -> float:
        seen = self.pairs[tokens[position], tokens[position + 1]] > 0
        return super().charge(tokens, position, p_target) * (1.5 if seen else 1.0)


class DistinctDenominator(Bigram):
    """Divides by the number of distinct successors."""

    def estimate(self, row: Array) -> Array:
        return row / np.count_nonzero(row)


class OtherDenominator(Bigram):
    """Divides by the count of all pairs."""

    def estimate(self, row: Array) -> Array:
        return np.asarray(row / self.pairs.sum())


class NormalisedForShow(DistinctDenominator):
    """Divides by the sum where it is looked at, not where it charges."""

    def distribution(self, tokens: Tokens, position: int, probabilities: Array, entropy: float) -> Array:
        values = super().distribution(tokens, position, probabilities, entropy)
        return np.asarray(values / values.sum())


class TwoPasses(Bigram):
    """Counts the whole stream first."""

    def score(self, tokens: Tokens, windows: Windows, stats: NeuralStats) -> HostCharged:
        if not self.pairs.any():
            self.count(tokens, 0, len(tokens) - 1)
        return super().score(tokens, windows, stats)


class CountedFirst(Bigram):
    """Counts a window, then scores it."""

    def window(self, tokens: Tokens, start: int, first: int, stop: int, p_target: Array) -> list[float]:
        self.count(tokens, first, stop)
        return [self.charge(tokens, p, float(q)) for p, q in zip(range(first, stop), p_target, strict=True)]


class WholeWindowsCounted(Bigram):
    """Counts all of a window, and so most positions several times."""

    def window(self, tokens: Tokens, start: int, first: int, stop: int, p_target: Array) -> list[float]:
        values = super().window(tokens, start, first, stop, p_target)
        self.count(tokens, start, first)
        return values

    def estimate(self, row: Array) -> Array:
        return np.asarray((row + 1) / (row + 1).sum())


class WholeWindowsSummed(Bigram):
    """Adds the nats of all of a window to the sum."""

    def tally(self) -> Tally:
        return replace(self.charged, nats=self.charged.nats * WINDOW.seq_len // WINDOW.stride)


class WeightNeverZero(HashedScorer):
    """Smooths a little even where the weight is 0."""

    def score(self, tokens: Tokens, windows: Windows, stats: NeuralStats) -> HostCharged:
        return HostCharged(super().score(tokens, windows, stats).values * (1 - 1e-12))


@dataclass(frozen=True, kw_only=True)
class WholeWindowsCharged(ScorerSubject):
    """Charges for all of a window."""

    def _windows(self, tokens: Tokens) -> Windows:
        windows = super()._windows(tokens)
        return replace(windows, first=windows.start)


@dataclass(frozen=True, kw_only=True)
class DroppedTail(ScorerSubject):
    """Leaves the last window out."""

    def _windows(self, tokens: Tokens) -> Windows:
        return super()._windows(tokens)[:-1]


@dataclass(frozen=True, kw_only=True)
class Half(ScorerSubject):
    """Stops half-way."""

    def _windows(self, tokens: Tokens) -> Windows:
        windows = super()._windows(tokens)
        return windows[: len(windows) // 2]


@dataclass(frozen=True, kw_only=True)
class DrawnAnew(ScorerSubject):
    """A number of chance."""

    def score(self, tokens: Tokens) -> Any:
        trace = super().score(tokens)
        return trace._replace(values=trace.values * np.random.default_rng().uniform(0.9, 1, len(trace.values)))


def subject(
    make: MakeScorer = Bigram,
    kind: type[ScorerSubject] = ScorerSubject,
    model: NeuralSource | None = None,
    window: WindowConfig = WINDOW,
    name: str = "hashed",
    **arguments: Any,
) -> ScorerSubject:
    """A scorer with the toy model, on windows that fit the short stream."""
    source = model or Model()
    config = replace(preset(name), window=window)
    config = replace(config, ngram=replace(config.ngram, buckets=1 << 16))
    return kind(
        name="planted",
        make=make,
        config=config,
        source=SharedSource(source),
        others=other_sources(source),
        **{"remembers": False, **arguments},
    )


def hashing(backend: str, config: EvalConfig, source: NeuralSource) -> Scorer:
    return make_scorer(backend, config)


def weightless(backend: str, config: EvalConfig, source: NeuralSource) -> Scorer:
    return WeightNeverZero(make_counts(backend, config.ngram), GatedBackoff(config.gate))


def alone(backend: str, config: EvalConfig, source: NeuralSource) -> Scorer:
    return NeuralScorer()


BUGS: dict[str, tuple[Callable[[], Subject], set[int]]] = {
    "target in alpha": (lambda: subject(TargetInAlpha), {1, 10}),
    "target in the alpha of all": (lambda: subject(TargetInAlphaOfAll), {3, 4}),
    "target in alpha, denied": (lambda: subject(TargetInAlphaDenied), {4, 10}),
    "wrong denominator": (lambda: subject(DistinctDenominator), {1, 10}),
    "wrong denominator, too large": (lambda: subject(OtherDenominator), {1}),
    "normalised for show": (lambda: subject(NormalisedForShow), {4, 10}),
    "two passes": (lambda: subject(TwoPasses), {2, 4}),
    "counted, then scored": (lambda: subject(CountedFirst), {2, 4}),
    "whole windows counted": (lambda: subject(WholeWindowsCounted), {8}),
    "whole windows summed": (lambda: subject(WholeWindowsSummed), {5}),
    "whole windows charged": (lambda: subject(kind=WholeWindowsCharged), {5}),
    "a subset as the whole": (lambda: subject(kind=Half), {5}),
    "dropped tail": (lambda: subject(kind=DroppedTail), {5}),
    "repeated tail": (lambda: subject(window=replace(WINDOW, rescore_tail=True)), {5}),
    "smear comes around": (lambda: subject(alone, model=RolledSmear()), {2, 4}),
    "smear over the rows of a batch": (lambda: subject(alone, model=SmearOverRows()), {8}),
    "weight 0 is not the model": (lambda: subject(weightless, remembers=True), {7}),
    "another number every time": (lambda: subject(alone, kind=DrawnAnew), {8}),
    "collisions": (lambda: subject(hashing, remembers=True), {1, 3, 10}),
}
