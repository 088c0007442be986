"""The n-gram hash (`ngram_eval.hashing` is the specification) for use inside kernels.

Only the low 32 bits of the specification's 64 are kept: products and XORs never carry downwards, and a table has at
most 2^32 buckets. A prime belongs to a place counted from the oldest token, so the orders of a position share no
products, only the tokens; each order reads them again, from the L1 cache.
"""

import triton
import triton.language as tl

from ngram_eval import hashing

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
