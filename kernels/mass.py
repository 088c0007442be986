"""The sum of PR #890's score over the vocabulary: 1 if it were a probability."""

import triton
import triton.language as tl
from torch import Tensor

from ngram_eval.config import NgramConfig
from ngram_eval.kernels.gating import alpha
from ngram_eval.kernels.hashing import PRIMES, list_buckets
from ngram_eval.kernels.runtime import FLOATS, block
from ngram_eval.kernels.stats import softcapped


@triton.jit(do_not_specialize=["count", "buckets", "min_count"])
def mass_kernel(
    tables: tl.tensor,
    ids: tl.tensor,
    listed: tl.tensor,
    logits: tl.tensor,
    row_stride: tl.int64,
    log_sum: tl.tensor,
    entropy: tl.tensor,
    gate: tl.tensor,
    mass: tl.tensor,
    count: tl.int64,
    vocab: tl.int64,
    buckets: tl.int64,
    min_count: tl.int64,
    MIN_ORDER: tl.constexpr,
    ORDERS: tl.constexpr,
    LAG: tl.constexpr,
    BACKOFF: tl.constexpr,
    CAP: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Adds up what each token of the vocabulary would be charged with; grid (blocks of positions,).

    Buckets of contexts, their counts and weights do not depend on the token and are read once a position and order;
    each token then costs one gather an order.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = i < count
    positions = tl.load(listed + i, mask=valid, other=0)
    h = tl.load(entropy + i, mask=valid, other=0.0)
    normaliser = tl.load(log_sum + i, mask=valid, other=0.0)

    # Tiles are (orders, positions) and (orders, positions, vocabulary).
    row = tl.arange(0, ROWS)[:, None]
    order = MIN_ORDER + row
    whole = (row < ORDERS) & valid[None, :]
    c = tl.load(ids + row * 2 * count + i[None, :], mask=whole, other=0).to(tl.uint32)
    whole = whole & (positions[None, :] >= order - 2 + LAG)
    pair = tables + row * 2 * buckets
    context = tl.load(pair + c.to(tl.int64), mask=whole, other=0).to(tl.uint32).to(tl.int64)
    enough = whole & (context >= min_count)
    weight = alpha(gate, h[None, :], tl.where(enough, order, 0), enough)
    place = tl.zeros([ROWS, 1], tl.uint32)  # of the target, in each order
    for n in tl.static_range(MIN_ORDER, MIN_ORDER + ORDERS):
        place = tl.where(order == n, PRIMES[n - 1], place).to(tl.uint32)
    mask = (buckets - 1).to(tl.uint32)
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
        bucket = (c[:, :, None] ^ (v.to(tl.uint32)[None, :] * place)[:, None, :]) & mask
        there = enough[:, :, None] & here[None, :, :]
        full = tl.load((pair + buckets)[:, :, None] + bucket.to(tl.int64), mask=there, other=0)
        full = full.to(tl.uint32).to(tl.int64)
        matched = there
        if BACKOFF:
            matched = there & (full > 0)
        best = tl.max(tl.where(matched, order[:, :, None], 0), axis=0)
        chosen = matched & (order[:, :, None] == best[None, :, :])
        best_f = tl.sum(tl.where(chosen, full, 0), axis=0)
        best_c = tl.sum(tl.where(chosen, context[:, :, None], 0), axis=0)
        best_weight = tl.sum(tl.where(chosen, weight[:, :, None], 0.0), axis=0)
        p_ngram = tl.minimum(best_f, best_c).to(tl.float64) / tl.maximum(best_c, 1).to(tl.float64)
        charged = (1.0 - best_weight) * p_neural + best_weight * p_ngram
        total += tl.sum(tl.where(here, charged, 0.0), axis=1)
    tl.store(mass + i, total, mask=valid)


def vocabulary_mass(
    tables: Tensor,
    tokens: Tensor,
    base: int,
    positions: Tensor,
    ids: Tensor,
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
    """Σ over v < `vocab` of what v would be charged with, as the tables stand, into `mass` (n,) float64: two launches.

    positions (n,) int64; `tokens` holds what they read, from token `base` of the stream on; `ids` is scratch, int32
    (orders, 2, n). Neural probabilities are exp(softcapped logits - log_sum), logits (n, vocab); without logits they
    are exp(-log_sum), so ln V for a uniform model. log_sum and entropy (n,) float32, in nats.
    """
    count, orders = len(positions), len(config.orders)
    if count == 0:
        return
    list_buckets(ids, tokens, base, positions, config)
    columns = min(triton.next_power_of_2(vocab), 256)
    size = block(1, count, interpreted=256)
    mass_kernel[(triton.cdiv(count, size),)](
        tables,
        ids,
        positions,
        logits,
        0 if logits is None else logits.stride(0),
        log_sum,
        entropy,
        gate,
        mass,
        count,
        vocab,
        config.buckets,
        config.min_count,
        config.min_order,
        orders,
        config.context_lag,
        BACKOFF=config.target_backoff,
        CAP=softcap,
        ROWS=triton.next_power_of_2(orders),
        BLOCK=size,
        COLUMNS=columns,
        **FLOATS,
    )
