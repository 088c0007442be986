"""PR #890's evaluator once more, in plain Python from its description, sharing no code with the package."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

PRIMES = [36313, 27191, 51647, 81929, 131071, 174763, 233017, 299993, 350377]
CENTRES = {9: 2.6, 8: 2.8, 7: 3.0, 6: 3.2, 5: 3.5, 4: 3.8, 3: 4.2, 2: 4.5}


@dataclass
class Totals:
    """What the evaluation adds up."""

    nats: float = 0.0
    neural_nats: float = 0.0
    positions: int = 0
    hits: Counter[int] = field(default_factory=Counter)


def evaluate(
    x: Sequence[int],
    p_target: Sequence[float],
    entropy: Sequence[float],
    *,
    seq_len: int,
    stride: int = 32,
    buckets: int,
    orders: Sequence[int] = range(2, 10),
    min_count: int = 2,
    world: int = 1,
    mended: bool = False,
) -> Totals:
    """All ranks one after another; `mended` ends contexts at the newest token and closes prefill hole and tail."""
    total = (len(x) - 1) // seq_len * seq_len
    windows = []
    for ws in range(0, total, stride):
        stop = min(ws + seq_len, total)
        windows.append((ws, 0 if ws == 0 else max(stop - stride, ws), stop))
        if mended and stop == total:
            break
    result = Totals()
    for rank in range(world):
        mine = windows[len(windows) * rank // world : len(windows) * (rank + 1) // world]
        if not mine:
            continue
        context_table: dict[int, Counter[int]] = defaultdict(Counter)
        full_table: dict[int, Counter[int]] = defaultdict(Counter)

        def pair(p: int, order: int) -> tuple[int, int] | None:
            width = order - 1
            begin = p - width + (1 if mended else 0)
            if begin < 0:
                return None
            h = 0
            for k in range(width):
                h ^= x[begin + k] * PRIMES[k] % 2**64
            return h % buckets, (h ^ (x[p + 1] * PRIMES[width] % 2**64)) % buckets

        def count(p: int) -> None:
            for order in orders:
                buckets_of_p = pair(p, order)
                if buckets_of_p is not None:
                    context_table[order][buckets_of_p[0]] += 1  # noqa: B023 (called within this rank's turn)
                    full_table[order][buckets_of_p[1]] += 1  # noqa: B023

        for p in range(mine[0][1] if mended else mine[0][0]):
            count(p)
        for _, first, stop in mine:
            for p in range(first, stop):
                value = p_target[p]
                for order in sorted(orders, reverse=True):
                    buckets_of_p = pair(p, order)
                    if buckets_of_p is None:
                        continue
                    context = context_table[order][buckets_of_p[0]]
                    full = full_table[order][buckets_of_p[1]]
                    if context >= min_count and full > 0:
                        gate = 1 / (1 + math.exp(-2 * (entropy[p] - CENTRES.get(order, 4.0))))
                        alpha = 0.05 + 0.55 * gate
                        value = (1 - alpha) * value + alpha * min(full, context) / context
                        result.hits[order] += 1
                        break
                result.nats -= math.log(max(value, 1e-30))
                result.neural_nats -= math.log(max(p_target[p], 1e-30))
                result.positions += 1
            for p in range(first, stop):
                count(p)
    return result
