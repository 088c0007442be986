"""Functions as others hand them to the audit, honest and not."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.planted import VOCAB, Array


def uniform(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
    return np.full(VOCAB, 1 / VOCAB)


def counting(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
    """Exact counts of pairs, add one."""
    pairs = state.setdefault("pairs", np.ones((VOCAB, VOCAB)))
    if len(past) > 1:
        pairs[past[-2], past[-1]] += 1
    row = pairs[past[-1]]
    return np.asarray(row / row.sum())


def unnormalised(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
    return counting(past, state) * 1.1


def negative(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
    p = counting(past, state).copy()
    p[0] += p[1] + 0.01
    p[1] = -0.01
    return p


REMEMBERED: list[int] = []


def remembering(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
    """Learns from one call of it to the next, whatever the pass."""
    REMEMBERED.append(int(past[-1]))
    p = np.bincount(REMEMBERED, minlength=VOCAB) + 1.0
    return np.asarray(p / p.sum())


def peeking(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
    """Reaches through the array it is handed for the memory behind it."""
    behind = past if past.base is None else past.base
    following = int(behind[len(past)]) if len(behind) > len(past) else 0
    p = np.full(VOCAB, 0.5 / VOCAB)
    p[following] += 0.5
    return p


def failing(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
    raise RuntimeError("out of ideas")


def short(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
    return np.ones(3) / 3


not_a_function = 3
