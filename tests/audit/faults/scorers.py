"""Faults of scorers: honest ones with one thing changed. `Bigram` is a memory of pairs, mixed into the model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from ngram_eval.audit.subject import Subject
from ngram_eval.audit.subjects.scorer import ScorerSubject
from ngram_eval.bpb import Tally
from ngram_eval.config import EvalConfig
from ngram_eval.models.source import NeuralSource, NeuralStats, UniformSource
from ngram_eval.scorers.base import HostCharged, Scorer
from ngram_eval.scorers.hashed.counts import make_counts
from ngram_eval.scorers.hashed.gate import GatedBackoff
from ngram_eval.scorers.hashed.scorer import HashedScorer
from ngram_eval.text.windows import Windows
from tests.audit.faults.case import Fault, Setting, what, words
from tests.support.planted import LENGTH, VOCAB, WINDOW, Array, Bigram, Tokens, hashing, subject

FAULTS: list[Fault] = []
FEW = 40
"""Tokens of a text that does not have all of the vocabulary."""
Kind = TypeVar("Kind", bound=type)


def fault(*found_by: int, samples: int = 24) -> Callable[[Kind], Kind]:
    """List a scorer, or a subject that scores in its own way, as a fault that these probes find."""

    def add(kind: Kind) -> Kind:
        def make() -> Subject:
            scores: Any = kind
            return subject(kind=scores) if issubclass(kind, ScorerSubject) else subject(scores)

        _list(words(kind.__name__), what(kind), make, found_by, samples)
        return kind

    return add


def _list(
    name: str,
    said: str,
    make: Callable[[], Subject],
    found_by: tuple[int, ...],
    samples: int = 24,
    text: Callable[[Tokens], Tokens] = lambda tokens: tokens,
) -> None:
    FAULTS.append(
        Fault(
            name,
            said,
            "scorer",
            lambda tokens, folder: Setting(make(), text(tokens), samples=samples),
            found_by,
        )
    )


@fault(1, 10)
class TargetInAlpha(Bigram):
    """The weight is larger where the target was seen."""

    def weight(self, tokens: Tokens, position: int, target: int) -> float:
        return 0.6 if self.pairs[tokens[position], target] else 0.1


@fault(3, 4)
class TargetInAlphaOfAll(Bigram):
    """The same for the weight of all tokens: they add up to 1, whatever the target, which they depend on."""

    def weight(self, tokens: Tokens, position: int, target: int) -> float:
        return 0.6 if self.pairs[tokens[position], tokens[position + 1]] else 0.1


@fault(4, 10)
class TargetInAlphaDenied(Bigram):
    """The target moves the weight when it comes to charging; what is shown does not."""

    def charge(self, tokens: Tokens, position: int, p_target: float) -> float:
        seen = self.pairs[tokens[position], tokens[position + 1]] > 0
        return super().charge(tokens, position, p_target) * (1.5 if seen else 1.0)


@fault(1, 10)
class DistinctDenominator(Bigram):
    """Divides by the number of distinct successors."""

    def estimate(self, row: Array) -> Array:
        return row / np.count_nonzero(row)


@fault(3, 4, 10)
class NormalisedForShow(DistinctDenominator):
    """Divides by the sum where it is looked at, not where it charges."""

    def distribution(self, tokens: Tokens, position: int, probabilities: Array, entropy: float) -> Array:
        values = super().distribution(tokens, position, probabilities, entropy)
        return np.asarray(values / values.sum())


@fault(2, 4, 15)
class TwoPasses(Bigram):
    """Counts the whole stream first."""

    def score(self, tokens: Tokens, windows: Windows, stats: NeuralStats) -> HostCharged:
        if not self.pairs.any():
            self.count(tokens, 0, len(tokens) - 1)
        return super().score(tokens, windows, stats)


@fault(2, 4, 15)
class CountedFirst(Bigram):
    """Counts a window, then scores it."""

    def window(self, tokens: Tokens, start: int, first: int, stop: int, p_target: Array) -> list[float]:
        self.count(tokens, first, stop)
        return [self.charge(tokens, p, float(q)) for p, q in zip(range(first, stop), p_target, strict=True)]


@fault(8)
class WholeWindowsCounted(Bigram):
    """Counts all of a window, and so most positions several times."""

    def window(self, tokens: Tokens, start: int, first: int, stop: int, p_target: Array) -> list[float]:
        values = super().window(tokens, start, first, stop, p_target)
        self.count(tokens, start, first)
        return values

    def estimate(self, row: Array) -> Array:
        return np.asarray((row + 1) / (row + 1).sum())


@fault(5)
class WholeWindowsSummed(Bigram):
    """Adds the nats of all of a window to the sum."""

    def tally(self) -> Tally:
        return replace(self.charged, nats=self.charged.nats * WINDOW.seq_len // WINDOW.stride)


class OtherDenominator(Bigram):
    """Divides by the count of all pairs."""

    def estimate(self, row: Array) -> Array:
        return np.asarray(row / self.pairs.sum())


@fault(4, samples=LENGTH)
class PeeksTwice(Bigram):
    """Charges 0.99 at two of 900 positions: a sample misses them, `--samples` as large as the text does not."""

    def charge(self, tokens: Tokens, position: int, p_target: float) -> float:
        return 0.99 if position in (311, 612) else super().charge(tokens, position, p_target)


@fault(4)
class PeeksAtTheEnd(Bigram):
    """Charges 0.99 in the last stride, where nobody sampled."""

    def charge(self, tokens: Tokens, position: int, p_target: float) -> float:
        ends = position >= (LENGTH - 1) // WINDOW.seq_len * WINDOW.seq_len - WINDOW.stride
        return 0.99 if ends else super().charge(tokens, position, p_target)


@fault(3, 4, 10, 13, 14, 15)
class FloorsTheCharge(Bigram):
    """Charges 0.05 at least, whatever the distribution says: cheap where the model is surprised."""

    def charge(self, tokens: Tokens, position: int, p_target: float) -> float:
        return max(super().charge(tokens, position, p_target), 0.05)


@fault(1, 10)
class AddsInsteadOfMixing(Bigram):
    """Adds the memory's share to the model's whole: p + w q."""

    def distribution(self, tokens: Tokens, position: int, probabilities: Array, entropy: float) -> Array:
        row = self.pairs[tokens[position]]
        return probabilities + 0.3 * self.estimate(row) if row.any() else probabilities

    def charge(self, tokens: Tokens, position: int, p_target: float) -> float:
        row = self.pairs[tokens[position]]
        return p_target + (0.3 * float(self.estimate(row)[tokens[position + 1]]) if row.any() else 0.0)


@fault(1, 3, 10)
class BestOrderForTheTarget(Bigram):
    """Backs off from pairs to single tokens where the pair with the target has not been seen."""

    def estimate(self, row: Array) -> Array:
        single = self.pairs.sum(axis=0)
        return np.asarray(np.where(row > 0, row / row.sum(), single / single.sum()))

    def given_target(self, tokens: Tokens, position: int, probabilities: Array, entropy: float) -> Array:
        row, single = self.pairs[tokens[position]], self.pairs.sum(axis=0)
        if not row.any():
            return probabilities
        chosen = row / row.sum() if row[tokens[position + 1]] else single / single.sum()
        return np.asarray(0.7 * probabilities + 0.3 * chosen)


@fault(5)
@dataclass(frozen=True, kw_only=True)
class WholeWindowsCharged(ScorerSubject):
    """Charges for all of a window."""

    def _windows(self, tokens: Tokens) -> Windows:
        windows = super()._windows(tokens)
        return replace(windows, first=windows.start)


@fault(5)
@dataclass(frozen=True, kw_only=True)
class DroppedTail(ScorerSubject):
    """Leaves the last window out."""

    def _windows(self, tokens: Tokens) -> Windows:
        return super()._windows(tokens)[:-1]


@fault(5)
@dataclass(frozen=True, kw_only=True)
class Half(ScorerSubject):
    """Stops half-way."""

    def _windows(self, tokens: Tokens) -> Windows:
        windows = super()._windows(tokens)
        return windows[: len(windows) // 2]


@fault(8)
@dataclass(frozen=True, kw_only=True)
class DrawnAnew(ScorerSubject):
    """A number of chance."""

    def score(self, tokens: Tokens, wanted: Any = None) -> Any:
        trace = super().score(tokens)
        return trace._replace(values=trace.values * np.random.default_rng().uniform(0.9, 1, len(trace.values)))


class WeightNeverZero(HashedScorer):
    """Smooths a little even where the weight is 0."""

    def score(self, tokens: Tokens, windows: Windows, stats: NeuralStats) -> HostCharged:
        return HostCharged(super().score(tokens, windows, stats).values * (1 - 1e-12))


class RulesOutWhatNeverCame(Bigram):
    """What is shown for tokens that the text never has is not what they are charged, which is nothing."""

    def charge(self, tokens: Tokens, position: int, p_target: float) -> float:
        return 0.0 if tokens[position + 1] >= FEW else super().charge(tokens, position, p_target)


def weightless(backend: str, config: EvalConfig, source: NeuralSource) -> Scorer:
    return WeightNeverZero(make_counts(backend, config.ngram), GatedBackoff(config.gate))


_list(
    words(RulesOutWhatNeverCame.__name__),
    what(RulesOutWhatNeverCame),
    lambda: subject(RulesOutWhatNeverCame),
    (3,),
    text=lambda tokens: tokens % FEW,
)
_list("weight 0 is not the model", what(WeightNeverZero), lambda: subject(weightless, remembers=True), (7,))
_list(
    "repeated tail",
    "Scores the last stride again in ever shorter windows, as was published",
    lambda: subject(window=replace(WINDOW, rescore_tail=True)),
    (5, 15),
)
_list(
    "collisions",
    "Counts share buckets, and the target chooses the order: the published hashed memory",
    lambda: subject(hashing, remembers=True),
    (1, 3, 10),
)
_list(
    "gain from collisions",
    "Few buckets for many tokens: full ones lift every value, and less memory scores better",
    lambda: subject(hashing, model=UniformSource(VOCAB), remembers=True),
    (9,),
    text=lambda tokens: np.random.default_rng(0).integers(0, VOCAB, 2000).astype(np.uint16),
)
_list(
    "tokens of chance for less than they hold",
    "The published memory with 256 buckets claims to foretell what was drawn by chance",
    lambda: subject(hashing, model=UniformSource(VOCAB), remembers=True).with_buckets(256),
    (13,),
    text=lambda tokens: np.random.default_rng(0).integers(0, VOCAB, 2000).astype(np.uint16),
)
