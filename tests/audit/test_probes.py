"""Probes let honest scorers pass; what they find wrong is in `test_faults`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ngram_eval.assets import asset
from ngram_eval.audit.case import Case, Data, Probing
from ngram_eval.audit.claim import Claim
from ngram_eval.audit.finding import Finding
from ngram_eval.audit.original import original_bytes
from ngram_eval.audit.subjects.scorer import MakeScorer
from ngram_eval.text.tokenizer import Tokenizer
from tests.audit.faults.accounts import TEXT, NoSpaces, SpaceTwice, ThreeBytesAByte, marked, on_text, unmarked
from tests.audit.faults.case import find
from tests.audit.faults.functions import certain
from tests.support.planted import (
    LENGTH,
    START,
    VOCAB,
    WINDOW,
    Bigram,
    Documents,
    Stepwise,
    alone,
    hashing,
    probe,
    refuted,
    subject,
)
from tests.support.streams import Stream


@pytest.mark.parametrize("make", [Bigram, Stepwise, alone])
def test_an_honest_scorer_passes(stream: Stream, make: MakeScorer) -> None:
    findings = probe(subject(make), stream.tokens[:LENGTH])
    assert refuted(findings) == set()
    passed = {number for number, one in findings.items() if one.verdict == "pass"}
    assert passed >= {1, 2, 3, 4, 5, 8, 10, 13, 14, 15, 16, 17}
    assert findings[1].value == pytest.approx(0, abs=1e-12)


def test_documents_are_asked_for_only_if_it_is_claimed(stream: Stream) -> None:
    honest = subject(alone, model=Documents())
    assert probe(honest, stream.tokens[:LENGTH], Claim(document_start=START))[11].verdict == "pass"
    assert probe(honest, stream.tokens[:LENGTH])[11].verdict == "not applicable"


def test_a_size_in_mb_passes(stream: Stream, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    artifact.write_bytes(bytes(1_234_567))
    for megabytes in (1.23, 1.235):
        found = probe(subject(alone), stream.tokens[:LENGTH], Claim(megabytes=megabytes), artifact=artifact)
        assert found[12].verdict == "pass"
    assert "--artifact" in probe(subject(alone), stream.tokens[:LENGTH], Claim(megabytes=1.0))[12].evidence


def test_the_last_positions_and_another_place_every_time_are_sampled(stream: Stream) -> None:
    data = Data(tokens=stream.tokens[:LENGTH])
    cases = [Case(subject(alone), data, Probing(samples=24).seeded) for _ in range(2)]
    assert all(case.samples[-1] == case.expected - 1 for case in cases)
    assert cases[0].seed != cases[1].seed
    assert not np.array_equal(cases[0].samples, cases[1].samples)


def test_replacements_come_from_the_whole_vocabulary(stream: Stream) -> None:
    few = stream.tokens[:LENGTH] % 5
    replaced = Case(subject(alone), Data(tokens=few)).replaced(few, 100)
    assert np.array_equal(replaced[:101], few[:101])
    assert replaced[101] != few[101]
    assert set(replaced[102:].tolist()) == set(range(VOCAB))
    assert 0.4 < np.mean(replaced[102:] < 5) < 0.7, "and half from the text"


@pytest.mark.parametrize("rescore_tail", [True, False])
def test_what_is_charged_again_once_it_was_counted_is_found_with_every_seed(stream: Stream, rescore_tail: bool) -> None:
    for seed in range(8):
        scorer = subject(hashing, window=replace(WINDOW, rescore_tail=rescore_tail), remembers=True)
        case = Case(scorer, Data(tokens=stream.tokens[:LENGTH]), Probing(samples=24, seed=seed))
        assert find(case, 15).verdict == ("refuted" if rescore_tail else "pass"), seed


def test_what_is_certain_and_right_is_no_ghost(stream: Stream) -> None:
    """It says what comes next in a cycle: where the text was replaced, it knows nothing."""
    from ngram_eval.audit.subjects.function import FunctionSubject

    cycle = np.arange(LENGTH).astype(np.uint16) % VOCAB
    honest = FunctionSubject(name="cycle", function=lambda past, state: certain((int(past[-1]) + 1) % VOCAB))
    assert probe(honest, cycle)[16].verdict == "pass"


# Bytes


@pytest.mark.parametrize("kind", [Tokenizer, SpaceTwice, ThreeBytesAByte, NoSpaces])
def test_miscounted_bytes_are_told_with_their_number(kind: type[Tokenizer]) -> None:
    setting = on_text(kind)
    found = probe(setting.subject, setting.tokens, **setting.known)[6]
    assert found.verdict == ("pass" if kind is Tokenizer else "refuted")
    assert (found.value == 0) == (kind is Tokenizer)


def test_text_bytes_are_those_of_the_text() -> None:
    tokenizer = Tokenizer.load(asset("tokenizer.model"))
    (tokens,) = tokenizer.encode([TEXT])
    assert tokenizer._byte[tokens].any()
    whole = len(tokenizer.decode(tokens).encode())
    assert tokenizer.text_bytes(tokens) == whole - len(tokenizer.decode(tokens[:1]).encode())
    for stop in range(1, 90):  # also in the middle of a character
        assert tokenizer.text_bytes(tokens[: stop + 1]) == tokenizer.target_bytes(tokens, 0, stop, "decoded").sum()


def test_marks_of_capitals_are_no_bytes_of_the_text_wherever_it_is_cut() -> None:
    """Letters may become two when they become small, and a text may have such characters itself."""
    tokenizer = Tokenizer.load(asset("tokenizer.model"))
    text = "It IS a Truth \ue002— that Straße and CAFÉ in Zürich, or 東京, cost 5 €. " * 2
    (tokens,) = tokenizer.encode([marked(text)])
    for stop in range(6, len(tokens) + 1):
        written = tokenizer.decode(tokens[:stop]).rstrip("\ufffd").removesuffix("\ue001")
        of_text = len(unmarked(written.removesuffix("\ue002").encode()))  # whose the last one is, nobody can say
        assert original_bytes(tokenizer, tokens[:stop], text.encode()) == of_text, stop
    found = original_bytes(tokenizer, tokens, text.replace("that", "this").encode())
    assert isinstance(found, Finding)
    assert found.verdict == "refuted"


def test_the_text_itself_is_asked_where_it_is_at_hand() -> None:
    setting = on_text(text=TEXT.replace("Zürich", "Köln"))
    found = probe(setting.subject, setting.tokens[: len(setting.tokens) // 2], **setting.known)[6]
    assert found.verdict == "refuted"
    at = len(TEXT.partition("Zürich")[0].encode())
    assert "the text has b'K\\xc3\\xb6ln, or" in found.evidence
    assert f"at byte {at}, the decoder writes b'Z\\xc3\\xbcrich, " in found.evidence


def test_bits_per_byte_are_those_of_the_text() -> None:
    setting = on_text()
    found = probe(setting.subject, setting.tokens, **setting.known)[6]
    true = found.details["bpb"]
    for claimed, verdict in ((round(true, 4), "pass"), (true + 0.1, "pass"), (true * 0.9, "refuted")):
        again = probe(setting.subject, setting.tokens, Claim(bpb=claimed), **setting.known)[6]
        assert again.verdict == verdict, claimed
