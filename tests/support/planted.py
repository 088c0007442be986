"""A model and scorers small enough to read, and the bugs that the field has met, planted in them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.case import Case, Data, Probing
from ngram_eval.audit.claim import Claim
from ngram_eval.audit.finding import Finding, ask
from ngram_eval.audit.probes import PROBES
from ngram_eval.audit.subject import Subject
from ngram_eval.audit.subjects.scorer import (
    MakeScorer,
    ScorerSubject,
    SharedSource,
    other_sources,
)
from ngram_eval.bpb import Tally
from ngram_eval.config import EvalConfig, WindowConfig, preset
from ngram_eval.models.source import Asked, NeuralSource, NeuralStats, Stats
from ngram_eval.scorers.base import HostCharged, NeuralScorer, Scorer
from ngram_eval.scorers.make import make_scorer
from ngram_eval.text.windows import Windows

VOCAB, LENGTH, START = 50, 901, 0
WINDOW = WindowConfig(seq_len=64, stride=16)
Tokens = Any  # what is planted here reads arrays only, token by token
Array = NDArray[np.float64]


def probe(
    subject: Subject, tokens: Tokens, claim: Claim | None = None, samples: int = 24, seed: int = 0, **known: Any
) -> dict[int, Finding]:
    """What every probe finds, by its number; `known` are fields of `Data`."""
    data = Data(tokens=tokens, total=len(tokens), **known)
    case = Case(subject, data, Probing(samples=samples, seed=seed), claim or Claim())
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


class Documents(Model):
    """Sees one document alone."""

    def before(self, tokens: Tokens, windows: Windows, row: int, position: int) -> int | None:
        return None if position == windows.start[row] or tokens[position] == START else int(tokens[position - 1])

    def probabilities(self, tokens: Tokens, windows: Windows) -> Array:
        return super().probabilities(tokens, replace(windows, start=np.maximum(windows.first - 1, 0)))


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


def alone(backend: str, config: EvalConfig, source: NeuralSource) -> Scorer:
    return NeuralScorer()
