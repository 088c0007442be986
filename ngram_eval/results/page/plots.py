"""The charts as PNG files, drawn by matplotlib (the `plot` extra)."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ngram_eval.errors import InputError
from ngram_eval.evaluation.result import Result
from ngram_eval.files import replacing
from ngram_eval.results.page.charts import Chart, charts_of


def require_matplotlib(flag: str) -> None:
    """Raise `InputError` if charts can't be drawn here."""
    if find_spec("matplotlib") is None:
        raise InputError(f"{flag} needs matplotlib: pip install 'ngram_eval[plot]'")


def draw_all(folder: Path, results: list[Result]) -> list[Path]:
    """Write PRESET_CHART.png for every chart of every result into `folder`, which is made if missing.

    Returns the files that were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for result in results:
        for chart in charts_of(result):
            path = folder / f"{result.preset}_{chart.name}.png"
            draw(path, chart, result.preset)
            written.append(path)
    return written


def draw(path: Path, chart: Chart, preset: str) -> None:
    """Write one chart as a PNG file."""
    from matplotlib.figure import Figure  # an optional extra

    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"{preset}: {chart.title}")
    (_bars if chart.categories is not None else _lines)(axes, chart)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})


def _lines(axes: Any, chart: Chart) -> None:
    for one in chart.series:
        if one.kind == "points":
            axes.plot(one.x, one.y, "o", ms=4, label=one.name)
        else:
            axes.plot(one.x, one.y, lw=2.2 if one.strong else 1.1, label=one.name, zorder=3 if one.strong else 2)
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    if chart.from_zero:
        axes.set(xlim=(0, None), ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.legend(frameon=False, fontsize="small")


def _bars(axes: Any, chart: Chart) -> None:
    one, names = chart.series[0], chart.categories or []
    if chart.horizontal:
        axes.barh(one.x, one.y)
        axes.set_yticks(one.x, names)
        axes.invert_yaxis()
        axes.set(xlabel=chart.y_label)
        axes.grid(axis="x", alpha=0.3)
        return
    axes.bar(one.x, one.y)
    ranged = any(" to " in name for name in names)
    every = 1 if max(map(len, names)) <= 4 and len(names) <= 26 else max(1, len(names) // 10)
    places = [(x - 0.5 if ranged else x, name.split(" to ")[0]) for x, name in zip(one.x, names, strict=True)][::every]
    axes.set_xticks([x for x, _ in places], [name for _, name in places])
    axes.axhline(0, color="black", lw=0.8)
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    axes.grid(axis="y", alpha=0.3)
