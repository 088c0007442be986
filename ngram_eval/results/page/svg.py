"""A chart as an SVG element. Colours come from the page's style sheet, so one drawing serves light and dark themes."""

from collections.abc import Iterator
from html import escape

from ngram_eval.results.page.charts import Chart, Series, number, ticks

WIDTH, HEIGHT = 640.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 72.0, 24.0, 30.0, 50.0
_CHARACTER = 6.6
"""Width of a character of the legend."""


def svg(chart: Chart) -> str:
    """The SVG element as text."""
    return "\n".join(_horizontal(chart) if chart.horizontal else _upright(chart))


class _Axis:
    """Maps values to coordinates from `low` to `high`; with `tight`, the axis ends at the extreme values."""

    def __init__(self, values: list[float], low: float, high: float, from_zero: bool, tight: bool = False) -> None:
        floor, ceiling = min(values), max(values)
        if from_zero:
            floor, ceiling = min(floor, 0.0), max(ceiling, 0.0)
        around = ticks(floor, ceiling)
        self.step = around[1] - around[0]
        if not tight or floor == ceiling:
            floor, ceiling = around[0], around[-1]
        self.ticks = [tick for tick in around if floor <= tick <= ceiling]
        self._floor, self._ceiling, self._low, self._high = floor, ceiling, low, high

    def __call__(self, value: float) -> float:
        share = (value - self._floor) / (self._ceiling - self._floor)
        return self._low + share * (self._high - self._low)

    def label(self, value: float) -> str:
        return number(value, self.step)


def _open(chart: Chart, height: float) -> Iterator[str]:
    label = escape(f"{chart.title}: {chart.y_label} against {chart.x_label}", quote=True)
    yield f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{label}">'


def _text(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _dot(x: float, y: float, colour: int, inside: str = "") -> str:
    return f'<circle class="f{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.5">{inside}</circle>'


def _upright(chart: Chart) -> Iterator[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    y = _Axis([v for one in chart.series for v in one.y], bottom, TOP, chart.from_zero)
    yield from _open(chart, HEIGHT)
    for tick in y.ticks:
        yield _line(LEFT, y(tick), right, y(tick), "zero" if tick == 0 else "grid")
        yield _text(LEFT - 8, y(tick) + 4, y.label(tick), "end")
    if chart.categories is None:
        x = _Axis([v for one in chart.series for v in one.x], LEFT, right, from_zero=True, tight=True)
        for tick in x.ticks:
            yield _line(x(tick), bottom, x(tick), bottom + 5, "zero")
            yield _text(x(tick), bottom + 18, x.label(tick))
        for index, series in sorted(enumerate(chart.series), key=lambda pair: pair[1].strong):
            yield from _drawn(series, index, x, y)
    else:
        yield from _columns(chart.series[0], chart.categories, y, bottom)
    yield _text((LEFT + right) / 2, HEIGHT - 10, chart.x_label, more=' class="axis"')
    middle = (TOP + bottom) / 2
    yield _text(14, middle, chart.y_label, more=f' class="axis" transform="rotate(-90 14 {middle:.1f})"')
    if len(chart.series) > 1:
        yield from _legend(chart.series)
    yield "</svg>"


def _drawn(series: Series, index: int, x: _Axis, y: _Axis) -> Iterator[str]:
    points = [(x(a), y(b)) for a, b in zip(series.x, series.y, strict=True)]
    if series.kind == "points":
        for (left, top), a, b in zip(points, series.x, series.y, strict=True):
            yield _dot(left, top, index, f"<title>{a:.3f}: {b:.4f}</title>")
        return
    path = " ".join(f"{left:.1f},{top:.1f}" for left, top in points)
    kind = f"l{index} strong" if series.strong else f"l{index}"
    yield f'<polyline class="{kind}" points="{path}"><title>{escape(series.name)}</title></polyline>'
    if len(points) == 1:
        yield _dot(*points[0], index)


def _columns(series: Series, categories: list[str], y: _Axis, bottom: float) -> Iterator[str]:
    room = (WIDTH - RIGHT - LEFT) / len(categories)
    # For a range, only its start is shown; labels that would touch are left out.
    labels = [name.split(" to ")[0] for name in categories]
    every = max(1, -(-int(max(map(len, labels)) * _CHARACTER + 8) // max(int(room), 1)))
    ranged = any(" to " in name for name in categories)
    for index, (name, label, value) in enumerate(zip(categories, labels, series.y, strict=True)):
        left = LEFT + room * index
        top, base = sorted((y(value), y(0.0)))
        box = f'x="{left + room * 0.1:.1f}" y="{top:.1f}" width="{room * 0.8:.1f}" height="{max(base - top, 0.5):.1f}"'
        yield f'<rect class="f1" {box}><title>{escape(name)}: {value:,.4g}</title></rect>'
        if index % every == 0:
            yield _text(left if ranged else left + room / 2, bottom + 18, label)


def _horizontal(chart: Chart) -> Iterator[str]:
    categories, series = chart.categories or [], chart.series[0]
    left, row = 96.0, 24.0
    bottom = 10.0 + row * len(categories)
    x = _Axis(series.y, left, WIDTH - 90, chart.from_zero)
    yield from _open(chart, bottom + 48)
    for tick in x.ticks:
        yield _line(x(tick), 10, x(tick), bottom, "zero" if tick == 0 else "grid")
        yield _text(x(tick), bottom + 16, x.label(tick))
    for index, (name, value) in enumerate(zip(categories, series.y, strict=True)):
        top = 10 + row * index
        yield _text(left - 8, top + row / 2 + 4, name, "end")
        width = max(x(value) - x(0.0), 0.5)
        yield f'<rect class="f0" x="{left:.1f}" y="{top + 4:.1f}" width="{width:.1f}" height="{row - 8:.1f}"/>'
        yield _text(left + width + 6, top + row / 2 + 4, f"{value:,.2f} s", "start")
    yield _text((left + WIDTH - 90) / 2, bottom + 38, chart.y_label, more=' class="axis"')
    yield "</svg>"


def _legend(series: list[Series]) -> Iterator[str]:
    left = LEFT
    for index, one in enumerate(series):
        kind = f"l{index} strong" if one.strong else f"l{index}"
        yield _line(left, 14, left + 18, 14, kind)
        yield _text(left + 23, 18, one.name, "start")
        left += 23 + len(one.name) * _CHARACTER + 16
