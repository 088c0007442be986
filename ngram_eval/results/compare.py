"""Results side by side, and confidence intervals of differences (`ngram-eval compare`, docs/results.md)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from ngram_eval.errors import InputError
from ngram_eval.evaluation.profile import UNIT
from ngram_eval.results.bootstrap import FEWEST_UNITS, Interval, difference
from ngram_eval.results.result_file import Run, read_runs
from ngram_eval.text.windows import Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Which runs are compared, and how confidence intervals are computed."""

    preset: tuple[str, ...] = ()
    """Compare only the runs of these presets."""
    against: Literal["first", "neural"] = "first"
    """first: compare runs with each other; neural: compare each run with its own neural model alone."""
    mixed: bool = False
    """Compare scores (pseudo-probabilities) with bits per byte too; the table marks these differences."""
    draws: int = 2000
    """Number of bootstrap samples."""
    confidence: float = 0.95
    """Confidence level of the interval."""
    seed: int = 0
    """Seed of the bootstrap."""

    def check(self) -> None:
        """Raise `InputError` for settings that are out of range."""
        if not 0.5 <= self.confidence < 1:
            raise InputError(f"--confidence is {self.confidence}: give 0.5 to below 1, such as 0.95")
        if self.draws < 100:
            raise InputError(f"--draws is {self.draws}: give at least 100")


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """One run and its difference from the run that it is compared with."""

    name: str
    file: str
    preset: str
    normalised: bool
    complete: bool
    bits: float
    """Bits per byte, or a score; per token if any run has no bytes."""
    unit: str
    neural_bits: float
    """Bits of its neural model alone, in the same unit."""
    against: str | None
    """The run it is compared with; None for the first."""
    difference: float | None
    """Difference of `bits`, negative if this run has fewer; None if the runs have no text in common."""
    within: int | None
    """The difference is over this many first positions, because only these were scored by both; None: over all."""
    mixed: bool
    """Whether a score is compared with bits per byte."""
    interval: Interval | None
    """Interval of the difference, from stretches of the stream that both runs scored."""
    unpaired: str | None
    """The reason why there is no interval."""


_TOO_FEW = f"fewer than {FEWEST_UNITS} stretches"


class _Side:
    """Sums of one run's stretches, by the positions at which they end."""

    def __init__(self, run: Run, neural: bool) -> None:
        profile = run.sums
        plan = Plan(profile.targets, run.config.window)
        ends = plan.at(np.minimum(np.arange(1, len(profile.along) + 1) * profile.windows_each, len(plan)) - 1).stop
        # Published windows that score the last stride again end where another window has ended: they are left out.
        new = np.append(True, ends[1:] > ends[:-1])
        self.ends, along = ends[new], profile.along[new]
        self.nats, self.bytes, self.positions = along[:, 1 if neural else 0] / UNIT, along[:, 2], along[:, 3]
        whole = np.append(np.diff(self.ends, prepend=0) == self.positions, False)
        self.reach = int(np.append(0, self.ends)[np.argmin(whole)])
        """Up to this position, each was scored exactly once."""

    def at(self, ends: NDArray[np.int64], over: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(bits, bytes or positions) of the stretches that end at the given positions."""
        places = np.searchsorted(self.ends, ends)
        amounts = self.bytes if over == "byte" else self.positions
        bits, sizes = np.cumsum(self.nats / math.log(2))[places], np.cumsum(amounts.astype(np.float64))[places]
        return np.diff(bits, prepend=0.0), np.diff(sizes, prepend=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Paired:
    """Two runs over the positions that both scored once."""

    positions: int = 0
    """They are the first ones of the stream."""
    estimate: float | None = None
    """One's rate minus the other's over these."""
    interval: Interval | None = None
    unpaired: str | None = None
    """The reason why there is no interval."""


def paired(one: Run, other: Run, unit: str, how: Comparison, *, neural: bool) -> Paired:
    """The runs over what both scored; with `neural`, the other is its model alone.

    Of the same shards, one may have scored more than the other: what a position is charged depends on the past alone.
    """
    if _shards(one) != _shards(other):
        return Paired(unpaired="other data")
    a, b = _Side(one, neural=False), _Side(other, neural=neural)
    common = np.intersect1d(a.ends, b.ends)
    common = common[common <= min(a.reach, b.reach)]
    if len(common) == 0:
        return Paired(unpaired="no stretch in common")
    (bits_a, over_a), (bits_b, over_b) = a.at(common, unit), b.at(common, unit)
    found = difference(bits_a, bits_b, over_a, over_b, draws=how.draws, confidence=how.confidence, seed=how.seed)
    return Paired(
        positions=int(common[-1]),
        estimate=float(bits_a.sum() / over_a.sum() - bits_b.sum() / over_b.sum()),
        interval=found,
        unpaired=None if found else _TOO_FEW,
    )


def _shards(run: Run) -> list[str]:
    return [one.sha256 for one in run.inputs if one.role == "data"]


def _same_text(one: Run, other: Run, unit: str) -> bool:
    """Whether totals are over the same text: as many positions of the same shards, or other tokens of as many bytes."""
    if not (one.complete and other.complete):
        return False
    if _shards(one) == _shards(other):
        return one.sums.targets == other.sums.targets
    return unit == "byte" and one.bytes == other.bytes


def compare(files: Sequence[Path], how: Comparison) -> list[Compared]:
    """Compare the runs of all files. Raises `InputError` if a score is compared with bits per byte without `mixed`."""
    runs = [(path, run) for path in files for run in read_runs(path)]
    if how.preset:
        known = {run.preset for _, run in runs}
        for name in how.preset:
            if name not in known:
                raise InputError(f"--preset is {name!r}: the files hold {', '.join(sorted(known))}")
        runs = [(path, run) for path, run in runs if run.preset in how.preset]
    unit = "byte" if all(run.bytes for _, run in runs) else "token"
    first_file = [run for path, run in runs if path == files[0]] or [runs[0][1]]
    compared = []
    for path, run in runs:
        base = next((one for one in first_file if one.preset == run.preset), first_file[0])
        if len(files) == 1:
            base = first_file[0]
        alone = how.against == "neural"
        compared.append(_compared(path, run, run if alone else base, unit, how, alone=alone, several=len(files) > 1))
    return compared


def _bits(run: Run, unit: str, *, neural: bool = False) -> float:
    nats: float = run.neural_nats if neural else run.nats
    return nats / math.log(2) / ((run.bytes if unit == "byte" else None) or run.positions)


def _compared(path: Path, run: Run, base: Run, unit: str, how: Comparison, *, alone: bool, several: bool) -> Compared:
    itself = base is run and not alone
    mixed = not run.normalised if alone else run.normalised != base.normalised
    if mixed and not how.mixed:
        pseudo, proper = (run, base) if not run.normalised else (base, run)
        against = "its neural model alone" if alone else f"{proper.preset!r}"
        raise InputError(
            f"{path}: {pseudo.preset!r} is a pseudo-probability, whose score is not a code length, and {against} is a "
            "probability: their difference means nothing. Name runs of one kind by --preset, or give --mixed to see it "
            "anyway"
        )
    both = Paired() if itself else paired(run, base, unit, how, neural=alone)
    shift, within = both.estimate, both.positions or None
    if not itself and (alone or _same_text(run, base, unit)):
        shift, within = _bits(run, unit) - _bits(base, unit, neural=alone), None
    return Compared(
        name=f"{path.stem} {run.preset}" if several else run.preset,
        file=str(path),
        preset=run.preset,
        normalised=run.normalised,
        complete=run.complete,
        bits=_bits(run, unit),
        unit=f"bits per {unit}",
        neural_bits=_bits(run, unit, neural=True),
        against=None if itself else "model alone" if alone else base.preset,
        difference=shift,
        within=within,
        mixed=mixed,
        interval=both.interval,
        unpaired=both.unpaired,
    )


def print_comparison(compared: list[Compared], how: Comparison, console: Console) -> None:
    """Print the table, and the notes needed to read it."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("", "kind", compared[0].unit, "model alone", "difference", f"{how.confidence:.0%} interval"):
        table.add_column(heading, justify="left" if heading in ("", "kind") else "right", no_wrap=True)
    for one in compared:
        interval, shift = one.interval, "" if one.difference is None else f"{one.difference:+.4f}"
        table.add_row(
            one.name + ("" if one.complete else " (partial)"),
            "probability" if one.normalised else "score",
            f"{one.bits:.4f}",
            f"{one.neural_bits:.4f}",
            shift + (" (mixed)" if one.mixed else ""),
            f"{interval.low:+.4f} to {interval.high:+.4f}" if interval else one.unpaired or "",
        )
    console.print(table)
    for note in _notes(compared, how):
        console.print(note, soft_wrap=True, highlight=False)


def _notes(compared: list[Compared], how: Comparison) -> list[str]:
    notes = []
    if how.against == "neural":
        notes.append("Differences are to the same run's neural model alone.")
    intervals = [one.interval for one in compared if one.interval]
    if intervals:
        units = " or ".join(f"{n:,}" for n in sorted({one.units for one in intervals}))
        blocks = " or ".join(str(n) for n in sorted({one.block for one in intervals}))
        notes.append(
            f"Intervals: paired circular block bootstrap, {how.draws:,} draws from {units} stretches of the "
            f"stream in blocks of {blocks} (neighbouring windows are not independent; the series chooses the length). "
            "They apply to text like this one, not to other text or other training."
        )
    if any(one.unpaired == _TOO_FEW for one in compared):
        notes.append(
            f"{_TOO_FEW}: the text is cut into stretches of whole windows, and resampling fewer says little about "
            "chance: score a longer text, or give a smaller --stride."
        )
    for one in compared:
        if one.within is not None:
            notes.append(
                f"{one.name}: the difference is over the first {one.within:,} positions, which both runs scored; the "
                "bits beside it are over all that each scored."
            )
        elif one.interval and one.difference is not None and abs(one.interval.estimate - one.difference) > 1e-6:
            notes.append(
                f"{one.name}: the interval covers the positions that both scored once; there the difference "
                f"is {one.interval.estimate:+.4f}."
            )
    if any(not one.normalised for one in compared):
        notes.append("score: of a pseudo-probability. Its values do not sum to 1, so it is not a code length.")
    if any(one.mixed for one in compared):
        notes.append("MIXED: a score is compared with bits per byte. The difference does not measure quality.")
    return notes
