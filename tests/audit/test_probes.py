"""Honest scorers pass every probe, and each bug that the field has met is planted and caught."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ngram_eval.assets import asset
from ngram_eval.audit.claim import Claim
from ngram_eval.audit.probes import PROBES
from ngram_eval.audit.subjects.scorer import MakeScorer
from ngram_eval.config import ByteRule
from ngram_eval.models.source import UniformSource
from ngram_eval.text.tokenizer import Tokenizer
from tests.support.planted import (
    BUGS,
    LENGTH,
    START,
    VOCAB,
    Bigram,
    Documents,
    SmearOverDocuments,
    Stepwise,
    Tokens,
    alone,
    hashing,
    probe,
    refuted,
    subject,
)
from tests.support.streams import Stream


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(stream: Stream, bug: str) -> None:
    plant, expected = BUGS[bug]
    findings = probe(plant(), stream.tokens[:LENGTH])
    assert expected <= refuted(findings), findings
    for number in expected:
        assert any(letter.isdigit() for letter in findings[number].evidence), "evidence names positions and values"


def test_every_probe_can_refute() -> None:
    others = {6, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19}  # in tests of their own below
    assert set().union(*(expected for _, expected in BUGS.values())) | others == set(range(1, len(PROBES) + 1))


@pytest.mark.parametrize("make", [Bigram, Stepwise, alone])
def test_an_honest_scorer_passes(stream: Stream, make: MakeScorer) -> None:
    findings = probe(subject(make), stream.tokens[:LENGTH])
    assert refuted(findings) == set()
    assert {number for number, one in findings.items() if one.verdict == "pass"} >= {1, 2, 3, 4, 5, 8, 10}
    assert findings[1].value == pytest.approx(0, abs=1e-12)


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


def test_the_text_itself_is_asked_where_it_is_at_hand() -> None:
    tokenizer = Tokenizer.load(asset("tokenizer.model"))
    (tokens,) = tokenizer.encode([TEXT])
    honest = replace(subject(alone, model=UniformSource(tokenizer.vocab_size)), tokenizer=tokenizer)
    cut = tokens[: len(tokens) // 2]
    assert probe(honest, cut, tokenizer=tokenizer, text=TEXT.encode())[6].verdict == "pass"
    found = probe(honest, cut, tokenizer=tokenizer, text=TEXT.replace("Zürich", "Köln").encode())[6]
    assert found.verdict == "refuted"
    at = len(TEXT.partition("Zürich")[0].encode())
    assert "the text has b'K\\xc3\\xb6ln, or" in found.evidence
    assert f"at byte {at}, the decoder writes b'Z\\xc3\\xbcrich, " in found.evidence
