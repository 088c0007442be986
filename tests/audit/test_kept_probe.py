"""The probe of a kept memory: it warns where the memory holds the text, and says what is usual."""

from itertools import pairwise

import numpy as np
import pytest

from ngram_eval.audit.case import Case, Data, Probing
from ngram_eval.audit.finding import Audited, Finding, ask
from ngram_eval.audit.probes import PROBES
from ngram_eval.audit.probes.kept import shared
from ngram_eval.text.stream import Tokens
from tests.support.planted import alone, subject

RNG = np.random.default_rng(3)
TEXT = RNG.integers(0, 40, 600).astype(np.uint16)
OTHER = RNG.integers(0, 40, 5000).astype(np.uint16)


def found(kept: Tokens | None, tokens: Tokens = TEXT) -> Finding:
    case = Case(subject(alone), Data(tokens=tokens, kept=kept), Probing(seed=0))
    return ask(PROBES[19], case)


def test_another_text_is_no_warning() -> None:
    one = found(OTHER)
    assert (one.verdict, one.value) == ("pass", 0.0)
    assert "the longest run has" in one.evidence


@pytest.mark.parametrize(("kept", "share", "run"), [(TEXT, 1.0, 600), (TEXT[200:400], 185 / 585, 200)])
def test_a_text_in_the_memory_is_a_warning_and_no_verdict(kept: Tokens, share: float, run: int) -> None:
    one = found(np.concatenate([OTHER, kept, OTHER[::-1]]).astype(np.uint32))
    assert one.verdict == "inconclusive"
    assert one.value == pytest.approx(share)
    assert one.evidence.startswith("warning: ")
    assert f"the longest run has {run} tokens" in one.evidence
    passed = Finding("pass", 0.0, "")
    findings = (*(passed for _ in PROBES[:19]), one)
    assert Audited("it", PROBES, findings).outcome == "pass"


def test_what_a_memory_repeats_anyway_is_no_warning() -> None:
    """A text of the phrases that fill the memory is one more of its kind."""
    phrases = [RNG.integers(0, 40, 24) for _ in range(12)]

    def said(length: int) -> Tokens:
        made: Tokens = np.concatenate([phrases[i] for i in RNG.integers(0, 12, length)]).astype(np.uint16)
        return made

    one = found(said(400), said(30))
    assert one.value is not None
    assert one.value > 0.2
    assert one.verdict == "pass"


def test_without_a_memory_or_a_text_there_is_nothing_to_ask() -> None:
    assert found(None).verdict == "not applicable"
    assert found(OTHER[:20]).verdict == "not applicable"
    assert found(OTHER, TEXT[:9]).verdict == "not applicable"


def test_the_longest_run_is_found_wherever_it_lies() -> None:
    for first, stop in pairwise([0, 17, 100, 259, 600]):
        kept = np.concatenate([OTHER, TEXT[first:stop], OTHER]).astype(np.uint16)
        longest = shared(TEXT, kept).longest
        assert stop - first <= longest <= stop - first + 4, "chance may add a token or two"
