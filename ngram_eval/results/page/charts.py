"""The contents of each chart of a result, as numbers and labels; nothing here draws."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ngram_eval.evaluation.profile import CELLS, ENTROPY_STEP, UNIT, Profile
from ngram_eval.evaluation.result import Result
from ngram_eval.results.page.words import each
from ngram_eval.results.table import config_of
from ngram_eval.scorers.make import orders_of

_POINTS = 150
"""Most points of a line along the stream."""
_SHOWN_ORDERS = 4
"""Number of orders with a line of their own in the chart of the gate: those with most positions."""
_ROUNDING = 1e-6
"""Sums over the vocabulary that differ by less are equal: the model's own sum misses 1 by as much."""
_LN2 = math.log(2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Points of one colour; `x` and `y` have the same length."""

    name: str
    x: list[float]
    y: list[float]
    colour: int
    """Index of the colour in the style's palette."""
    kind: Literal["line", "points", "bars"] = "line"
    weight: Literal["faint", "plain", "strong"] = "plain"
    """How a line is drawn: faint behind, or strong above the others."""


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
    edges: bool = False
    """Whether each category is the start of a range, whose label belongs at the left edge of its bar."""
    from_zero: bool = False
    """Whether the y axis begins at 0."""
    shaded: tuple[float, float, str] | None = None
    """A stretch of the x axis, and what it is."""

    @property
    def legend(self) -> bool:
        """Whether its series need names: there are several, or they are points."""
        return len(self.series) > 1 or self.series[0].kind == "points"


def charts_of(result: Result) -> list[Chart]:
    """Every chart that the result has numbers for."""
    profile = Profile.unpacked(result.profile)
    made = [
        along_the_stream(result, profile),
        matches(result),
        gain(result),
        gate(result, profile),
        vocabulary_sums(result, profile),
    ]
    return [chart for chart in made if chart is not None and _shows_something(chart)]


def _shows_something(chart: Chart) -> bool:
    """Whether it has bars of which one is not 0, or a series over more than one x."""
    bars = chart.categories is not None
    return any(any(series.y) if bars else len(set(series.x)) > 1 for series in chart.series)


def along_the_stream(result: Result, profile: Profile) -> Chart | None:
    """Bits along the stream, of the model alone and with n-grams: of each stretch, and the mean so far."""
    scored = profile.along[profile.along[:, 3] > 0]
    if len(scored) == 0:
        return None
    together = -(-len(scored) // _POINTS)
    parts = np.add.reduceat(scored, np.arange(0, len(scored), together))
    parts = parts[(parts[:, 2] > 0) | (not result.bytes)]
    nats, neural, bytes_, positions = parts.T.astype(np.float64)
    over = bytes_ if result.bytes else positions
    end = np.cumsum(positions)
    middle = (end - positions / 2).tolist()

    def bits(sums: NDArray[np.float64], sizes: NDArray[np.float64]) -> list[float]:
        return [float(rate) for rate in sums / sizes / UNIT / _LN2]

    series = []
    for colour, name, sums in ((0, "model alone", neural), (1, "with n-grams", nats)):
        so_far = bits(np.cumsum(sums), np.cumsum(over))
        series += [
            Series(name=name, x=middle, y=bits(sums, over), colour=colour, weight="faint"),
            Series(name=f"{name}, mean so far", x=end.tolist(), y=so_far, colour=colour, weight="strong"),
        ]
    again = result.positions > profile.targets
    return Chart(
        name="along_the_stream",
        title="Along the stream",
        x_label="positions scored",
        y_label=f"bits per {each(result)}" if result.normalised else f"score (not normalised), bits a {each(result)}",
        series=series,
        shaded=(float(profile.targets), float(result.positions), "scored again") if again else None,
    )


def _by_order(result: Result, name: str, title: str, y_label: str, values: dict[int, float]) -> Chart:
    """Bars of the orders that the preset has, and of the positions where none matched (0)."""
    config = config_of(result)
    orders, unit = [0, *orders_of(config)], "byte" if config.scorer == "ppmd" else "token"
    x, y = list(map(float, range(len(orders)))), [values.get(order, 0.0) for order in orders]
    return Chart(
        name=name,
        title=title,
        x_label=f"matched order n (n - 1 {unit}s of context)",
        y_label=y_label,
        series=[Series(name=title, x=x, y=y, colour=1, kind="bars")],
        categories=["none" if order == 0 else str(order) for order in orders],
        from_zero=True,
    )


def matches(result: Result) -> Chart:
    """How often each order matched."""
    hits = {int(order): count for order, count in result.hits_by_order.items()} | {0: result.positions - result.hits}
    shares = {order: 100 * count / result.positions for order, count in hits.items()}
    return _by_order(result, "matches", "Longest match by order", "share of positions, %", shares)


def gain(result: Result) -> Chart | None:
    """The contribution of each order's positions to the difference from the model alone."""
    if result.gain_by_order is None:
        return None
    over = (result.bytes or result.positions) * _LN2
    saved = {int(order): nats / over for order, nats in result.gain_by_order.items()}
    label = f"saved bits a {each(result)}" + ("" if result.normalised else " of the score")
    return _by_order(result, "gain", "Gain by order", label, saved)


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
        series = [Series(name=f"{len(known)} sampled positions", x=x, y=y, colour=1, kind="points")]
    return Chart(
        name="gate",
        title="Weight of the n-grams against entropy",
        x_label="entropy of the model's distribution, nats",
        y_label="weight of the n-grams, 0 to 1",
        series=series,
        from_zero=True,
    )


def _gate_lines(profile: Profile) -> Iterator[Series]:
    positions, weight = (profile.cells[CELLS.index(name)] for name in ("positions", "weight"))
    matched = np.arange(1, len(positions))
    most = matched[np.argsort(-positions[1:].sum(axis=1), kind="stable")][:_SHOWN_ORDERS]
    lines = [(f"order {order}", [order]) for order in sorted(most.tolist())]
    for colour, (name, orders) in enumerate([*lines, ("all orders", matched.tolist())]):
        count, total = positions[orders].sum(axis=0), weight[orders].sum(axis=0)
        bins = np.flatnonzero(count)
        if len(bins):
            middle = ((bins + 0.5) * ENTROPY_STEP).tolist()
            y = (total[bins] / count[bins] / UNIT).tolist()
            yield Series(name=name, x=middle, y=y, colour=colour, weight="plain" if colour < len(lines) else "strong")


def vocabulary_sums(result: Result, profile: Profile) -> Chart | None:
    """Sums of the values over the vocabulary; None for a normalised preset, whose sums are 1."""
    sums = np.array([total for _, _, total, _ in profile.samples])
    if result.normalised or len(sums) == 0:
        return None
    low, high = min(1.0, float(sums.min()) + _ROUNDING), max(float(sums.max()), 1.001)
    step = nice((high - low) / 20)
    first = math.floor(low / step + _ROUNDING)
    bins = np.bincount(np.floor((sums + _ROUNDING) / step).astype(np.int64) - first)
    x = list(map(float, range(len(bins))))
    return Chart(
        name="vocabulary_sums",
        title="Sum over the vocabulary (1 for a probability)",
        x_label=f"sum of the values of all tokens, at {len(sums)} sampled positions",
        y_label="sampled positions",
        series=[Series(name="sampled positions", x=x, y=bins.tolist(), colour=1, kind="bars")],
        categories=[f"{(first + i) * step:.4g}" for i in range(len(bins))],
        edges=True,
        from_zero=True,
    )


def nice(step: float) -> float:
    """The step rounded up to 1, 2, 5 or 10 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers around [low, high], about `count` of them."""
    step = nice(max(high - low, 1e-9) / count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def number(value: float, step: float) -> str:
    """A tick's label: as many decimals as the step needs, commas between thousands."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step < 1 else 0
    return f"{value:,.{decimals}f}"


def amount(value: float) -> str:
    """The value of a bar, to two or three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 10 else f"{value:.2g}"


def labelled(categories: list[str], room: float) -> list[int]:
    """The places of the categories that get a label, where each has `room` characters: all, or those of round numbers.

    A word is labelled if the number beside it leaves it room.
    """
    numbers = [place for place, name in enumerate(categories) if not name.isalpha()]
    widest = max((len(categories[place]) for place in numbers), default=0) + 1
    every = next((step for step in (1, 2, 5, 10, 20, 50) if step * room >= widest), len(categories))
    if every > 1 and all(categories[place].isdecimal() for place in numbers):
        chosen = [place for place in numbers if int(categories[place]) % every == 0]
    else:
        chosen = numbers[::every]
    words = [place for place, name in enumerate(categories) if name.isalpha()]
    return sorted([*chosen, *(place for place in words if _fits(categories, place, chosen, room))])


def _fits(categories: list[str], place: int, chosen: list[int], room: float) -> bool:
    near = min(chosen, key=lambda other: abs(other - place), default=None)
    wide = len(categories[place]) / 2 + 0.7
    return near is None or wide + len(categories[near]) / 2 <= abs(near - place) * room
