"""The style of the page, and its colours, which the PNG files share."""

import re

LIGHT = {
    "page": "#f7f8fa",
    "card": "#ffffff",
    "ink": "#1b1f24",
    "soft": "#57606a",
    "rule": "#d9dee4",
    "warn": "#fff4d6",
    "shade": "#b4bcc5",
    "c0": "#1d6fd1",
    "c1": "#b35900",
    "c2": "#0d8050",
    "c3": "#b3246b",
    "c4": "#6b46c1",
}
DARK = {
    "page": "#14171b",
    "card": "#1b1f25",
    "ink": "#e8ebef",
    "soft": "#a3adb8",
    "rule": "#343b44",
    "warn": "#3d3212",
    "shade": "#454f5a",
    "c0": "#6cb0ff",
    "c1": "#ffa94d",
    "c2": "#52d6a0",
    "c3": "#ff8ac2",
    "c4": "#b79cff",
}
COLOURS = [name for name in LIGHT if re.fullmatch(r"c\d", name)]
"""The palette, by index."""
FONTS = ["Segoe UI", "Roboto", "DejaVu Sans"]
"""Fonts of the page beside the system's own; a drawing takes the first that is installed."""


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


_FONT = f"font: 15px/1.5 system-ui, -apple-system, {', '.join(map(repr, FONTS))}, sans-serif;"
_PAGE = f"""
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
body {{ margin: 0 auto; padding: 24px 20px 60px; max-width: 1320px; background: var(--page); color: var(--ink);
  {_FONT} }}
@media (max-width: 600px) {{ body {{ padding: 16px 12px 40px; }} }}
"""
_PARTS = """
* { box-sizing: border-box; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 20px; line-height: 1.25; margin: 44px 0 6px; }
h3 { font-size: 15px; line-height: 1.35; margin: 0; }
p { margin: 6px 0; } .soft { color: var(--soft); } .small { font-size: 13px; }
.lead { font-size: 18px; line-height: 1.45; margin: 0 0 12px; }
.badge { display: inline-block; margin-left: 8px; padding: 2px 9px; border: 1px solid var(--rule); border-radius: 99px;
  font-size: 12px; font-weight: 500; vertical-align: 3px; color: var(--soft); background: var(--card); }
.badge.warn { color: var(--ink); background: var(--warn); border-color: var(--c1); }
.scroll { overflow-x: auto; width: fit-content; max-width: 100%; margin: 12px 0; background:
  linear-gradient(to left, var(--page) 30%, transparent) right / 40px 100%,
  linear-gradient(to left, var(--shade), transparent) right / 16px 100%;
  background-attachment: local, scroll; background-repeat: no-repeat; }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { position: sticky; left: 0; padding-left: 0; background: var(--page); text-align: left;
  font-weight: 400; border-right: 1px solid var(--rule); }
tr.main td, tr.main th:first-child { font-weight: 650; }
span[title] { text-decoration: underline dotted var(--soft);
  text-underline-offset: 3px; }
.config th, .config td { text-align: left; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
.config th:first-child { min-width: 132px; color: var(--soft); padding-right: 12px; border-right: 0; }
.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 2px 14px; margin: 8px 0 16px;
  font-size: 14px; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; }
tr.part th:first-child { padding-left: 16px; } code span { display: inline-block; max-width: 100%; }
code { font: 13px/1.45 ui-monospace, "SF Mono", Consolas, "DejaVu Sans Mono", monospace; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 560px), 1fr)); gap: 16px;
  align-items: start; }
figure { margin: 0; padding: 16px; background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  container-type: inline-size; min-width: 0; }
@media (max-width: 600px) { figure { padding: 12px; } th:first-child { white-space: normal; min-width: 150px; } }
figcaption p { margin: 2px 0 6px; } figure > p { margin: 4px 0 0; text-align: center; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 0 0 6px; padding: 0; list-style: none;
  font-size: 13px; color: var(--soft); }
.legend svg { display: inline-block; width: 22px; height: 10px; margin-right: 6px; }
.note { padding: 8px 12px; background: var(--card); border-left: 3px solid var(--rule); margin: 6px 0;
  font-size: 14px; }
.note.warn { background: var(--warn); border-color: var(--c1); }
.live { display: block; width: 100%; height: 10px; margin: 8px 0; accent-color: var(--c0); }
details { margin: 12px 0; } summary { cursor: pointer; padding: 4px 0; }
svg { width: 100%; height: auto; display: block; max-width: 700px; margin: 0 auto; } svg.narrow { display: none; }
@container (max-width: 519px) { svg.wide { display: none; } svg.narrow { display: block; max-width: 440px; } }
svg text { fill: var(--soft); font-size: 12px; } svg text.name { fill: var(--ink); }
svg text.value { fill: var(--ink); font-weight: 600; } svg .more { fill: var(--soft); font-weight: 400; }
line.grid { stroke: var(--rule); stroke-width: 1; } line.zero { stroke: var(--soft); stroke-width: 1; }
line.span { stroke: var(--ink); stroke-width: 1.5; } polyline { fill: none; stroke-linejoin: round; }
.faint { stroke-width: 1.2; opacity: 0.6; } .plain { stroke-width: 1.4; } .strong { stroke-width: 2.6; }
rect.shaded { fill: var(--warn); }
rect[class^="o"] { fill: none; stroke-width: 1.2; }
""" + "\n".join(
    f".l{i} {{ stroke: var(--{name}); }} .f{i} {{ fill: var(--{name}); }} .o{i} {{ stroke: var(--{name}); }}"
    for i, name in enumerate(COLOURS)
)
_INLINE = f"""
.ngram-eval {{ padding: 12px; background: var(--page); color: var(--ink); {_FONT} {_variables(LIGHT)} }}
.ngram-eval tr {{ background: none !important; }}
"""
PAGE = _PAGE + _PARTS
"""Style sheet of a page of our own, light or dark as its reader has it."""
# Every selector is confined; one rule may have several, and a condition holds rules.
INLINE = _INLINE + re.sub(
    r"[^{},]+(?=[^{}]*\{)",
    lambda found: found[0] if found[0].lstrip().startswith("@") else f".ngram-eval {found[0].strip()}",
    _PARTS,
)
"""Style sheet of a part of somebody else's page, light, whose own style it leaves alone."""
