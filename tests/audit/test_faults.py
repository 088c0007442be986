"""Every kind of fault that the field has met is found, by the probes that docs/audit_cases.md names, at its cost."""

from pathlib import Path

import pytest

from ngram_eval.audit.probes import PROBES
from tests.audit.faults import accounts, functions, honest, models, scorers
from tests.audit.faults.case import Fault, audited, find
from tests.support.streams import Stream

FAULTS = [*functions.FAULTS, *scorers.FAULTS, *models.FAULTS, *accounts.FAULTS]
FOUND = [fault for fault in FAULTS if fault.found_by]
UNSEEN = [fault for fault in FAULTS if not fault.found_by]


def named(fault: Fault) -> str:
    return fault.name


@pytest.mark.parametrize("fault", FOUND, ids=named)
def test_a_fault_is_found(fault: Fault, stream: Stream, tmp_path: Path) -> None:
    case = fault.case(stream.tokens, tmp_path)
    for number in fault.found_by:
        found = find(case, number)
        assert found.verdict == "refuted", found
        assert any(letter.isdigit() for letter in found.evidence), "evidence names positions and values"


@pytest.mark.parametrize("fault", UNSEEN, ids=named)
def test_what_is_not_found_has_a_reason(fault: Fault, stream: Stream, tmp_path: Path) -> None:
    """Once it is found, its reason is wrong."""
    found = audited(fault.case(stream.tokens, tmp_path))
    assert fault.unseen
    assert not found.numbers("refuted")
    assert found.outcome == ("inconclusive" if "inconclusive" in fault.unseen else "pass")


@pytest.mark.parametrize("scorer", honest.HONEST, ids=named)
def test_an_honest_scorer_passes(scorer: Fault, stream: Stream, tmp_path: Path) -> None:
    found = audited(scorer.case(stream.tokens, tmp_path))
    assert not found.numbers("refuted"), found.findings
    assert found.outcome == ("inconclusive" if scorer.kind == "claim" else "pass"), found.unsettled


def test_every_probe_finds_something() -> None:
    assert {number for fault in FAULTS for number in fault.found_by} == set(range(1, len(PROBES) + 1))


def test_there_are_enough_of_them() -> None:
    assert len(FOUND) >= 35
    assert len(honest.HONEST) >= 10
    assert len({fault.name for fault in [*FAULTS, *honest.HONEST]}) == len(FAULTS) + len(honest.HONEST)
