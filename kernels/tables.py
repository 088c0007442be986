"""Counting and looking up positions in the tables.

Tables are one int32 tensor (orders, 2, buckets), read as uint32: [i, 0] context counts and [i, 1] full counts of order
min_order + i, as in `ngram_eval.scorers.hashed.counts`. Token tensors are uint16, or int32 holding uint32 bits.
"""

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from ngram_eval.config import NgramConfig
from ngram_eval.kernels.buckets import bucket_pair
from ngram_eval.kernels.runtime import block


@triton.jit(do_not_specialize=["base", "start", "count", "buckets"])
def update_kernel(
    tables: tl.tensor,
    tokens: tl.tensor,
    base: tl.int64,
    start: tl.int64,
    count: tl.int64,
    buckets: tl.int64,
    MIN_ORDER: tl.constexpr,
    MAX_ORDER: tl.constexpr,
    LAG: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Adds 1 for each position to one table; grid (blocks of positions, tables).

    Blocks are the grid's fast axis, so that tables are worked through one after another and the one in use (16 MiB at
    2^22 buckets) stays in the L2 cache. Integer adds commute: the order in which they land changes nothing, and no
    program reads what another adds, so relaxed order is enough.
    """
    table = tl.program_id(1)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = i < count
    context, full, whole = bucket_pair(
        tokens - base, start + i, valid, MIN_ORDER + table // 2, buckets - 1, MIN_ORDER, MAX_ORDER, LAG
    )
    bucket = tl.where(table % 2 == 0, context, full).to(tl.int64)
    tl.atomic_add(tables + table * buckets + bucket, 1, mask=whole, sem="relaxed")


@triton.jit(do_not_specialize=["base", "start", "count", "buckets"])
def lookup_kernel(
    tables: tl.tensor,
    tokens: tl.tensor,
    contexts: tl.tensor,
    fulls: tl.tensor,
    base: tl.int64,
    start: tl.int64,
    count: tl.int64,
    buckets: tl.int64,
    MIN_ORDER: tl.constexpr,
    MAX_ORDER: tl.constexpr,
    LAG: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Both counts of each position in one order; grid (blocks of positions, orders), outputs (orders, positions)."""
    row = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = i < count
    context, full, whole = bucket_pair(
        tokens - base, start + i, valid, MIN_ORDER + row, buckets - 1, MIN_ORDER, MAX_ORDER, LAG
    )
    pair = tables + row * 2 * buckets
    tl.store(contexts + row * count + i, tl.load(pair + context.to(tl.int64), mask=whole, other=0), mask=valid)
    tl.store(fulls + row * count + i, tl.load(pair + buckets + full.to(tl.int64), mask=whole, other=0), mask=valid)


def _orders(config: NgramConfig) -> tuple[int, int, int]:
    return config.min_order, config.max_order, config.context_lag


def update(tables: Tensor, tokens: Tensor, base: int, start: int, stop: int, config: NgramConfig) -> None:
    """Count positions [start, stop); `tokens` holds the stream from token `base` to at least token `stop`."""
    count = stop - start
    if count == 0:
        return
    size = block(1024, count, interpreted=1 << 18)
    grid = (triton.cdiv(count, size), 2 * len(config.orders))
    update_kernel[grid](tables, tokens, base, start, count, config.buckets, *_orders(config), BLOCK=size)


def lookup(
    tables: Tensor, tokens: Tensor, base: int, start: int, contexts: Tensor, fulls: Tensor, config: NgramConfig
) -> None:
    """Counts of positions from `start` on into `contexts` and `fulls`, int32 (orders, positions) read as uint32."""
    count = contexts.shape[1]
    if count == 0:
        return
    size = block(1024, count, interpreted=1 << 18)
    grid = (triton.cdiv(count, size), len(config.orders))
    lookup_kernel[grid](
        tables, tokens, contexts, fulls, base, start, count, config.buckets, *_orders(config), BLOCK=size
    )


def empty_tables(config: NgramConfig, device: torch.device) -> Tensor:
    """Tables of zeros."""
    shape = (len(config.orders), 2, config.buckets)
    if device.type == "cpu":  # numpy leaves pages untouched until they are counted into, torch does not
        return torch.from_numpy(np.zeros(shape, np.int32))
    return torch.zeros(shape, dtype=torch.int32, device=device)
