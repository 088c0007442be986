"""The findings of an audit as a table and as one line, the verdict."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ngram_eval.audit.finding import SURE, Audited, Finding, Verdict, percent

_STYLES: dict[Verdict, str] = {
    "pass": "green",
    "refuted": "bold red",
    "inconclusive": "yellow",
    "not applicable": "dim",
}
SIGNS: dict[Verdict, str] = {"pass": "✓", "refuted": "✗", "inconclusive": "?", "not applicable": "-"}


def verdict(audited: Sequence[Audited], coverage: str = "") -> str:
    """The verdict in one line, the last of the output; `coverage` says how much of the data was audited."""
    parts = {
        "refuted": [f"{one.subject} ({', '.join(map(str, one.numbers('refuted')))})" for one in audited],
        "inconclusive": [f"{one.subject} (not settled: {', '.join(one.unsettled)})" for one in audited],
        "pass": [f"{one.subject} ({len(one.numbers('pass'))} of {len(one.probes)})" for one in audited],
    }
    words = {"refuted": "refuted", "inconclusive": "inconclusive", "pass": "every probe that applies passed"}
    said = []
    for outcome, texts in parts.items():
        chosen = [text for text, one in zip(texts, audited, strict=True) if one.outcome == outcome]
        said += [f"{words[outcome]}: {', '.join(chosen)}"] if chosen else []
    smallest = max((one.smallest for one in audited if one.smallest is not None), default=None)
    if smallest is not None and any(one.outcome != "refuted" for one in audited):
        coverage += f"; a fault at {percent(smallest)} of them or more is found with {SURE:.0%}"
    return "verdict: " + "; ".join(said) + (f". Audited: {coverage.removeprefix('; ')}" if coverage else "")


def print_table(audited: Sequence[Audited], console: Console) -> None:
    """Print a row per probe and a column per subject, then the evidence and the reasons why probes did not apply."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1))
    table.add_column("✓ pass, ✗ refuted, ? inconclusive", no_wrap=True)
    for one in audited:
        table.add_column(one.subject, justify="right")
    for number, probe in enumerate(audited[0].probes if audited else (), 1):
        cells = [_cell(one.findings[number - 1]) for one in audited]
        table.add_row(Text.assemble(f"{number:>2} {probe.name} ", (f"({probe.unit})", "dim")), *cells)
    console.print(table)
    for one in audited:
        for number, found in enumerate(one.findings, 1):
            alone = len(audited) == 1 and found.verdict == "pass"
            if found.verdict in ("refuted", "inconclusive") or alone:
                said = (found.verdict, _STYLES[found.verdict])
                console.print(Text.assemble(f"{one.subject} {number}: ", said, f" {evidence(found)}"), soft_wrap=True)
    skipped: dict[tuple[int, str], list[str]] = {}
    for one in audited:
        for number, found in enumerate(one.findings, 1):
            if found.verdict == "not applicable":
                skipped.setdefault((number, found.evidence), []).append(one.subject)
    for (number, reason), names in skipped.items():
        everyone = "" if len(names) == len(audited) else f"{', '.join(names)} "
        console.print(f"{everyone}{number}: not applicable, {reason}", soft_wrap=True, highlight=False, style="dim")


def evidence(found: Finding) -> str:
    """The evidence, and how far the probe looked."""
    return found.evidence if found.reach is None else f"{found.evidence} ({found.reach})"


def _cell(found: Finding) -> Text:
    style = _STYLES[found.verdict]
    if found.value is None:
        return Text(SIGNS[found.verdict], style)
    return Text.assemble((SIGNS[found.verdict], style), f" {number_of(found.value)}")


def number_of(value: float) -> str:
    """The number in at most seven characters, so that five subjects fit side by side."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:.0f}" if abs(value) < 1e6 else f"{value:.0e}"
    return f"{value:.0e}" if abs(value) < 1e-3 else f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
