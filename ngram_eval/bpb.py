"""From nats and bytes to bits per byte. Sums do not depend on how positions are split or ordered."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ngram_eval.errors import InputError

P_FLOOR = 1e-30
"""Smallest probability that a position is charged with (PR #890)."""
P_MOST = 1 + 2e-3
"""Largest value that counts as a 1 raised by rounding, and is charged as 1: a softmax misses 1 by 1e-6 in single
precision, by 1e-3 in half."""

FRACTION_BITS = 52
"""Nats are summed in units of 2^-52: at most 69.1 * 2^52 < 2^59 per position."""
LIMB_BITS = 26


class NotAProbability(InputError):
    """A value that a position would be charged with is no probability."""


def nats_of(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """-ln p, with p from `P_FLOOR` to 1: 0 to 69.1 nats per position."""
    nats: NDArray[np.float64] = -np.log(np.clip(p, P_FLOOR, 1.0))
    return nats


def check_charges(
    p: NDArray[np.float64], positions: Callable[[], NDArray[np.int64]] | None = None, *, whose: str = "what is charged"
) -> None:
    """Raise `NotAProbability` unless all are probabilities, to `P_MOST`.

    It names the first of `positions()` that is not; `whose` says what they are.
    """
    if len(p) == 0 or (p.min() >= 0.0 and p.max() <= P_MOST):  # NaN passes neither
        return
    entry = int(np.flatnonzero(~((p >= 0.0) & (p <= P_MOST)))[0])
    position = entry if positions is None else int(positions()[entry])
    raise NotAProbability(
        f"{whose} at position {position} is {p[entry]}, which is not a probability: look at the model's distribution "
        "there, whose entries must be finite, not negative, and sum to 1"
    )


def fixed_point(nats: NDArray[np.float64]) -> int:
    """The sum in units of 2^-52 nats, each position rounded to a unit: integers have the same sum in any order."""
    units = np.rint(np.ldexp(nats, FRACTION_BITS)).astype(np.int64)
    high, low = units >> LIMB_BITS, units & ((1 << LIMB_BITS) - 1)
    return from_limbs(int(high.sum()), int(low.sum()))


def from_limbs(high: int, low: int) -> int:
    """The fixed-point sum from the sum of the upper parts and the sum of the lowest `LIMB_BITS` bits.

    Neither overflows 64 bits below 2^30 positions.
    """
    return (high << LIMB_BITS) + low


@dataclass(kw_only=True, slots=True)
class Tally:
    """Sums over the positions scored so far. Tallies of ranks add up."""

    nats: int = 0
    """Sum over positions, in units of 2^-52 nats."""
    neural_nats: int = 0
    """Sum for the neural model alone, in the same units."""
    positions: int = 0
    """Number of positions scored; a position scored twice counts twice."""
    bytes: int = 0
    """Bytes of their targets under the byte rule of the evaluation."""
    decoded_bytes: int = 0
    """Bytes that their targets decode to."""
    unknown_targets: int = 0
    """Number of targets that are the tokenizer's unknown piece."""
    hits_by_order: dict[int, int] = field(default_factory=dict)
    """Number of positions matched, by order."""
    sampled: int = 0
    """Number of positions at which the values of the whole vocabulary were summed."""
    vocabulary_sums: int = 0
    """Total of these sums, in units of 2^-52."""

    def add(
        self,
        p: NDArray[np.float64],
        p_neural: NDArray[np.float64],
        order: NDArray[np.uint8],
        positions: Callable[[], NDArray[np.int64]] | None = None,
    ) -> None:
        """Add positions by their blended and neural probabilities and matched orders (0: none), each (positions,).

        Raises `InputError` for a value that is not a probability; it names which of `positions()`.
        """
        check_charges(p_neural, positions, whose="the model's probability")
        check_charges(p, positions)
        self.nats += fixed_point(nats_of(p))
        self.neural_nats += fixed_point(nats_of(p_neural))
        self.positions += len(p)
        for n, hits in enumerate(np.bincount(order).tolist()):
            if n and hits:
                self.hits_by_order[n] = self.hits_by_order.get(n, 0) + hits

    def add_vocabulary(self, values: NDArray[np.float64], position: int) -> float:
        """Add the sum over the vocabulary at one sampled position, and return it."""
        check_charges(values, lambda: np.full(len(values), position), whose="what a token would be charged")
        total = float(values.sum())
        self.sampled += 1
        self.vocabulary_sums += round(total * 2**FRACTION_BITS)
        return total

    def __add__(self, other: "Tally") -> "Tally":
        orders = self.hits_by_order.keys() | other.hits_by_order.keys()
        return Tally(
            nats=self.nats + other.nats,
            neural_nats=self.neural_nats + other.neural_nats,
            positions=self.positions + other.positions,
            bytes=self.bytes + other.bytes,
            decoded_bytes=self.decoded_bytes + other.decoded_bytes,
            unknown_targets=self.unknown_targets + other.unknown_targets,
            sampled=self.sampled + other.sampled,
            vocabulary_sums=self.vocabulary_sums + other.vocabulary_sums,
            hits_by_order={n: self.hits_by_order.get(n, 0) + other.hits_by_order.get(n, 0) for n in sorted(orders)},
        )


def as_nats(fixed: int) -> float:
    """Nats from units of 2^-52, correctly rounded."""
    return fixed / (1 << FRACTION_BITS)


def bits_per_byte(nats: float, byte_count: int) -> float | None:
    """Nats over bytes, in bits per byte; None if there are no bytes."""
    return nats / math.log(2) / byte_count if byte_count else None
