"""Score-first windows: look a window up, choose the order, gate, blend, charge; then count it; then the next window.

**Many windows at once.** Windows are sequential, but what window w must see of the windows before it is known without
running them: the tables as they stood at the start, plus 1 for every earlier position of the call that falls into the
same bucket. So one launch (`hashing.bucket_kernel`) lists the buckets of all positions, the next (`score_kernel`) only
*reads* the tables, and counts those earlier positions by comparing bucket numbers, and the last (`add_kernel`) only
adds. Integers are exact, so the result equals the sequential one bit for bit.

**Memory order.** No launch reads what it writes, and a kernel sees all that earlier kernels of its stream wrote (CUDA
programming model, streams). Nothing rests on cache modifiers, fences or barriers, nor on which program runs first. A
single persistent launch that looks up and adds window after window needs loads of the device's scope (atomics are
performed in L2, and a plain load may be served from a line its multiprocessor cached before them) and barriers, which
Triton orders no memory by; `csrc/cuda/hashed.h` is that form, and docs/gpu.md compares the two.

With one window a call the same launches are the plainly safe form, in which nothing is compared. Tests hold both
equal.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ngram_eval.bpb import FRACTION_BITS, LIMB_BITS, P_FLOOR, P_MOST
from ngram_eval.config import NgramConfig
from ngram_eval.kernels.buckets import list_buckets
from ngram_eval.kernels.gating import alpha
from ngram_eval.kernels.runtime import FLOATS, block

AT_ONCE = 1024
"""Most positions of several windows scored by one launch: each is compared with all before it."""

NO_POSITION = torch.iinfo(torch.int64).max

_FLOOR = tl.constexpr(P_FLOOR)
_MOST = tl.constexpr(P_MOST)
_UNIT = tl.constexpr(2.0**FRACTION_BITS)
_LIMB = tl.constexpr(LIMB_BITS)
_LOW = tl.constexpr((1 << LIMB_BITS) - 1)


@triton.jit
def is_probability(p: tl.tensor, BLOCK: tl.constexpr) -> tl.tensor:
    """Whether each is one, to rounding, as `ngram_eval.bpb.check_charges` asks; NaN is none."""
    return (p >= 0.0) & (p <= tl.full([BLOCK], _MOST, tl.float64))


@triton.jit
def nats_of(p: tl.tensor, BLOCK: tl.constexpr) -> tl.tensor:
    """-ln p of p between the floor and 1, as `ngram_eval.bpb.nats_of`."""
    floor = tl.full([BLOCK], _FLOOR, tl.float64)
    p = tl.where(p > floor, p, floor)
    return -tl.log(tl.where(p < 1.0, p, 1.0))


@triton.jit
def add_nats(sums: tl.tensor, nats: tl.tensor, valid: tl.tensor) -> None:
    """Adds nats in units of 2^-52 to two int64 limbs a window, as `ngram_eval.bpb.fixed_point` does."""
    units = tl.floor(nats * _UNIT + 0.5).to(tl.int64)
    tl.atomic_add(sums, units >> _LIMB, mask=valid, sem="relaxed")
    tl.atomic_add(sums + 1, units & _LOW, mask=valid, sem="relaxed")


@triton.jit(do_not_specialize=["count", "buckets"])
def add_kernel(
    tables: tl.tensor,
    ids: tl.tensor,
    listed: tl.tensor,
    count: tl.int64,
    buckets: tl.int64,
    MIN_ORDER: tl.constexpr,
    LAG: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Adds 1 to the bucket of each listed position in one table; grid (blocks of positions, tables)."""
    table = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = i < count
    whole = valid & (tl.load(listed + i, mask=valid, other=0) >= MIN_ORDER + table // 2 - 2 + LAG)
    bucket = tl.load(ids + table * count + i, mask=valid, other=0).to(tl.uint32).to(tl.int64)
    tl.atomic_add(tables + table * buckets + bucket, 1, mask=whole, sem="relaxed")


@triton.jit(do_not_specialize=["count", "buckets", "min_count"])
def score_kernel(
    tables: tl.tensor,
    ids: tl.tensor,
    listed: tl.tensor,
    before: tl.tensor,
    rows: tl.tensor,
    p_target: tl.tensor,
    entropy: tl.tensor,
    gate: tl.tensor,
    sums: tl.tensor,
    hits: tl.tensor,
    bad: tl.tensor,
    values: tl.tensor,
    best_order: tl.tensor,
    best_context: tl.tensor,
    best_full: tl.tensor,
    count: tl.int64,
    buckets: tl.int64,
    min_count: tl.int64,
    MIN_ORDER: tl.constexpr,
    ORDERS: tl.constexpr,
    LAG: tl.constexpr,
    BACKOFF: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLIER: tl.constexpr,
) -> None:
    """Scores `count` listed positions; grid (blocks of positions,).

    Of entry i, `before[i]` is the number of entries that were counted before it is looked up: those of earlier
    windows, which come first in the list. EARLIER of them are compared at a time; 0 says that there are none.
    """
    block = tl.num_programs(0) - 1 - tl.program_id(0)  # the last compare most, so they begin first
    i = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = i < count
    # Tiles are (orders, positions) and (orders, positions, earlier entries).
    row = tl.arange(0, ROWS)[:, None]
    there = (row < ORDERS) & valid[None, :]
    # All that needs no other load is asked for at once, and masked by what came of it: waits are not lined up.
    counted = tl.load(before + i, mask=valid, other=0).to(tl.int32)
    ids_c = ids + row * 2 * count
    c = tl.load(ids_c + i[None, :], mask=there, other=0)
    f = tl.load(ids_c + count + i[None, :], mask=there, other=0)
    positions = tl.load(listed + i, mask=valid, other=0)
    pair = tables + row * 2 * buckets
    counts_c = tl.load(pair + c.to(tl.uint32).to(tl.int64), mask=there, other=0)
    counts_f = tl.load(pair + buckets + f.to(tl.uint32).to(tl.int64), mask=there, other=0)
    shortest = MIN_ORDER + row - 2 + LAG  # a position before this has no whole context
    whole = there & (positions[None, :] >= shortest)
    if EARLIER > 0:
        most_counted = tl.max(counted, axis=0)
        same_c = tl.zeros([ROWS, BLOCK, EARLIER], tl.int32)
        same_f = tl.zeros([ROWS, BLOCK, EARLIER], tl.int32)
        for start in range(0, most_counted, EARLIER):
            j = start + tl.arange(0, EARLIER)
            within = (j < most_counted)[None, :]
            earlier_c = tl.load(ids_c + j[None, :], mask=within & (row < ORDERS), other=0)
            earlier_f = tl.load(ids_c + count + j[None, :], mask=within & (row < ORDERS), other=0)
            long_enough = within & (tl.load(listed + j[None, :], mask=within, other=0) >= shortest)
            seen = long_enough[:, None, :] & (j[None, :] < counted[:, None])[None, :, :]
            same_c += (seen & (earlier_c[:, None, :] == c[:, :, None])).to(tl.int32)
            same_f += (seen & (earlier_f[:, None, :] == f[:, :, None])).to(tl.int32)
    if sums is not None:
        p_neural = tl.load(p_target + i, mask=valid, other=1.0)
        h = tl.load(entropy + i, mask=valid, other=0.0)
        window = tl.load(rows + i, mask=valid, other=0)
        base, span, slope = tl.load(gate), tl.load(gate + 1), tl.load(gate + 2)
        centres = tl.load(gate + 3 + MIN_ORDER + row, mask=row < ORDERS, other=0.0)
    if EARLIER > 0:
        counts_c += tl.sum(same_c, axis=2)
        counts_f += tl.sum(same_f, axis=2)

    # Counts wrap at 2^32 like the tables' own; from here on they are int64.
    context = counts_c.to(tl.uint32).to(tl.int64)
    full = counts_f.to(tl.uint32).to(tl.int64)
    matched = whole & (context >= min_count)
    if BACKOFF:
        matched = matched & (full > 0)
    order = tl.max(tl.where(matched, MIN_ORDER + row, 0), axis=0)
    chosen = matched & (MIN_ORDER + row == order[None, :])
    best_c = tl.sum(tl.where(chosen, context, 0), axis=0)
    best_f = tl.sum(tl.where(chosen, full, 0), axis=0)

    if best_order is not None:
        tl.store(best_order + i, order.to(tl.uint8), mask=valid)
        tl.store(best_context + i, best_c.to(tl.int32), mask=valid)
        tl.store(best_full + i, best_f.to(tl.int32), mask=valid)
    if sums is not None:
        centre = tl.sum(tl.where(chosen, centres, 0.0), axis=0)
        p_ngram = tl.minimum(best_f, best_c).to(tl.float64) / tl.maximum(best_c, 1).to(tl.float64)
        weight = tl.where(order > 0, alpha(base, span, slope, h, centre), 0.0)
        p = (1.0 - weight) * p_neural + weight * p_ngram
        if values is not None:
            tl.store(values + i, p, mask=valid)
        fine = is_probability(p, BLOCK) & is_probability(p_neural, BLOCK) & (h == h)
        tl.atomic_min(bad + tl.zeros_like(order), positions, mask=valid & ~fine, sem="relaxed")
        charged = valid & fine
        add_nats(sums + window * 4, nats_of(p, BLOCK), charged)
        add_nats(sums + window * 4 + 2, nats_of(p_neural, BLOCK), charged)
        tl.atomic_add(hits + order, 1, mask=charged, sem="relaxed")


class Listed(NamedTuple):
    """The scored positions of some windows, window after window, on the device (`TritonCounts.launches` lists them)."""

    positions: Tensor
    """(n,) int64."""
    before: Tensor
    """(n,) int64: entries of earlier windows of the same launch."""
    rows: Tensor
    """(n,) int64: row of `DeviceTotals.sums` that the entry's window adds to."""


class DeviceTotals(NamedTuple):
    """What windows cost, added up on the device."""

    sums: Tensor
    """(windows, 4) int64: nats and the neural model's nats, each in two limbs (see `ngram_eval.bpb.fixed_point`)."""
    hits: Tensor
    """(10,) int64: positions by matched order, 0 for none."""
    bad: Tensor
    """(1,) int64: the first position with an entropy of NaN or a value that is not a probability, else `NO_POSITION`.
    It is charged nothing."""

    def nats(self) -> Tensor:
        """(windows, 2) float64: nats and the neural model's nats of each window."""
        high, low = self.sums[:, 0::2].double(), self.sums[:, 1::2].double()
        return high * 2.0 ** (LIMB_BITS - FRACTION_BITS) + low * 2.0**-FRACTION_BITS


def new_totals(windows: int, device: torch.device) -> DeviceTotals:
    """Nothing charged yet."""
    return DeviceTotals(
        torch.zeros((windows, 4), dtype=torch.int64, device=device),
        torch.zeros(10, dtype=torch.int64, device=device),
        torch.full((1,), NO_POSITION, dtype=torch.int64, device=device),
    )


def score_listed(
    tables: Tensor,
    tokens: Tensor,
    base: int,
    listed: Listed,
    ids: Tensor,
    config: NgramConfig,
    *,
    gate: Tensor | None = None,
    stats: tuple[Tensor, Tensor] | None = None,
    totals: DeviceTotals | None = None,
    values: Tensor | None = None,
    best: tuple[Tensor, Tensor, Tensor] | None = None,
    one_window: bool = False,
) -> None:
    """Score the listed positions, then count them: three launches. `one_window` says that `before` is 0 throughout.

    `tokens` holds what the positions read, from token `base` of the stream on; `ids` is scratch, int32
    (orders, 2, n). With `totals` (and `gate` of `gating.gate_constants`, and `stats`: p_target float64 and entropy
    float32 (n,)) the blend's nats are added to them, and stored before the logarithm in `values`, float64 (n,); with
    `best` (order uint8, context and full int32 (n,)) the matches are stored.
    """
    if len(listed.positions) == 0:
        return
    list_buckets(ids, tokens, base, listed.positions, config)
    score_buckets(
        tables,
        ids,
        listed,
        config,
        gate=gate,
        stats=stats,
        totals=totals,
        values=values,
        best=best,
        one_window=one_window,
    )
    add_buckets(tables, ids, listed.positions, config)


def score_buckets(
    tables: Tensor,
    ids: Tensor,
    listed: Listed,
    config: NgramConfig,
    *,
    gate: Tensor | None = None,
    stats: tuple[Tensor, Tensor] | None = None,
    totals: DeviceTotals | None = None,
    values: Tensor | None = None,
    best: tuple[Tensor, Tensor, Tensor] | None = None,
    one_window: bool = False,
) -> None:
    """The second launch of `score_listed`, which only reads the tables; `ids` as `list_buckets` left them."""
    count, orders = len(listed.positions), len(config.orders)
    rows = triton.next_power_of_2(orders)
    size = block(max(1, 16 // rows), count, interpreted=1 << 13 if one_window else 1 << 9)
    score_kernel[(triton.cdiv(count, size),)](
        tables,
        ids,
        *listed,
        *(stats or (None, None)),
        gate,
        *(totals or (None, None, None)),
        values,
        *(best or (None, None, None)),
        count,
        config.buckets,
        config.min_count,
        config.min_order,
        orders,
        config.context_lag,
        BACKOFF=config.target_backoff,
        ROWS=rows,
        BLOCK=size,
        EARLIER=0 if one_window else block(128, count, interpreted=1 << 7),
        num_warps=8,
        **FLOATS,
    )


def add_buckets(tables: Tensor, ids: Tensor, positions: Tensor, config: NgramConfig) -> None:
    """The third launch of `score_listed`, which only adds to the tables."""
    count = len(positions)
    size = block(128, count, interpreted=1 << 18)
    add_kernel[(triton.cdiv(count, size), 2 * len(config.orders))](
        tables,
        ids,
        positions,
        count,
        config.buckets,
        config.min_order,
        config.context_lag,
        BLOCK=size,
    )
