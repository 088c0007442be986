"""Charts of horizontal bars: presets beside each other, and the seconds of each stage; nothing here draws."""

from dataclasses import dataclass

from ngram_eval.evaluation.result import Result
from ngram_eval.results.page.charts import amount
from ngram_eval.results.page.words import bits, difference, each
from ngram_eval.results.table import STAGES


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One bar."""

    name: str
    value: float
    text: str
    """The value in words."""
    more: str = ""
    """Said after it, less loud."""
    colour: int = 0
    hatched: bool = False
    span: tuple[float, float] | None = None
    """An interval of the value."""
    tip: str = ""
    """A sentence for who asks what it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """One chart of horizontal bars from 0, in groups that stand apart."""

    name: str
    """Name of its file."""
    title: str
    label: str
    """What the bars measure."""
    groups: list[tuple[str, list[Row]]]
    """(heading or "", bars)."""

    @property
    def all(self) -> list[Row]:
        """The bars of every group."""
        return [row for _, rows in self.groups for row in rows]

    @property
    def most(self) -> float:
        """The end of the longest bar or interval."""
        return max(max(row.value, *(row.span or (0.0,))) for row in self.all)


def comparison(results: list[Result]) -> Rows:
    """Every preset beside the model alone; scores that are no probability stand apart."""
    proper = [result for result in results if result.normalised]
    scores = [result for result in results if not result.normalised]
    alone = bits(base := (proper or scores)[0], neural=True)
    rows = [Row(name="model alone", value=alone, text=f"{alone:.4f}"), *map(_compared, proper)]
    groups = [("", rows)]
    if scores:
        groups.append(("Scores: no probability, so no bits per byte", [_score(result) for result in scores]))
    return Rows(
        name="comparison",
        title="Comparison of presets",
        label=f"bits per {each(base)}; lines: 95% interval of the difference from the model alone",
        groups=groups,
    )


def _compared(result: Result) -> Row:
    ours, alone, found = bits(result), bits(result, neural=True), difference(result)
    more = f"{ours / alone - 1:+.1%}"
    if found is not None:
        more += f" ({found.low / alone:+.1%} to {found.high / alone:+.1%})"
    return Row(
        name=result.preset,
        value=ours,
        text=f"{ours:.4f}",
        more=more.replace("-", "\u2212"),
        colour=1,
        span=None if found is None else (alone + found.low, alone + found.high),
    )


def _score(result: Result) -> Row:
    total = result.vocabulary_sum
    return Row(
        name=result.preset,
        value=bits(result),
        text=f"{bits(result):.4f}",
        more="" if total is None else f"\u03a3 {total:.4g}",
        colour=1,
        hatched=True,
    )


def stages(result: Result) -> Rows | None:
    """Seconds by stage, of the slowest rank; None if nothing took time."""
    rows = [
        Row(name=STAGES[stage][0], value=seconds, text=f"{amount(seconds)} s", tip=STAGES[stage][1])
        for stage, seconds in result.seconds.items()
        if seconds >= 0.0005
    ]
    if not rows:
        return None
    label = "seconds of the slowest rank; stages overlap"
    return Rows(name="stages", title="Time by stage", label=label, groups=[("", rows)])
