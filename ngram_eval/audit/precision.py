"""Tolerances, which follow from the precision of the numbers compared: the one that is declared, or the one seen.

Charges are compared in three ways. Numbers computed again from the same past agree to `SAME`. Numbers from inputs of
different shapes, for which a forward rounds differently, agree to `CLOSE`. A sum over a vocabulary exceeds 1 by no more
than `above_one`.
"""

import math
from decimal import Decimal
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ngram_eval.bpb import nats_of

SAME, CLOSE = 1e-6, 1e-4
"""Nats."""
LUCK = math.log(1e9)
"""Nats: a code may cost less than the entropy of what was drawn by so many with a probability of 1e-9."""
JITTER = 2.0**-22
"""Difference of two probabilities that is none: four roundings of a 1 in float32, whose order differs on GPUs."""

Precision = Literal["float64", "float32", "bfloat16", "float16"]

UNIT_ROUNDOFF: dict[Precision, float] = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "bfloat16": 2.0**-8,
    "float16": 2.0**-11,
}
"""Largest relative error of a number rounded to this precision."""
_SPACING_AT_ZERO: dict[Precision, float] = {"float64": 0.0, "float32": 0.0, "bfloat16": 0.0, "float16": 2.0**-24}
"""Distance of the smallest numbers, which a small probability is rounded to."""


def precision_of(values: NDArray[Any]) -> Precision:
    """The coarsest precision that holds all values exactly. float64 for none."""
    numbers = np.asarray(values, np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers) == 0:
        return "float64"
    with np.errstate(over="ignore", under="ignore"):
        single = numbers.astype(np.float32)
        if not (single == numbers).all():
            return "float64"
        if not (single.view(np.uint32) & 0xFFFF).any():
            return "bfloat16"
        return "float16" if (single.astype(np.float16) == single).all() else "float32"


def above_one(size: int, precision: Precision) -> float:
    """By how much the sum of `size` probabilities may exceed 1.

    A softmax in float32 divides by a sum of `size` rounded terms, whose error grows with the root of their number (2e-6
    was seen at 1,024, 2.6e-5 at 50,304); each value is then rounded to `precision`.
    """
    softmax = 8 * math.sqrt(size) * UNIT_ROUNDOFF["float32"]
    return 1e-6 + softmax + 2 * UNIT_ROUNDOFF[precision] + size * _SPACING_AT_ZERO[precision] / 2


def of_a_sum(terms: int, total: float) -> float:
    """By how much a sum of `terms` numbers may be off that was added up in float32, one after another."""
    return 2 * math.sqrt(terms) * UNIT_ROUNDOFF["float32"] * abs(total)


def of_digits(value: float) -> float:
    """Half a unit of the last digit that is written: 0.00005 for 0.9949."""
    exponent = Decimal(repr(float(value))).as_tuple().exponent
    assert isinstance(exponent, int), "a claim is finite"
    return 0.5 if value == int(value) else 0.5 * 10.0**exponent


def apart(a: NDArray[np.float64] | float, b: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Difference of two charges in nats; 0 within `JITTER`, infinity where one is NaN."""
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    difference = np.nan_to_num(np.abs(nats_of(first) - nats_of(second)), nan=np.inf)
    return np.where(np.abs(first - second) <= JITTER, 0.0, difference)
