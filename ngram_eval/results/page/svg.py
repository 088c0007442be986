"""Charts as SVG elements, each drawn twice: for a wide and for a narrow figure, so that text keeps its size.

Colours come from the page's style sheet, so one drawing serves light and dark themes. Titles, names of axes and
legends are HTML (`html.py`), which breaks lines.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from ngram_eval.results.page.charts import Chart, Series, amount, labelled, number, ticks
from ngram_eval.results.page.rows import Row, Rows

CHARACTER = 7.0
"""Width of a character of labels, at most."""
_LOST = 0.01
"""A negative bar shorter than this share of the axis does not lengthen it."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """The size of a drawing, in units that are about a pixel."""

    kind: str
    """Class of the element, by which the style sheet shows one of them."""
    width: float
    height: float
    ticks: int


SHEETS = (Sheet("wide", 560.0, 280.0, 5), Sheet("narrow", 336.0, 240.0, 4))
_TOP, _RIGHT, _BOTTOM = 12.0, 20.0, 28.0


def svg(chart: Chart) -> str:
    """Both drawings of a chart."""
    return "\n".join(line for sheet in SHEETS for line in _upright(chart, sheet))


def svg_rows(rows: Rows) -> str:
    """Both drawings of horizontal bars."""
    return "\n".join(line for sheet in SHEETS for line in _horizontal(rows, sheet))


class _Axis:
    """Maps values to coordinates from `low` to `high`; with `tight`, the axis ends at the extreme values."""

    def __init__(self, values: list[float], count: int, from_zero: bool, tight: bool = False) -> None:
        floor, ceiling = min(values), max(values)
        if from_zero:
            floor, ceiling = min(floor, 0.0), max(ceiling, 0.0)
            if -floor < _LOST * ceiling:
                floor = 0.0
        around = ticks(floor, ceiling, count)
        self.step = around[1] - around[0]
        if not tight or floor == ceiling:
            floor, ceiling = around[0], around[-1]
        self.ticks = [tick for tick in around if floor <= tick <= ceiling]
        self._floor, self._ceiling, self._low, self._high = floor, ceiling, 0.0, 1.0

    def between(self, low: float, high: float) -> "_Axis":
        """The axis, drawn from coordinate `low` to `high`."""
        self._low, self._high = low, high
        return self

    def __call__(self, value: float) -> float:
        share = (max(value, self._floor) - self._floor) / (self._ceiling - self._floor)
        return self._low + share * (self._high - self._low)

    def label(self, value: float) -> str:
        return number(value, self.step)


def _open(sheet: Sheet, height: float, label: str) -> str:
    return (
        f'<svg class="{sheet.kind}" viewBox="0 0 {sheet.width:g} {height:g}" role="img" '
        f'aria-label="{escape(label, quote=True)}">'
    )


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _box(kind: str, x: float, y: float, width: float, height: float, title: str = "") -> str:
    box = f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f"{box}><title>{escape(title)}</title></rect>" if title else f"{box}/>"


def _dot(x: float, y: float, colour: int, title: str) -> str:
    return f'<circle class="f{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{escape(title)}</title></circle>'


def _upright(chart: Chart, sheet: Sheet) -> Iterator[str]:
    bottom, right = sheet.height - _BOTTOM, sheet.width - _RIGHT
    y = _Axis([v for one in chart.series for v in one.y], sheet.ticks, chart.from_zero).between(bottom, _TOP)
    left = 12 + CHARACTER * max(len(y.label(tick)) for tick in y.ticks)
    yield _open(sheet, sheet.height, f"{chart.title}: {chart.y_label} against {chart.x_label}")
    if chart.categories is None:
        x = _Axis([v for one in chart.series for v in one.x], sheet.ticks, True, tight=True).between(left, right)
        if chart.shaded is not None:
            begin, end, what = chart.shaded
            yield _box("shaded", x(begin), _TOP, max(x(end) - x(begin), 2.0), bottom - _TOP, what)
    for tick in y.ticks:
        yield _line(left, y(tick), right, y(tick), "zero" if tick == 0 else "grid")
        yield _text(left - 8, y(tick) + 4, y.label(tick), "end")
    if chart.categories is None:
        for tick in x.ticks:
            yield _line(x(tick), bottom, x(tick), bottom + 5, "zero")
            yield _text(x(tick), bottom + 20, x.label(tick))
        for series in sorted(chart.series, key=lambda one: ("faint", "plain", "strong").index(one.weight)):
            yield from _drawn(series, x, y)
    else:
        yield from _columns(chart, chart.categories, y, left, right, bottom)
    yield "</svg>"


def _drawn(series: Series, x: _Axis, y: _Axis) -> Iterator[str]:
    points = [(x(a), y(b)) for a, b in zip(series.x, series.y, strict=True)]
    if series.kind == "points" or len(points) == 1:
        for (left, top), a, b in zip(points, series.x, series.y, strict=True):
            yield _dot(left, top, series.colour, f"{a:.3f}: {b:.4f}")
        return
    path = " ".join(f"{left:.1f},{top:.1f}" for left, top in points)
    title = f"<title>{escape(series.name)}</title>"
    yield f'<polyline class="l{series.colour} {series.weight}" points="{path}">{title}</polyline>'


def _columns(chart: Chart, categories: list[str], y: _Axis, left: float, right: float, bottom: float) -> Iterator[str]:
    (series,), room = chart.series, (right - left) / len(categories)
    named = labelled(categories, room / CHARACTER)
    texts = list(map(amount, series.y))
    valued = room >= CHARACTER * max(map(len, texts)) + 2
    for place, (name, value, text) in enumerate(zip(categories, series.y, texts, strict=True)):
        at = left + room * place
        top, base = sorted((y(value), y(0.0)))
        yield _box(f"f{series.colour}", at + room * 0.1, top, room * 0.8, max(base - top, 0.5), f"{name}: {value:,.4g}")
        beside = max(top - 4, 11.0) if value > 0 else base + 13
        if valued and base - top >= 1 and beside < bottom:
            yield _text(at + room / 2, beside, text, kind="value")
        if place in named:
            middle = at if chart.edges else at + room / 2
            yield _line(middle, bottom, middle, bottom + 4, "zero")
            yield _text(middle, bottom + 20, name)


def _horizontal(rows: Rows, sheet: Sheet) -> Iterator[str]:
    """On a narrow sheet names and values stand above their bars."""
    narrow = sheet.kind == "narrow"
    each, thick = (42.0, 14.0) if narrow else (30.0, 18.0)
    texts = CHARACTER * max(len(row.text) + len(row.more) + 2 for row in rows.all)
    left = 2.0 if narrow else 10 + CHARACTER * max(len(row.name) for row in rows.all)
    scale = (sheet.width - left - (4.0 if narrow else texts)) / rows.most
    heads = sum(30.0 for head, _ in rows.groups if head)
    height = each * len(rows.all) + heads + 6
    yield _open(sheet, height, f"{rows.title}: {rows.label}")
    top = 2.0
    for head, group in rows.groups:
        if head:
            yield _text(2.0, top + 22, head, "start")
            top += 30.0
        for row in group:
            bar = top + (22.0 if narrow else (each - thick) / 2)
            yield from _row(row, left, bar, thick, scale)
            if narrow:
                yield _named(row, left, top + 15, "start")
                yield _valued(row, sheet.width - 4, top + 15, "end")
            else:
                yield _named(row, left - 8, bar + 13, "end")
                end = max(row.value, *(row.span or (0.0,)))
                yield _valued(row, left + end * scale + 8, bar + 13, "start")
            top += each
    yield "</svg>"


def _named(row: Row, x: float, y: float, anchor: str) -> str:
    tip = f"<title>{escape(row.tip)}</title>" if row.tip else ""
    return f'<text class="name" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(row.name)}{tip}</text>'


def _valued(row: Row, x: float, y: float, anchor: str) -> str:
    more = f'<tspan class="more" dx="6">{escape(row.more)}</tspan>' if row.more else ""
    return f'<text class="value" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(row.text)}{more}</text>'


def _row(row: Row, left: float, top: float, thick: float, scale: float) -> Iterator[str]:
    width = max(row.value * scale, 0.5)
    yield _box(f"o{row.colour}" if row.hatched else f"f{row.colour}", left, top, width, thick, row.tip)
    if row.hatched:
        yield f'<path class="l{row.colour} faint" d="{_hatching(left, top, width, thick)}"/>'
    if row.span is not None:
        low, high = (left + end * scale for end in row.span)
        middle = top + thick / 2
        yield _line(low, middle, high, middle, "span")
        for end in (low, high):
            yield _line(end, middle - 5, end, middle + 5, "span")


def _hatching(left: float, top: float, width: float, height: float) -> str:
    """Rising strokes in a box, as a path."""
    strokes = []
    for start in range(-int(height), int(width), 7):
        begin, end = max(start, 0.0), min(start + height, width)
        low, high = top + height - (begin - start), top + height - (end - start)
        strokes.append(f"M{left + begin:.1f} {low:.1f}L{left + end:.1f} {high:.1f}")
    return "".join(strokes)
