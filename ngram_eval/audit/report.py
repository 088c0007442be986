"""The findings of an audit as a table, as JSON, and as one line."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ngram_eval.audit.probes import PROBES, Finding
from ngram_eval.evaluation.result import installed_versions
from ngram_eval.files import write_text

_STYLES = {"pass": "green", "refuted": "bold red", "not applicable": "dim"}


@dataclass(frozen=True, slots=True)
class Audited:
    """A subject and its findings, in the order of `PROBES`."""

    subject: str
    findings: tuple[Finding, ...]

    @property
    def refuted(self) -> list[int]:
        """Numbers of the probes that refute it."""
        return [number for number, one in enumerate(self.findings, 1) if one.verdict == "refuted"]

    @property
    def passed(self) -> int:
        """Number of probes that it passes."""
        return sum(one.verdict == "pass" for one in self.findings)


def verdict(audited: list[Audited]) -> str:
    """The verdict in one line, the last of the output."""
    refuted = [f"{one.subject} ({', '.join(map(str, one.refuted))})" for one in audited if one.refuted]
    sound = [f"{one.subject} ({one.passed} of {len(PROBES)})" for one in audited if not one.refuted]
    parts = [f"refuted: {', '.join(refuted)}"] if refuted else []
    return "verdict: " + "; ".join(parts + ([f"every probe that applies passed: {', '.join(sound)}"] if sound else []))


def print_table(audited: list[Audited], console: Console) -> None:
    """Print a row per probe and a column per subject, then the evidence and the reasons why probes did not apply."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1))
    table.add_column("✓ pass, ✗ refuted", no_wrap=True)
    for one in audited:
        table.add_column(one.subject, justify="right")
    for number, probe in enumerate(PROBES, 1):
        cells = [_cell(one.findings[number - 1]) for one in audited]
        table.add_row(Text.assemble(f"{number:>2} {probe.name} ", (f"({probe.unit})", "dim")), *cells)
    console.print(table)
    for one in audited:
        for number, found in enumerate(one.findings, 1):
            if found.verdict == "refuted" or (len(audited) == 1 and found.verdict == "pass"):
                said = (found.verdict, _STYLES[found.verdict])
                console.print(Text.assemble(f"{one.subject} {number}: ", said, f" {found.evidence}"), soft_wrap=True)
    skipped: dict[tuple[int, str], list[str]] = {}
    for one in audited:
        for number, found in enumerate(one.findings, 1):
            if found.verdict == "not applicable":
                skipped.setdefault((number, found.evidence), []).append(one.subject)
    for (number, reason), names in skipped.items():
        everyone = "" if len(names) == len(audited) else f"{', '.join(names)} "
        console.print(f"{everyone}{number}: not applicable, {reason}", soft_wrap=True, highlight=False, style="dim")


def _cell(found: Finding) -> Text:
    style = _STYLES[found.verdict]
    if found.value is None:
        return Text("-", style)
    return Text.assemble(("✓" if found.verdict == "pass" else "✗", style), f" {_number(found.value)}")


def _number(value: float) -> str:
    """The number in at most seven characters, so that five subjects fit side by side."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:.0f}" if abs(value) < 1e6 else f"{value:.0e}"
    return f"{value:.0e}" if abs(value) < 1e-3 else f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def write_json(path: Path, audited: list[Audited], settings: dict[str, Any]) -> None:
    """Write `{"verdict", "audits": [...], "settings", "versions", "command"}` atomically."""
    audits = []
    for one in audited:
        probes = [
            {"number": number, "name": probe.name, "unit": probe.unit, **asdict(found)}
            for number, (probe, found) in enumerate(zip(PROBES, one.findings, strict=True), 1)
        ]
        audits.append({"subject": one.subject, "refuted": bool(one.refuted), "probes": probes})
    found = {
        "verdict": "refuted" if any(one.refuted for one in audited) else "pass",
        "audits": audits,
        "settings": settings,
        "versions": installed_versions(),
        "command": sys.argv,
    }
    text = json.dumps(_finite(found), indent=2, allow_nan=False)
    write_text(path, text + "\n")


def _finite(value: Any) -> Any:
    """The value with None for NaN and infinity, which JSON can't hold."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
