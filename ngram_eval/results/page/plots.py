"""The charts as PNG files, drawn by matplotlib (the `plot` extra) in the colours and the font of the page."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ngram_eval.errors import InputError
from ngram_eval.evaluation.result import Result
from ngram_eval.files import replacing
from ngram_eval.results.page.charts import Chart, amount, charts_of, labelled
from ngram_eval.results.page.rows import Rows, comparison, stages
from ngram_eval.results.page.style import COLOURS, FONTS, LIGHT

_DPI = 200
_PALETTE = [LIGHT[name] for name in COLOURS]
_WIDTHS = {"faint": 0.9, "plain": 1.2, "strong": 2.2}
_WIDE = 9
"""Most bars whose values stand upright; those of more are turned."""


def require_matplotlib(flag: str) -> None:
    """Raise `InputError` if charts can't be drawn here."""
    if find_spec("matplotlib") is None:
        raise InputError(f"{flag} needs matplotlib: pip install 'ngram_eval[plot]'")


def draw_all(folder: Path, results: list[Result]) -> list[Path]:
    """Write comparison.png, and PRESET_CHART.png for every chart of every result, into `folder`; it is made if missing.

    Returns the files that were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    charts: list[tuple[str, str, Chart | Rows]] = [("comparison", "Comparison of presets", comparison(results))]
    for result in results:
        spent = stages(result)
        of_result: list[Chart | Rows] = [*charts_of(result), *([] if spent is None else [spent])]
        for chart in of_result:
            charts.append((f"{result.preset}_{chart.name}", f"{result.preset}: {chart.title}", chart))
    written = []
    for name, title, chart in charts:
        written.append(folder / f"{name}.png")
        draw(written[-1], chart, title)
    return written


def draw(path: Path, chart: Chart | Rows, title: str) -> None:
    """Write one chart as a PNG file."""
    from matplotlib import font_manager, rc_context
    from matplotlib.figure import Figure  # an optional extra

    installed = set(font_manager.get_font_names())
    style: Any = {
        "font.family": next(font for font in FONTS if font in installed),  # matplotlib brings the last
        "font.size": 9.5,
        "text.color": LIGHT["ink"],
        "axes.edgecolor": LIGHT["soft"],
        "axes.labelcolor": LIGHT["soft"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": LIGHT["rule"],
        "hatch.linewidth": 0.8,
        "xtick.color": LIGHT["soft"],
        "ytick.color": LIGHT["soft"],
    }
    with rc_context(style), replacing(path) as file:
        rows = len(chart.all) + sum(bool(head) for head, _ in chart.groups) if isinstance(chart, Rows) else 0
        figure = Figure(figsize=(7.2, 1.1 + 0.34 * rows if rows else 4.0), layout="constrained")
        figure.set_facecolor(LIGHT["card"])
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
        axes = figure.subplots()
        if isinstance(chart, Rows):
            _rows(axes, chart)
        else:
            axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
            (_lines if chart.categories is None else _columns)(axes, chart)
            if chart.legend:
                figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize="small")
        figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})


def _lines(axes: Any, chart: Chart) -> None:
    if chart.shaded is not None:
        begin, end, what = chart.shaded
        axes.axvspan(begin, end, color=LIGHT["warn"], label=what)
    for one in chart.series:
        colour = _PALETTE[one.colour]
        if one.kind == "points":
            axes.plot(one.x, one.y, "o", ms=4, color=colour, label=one.name)
        else:
            faint, over = 0.5 if one.weight == "faint" else 1.0, 3 if one.weight == "strong" else 2
            axes.plot(one.x, one.y, lw=_WIDTHS[one.weight], color=colour, alpha=faint, label=one.name, zorder=over)
    if chart.from_zero:
        axes.set(ylim=(0, None))
    axes.set(xlim=(0, None))
    axes.grid()
    axes.xaxis.set_major_formatter("{x:,g}")


def _columns(axes: Any, chart: Chart) -> None:
    (one,), names = chart.series, chart.categories or []
    bars = axes.bar(one.x, one.y, color=_PALETTE[one.colour])
    turned = 90 if len(names) > _WIDE else 0
    most = max(map(abs, one.y))
    values = [amount(value) if abs(value) > 0.002 * most else "" for value in one.y]  # the others are not seen
    axes.bar_label(bars, values, padding=2, rotation=turned, fontsize="x-small" if turned else "small")
    axes.margins(y=0.16 if turned else 0.08)
    named = labelled(names, 72 / len(names))
    shift = 0.5 if chart.edges else 0.0
    axes.set_xticks([one.x[place] - shift for place in named], [names[place] for place in named])
    axes.locator_params(axis="y", integer=all(float(value).is_integer() for value in one.y))
    axes.axhline(0, color=LIGHT["soft"], lw=0.8)
    axes.grid(axis="y")


def _rows(axes: Any, rows: Rows) -> None:
    at, ticks = 0, []
    for head, group in rows.groups:
        if head:
            axes.text(0, at, head, va="center", color=LIGHT["soft"])
            at += 1
        for row in group:
            colour = _PALETTE[row.colour]
            fill = {"color": "none", "edgecolor": colour, "hatch": "////"} if row.hatched else {"color": colour}
            axes.barh(at, row.value, height=0.62, **fill)
            if row.span is not None:
                axes.hlines(at, *row.span, color=LIGHT["ink"])
                axes.vlines(row.span, at - 0.15, at + 0.15, color=LIGHT["ink"])
            end = max(row.value, *(row.span or (0.0,)))
            said = axes.annotate(row.text, (end, at), (6, 0), textcoords="offset points", va="center", weight="bold")
            axes.annotate(row.more, (1, 0.5), (5, 0), xycoords=said, textcoords="offset points", va="center")
            ticks.append((at, row.name))
            at += 1
    axes.set_yticks([place for place, _ in ticks], [name for _, name in ticks])
    axes.tick_params(axis="y", length=0, labelcolor=LIGHT["ink"])
    axes.invert_yaxis()
    longest = max(len(row.text) + len(row.more) for row in rows.all)
    axes.set(xlabel=rows.label, xlim=(0, rows.most * (1.06 + 0.018 * longest)))
    axes.grid(axis="x")
