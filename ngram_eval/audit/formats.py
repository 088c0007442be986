"""The findings of an audit for other programs: JSON, SARIF, annotations of GitHub, a table in Markdown."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ngram_eval import __version__
from ngram_eval.audit.finding import Audited, Finding, Probe, Verdict, outcome_of
from ngram_eval.audit.report import SIGNS, evidence, number_of
from ngram_eval.evaluation.result import installed_versions
from ngram_eval.files import write_text

FORMAT = "ngram_eval audit 2"
"""The first field of the JSON; docs/audit.schema.json describes it."""

_LEVELS: dict[Verdict, str] = {"refuted": "error", "inconclusive": "warning"}
"""Levels of SARIF and of annotations."""


def write_json(path: Path, audited: Sequence[Audited], settings: dict[str, Any]) -> None:
    """Write everything that was found, atomically; docs/audit.schema.json is the schema."""
    found = {
        "format": FORMAT,
        "verdict": outcome_of(audited),
        "audits": [_audit(one) for one in audited],
        "settings": settings,
        "versions": installed_versions(),
        "command": sys.argv,
    }
    _write(path, found)


def write_sarif(path: Path, audited: Sequence[Audited], source: str | None) -> None:
    """Write what was refuted or not settled as SARIF 2.1.0; `source` is the audited file, where there is one."""
    rules = {_rule(probe): probe for one in audited for probe in one.probes}
    results = [
        {
            "ruleId": _rule(probe),
            "level": _LEVELS[found.verdict],
            "message": {"text": f"{one.subject}: {evidence(found)}"},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": source}}}] if source else [],
        }
        for one, probe, found in _told(audited)
    ]
    driver = {
        "name": "ngram_eval audit",
        "version": __version__,
        "rules": [
            {
                "id": name,
                "name": probe.name,
                "shortDescription": {"text": probe.asks},
                "fullDescription": {"text": f"{probe.asks} Misses: {probe.misses}."},
            }
            for name, probe in rules.items()
        ],
    }
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    _write(path, log)


def annotations(audited: Sequence[Audited], verdict: str, source: str | None) -> Iterator[str]:
    """Lines that GitHub shows beside a pull request: errors for what is refuted, warnings for what is not settled."""
    where = f"file={_escaped(source, of_property=True)}," if source else ""
    for one, probe, found in _told(audited):
        title = _escaped(f"{one.subject}: {probe.name}", of_property=True)
        yield f"::{_LEVELS[found.verdict]} {where}title={title}::{_escaped(evidence(found))}"
    yield f"::notice title=audit::{_escaped(verdict)}"


def summary(audited: Sequence[Audited], verdict: str) -> str:
    """The findings in Markdown: a table to paste, the verdict above it, the evidence below it."""
    names = [one.subject for one in audited]
    lines = [
        f"**{_cell(verdict)}**",
        "",
        f"| probe | {' | '.join(map(_cell, names))} |",
        "|---" * (len(names) + 1) + "|",
    ]
    for index, probe in enumerate(audited[0].probes if audited else ()):
        cells = [_short(one.findings[index]) for one in audited]
        lines.append(f"| {index + 1} {probe.name} ({_cell(probe.unit)}) | {' | '.join(cells)} |")
    lines += ["", "| probe | what must hold | asked | can be missed |", "|---|---|---|---|"]
    for index, probe in enumerate(audited[0].probes if audited else ()):
        found = min((one.findings[index] for one in audited), key=_certainty)
        if found.verdict != "not applicable":
            places = found.reach.places if found.reach else "the whole"
            lines.append(
                f"| {index + 1} {probe.name} | {_cell(probe.asks)} | {places} | {_cell(probe.missed(found))} |"
            )
    told = [
        f"- {SIGNS[found.verdict]} {one.subject}, {probe.name}: {evidence(found)}"
        for one, probe, found in _told(audited)
    ]
    return "\n".join([*lines, *(["", *map(_plain, told)] if told else [])]) + "\n"


def _told(audited: Sequence[Audited]) -> Iterator[tuple[Audited, Probe[Any], Finding]]:
    """What is not in order."""
    for one in audited:
        for probe, found in zip(one.probes, one.findings, strict=True):
            if found.verdict in _LEVELS:
                yield one, probe, found


def _certainty(found: Finding) -> tuple[bool, float]:
    """Least for the finding that can have missed most."""
    return found.verdict == "not applicable", -1.0 if found.reach is None else -found.reach.smallest


def _short(found: Finding) -> str:
    return SIGNS[found.verdict] + ("" if found.value is None else f" {number_of(found.value)}")


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    return text.replace("\n", " ")


def _rule(probe: Probe[Any]) -> str:
    return re.sub(r"[^a-z0-9]+", "-", probe.name.lower()).strip("-")


def _escaped(text: str, *, of_property: bool = False) -> str:
    """As GitHub's commands want it."""
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if of_property else text


def _audit(one: Audited) -> dict[str, Any]:
    probes = [
        {
            "number": number,
            "name": probe.name,
            "unit": probe.unit,
            "proves": probe.proves,
            "asks": probe.asks,
            "misses": probe.missed(found),
            **asdict(found),
            "reach": None if found.reach is None else {**asdict(found.reach), "smallest": found.reach.smallest},
        }
        for number, (probe, found) in enumerate(zip(one.probes, one.findings, strict=True), 1)
    ]
    return {"subject": one.subject, "verdict": one.outcome, "unsettled": one.unsettled, "probes": probes}


def _write(path: Path, found: dict[str, Any]) -> None:
    write_text(path, json.dumps(_finite(found), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """The value with None for NaN and infinity, which JSON can't hold."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
