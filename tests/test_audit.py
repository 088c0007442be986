"""The audit: honest scorers pass every probe, and each bug that the field has met is planted and caught."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import Stream
from ngram_eval.assets import asset
from ngram_eval.audit.claim import Claim
from ngram_eval.audit.probes import PROBES, Case, Finding, ask
from ngram_eval.audit.subject import Subject
from ngram_eval.audit.subjects import (
    CallableSubject,
    ClaimedSubject,
    MakeScorer,
    ScorerSubject,
    SharedSource,
    other_sources,
)
from ngram_eval.bpb import Tally
from ngram_eval.cli import audit
from ngram_eval.config import ByteRule, EvalConfig, WindowConfig, preset
from ngram_eval.models.saved_logits import SavedLogits
from ngram_eval.models.source import NeuralSource, NeuralStats, Stats, UniformSource
from ngram_eval.scorers.base import HostCharged, NeuralScorer, Scorer
from ngram_eval.scorers.hashed.counts import make_counts
from ngram_eval.scorers.hashed.gate import GatedBackoff
from ngram_eval.scorers.hashed.scorer import HashedScorer
from ngram_eval.scorers.make import make_scorer
from ngram_eval.text.tokenizer import Tokenizer
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

    def stats(self, tokens: Tokens, windows: Windows) -> Stats:
        p = self.probabilities(tokens, windows)
        entropy = -(p * np.log(p)).sum(axis=1).astype(np.float32)
        return Stats(p[np.arange(len(p)), tokens[windows.positions() + 1]], entropy)


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


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(stream: Stream, bug: str) -> None:
    plant, expected = BUGS[bug]
    findings = probe(plant(), stream.tokens[:LENGTH])
    assert expected <= refuted(findings), findings
    for number in expected:
        assert any(letter.isdigit() for letter in findings[number].evidence), "evidence names positions and values"


def test_every_probe_can_refute() -> None:
    others = {6, 9, 11, 12}  # in tests of their own below
    assert set().union(*(expected for _, expected in BUGS.values())) | others == set(range(1, len(PROBES) + 1))


@pytest.mark.parametrize("make", [Bigram, Stepwise, alone])
def test_an_honest_scorer_passes(stream: Stream, make: MakeScorer) -> None:
    findings = probe(subject(make), stream.tokens[:LENGTH])
    assert refuted(findings) == set()
    assert {number for number, one in findings.items() if one.verdict == "pass"} >= {1, 2, 3, 4, 5, 8, 10}
    assert findings[1].value == pytest.approx(1, abs=1e-12)


def test_a_gain_from_collisions_is_caught(stream: Stream) -> None:
    """Enough tokens to crowd 2^10 buckets, a model that is bad enough to gain."""
    tokens = np.random.default_rng(0).integers(0, VOCAB, 3000).astype(np.uint16)
    found = probe(subject(hashing, model=UniformSource(VOCAB), remembers=True), tokens)[9]
    assert found.verdict == "refuted"
    assert found.details["1024"] < found.details["65536"] - 0.1


def test_documents_on_their_own(stream: Stream) -> None:
    claim = Claim(document_start=START)
    honest, leaking = (
        probe(subject(alone, model=m), stream.tokens[:LENGTH], claim=claim) for m in (Documents(), SmearOverDocuments())
    )
    assert honest[11].verdict == "pass"
    assert leaking[11].verdict == "refuted"
    assert refuted(honest) == set()
    assert probe(subject(alone, model=Documents()), stream.tokens[:LENGTH])[11].verdict == "not applicable"


def test_a_size_in_mib_is_caught(stream: Stream, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    artifact.write_bytes(bytes(1_234_567))
    for megabytes, verdict in ((1.23, "pass"), (1.235, "pass"), (round(1_234_567 / 2**20, 2), "refuted")):
        found = probe(subject(alone), stream.tokens[:LENGTH], claim=Claim(megabytes=megabytes), artifact=artifact)
        assert found[12].verdict == verdict


# Bytes

TEXT = "It is a truth — universally acknowledged — that a café in Zürich, or 東京, costs 5 €. " * 12


class SpaceTwice(Tokenizer):
    """A leading space counts in the piece and again before it."""

    def target_bytes(self, tokens: Tokens, start: int, stop: int, rule: ByteRule) -> NDArray[np.int64]:
        sizes = super().target_bytes(tokens, start, stop, rule)
        sizes += self._spaced[tokens[start + 1 : stop + 1]]
        return sizes


class ThreeBytesAByte(Tokenizer):
    """A byte token counts as long as what stands for it where it is decoded alone."""

    def target_bytes(self, tokens: Tokens, start: int, stop: int, rule: ByteRule) -> NDArray[np.int64]:
        sizes = super().target_bytes(tokens, start, stop, rule)
        sizes += 2 * self._byte[tokens[start + 1 : stop + 1]]
        return sizes


class NoSpaces(Tokenizer):
    """Takes the vocabulary for one without a mark of spaces: none is counted."""

    def target_bytes(self, tokens: Tokens, start: int, stop: int, rule: ByteRule) -> NDArray[np.int64]:
        sizes = super().target_bytes(tokens, start, stop, rule)
        sizes -= self._spaced[tokens[start + 1 : stop + 1]]
        return sizes


@pytest.mark.parametrize("kind", [Tokenizer, SpaceTwice, ThreeBytesAByte, NoSpaces])
def test_miscounted_bytes_are_caught(kind: type[Tokenizer]) -> None:
    tokenizer = Tokenizer.load(asset("tokenizer.model"))
    (tokens,) = tokenizer.encode([TEXT])
    assert tokenizer._byte[tokens].any()
    planted = replace(
        subject(alone, model=UniformSource(tokenizer.vocab_size)), tokenizer=kind.load(asset("tokenizer.model"))
    )
    found = probe(planted, tokens, tokenizer=tokenizer)[6]
    assert found.verdict == ("pass" if kind is Tokenizer else "refuted")
    assert (found.value == 0) == (kind is Tokenizer)


def test_text_bytes_are_those_of_the_text() -> None:
    tokenizer = Tokenizer.load(asset("tokenizer.model"))
    (tokens,) = tokenizer.encode([TEXT])
    whole = len(tokenizer.decode(tokens).encode())
    assert tokenizer.text_bytes(tokens) == whole - len(tokenizer.decode(tokens[:1]).encode())
    for stop in range(1, 90):  # also in the middle of a character
        assert tokenizer.text_bytes(tokens[: stop + 1]) == tokenizer.target_bytes(tokens, 0, stop, "decoded").sum()


# Functions of others


def uniform(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
    return np.full(VOCAB, 1 / VOCAB)


def counting(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
    """Exact counts of pairs, add one."""
    pairs = state.setdefault("pairs", np.ones((VOCAB, VOCAB)))
    if len(past) > 1:
        pairs[past[-2], past[-1]] += 1
    row = pairs[past[-1]]
    return np.asarray(row / row.sum())


def unnormalised(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
    return counting(past, state) * 1.1


def negative(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
    p = counting(past, state).copy()
    p[0] += p[1] + 0.01
    p[1] = -0.01
    return p


REMEMBERED: list[int] = []


def remembering(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
    """Learns from one call of it to the next, whatever the pass."""
    REMEMBERED.append(int(past[-1]))
    p = np.bincount(REMEMBERED, minlength=VOCAB) + 1.0
    return np.asarray(p / p.sum())


def peeking(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
    """Reaches through the array it is handed for the memory behind it."""
    behind = past if past.base is None else past.base
    following = int(behind[len(past)]) if len(behind) > len(past) else 0
    p = np.full(VOCAB, 0.5 / VOCAB)
    p[following] += 0.5
    return p


def failing(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
    raise RuntimeError("out of ideas")


def short(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
    return np.ones(3) / 3


not_a_function = 3


@pytest.mark.parametrize(
    ("function", "expected"),
    [(uniform, set()), (counting, set()), (unnormalised, {1, 10}), (negative, {1}), (remembering, {4, 8})],
)
def test_functions(stream: Stream, function: Any, expected: set[int]) -> None:
    findings = probe(CallableSubject(name="f", function=function), stream.tokens[:LENGTH])
    assert expected <= refuted(findings), findings
    if not expected:
        assert refuted(findings) == set()


def test_a_function_can_t_reach_the_future(stream: Stream) -> None:
    """What it can reach are zeros; that token 0 comes next is then all it says."""
    trace = CallableSubject(name="f", function=peeking).score(stream.tokens[:LENGTH])
    expected = np.where(stream.tokens[1:LENGTH] == 0, 0.5 + 0.5 / VOCAB, 0.5 / VOCAB)
    np.testing.assert_allclose(trace.values, expected)


# Claims


def claimed(
    stream: Stream, change: Callable[[Array], Array], positions: NDArray[np.int64] | None = None
) -> ClaimedSubject:
    tokens = stream.tokens[:LENGTH]
    log_p = np.log(np.random.default_rng(1).dirichlet(np.ones(VOCAB), LENGTH - 1))
    p = np.exp(log_p[np.arange(LENGTH - 1), tokens[1:]])
    at = np.arange(LENGTH - 1) if positions is None else positions
    return ClaimedSubject(
        name="c",
        positions=at,
        values=change(p[at]),
        logits=SavedLogits(log_p, Path("l.npy")),
        tokens=tokens,
        whole=LENGTH - 1,
    )


def test_claims(stream: Stream) -> None:
    tokens = stream.tokens[:LENGTH]
    assert refuted(probe(claimed(stream, lambda p: p), tokens)) == set()
    assert {4, 10} <= refuted(probe(claimed(stream, lambda p: np.minimum(p * 1.2, 1)), tokens))
    assert 1 in refuted(probe(claimed(stream, lambda p: p * 100), tokens))
    assert refuted(probe(claimed(stream, lambda p: p, np.arange(400)), tokens)) == {5}
    assert refuted(probe(claimed(stream, lambda p: p, np.append(np.arange(LENGTH - 1), 7)), tokens)) == {5}
    without = probe(replace(claimed(stream, lambda p: p), logits=None), tokens)
    assert {number for number, one in without.items() if one.verdict == "pass"} == {5}
    wrong = probe(claimed(stream, lambda p: p), tokens, claim=Claim(positions=LENGTH))
    assert refuted(wrong) == {5}


# The command line


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, Any]]:
    """Audit in this process: (exit code, JSON or None)."""

    def call(*arguments: object) -> tuple[int, Any]:
        out = tmp_path / "audit.json"
        out.unlink(missing_ok=True)
        monkeypatch.setattr(sys, "argv", ["audit", *map(str, arguments), "--json", str(out)])
        with pytest.raises(SystemExit) as exit_info:
            audit.main()
        code = exit_info.value.code
        assert isinstance(code, int)
        return code, json.loads(out.read_text()) if out.exists() else None

    return call


Run = Callable[..., tuple[int, Any]]


def test_the_embedded_default(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    presets = [flag for name in ("pr890", "hashed", "exact", "tilt", "mixer") for flag in ("--preset", name)]
    code, found = run("--positions", 700, "--stride", 64, "--samples", 8, "--cuts", 1, *presets)
    assert code == 1
    assert found["verdict"] == "refuted"
    numbers = {
        one["subject"]: [p["number"] for p in one["probes"] if p["verdict"] == "refuted"] for one in found["audits"]
    }
    assert numbers["neural"] == numbers["exact"] == numbers["tilt"] == numbers["mixer"] == []
    assert {1, 3, 5, 6} <= set(numbers["pr890"])
    assert 1 in numbers["hashed"]
    assert not {2, 4, 5, 6, 7, 8} & set(numbers["hashed"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("verdict: refuted: pr890 (1, ")
    assert (
        "; every probe that applies passed: neural (8 of 12), exact (8 of 12), tilt (9 of 12), mixer (9 of 12)"
        in printed[-1]
    )
    assert any("✗" in line for line in printed)


def test_exit_codes(
    stream: Stream, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    few = ["--data", stream.shard, "--positions", 300, "--samples", 8]
    code, found = run(*few, "--callable", "test_audit:counting")
    assert (code, found["verdict"]) == (0, "pass")
    assert capsys.readouterr().out.splitlines()[-1] == (
        "verdict: every probe that applies passed: test_audit:counting (7 of 12)"
    )
    assert found["audits"][0]["probes"][0]["value"] == pytest.approx(1)
    assert found["audits"][0]["probes"][8]["verdict"] == "not applicable"
    assert run(*few, "--callable", "test_audit:unnormalised")[0] == 1
    for name in ("failing", "short", "not_a_function", "missing"):
        assert run(*few, "--callable", f"test_audit:{name}")[0] == 2
    assert "--callable" in capsys.readouterr().err
    monkeypatch.setattr(audit, "print_table", lambda audited, console: 1 / 0)
    assert run(*few, "--callable", "test_audit:uniform")[0] == 3
    error = capsys.readouterr().err
    assert "ZeroDivisionError" in error
    assert error.splitlines()[-1].startswith("verdict: none")


@pytest.mark.parametrize(
    "flags",
    [
        ["--callable", "a:b", "--uniform"],
        ["--callable", "a:b", "--claimed", "c.npz"],
        ["--claimed", "missing.npz", "--data", "d.bin"],
        ["--claimed", "c.npz"],
        ["--claimed", "c.npz", "--preset", "hashed"],
        ["--samples", "0"],
        ["--cuts", "9", "--samples", "8"],
        ["--positions", "-1"],
        ["--claim", "missing.json"],
        ["--data", "d.bin"],
        ["--preset", "exakt"],
        ["--buckets", "1000"],
        ["--no-such-flag"],
    ],
)
def test_bad_flags(run: Run, flags: list[str]) -> None:
    assert run(*flags) == (2, None)


def test_written_claims(stream: Stream, run: Run, tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (len(stream.tokens) - 1, VOCAB)).astype(np.float32)
    np.save(tmp_path / "l.npy", logits)
    p = np.exp(logits.astype(np.float64))
    p = (p / p.sum(axis=1, keepdims=True))[np.arange(len(p)), stream.tokens[1:]]
    np.savez(tmp_path / "c.npz", p=p)
    common = ["--data", stream.shard, "--logits", tmp_path / "l.npy", "--claimed", tmp_path / "c.npz"]
    assert run(*common)[0] == 0
    (tmp_path / "claim.json").write_text(
        json.dumps({"positions": len(p), "nats": float(-np.log(p).sum()), "bytes": None})
    )
    assert run(*common, "--claim", tmp_path / "claim.json")[0] == 0
    (tmp_path / "claim.json").write_text(json.dumps({"nats": float(-np.log(p).sum()) - 1}))
    assert run(*common, "--claim", tmp_path / "claim.json")[0] == 1
    np.savez(tmp_path / "c.npz", p=p[:2816])  # whole sequences of 256
    assert run(*common, "--seq-len", 256)[0] == 0
    assert run(*common)[0] == 1
    (tmp_path / "claim.json").write_text('{"subset": true}')
    assert run(*common, "--claim", tmp_path / "claim.json")[0] == 0
    (tmp_path / "claim.json").write_text('{"bits": 3}')
    assert run(*common, "--claim", tmp_path / "claim.json")[0] == 2
    for broken in ({"q": p}, {"p": -p}, {"p": p, "positions": p}, {"p": p, "positions": np.arange(len(p)) + 1}):
        np.savez(tmp_path / "c.npz", **broken)
        assert run(*common)[0] == 2


def test_a_result_is_a_claim(stream: Stream, run: Run, evaluate: Any, tmp_path: Path) -> None:
    common = ["--data", stream.shard, "--uniform", "--vocab-size", VOCAB, "--seq-len", 64, "--preset", "hashed"]
    result = evaluate(*common)["hashed"]
    (tmp_path / "r.json").write_text(json.dumps({"runs": [result]}))
    assert run(*common, "--claim", tmp_path / "r.json", "--positions", 700) == (2, None)  # of the whole data
    _, found = run(*common, "--claim", tmp_path / "r.json", "--positions", 0)
    assert found["audits"][1]["probes"][4]["verdict"] == "pass"
    (tmp_path / "r.json").write_text(json.dumps({"runs": [{**result, "nats": result["nats"] - 1}]}))
    _, found = run(*common, "--claim", tmp_path / "r.json", "--positions", 0)
    assert found["audits"][1]["probes"][4]["verdict"] == "refuted"


@pytest.mark.slow
def test_the_whole_default_as_a_user_runs_it() -> None:
    command = [sys.executable, "-m", "ngram_eval.audit"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1, done.stderr
    assert "pr890 (1, 3, 5, 6, 8, 9, 10)" in done.stdout.splitlines()[-1]
    assert "hashed (1, 3, 9, 10)" in done.stdout.splitlines()[-1]
    assert "exact (8 of 12)" in done.stdout.splitlines()[-1]
