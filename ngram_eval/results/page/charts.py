"""The contents of each chart of a result, as numbers and labels; nothing here draws."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ngram_eval.evaluation.profile import CELLS, ENTROPY_STEP, UNIT, Profile
from ngram_eval.evaluation.result import Result

_POINTS = 150
"""Most points of a line along the stream."""
_SHOWN_ORDERS = 4
"""Number of orders with a line of their own in the chart of the gate: those with most positions."""
_LN2 = math.log(2)
TIMES = "stages"
"""Name of the chart of time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Points of one colour; `x` and `y` have the same length."""

    name: str
    x: list[float]
    y: list[float]
    kind: Literal["line", "points", "bars"] = "line"
    strong: bool = False
    """Drawn thicker, above the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One chart. Bars are at x = 0, 1, 2, ..., with the names in `categories`."""

    name: str
    """Name of its file."""
    title: str
    x_label: str
    y_label: str
    series: list[Series]
    categories: list[str] | None = None
    horizontal: bool = False
    """Whether bars are horizontal; `y_label` is then the axis along them."""
    from_zero: bool = False
    """Whether the y axis begins at 0."""


def charts_of(result: Result) -> list[Chart]:
    """Every chart that the result has numbers for."""
    profile = Profile.unpacked(result.profile)
    made = [
        along_the_stream(result, profile),
        hit_rate(result),
        gain(result),
        gate(result, profile),
        vocabulary_sums(result, profile),
        stages(result),
    ]
    return [chart for chart in made if chart is not None and _shows_something(chart)]


def _shows_something(chart: Chart) -> bool:
    """Whether it has bars of which one is not 0, or a series over more than one x."""
    bars = chart.categories is not None
    return any(any(series.y) if bars else len(set(series.x)) > 1 for series in chart.series)


def unit_of(result: Result) -> str:
    """The unit of this result's bits, for the label of an axis."""
    each = "byte" if result.bytes else "token"
    return f"bits per {each}" if result.normalised else f"score (not normalised), bits a {each}"


def along_the_stream(result: Result, profile: Profile) -> Chart | None:
    """Bits along the stream: of the model alone, of the blend, and the blend's mean so far."""
    scored = profile.along[profile.along[:, 3] > 0]
    if len(scored) == 0:
        return None
    each = -(-len(scored) // _POINTS)
    parts = np.add.reduceat(scored, np.arange(0, len(scored), each))
    parts = parts[(parts[:, 2] > 0) | (not result.bytes)]
    nats, neural, bytes_, positions = parts.T.astype(np.float64)
    over = bytes_ if result.bytes else positions
    end = np.cumsum(positions)
    middle = (end - positions / 2).tolist()

    def bits(sums: NDArray[np.float64]) -> list[float]:
        return [float(rate) for rate in sums / over / UNIT / _LN2]

    return Chart(
        name="along_the_stream",
        title="Along the stream",
        x_label="positions scored",
        y_label=unit_of(result),
        series=[
            Series(name="neural alone", x=middle, y=bits(neural)),
            Series(name="with n-grams", x=middle, y=bits(nats)),
            Series(
                name="with n-grams, mean so far",
                x=end.tolist(),
                y=(np.cumsum(nats) / np.cumsum(over) / UNIT / _LN2).tolist(),
                strong=True,
            ),
        ],
    )


def _orders(result: Result) -> list[int]:
    return [0, *sorted(int(order) for order in result.hits_by_order)]


def _names(orders: list[int]) -> list[str]:
    return ["none" if order == 0 else str(order) for order in orders]


def hit_rate(result: Result) -> Chart:
    """How often each order matched."""
    orders = _orders(result)
    hits = {int(order): count for order, count in result.hits_by_order.items()} | {0: result.positions - result.hits}
    shares = [100 * hits.get(order, 0) / result.positions for order in orders]
    return Chart(
        name="hit_rate",
        title="Hit rate by order",
        x_label="matched order (context of order - 1 tokens)",
        y_label="share of positions, %",
        series=[Series(name="hit rate", x=list(map(float, range(len(orders)))), y=shares, kind="bars")],
        categories=_names(orders),
        from_zero=True,
    )


def gain(result: Result) -> Chart | None:
    """The contribution of each order's positions to the difference from the model alone."""
    if result.gain_by_order is None:
        return None
    orders, over = _orders(result), (result.bytes or result.positions) * _LN2
    saved = [result.gain_by_order.get(str(order), 0.0) / over for order in orders]
    return Chart(
        name="gain",
        title="Gain by order",
        x_label="matched order (context of order - 1 tokens)",
        y_label=f"saved bits a {'byte' if result.bytes else 'token'}" + ("" if result.normalised else " of the score"),
        series=[Series(name="saved", x=list(map(float, range(len(orders)))), y=saved, kind="bars")],
        categories=_names(orders),
        from_zero=True,
    )


def gate(result: Result, profile: Profile) -> Chart | None:
    """The weight of the n-grams against the model's entropy: by order if every weight is known, else at samples."""
    if profile.weighted:
        series = list(_gate_lines(profile))
        if not series:  # nothing has matched
            return None
    else:
        known = [(entropy, weight) for _, entropy, _, weight in profile.samples if weight is not None]
        if not known or not any(weight for _, weight in known):
            return None
        x, y = map(list, zip(*known, strict=True))
        series = [Series(name=f"{len(known)} sampled positions", x=x, y=y, kind="points")]
    return Chart(
        name="gate",
        title="Weight of the n-grams against entropy",
        x_label="entropy of the neural distribution, nats",
        y_label="weight of the n-grams, 0 to 1",
        series=series,
        from_zero=True,
    )


def _gate_lines(profile: Profile) -> Iterator[Series]:
    positions, weight = (profile.cells[CELLS.index(name)] for name in ("positions", "weight"))
    matched = np.arange(1, len(positions))
    most = matched[np.argsort(-positions[1:].sum(axis=1), kind="stable")][:_SHOWN_ORDERS]
    lines = [(f"order {order}", [order], False) for order in sorted(most.tolist())]
    for name, orders, strong in [*lines, ("all orders", matched.tolist(), True)]:
        count, total = positions[orders].sum(axis=0), weight[orders].sum(axis=0)
        bins = np.flatnonzero(count)
        if len(bins):
            middle = ((bins + 0.5) * ENTROPY_STEP).tolist()
            yield Series(name=name, x=middle, y=(total[bins] / count[bins] / UNIT).tolist(), strong=strong)


def vocabulary_sums(result: Result, profile: Profile) -> Chart | None:
    """Sums of the values over the vocabulary; None for a normalised preset, whose sums are 1."""
    sums = np.array([total for _, _, total, _ in profile.samples])
    if result.normalised or len(sums) == 0:
        return None
    low, high = min(1.0, float(sums.min())), max(float(sums.max()), 1.001)
    step = _nice((high - low) / 20)
    first = math.floor(low / step)
    bins = np.bincount(np.floor(sums / step).astype(np.int64) - first)
    labels = [f"{(first + i) * step:.4g} to {(first + i + 1) * step:.4g}" for i in range(len(bins))]
    return Chart(
        name="vocabulary_sums",
        title="Sum over the vocabulary (1 for a probability)",
        x_label="sum of the values of all tokens",
        y_label="sampled positions",
        series=[Series(name="sampled positions", x=list(map(float, range(len(bins)))), y=bins.tolist(), kind="bars")],
        categories=labels,
        from_zero=True,
    )


def _nice(step: float) -> float:
    """The step rounded up to 1, 2, 5 or 10 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step)


def stages(result: Result) -> Chart | None:
    """Seconds by stage."""
    spent = {stage: seconds for stage, seconds in result.seconds.items() if seconds >= 0.0005}
    if not spent:
        return None
    return Chart(
        name=TIMES,
        title="Time by stage",
        x_label="stage",
        y_label="seconds (slowest rank; stages may overlap)",
        series=[Series(name="seconds", x=list(map(float, range(len(spent)))), y=list(spent.values()), kind="bars")],
        categories=list(spent),
        horizontal=True,
        from_zero=True,
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers around [low, high], about `count` of them."""
    step = _nice(max(high - low, 1e-9) / count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def number(value: float, step: float) -> str:
    """A tick's label: as many decimals as the step needs, commas between thousands."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step < 1 else 0
    return f"{value:,.{decimals}f}"
