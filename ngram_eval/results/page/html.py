"""The page of `--report`: one file that loads nothing else; it follows the reader's light or dark theme.

In a notebook a result shows a part of it, light on any theme.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ngram_eval.evaluation.result import Result
from ngram_eval.files import write_text
from ngram_eval.results.page.charts import Chart, charts_of
from ngram_eval.results.page.rows import Rows, comparison, stages
from ngram_eval.results.page.style import INLINE, PAGE
from ngram_eval.results.page.svg import svg, svg_rows
from ngram_eval.results.page.words import about, command, facts, flat, headline, used
from ngram_eval.results.table import STAGES, TIMING, config_of, notes, table_rows

_TIPS = {f"{TIMING}{name}": tip for name, tip in STAGES.values()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Live:
    """How far a running evaluation is."""

    preset: str
    done: int
    """Positions counted or scored of this preset."""
    total: int
    seconds_left: float | None
    """For this preset; None before it is known."""
    every: float
    """Seconds until the page is written again."""
    waiting: Sequence[str] = ()
    """Presets that come after it."""


def write_page(path: Path, results: list[Result], live: Live | None = None) -> None:
    """Write the page atomically; while an evaluation is `live`, browsers load it again."""
    write_text(path, page(results, live))


def page(results: list[Result], live: Live | None = None) -> str:
    """The page as HTML text."""
    body = _body(results, live)
    return "\n".join(["<!doctype html>", '<html lang="en">', *_head(live), "<body>", *body, "</body></html>", ""])


def inline(results: list[Result]) -> str:
    """The notes, the table and the charts, for a page of somebody else's, whose own style they leave alone."""
    charts = (line for result in results for line in _charts(result))
    parts = ("<div class='ngram-eval'><style>", INLINE, "</style>", *_about(results), *_notes(results))
    return "\n".join([*parts, *_numbers(results), *charts, *_times(results), "</div>"])


def _head(live: Live | None) -> Iterator[str]:
    yield '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    if live is not None:
        yield f'<meta http-equiv="refresh" content="{max(round(live.every), 1)}">'
    yield f"<title>ngram_eval: result</title><style>{PAGE}</style></head>"


def _body(results: list[Result], live: Live | None) -> Iterator[str]:
    yield "<h1>Evaluation with an n-gram memory</h1>"
    yield from _about(results)
    if live is not None:
        yield from _progress(live)
    yield '<div class="grid" style="margin-top: 16px">'
    yield _figure(comparison(results))
    yield "<div>"
    for kind, sentence in headline(results):
        yield f'<p class="{kind}">{escape(sentence)}</p>'
    yield from _notes(results, live, told=True)
    yield "</div></div>"
    yield "<h2>Numbers</h2>"
    yield from _numbers(results)
    for result in results:
        yield from _section(result)
    yield "<h2>Time, settings and versions</h2>"
    yield from _times(results)
    for result in results:
        yield f"<details><summary>settings of {escape(result.preset)}</summary>"
        yield f"{_settings(used(config_of(result)))}</details>"
    yield from _run(results[0])


def _progress(live: Live) -> Iterator[str]:
    left = "" if live.seconds_left is None else f", about {duration(live.seconds_left)} left"
    share = f"{live.done:,} of {live.total:,} positions ({live.done / live.total:.1%}){left}"
    after = f"; then {', '.join(live.waiting)}" if live.waiting else ""
    yield f'<div class="note"><b>Running: {escape(live.preset)}</b>. {share}{escape(after)}.'
    yield f'<progress class="live" value="{live.done}" max="{live.total}"></progress>'
    yield f'<span class="small">Figures are of what has been scored. Written every {live.every:g} s.</span></div>'


def duration(seconds: float) -> str:
    """5400 -> 1 h 30 min."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def _about(results: list[Result]) -> Iterator[str]:
    first = results[0]
    names = ", ".join(Path(path).name for path in first.data) or "tokens given from Python"
    yield f'<p class="soft">{escape(names)} · {first.tokens:,} tokens · {escape(first.neural_source)}</p>'


def _notes(results: list[Result], live: Live | None = None, *, told: bool = False) -> Iterator[str]:
    """What the table needs; with `told`, without what the headline says, and if live what the progress says."""
    for note in notes(results):
        if (told and "pseudo-probability" in note) or (live is not None and "PARTIAL" in note):
            continue
        kind = "note warn" if "pseudo-probability" in note or "PARTIAL" in note else "note"
        yield f'<p class="{kind}">{escape(note)}</p>'


def _numbers(results: list[Result]) -> Iterator[str]:
    yield from _table(results, [row for row in table_rows(results) if not row[0].startswith(TIMING)])


def _table(results: list[Result], rows: list[tuple[str, list[str]]]) -> Iterator[str]:
    yield '<div class="scroll" tabindex="0"><table><thead><tr><th></th>'
    yield "".join(f"<th>{escape(result.preset)}</th>" for result in results) + "</tr></thead><tbody>"
    for label, values in rows:
        kind = ' class="main"' if label in ("bits per byte", "score (not normalised)") else ""
        if label.startswith(" "):
            kind = ' class="part"'
        tip, name = _TIPS.get(label), escape(label.strip().removeprefix(TIMING))
        if tip is not None:
            name = f'<span title="{escape(tip, quote=True)}">{name}</span>'
        yield f'<tr{kind}><th scope="row">{name}</th>'
        yield "".join(f"<td>{escape(value)}</td>" for value in values) + "</tr>"
    yield "</tbody></table></div>"


def _section(result: Result) -> Iterator[str]:
    kind, label = ("", "probability") if result.normalised else (" warn", "score, no probability")
    yield f'<section><h2>{escape(result.preset)}<span class="badge{kind}">{label}</span></h2>'
    yield f"<p>{escape(about(result))}</p>"
    yield '<dl class="facts">'
    for name, value in facts(result):
        shown = _code(value) if name == "command" else escape(value)
        yield f"<dt>{name}</dt><dd>{shown}</dd>"
    yield "</dl>"
    yield from _charts(result)
    yield "</section>"


def _code(command: str) -> str:
    """A command line that breaks between its words."""
    return f"<code>{' '.join(f'<span>{escape(word)}</span>' for word in command.split(' '))}</code>"


def _charts(result: Result) -> Iterator[str]:
    """Those of what was scored."""
    yield '<div class="grid">'
    yield from map(_figure, charts_of(result))
    yield "</div>"


def _figure(chart: Chart | Rows, title: str = "") -> str:
    over = chart.label if isinstance(chart, Rows) else chart.y_label
    head = f"<figcaption><h3>{escape(title or chart.title)}</h3>"
    head += f'<p class="soft small">{escape(over)}</p></figcaption>'
    if isinstance(chart, Rows):
        return f"<figure>{head}{svg_rows(chart)}</figure>"
    below = f'<p class="soft small">{escape(chart.x_label)}</p>'
    return f"<figure>{head}{_legend(chart)}{svg(chart)}{below}</figure>"


def _legend(chart: Chart) -> str:
    items = []
    for one in chart.series if chart.legend else ():
        mark = f'<line class="l{one.colour} {one.weight}" x1="0" y1="5" x2="22" y2="5"/>'
        if one.kind == "points":
            mark = f'<circle class="f{one.colour}" cx="11" cy="5" r="3.5"/>'
        items.append((mark, one.name))
    if chart.shaded is not None:
        items.append(('<rect class="shaded" width="22" height="10"/>', chart.shaded[2]))
    marks = "".join(
        f'<li><svg viewBox="0 0 22 10" aria-hidden="true">{mark}</svg>{escape(name)}</li>' for mark, name in items
    )
    return f'<ul class="legend">{marks}</ul>' if items else ""


def _times(results: list[Result]) -> Iterator[str]:
    """Table and charts of the seconds of each stage, folded up."""
    yield "<details><summary>seconds of each stage</summary>"
    yield from _table(results, [row for row in table_rows(results) if row[0].startswith(TIMING)])
    yield '<div class="grid">'
    for result in results:
        if (chart := stages(result)) is not None:
            yield _figure(chart, f"{chart.title}: {result.preset}")
    yield "</div></details>"


def _run(first: Result) -> Iterator[str]:
    """What all presets share."""
    about = {
        "command": command(first),
        "versions": first.versions,
        "backend": first.backend,
        "threads": first.threads,
        "ranks": first.world_size,
        "model": first.neural_settings,
    }
    read = {}
    for one in first.inputs:
        size = "" if one["bytes"] is None else f"{one['bytes']:,} bytes, "  # a folder has none
        read[f"{one['role']}: {one['path']}"] = f"{size}sha256 {one['sha256']}"
    yield f"<details open><summary>run</summary>{_settings({**dict(flat(about)), **read})}</details>"


def _settings(settings: dict[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value if isinstance(value, str) else json.dumps(value))}'
        "</td></tr>"
        for name, value in settings.items()
    )
    return f'<div class="scroll"><table class="config">{rows}</table></div>'
