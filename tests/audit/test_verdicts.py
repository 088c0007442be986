"""Verdicts, how far probes look, and tolerances."""

import numpy as np
import pytest

from ngram_eval.audit.finding import EXIT_CODES, Audited, Finding, Probe, Reach, ask, finding, outcome_of
from ngram_eval.audit.precision import above_one, apart, of_digits, precision_of
from ngram_eval.audit.report import verdict
from ngram_eval.bpb import NotAProbability

PASS, WRONG = Finding("pass", 0.0, "fine"), Finding("refuted", 1.0, "wrong")
OPEN, UNASKED = Finding("inconclusive", None, "who knows"), Finding("not applicable", None, "no way")
ESSENTIAL: Probe[None] = Probe("a", "off", lambda case: PASS, essential=True)
OTHER: Probe[None] = Probe("a", "off", lambda case: PASS)


def audited(*findings: Finding) -> Audited:
    return Audited("s", (ESSENTIAL, OTHER), findings)


@pytest.mark.parametrize(
    ("findings", "outcome"),
    [
        ((PASS, PASS), "pass"),
        ((PASS, UNASKED), "pass"),
        ((PASS, OPEN), "pass"),
        ((UNASKED, PASS), "inconclusive"),
        ((OPEN, PASS), "inconclusive"),
        ((UNASKED, WRONG), "refuted"),
        ((WRONG, PASS), "refuted"),
    ],
)
def test_a_verdict_follows_from_what_matters(findings: tuple[Finding, ...], outcome: str) -> None:
    assert audited(*findings).outcome == outcome


def test_the_worst_subject_decides() -> None:
    good, open_, bad = audited(PASS, PASS), audited(UNASKED, PASS), audited(PASS, WRONG)
    assert [EXIT_CODES[outcome_of(some)] for some in ([good], [good, open_], [good, open_, bad])] == [0, 4, 1]
    said = verdict([good, open_, bad], "9 of 10 positions")
    assert said == (
        "verdict: refuted: s (2); inconclusive: s (not settled: a); every probe that applies passed: s (2 of 2). "
        "Audited: 9 of 10 positions"
    )


def test_what_is_no_probability_is_refuted_by_that() -> None:
    def charge(case: object) -> Finding:
        raise NotAProbability("1.2 at position 7")

    assert ask(Probe("a", "off", charge), None).verdict == "refuted"


def test_the_smallest_fault_that_a_sample_finds() -> None:
    rng = np.random.default_rng(0)
    reach = Reach(128, 4096)
    assert reach.found(reach.smallest) == pytest.approx(0.95)
    parts = rng.integers(0, 32, (400, 128)) + np.arange(0, 4096, 32)  # one from each of 128 equal parts
    for faulty in (rng.choice(4096, round(reach.smallest * 4096), replace=False), np.arange(96)):
        hit = np.isin(parts, faulty).any(axis=1).mean()
        assert hit >= reach.found(len(faulty) / 4096) - 0.04
    assert Reach(4096, 4096).smallest == 1 / 4096
    assert "128 of 4,096 positions; a fault at 2.3 % of them or more is found with 95%" in str(reach)


def test_precision_is_seen() -> None:
    values = np.random.default_rng(0).dirichlet(np.ones(100))
    assert precision_of(values) == "float64"
    assert precision_of(values.astype(np.float32)) == "float32"
    assert precision_of(values.astype(np.float16)) == "float16"
    assert precision_of((values.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)) == "bfloat16"


@pytest.mark.parametrize("size", [1024, 50_304])
def test_a_float32_softmax_passes_and_little_more(size: int) -> None:
    """By how much sums miss 1: 2e-6 and 2.6e-5 were seen."""
    raised = np.exp(np.random.default_rng(0).normal(0, 3, (8, size)).astype(np.float32))
    rows = raised / np.cumsum(raised, axis=1)[:, -1:]
    missed = np.abs(rows.astype(np.float64).sum(axis=1) - 1).max()
    assert missed < above_one(size, "float32") < 2e-4
    assert np.abs(rows.astype(np.float16).astype(np.float64).sum(axis=1) - 1).max() < above_one(size, "float16")


def test_digits_are_those_that_are_written() -> None:
    assert [of_digits(value) for value in (0.9949, 1.08, 12345.0)] == pytest.approx([5e-5, 5e-3, 0.5])


def test_jitter_is_no_difference() -> None:
    assert apart(1e-8, 2e-8) == 0
    assert apart(0.5, 0.5 * (1 + 1e-7)) == 0
    assert apart(0.5, 0.5 * (1 + 1e-5)) == pytest.approx(1e-5, rel=1e-3)
    assert apart(0.5, np.nan) == np.inf


def test_a_finding_passes_or_refutes() -> None:
    assert (finding(True, 0, "").verdict, finding(False, 0, "").verdict) == ("pass", "refuted")
