"""The n-gram hash (`ngram_eval.scorers.hashed.hashing` is the specification) for use inside kernels.

Only the low 32 bits of the specification's 64 are kept: products and XORs never carry downwards, and a table has at
most 2^32 buckets. A prime belongs to a place counted from the oldest token, so the orders of a position share no
products, only the tokens; each order reads them again, from the L1 cache.
"""

import triton
import triton.language as tl
from torch import Tensor

from ngram_eval.config import NgramConfig
from ngram_eval.kernels.runtime import block
from ngram_eval.scorers.hashed import hashing

PRIMES = tl.constexpr(hashing.PRIMES)


@triton.jit
def bucket_pair(
    tokens: tl.tensor,
    positions: tl.tensor,
    valid: tl.tensor,
    order: tl.tensor,
    mask: tl.tensor,
    MIN_ORDER: tl.constexpr,
    MAX_ORDER: tl.constexpr,
    LAG: tl.constexpr,
) -> tl.tensor:
    """(context bucket, full bucket, has a whole context) of each position, uint32, uint32 and bool.

    `tokens` points at token 0 of the stream, even where only a part of it is in memory; `positions` int64, `valid` says
    which of them to look at; `order` may differ from program to program; `mask` is buckets - 1. A position
    without a whole context gives bucket 0: mask it out.
    """
    context = tl.zeros_like(positions).to(tl.uint32)
    full = context
    whole = valid & (positions >= order - 2 + LAG)
    for n in tl.static_range(MIN_ORDER, MAX_ORDER + 1):
        if order == n:
            for k in tl.static_range(n - 1):
                token = tl.load(tokens + (positions + (1 - LAG - (n - 1) + k)), mask=whole, other=0)
                context ^= token.to(tl.uint32) * PRIMES[k]
            target = tl.load(tokens + (positions + 1), mask=whole, other=0)
            full = context ^ (target.to(tl.uint32) * PRIMES[n - 1])
    return context & mask.to(tl.uint32), full & mask.to(tl.uint32), whole


@triton.jit(do_not_specialize=["base", "count", "buckets"])
def bucket_kernel(
    ids: tl.tensor,
    tokens: tl.tensor,
    listed: tl.tensor,
    base: tl.int64,
    count: tl.int64,
    buckets: tl.int64,
    MIN_ORDER: tl.constexpr,
    MAX_ORDER: tl.constexpr,
    LAG: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Buckets of the listed positions into `ids`, (orders, 2, count); grid (blocks of positions, orders)."""
    row = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = i < count
    positions = tl.load(listed + i, mask=valid, other=0)
    context, full, _ = bucket_pair(
        tokens - base, positions, valid, MIN_ORDER + row, buckets - 1, MIN_ORDER, MAX_ORDER, LAG
    )
    tl.store(ids + row * 2 * count + i, context.to(tl.int32), mask=valid)
    tl.store(ids + (row * 2 + 1) * count + i, full.to(tl.int32), mask=valid)


def list_buckets(ids: Tensor, tokens: Tensor, base: int, positions: Tensor, config: NgramConfig) -> None:
    """Bucket numbers of the listed positions (n,), int64, into `ids` (orders, 2, n), int32 read as uint32.

    `tokens` holds the stream from token `base` on. A position without a whole context in an order has no bucket there,
    and its entry means nothing.
    """
    count, orders = len(positions), len(config.orders)
    if ids.shape != (orders, 2, count):
        raise ValueError(f"ids have shape {tuple(ids.shape)}, not {(orders, 2, count)}")
    size = block(128, count, interpreted=1 << 18)
    bucket_kernel[(triton.cdiv(count, size), orders)](
        ids,
        tokens,
        positions,
        base,
        count,
        config.buckets,
        config.min_order,
        config.max_order,
        config.context_lag,
        BLOCK=size,
    )
