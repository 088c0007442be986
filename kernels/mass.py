"""The sum of PR #890's score over the vocabulary: 1 if it were a probability."""

import triton
import triton.language as tl
from torch import Tensor

from ngram_eval.config import NgramConfig
from ngram_eval.kernels.gating import alpha
from ngram_eval.kernels.hashing import PRIMES, bucket_pair
from ngram_eval.kernels.runtime import block
from ngram_eval.kernels.stats import softcapped


@triton.jit(do_not_specialize=["base", "count", "buckets", "min_count"])
def mass_kernel(
    tables: tl.tensor,
    tokens: tl.tensor,
    listed: tl.tensor,
    logits: tl.tensor,
    row_stride: tl.int64,
    log_sum: tl.tensor,
    entropy: tl.tensor,
    gate: tl.tensor,
    mass: tl.tensor,
    base: tl.int64,
    count: tl.int64,
    vocab: tl.int64,
    buckets: tl.int64,
    min_count: tl.int64,
    MIN_ORDER: tl.constexpr,
    MAX_ORDER: tl.constexpr,
    LAG: tl.constexpr,
    BACKOFF: tl.constexpr,
    CAP: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Adds up what each token of the vocabulary would be charged with; grid (blocks of positions,).

    Hashes, context counts and weights do not depend on the token and are computed once a position and order; each token
    then costs one gather an order.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = i < count
    positions = tl.load(listed + i, mask=valid, other=0)
    h = tl.load(entropy + i, mask=valid, other=0.0)
    normaliser = tl.load(log_sum + i, mask=valid, other=0.0)
    total = tl.zeros([BLOCK], tl.float64)
    for column in range(0, vocab, COLUMNS):
        v = column + tl.arange(0, COLUMNS)
        here = valid[:, None] & (v < vocab)[None, :]
        if logits is None:
            log_p = tl.zeros([BLOCK, COLUMNS], tl.float32) - normaliser[:, None]
        else:
            z = tl.load(logits + i[:, None] * row_stride + v[None, :], mask=here, other=0.0).to(tl.float32)
            log_p = softcapped(z, CAP) - normaliser[:, None]
        p_neural = tl.exp(log_p.to(tl.float64))
        charged = p_neural
        for n in tl.static_range(MIN_ORDER, MAX_ORDER + 1):  # lowest first, higher ones overwrite
            # The target's share of the full hash is replaced by that of every token in turn.
            c, _, whole = bucket_pair(tokens - base, positions, valid, n, buckets - 1, MIN_ORDER, MAX_ORDER, LAG)
            pair = tables + (n - MIN_ORDER) * 2 * buckets
            context = tl.load(pair + c.to(tl.int64), mask=whole, other=0).to(tl.uint32).to(tl.int64)
            place = v.to(tl.uint32) * PRIMES[n - 1]
            bucket = ((c[:, None] ^ place[None, :]) & (buckets - 1).to(tl.uint32)).to(tl.int64)
            there = here & whole[:, None]
            full = tl.load(pair + buckets + bucket, mask=there, other=0).to(tl.uint32).to(tl.int64)
            matched = there & (context >= min_count)[:, None]
            if BACKOFF:
                matched = matched & (full > 0)
            weight = alpha(gate, h, tl.full([BLOCK], n, tl.int32), valid)[:, None]
            ratio = tl.minimum(full, context[:, None]).to(tl.float64) / tl.maximum(context, 1).to(tl.float64)[:, None]
            charged = tl.where(matched, (1.0 - weight) * p_neural + weight * ratio, charged)
        total += tl.sum(tl.where(here, charged, 0.0), axis=1)
    tl.store(mass + i, total, mask=valid)


def vocabulary_mass(
    tables: Tensor,
    tokens: Tensor,
    base: int,
    positions: Tensor,
    config: NgramConfig,
    *,
    gate: Tensor,
    vocab: int,
    logits: Tensor | None,
    log_sum: Tensor,
    entropy: Tensor,
    mass: Tensor,
    softcap: float = 0.0,
) -> None:
    """Σ over v < `vocab` of what v would be charged with, as the tables stand, into `mass` (n,) float64.

    positions (n,) int64. Neural probabilities are exp(softcapped logits - log_sum), logits (n, vocab); without logits
    they are exp(-log_sum), so ln V for a uniform model. log_sum and entropy (n,) float32, in nats.
    """
    count = len(positions)
    if count == 0:
        return
    columns = min(triton.next_power_of_2(vocab), 1024)
    size = block(1, count, interpreted=max(1, (1 << 18) // columns))
    mass_kernel[(triton.cdiv(count, size),)](
        tables,
        tokens,
        positions,
        logits,
        0 if logits is None else logits.stride(0),
        log_sum,
        entropy,
        gate,
        mass,
        base,
        count,
        vocab,
        config.buckets,
        config.min_count,
        config.min_order,
        config.max_order,
        config.context_lag,
        BACKOFF=config.target_backoff,
        CAP=softcap,
        BLOCK=size,
        COLUMNS=columns,
    )
