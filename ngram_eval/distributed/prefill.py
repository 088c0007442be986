"""Prefill: counting everything before a rank's first window.

`local`, as published: every rank counts everything before its windows; the last one counts nearly the whole stream.
`scan`: every rank counts only from its first window to the next rank's; its tables then become the sum of the tables
of all ranks before it. Both give the same tables.
"""

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from ngram_eval.config import NgramConfig
from ngram_eval.distributed.ranks import Ranks
from ngram_eval.errors import InputError
from ngram_eval.text.windows import Plan, share

if TYPE_CHECKING:
    from torch import Tensor

_POSITIONS_A_COUNTER = 0.2
"""Positions counted in the time that a scan takes for one counter (benchmarks/results/scaling.md)."""
_SCANNED_AT_ONCE = 1 << 23
"""Counters exchanged at once: the scan's own memory is (1 + 6 / ranks) x 32 MiB."""
_LARGEST_COUNT = (1 << 32) - 1


def prefill_stop(plan: Plan, rows: range, config: NgramConfig) -> int:
    """End of the positions [0, stop) before the windows `rows`; 0 if there are no windows.

    This is the first scored position or, with the published `prefill_hole`, the start of the first window.
    """
    if not rows:
        return 0
    first = plan[rows.start : rows.start + 1]
    return int(first.start[0] if config.prefill_hole else first.first[0])


def prefill_cuts(plan: Plan, world: int, batch_windows: int, config: NgramConfig) -> list[int]:
    """`prefill_stop` of every rank, ascending: rank r's share of the scan is [cuts[r], cuts[r + 1]); the last has none.

    A rank without windows gets the cut of the rank before it.
    """
    cuts: list[int] = []
    for rank in range(world):
        stop = prefill_stop(plan, share(plan, rank, world, batch_windows), config)
        cuts.append(max([stop, *cuts[-1:]]))
    return cuts


def faster_prefill(cuts: list[int], config: NgramConfig) -> Literal["scan", "local"]:
    """The way that is faster for the last rank."""
    longest_share = max([last - first for first, last in pairwise(cuts)], default=0)
    counters = len(config.orders) * 2 * config.buckets
    return "scan" if cuts[-1] - longest_share > _POSITIONS_A_COUNTER * counters else "local"


def scan(tables: "Tensor", ranks: Ranks) -> None:
    """Replace each rank's tables by the sum of the tables of all ranks before it; zeros on rank 0.

    `tables` is contiguous int32 holding unsigned counts (gloo has no unsigned types), of one shape on all ranks. Each
    rank adds up one slice of the buckets: it receives that slice of every rank's tables, and sends each rank the sum of
    the slices before it. In each of these two exchanges a rank sends (world - 1) / world of the size of its tables.
    Raises `InputError` if a sum exceeds 2^32 - 1.
    """
    import torch

    counters = tables.view(-1)
    for start in range(0, len(counters), _SCANNED_AT_ONCE):
        part = counters[start : start + _SCANNED_AT_ONCE]
        bounds = [len(part) * rank // ranks.world for rank in range(ranks.world + 1)]
        slices = [last - first for first, last in pairwise(bounds)]
        mine = slices[ranks.rank]
        received = torch.empty(ranks.world * mine, dtype=torch.int32, device=part.device)
        ranks.all_to_all(received, part, [mine] * ranks.world, slices)
        before = torch.zeros(mine, dtype=torch.int64, device=part.device)
        largest = 0
        for counts in received.view(ranks.world, mine):
            own = counts.long() & _LARGEST_COUNT
            largest = max(largest, int(before.max())) if mine else 0
            counts.copy_(before.view(torch.int32)[::2])  # the lower halves
            before += own
        if largest > _LARGEST_COUNT:
            raise InputError(f"a bucket was counted {largest} times, more than {_LARGEST_COUNT}: give more --buckets")
        ranks.all_to_all(part, received, slices, [mine] * ranks.world)
