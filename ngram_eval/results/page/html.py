"""The page of `--report`: one file that loads nothing else; it follows the reader's light or dark theme.

In a notebook a result shows a part of it, light on any theme.
"""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ngram_eval.evaluation.result import Result
from ngram_eval.files import write_text
from ngram_eval.results.page.charts import TIMES, charts_of
from ngram_eval.results.page.svg import svg
from ngram_eval.results.table import TIMING, notes, table_rows

_LIGHT = """--page: #fcfcfd; --ink: #1b1f24; --soft: #59636e; --rule: #d9dee4; --card: #ffffff; --c0: #1d6fd1;
  --c1: #b35900; --c2: #0d8050; --c3: #b3246b; --c4: #6b46c1; --warn: #fff4d6;"""
_DARK = """--page: #14171b; --ink: #e8ebef; --soft: #a3adb8; --rule: #343b44; --card: #1b1f25; --c0: #6cb0ff;
  --c1: #ffa94d; --c2: #52d6a0; --c3: #ff8ac2; --c4: #b79cff; --warn: #3d3212;"""
_FONT = """font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;"""
_PAGE = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 24px 20px 60px; max-width: 1360px; background: var(--page); color: var(--ink);
  {_FONT} }}
h1 {{ font-size: 24px; margin: 0 0 4px; }} h2 {{ font-size: 19px; margin: 36px 0 8px; }}
"""
_PARTS = """
h3 { font-size: 15px; margin: 0 0 6px; } p { margin: 6px 0; } .soft { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 14px; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } tr.main td { font-weight: 650; }
.config td { text-align: left; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
.config td:first-child { white-space: nowrap; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 16px; }
figure { margin: 0; padding: 14px; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; }
.note { padding: 6px 12px; background: var(--card); border-left: 3px solid var(--rule); margin: 6px 0; }
.note.warn { background: var(--warn); border-color: var(--c1); }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 12px; } svg text.axis { fill: var(--ink); font-size: 13px; }
line.grid { stroke: var(--rule); stroke-width: 1; } line.zero { stroke: var(--soft); stroke-width: 1; }
polyline { fill: none; } .strong { stroke-width: 3 !important; }
""" + "\n".join(f".l{i} {{ stroke: var(--c{i}); stroke-width: 1.6; }} .f{i} {{ fill: var(--c{i}); }}" for i in range(5))
_INLINE = f"""
.ngram-eval {{ padding: 12px; background: var(--page); color: var(--ink); {_FONT} {_LIGHT} }}
.ngram-eval tr {{ background: none !important; }}
"""


def write_page(path: Path, results: list[Result]) -> None:
    """Write the page atomically."""
    write_text(path, page(results))


def page(results: list[Result]) -> str:
    """The page as HTML text."""
    return "\n".join(["<!doctype html>", '<html lang="en">', *_head(), "<body>", *_body(results), "</body></html>", ""])


def inline(results: list[Result]) -> str:
    """The notes, the table and the charts, for a page of somebody else's, whose own style they leave alone."""
    # Every selector is confined; one rule may have several.
    confined = re.sub(r"[^{},]+(?=[^{}]*\{)", lambda selector: f".ngram-eval {selector[0].strip()}", _PARTS)
    charts = (line for result in results for line in _charts(result))
    parts = ("<div class='ngram-eval'><style>", _INLINE, confined, "</style>", *_summary(results), *charts)
    return "\n".join([*parts, *_times(results), "</div>"])


def _head() -> Iterator[str]:
    yield '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>ngram_eval: result</title><style>{_PAGE}{_PARTS}</style></head>"


def _body(results: list[Result]) -> Iterator[str]:
    first = results[0]
    yield "<h1>ngram_eval: result</h1>"
    yield from _summary(results)
    for result in results:
        kind = "a probability" if result.normalised else "a pseudo-probability: its score is not a code length"
        yield f'<h2>{escape(result.preset)} <span class="soft">({kind})</span></h2>'
        yield from _charts(result)
    yield "<h2>Time, configuration and versions</h2>"
    yield from _times(results)
    for result in results:
        yield f"<details><summary>{escape(result.preset)}</summary>{_settings(result.config)}</details>"
    flags = first.arguments
    about: dict[str, Any] = {
        "command": "ngram_eval.evaluate(...)" if flags is None else shlex.join(["ngram-eval", "run", *flags]),
        "versions": first.versions,
        "backend": first.backend,
        "threads": first.threads,
        "ranks": first.world_size,
        "neural": first.neural_settings,
    }
    read = []
    for one in first.inputs:
        size = "" if one["bytes"] is None else f"{one['bytes']:,} bytes, "  # a folder has none
        read.append((one["role"], f"{one['path']}: {size}sha256 {one['sha256']}"))
    yield f"<details open><summary>run</summary>{_settings(about, read)}</details>"


def _summary(results: list[Result]) -> Iterator[str]:
    """What was scored, the notes, and the table."""
    first = results[0]
    names = ", ".join(Path(path).name for path in first.data) or "tokens given from Python"
    yield f'<p class="soft">{escape(names)} · {first.tokens:,} tokens · {escape(first.neural_source)}</p>'
    for note in notes(results):
        kind = "note warn" if "pseudo-probability" in note or "PARTIAL" in note else "note"
        yield f'<p class="{kind}">{escape(note)}</p>'
    yield from _table(results, [row for row in table_rows(results) if not row[0].startswith(TIMING)])


def _table(results: list[Result], rows: list[tuple[str, list[str]]]) -> Iterator[str]:
    yield '<div class="scroll"><table><thead><tr><th></th>'
    yield "".join(f"<th>{escape(result.preset)}</th>" for result in results) + "</tr></thead><tbody>"
    for label, values in rows:
        kind = ' class="main"' if label in ("bits per byte", "score (not normalised)") else ""
        spaces = len(label) - len(label.lstrip())
        yield f"<tr{kind}><td>{'&nbsp;' * spaces}{escape(label.strip())}</td>"
        yield "".join(f"<td>{escape(value)}</td>" for value in values) + "</tr>"
    yield "</tbody></table></div>"


def _charts(result: Result) -> Iterator[str]:
    """Those of what was scored."""
    yield '<div class="grid">'
    for chart in charts_of(result):
        if chart.name != TIMES:
            yield f"<figure><h3>{escape(chart.title)}</h3>{svg(chart)}</figure>"
    yield "</div>"


def _times(results: list[Result]) -> Iterator[str]:
    """Table and charts of the seconds of each stage, folded up."""
    yield "<details><summary>seconds of each stage</summary>"
    yield from _table(results, [row for row in table_rows(results) if row[0].startswith(TIMING)])
    yield '<div class="grid">'
    for result in results:
        for chart in charts_of(result):
            if chart.name == TIMES:
                yield f"<figure><h3>{escape(f'{chart.title}: {result.preset}')}</h3>{svg(chart)}</figure>"
    yield "</div></details>"


def _settings(settings: dict[str, Any], more: Sequence[tuple[str, str]] = ()) -> str:
    pairs = [*_flat(settings), *more]
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in pairs)
    return f'<div class="scroll"><table class="config">{rows}</table></div>'


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, str) else json.dumps(value)
