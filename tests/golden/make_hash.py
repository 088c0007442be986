"""Writes hash.json beside this file: the published hash in Python integers, without numpy or ngram_eval.

Run `python tests/golden/make_hash.py`.
"""

import json
import random
from pathlib import Path
from typing import Any

PRIMES = [36313, 27191, 51647, 81929, 131071, 174763, 233017, 299993, 350377]
BUCKETS = [1, 2, 1 << 10, 1 << 22, 1 << 32]


def case(dtype: str, context: list[int], target: int) -> dict[str, Any]:
    h = 0
    for prime, token in zip(PRIMES, context, strict=False):
        h ^= token * prime % 2**64
    full = h ^ (target * PRIMES[len(context)] % 2**64)
    return {
        "order": len(context) + 1,
        "dtype": dtype,
        "context": context,
        "target": target,
        "context_hash": str(h),  # a string: JSON readers may round large numbers
        "buckets": {str(n): [h % n, full % n] for n in BUCKETS},
    }


if __name__ == "__main__":
    draw = random.Random(890)
    cases = [
        case(dtype, [draw.choice([0, 1, top, draw.randint(0, top)]) for _ in range(width)], draw.randint(0, top))
        for dtype, top in (("uint16", 2**16 - 1), ("uint32", 2**32 - 1))
        for width in range(9)
    ]
    path = Path(__file__).parent / "hash.json"
    path.write_text(json.dumps({"primes": PRIMES, "cases": cases}, indent=1) + "\n")
