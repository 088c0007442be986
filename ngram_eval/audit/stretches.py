"""Stretches of tokens as numbers, by which two texts are compared."""

import numpy as np
from numpy.typing import NDArray

from ngram_eval.text.stream import Tokens


def stretches(tokens: Tokens, length: int) -> NDArray[np.uint64]:
    """A number for each stretch of `length` tokens, the same for the same tokens."""
    count = max(len(tokens) - length + 1, 0)
    numbers: NDArray[np.uint64] = np.zeros(count, np.uint64)
    doubled: NDArray[np.uint64] = tokens.astype(np.uint64) + np.uint64(1)
    done, size = 0, 1
    while done < length:  # of powers of two, each made of two of the one before
        if length & size:
            numbers = _mixed(numbers, doubled[done : done + count])
            done += size
        doubled = _mixed(doubled[:-size], doubled[size:])
        size *= 2
    return numbers


def _mixed(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = first * np.uint64(0x9E3779B97F4A7C15) + second
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ mixed >> np.uint64(32)
