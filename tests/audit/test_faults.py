"""Every kind of fault that the field has met is found, by the probes that docs/audit_cases.md names, at its cost."""

from pathlib import Path

import pytest

from ngram_eval.audit.probes import PROBES
from tests.audit.faults.__main__ import FAULTS, FOUND, HONEST, UNSEEN
from tests.audit.faults.case import Fault, audited, find
from tests.support.streams import Stream

PAGE = (Path(__file__).parents[2] / "docs" / "audit_cases.md").read_text()


def named(fault: Fault) -> str:
    return fault.name


@pytest.mark.parametrize("fault", FOUND, ids=named)
def test_a_fault_is_found(fault: Fault, stream: Stream, tmp_path: Path) -> None:
    asked = [0]
    case = fault.case(stream.tokens, tmp_path, asked)
    for number in fault.found_by:
        found = find(case, number)
        if number == fault.found_by[0]:
            assert fault.row(asked[0] / (len(case.tokens) - 1)) in PAGE, "python -m tests.audit.faults writes the rows"
        assert found.verdict == "refuted", found
        assert any(letter.isdigit() for letter in found.evidence), "evidence names positions and values"


@pytest.mark.parametrize("fault", UNSEEN, ids=named)
def test_what_is_not_found_has_a_reason(fault: Fault, stream: Stream, tmp_path: Path) -> None:
    """Once it is found, its reason is wrong."""
    found = audited(fault.case(stream.tokens, tmp_path))
    assert fault.row(0).removesuffix("|") + f"| {fault.unseen} |" in PAGE
    assert not found.numbers("refuted")
    assert found.outcome == ("inconclusive" if "inconclusive" in fault.unseen else "pass")


@pytest.mark.parametrize("scorer", HONEST, ids=named)
def test_an_honest_scorer_passes(scorer: Fault, stream: Stream, tmp_path: Path) -> None:
    found = audited(scorer.case(stream.tokens, tmp_path))
    assert not found.numbers("refuted"), found.findings
    assert scorer.row(0) in PAGE
    assert found.outcome == ("inconclusive" if scorer.kind == "claim" else "pass"), found.unsettled


def test_every_probe_finds_something() -> None:
    found = {PROBES[number - 1].name for fault in FAULTS for number in fault.found_by}
    assert {probe.name for probe in PROBES} - found == {"text not in the memory"}, "which warns, and refutes nothing"


def test_there_are_enough_of_them() -> None:
    assert len(FOUND) >= 35
    assert len(HONEST) >= 10
    assert len({fault.name for fault in [*FAULTS, *HONEST]}) == len(FAULTS) + len(HONEST)
