"""The n-gram hash of PR #890, in numpy: the specification that every backend equals exactly.

For order n the context holds w = n - 1 tokens. With `end` the exclusive end of the context,

    h              = XOR over k < w of x[end - w + k] * PRIMES[k]      (uint64, wrapping)
    context bucket = h & (buckets - 1)
    full bucket    = (h XOR target * PRIMES[w]) & (buckets - 1)

so PRIMES[0] multiplies the oldest token of the context. Tests compare it with the values in `tests/golden/hash.json`.
"""

import numpy as np
from numpy.typing import NDArray

PRIMES: tuple[int, ...] = (36313, 27191, 51647, 81929, 131071, 174763, 233017, 299993, 350377)
"""One odd multiplier per place (PR #890). The target's place follows the context's, so nine primes reach order 9."""


def context_hash(tokens: NDArray[np.integer], ends: NDArray[np.int64], width: int) -> NDArray[np.uint64]:
    """Hash of the `width` tokens before each exclusive end, uint64 in the shape of `ends`; ends must be >= `width`."""
    h = np.zeros(len(ends), dtype=np.uint64)
    for k in range(width):
        h ^= tokens[ends - width + k].astype(np.uint64) * np.uint64(PRIMES[k])
    return h


def bucket_pair(
    tokens: NDArray[np.integer], ends: NDArray[np.int64], targets: NDArray[np.integer], order: int, buckets: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(context bucket, full bucket) of each position, int64; `buckets` is a power of two."""
    width = order - 1
    mask = np.uint64(buckets - 1)
    h = context_hash(tokens, ends, width)
    full = h ^ targets.astype(np.uint64) * np.uint64(PRIMES[width])
    return (h & mask).astype(np.int64), (full & mask).astype(np.int64)
