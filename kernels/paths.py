"""Logits → a target's statistics and the branches on its path through a tree over the vocabulary, in one pass.

What `ngram_eval.models.branches.Tree` makes of whole distributions, without ever writing one.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ngram_eval.kernels.runtime import FLOATS
from ngram_eval.kernels.stats import check_stats, softcapped

_COLUMNS = 4096  # of the vocabulary, held by a program at a time
_DECISIONS = 32  # room for those of a path


@triton.jit
def paths_kernel(
    logits: tl.tensor,
    row_stride: tl.int64,
    targets: tl.tensor,
    order: tl.tensor,
    rank: tl.tensor,
    p_target: tl.tensor,
    entropy: tl.tensor,
    branches: tl.tensor,
    vocab: tl.tensor,
    depth: tl.tensor,
    CAP: tl.constexpr,
    DECISIONS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Online softmax over each row as in `stats_kernel`, tokens in the tree's order; grid (rows,).

    The target's path leaves a sibling, a range of ranks, at each decision, and these ranges part the vocabulary but for
    the target. So a column counts for one sibling, and a node's mass is the sum of those below it and the target's
    power: sums of what is not negative, where differences of prefix sums would lose the digits of small ones.
    """
    row = tl.program_id(0)
    row_start = logits + row.to(tl.int64) * row_stride
    target = tl.load(targets + row).to(tl.int64)
    leaf = tl.load(rank + target)

    decision = tl.arange(0, DECISIONS)
    first = tl.zeros([DECISIONS], tl.int32)  # of the sibling's ranks; none where the path has ended
    stop = tl.zeros([DECISIONS], tl.int32)
    right = tl.zeros([DECISIONS], tl.int32)
    low = leaf * 0
    high = low + vocab
    for i in range(0, depth):
        mid = (low + high + 1) // 2
        goes = leaf >= mid
        here = (decision == i) & (high - low > 1)
        first = tl.where(here, tl.where(goes, low, mid), first)
        stop = tl.where(here, tl.where(goes, mid, high), stop)
        right = tl.where(here & goes, 1, right)
        ended = high - low <= 1
        low = tl.where(goes & (ended == 0), mid, low)
        high = tl.where(goes | ended, high, mid)

    m = tl.full([1], float("-inf"), tl.float32)
    base = tl.zeros([1], tl.float32)  # m, or 0 while m is -inf
    s = tl.zeros([1], tl.float32)
    t = tl.zeros([1], tl.float32)
    mass = tl.zeros([DECISIONS], tl.float32)  # of the siblings
    for column in range(0, vocab, COLUMNS):
        ranks = column + tl.arange(0, COLUMNS)
        inside = ranks < vocab
        token = tl.load(order + ranks, mask=inside, other=0)
        z = softcapped(tl.load(row_start + token, mask=inside, other=0.0).to(tl.float32), CAP)
        z = tl.where(inside, z, float("-inf"))
        m_new = tl.maximum(m, tl.max(z, axis=0))
        base_new = tl.where(m_new == float("-inf"), 0.0, m_new)
        d = z - base_new
        e = tl.exp(d)
        scale = tl.exp(m - base_new)
        t = (t + s * (base - base_new)) * scale + tl.sum(tl.maximum(d, -1e4) * e, axis=0)  # 0, not NaN, where e is 0
        s = s * scale + tl.sum(e, axis=0)
        mass = mass * scale
        for i in range(0, depth):
            begins = tl.sum(tl.where(decision == i, first, 0), axis=0)
            ends = tl.sum(tl.where(decision == i, stop, 0), axis=0)
            if (begins < column + COLUMNS) & (ends > column):
                part = tl.sum(tl.where((ranks >= begins) & (ranks < ends), e, 0.0), axis=0)
                mass = tl.where(decision == i, mass + part, mass)
        m, base = m_new, base_new
    s = tl.where(s > 0, s, float("nan"))
    log_s = tl.log(s)
    one = tl.arange(0, 1)
    tl.store(entropy + row + one, log_s - t / s)
    z_target = softcapped(tl.load(row_start + target).to(tl.float32), CAP)
    tl.store(p_target + row + one, tl.exp((z_target - base - log_s).to(tl.float64)))

    own = tl.exp(z_target - base)
    below = own + tl.sum(tl.where(decision[None, :] > decision[:, None], mass[None, :], 0.0), axis=1)
    whole = (below + mass).to(tl.float64)
    p = tl.where(right == 1, below, mass).to(tl.float64) / tl.where(whole > 0, whole, 1.0)
    p = tl.where((stop > first) & (whole > 0), p, 0.5)
    p = tl.where(s > 0, p, float("nan"))
    tl.store(branches + row.to(tl.int64) * depth + decision, p, mask=decision < depth)


def path_stats(
    logits: Tensor,
    targets: Tensor,
    order: Tensor,
    rank: Tensor,
    p_target: Tensor,
    entropy: Tensor,
    branches: Tensor,
    *,
    softcap: float = 0.0,
) -> None:
    """`neural_stats`, and the probability of the right branch at each node on the targets' paths.

    order and rank (V,) int32: the tokens in the tree's order, and their places in it. branches (rows, D) float64, D =
    ⌈log₂ V⌉; 1/2 where a node has no probability (in float32, beside the row's largest), and where a path has ended.
    NaN where the row is no distribution. Raises `ValueError` for other shapes or dtypes.
    """
    check_stats(logits, targets, p_target, entropy, softcap)
    rows, vocab = logits.shape
    depth = (vocab - 1).bit_length()
    for name, one, shape, dtype in (
        ("order", order, (vocab,), torch.int32),
        ("rank", rank, (vocab,), torch.int32),
        ("branches", branches, (rows, depth), torch.float64),
    ):
        if one.shape != shape or one.dtype != dtype or not one.is_contiguous():
            raise ValueError(f"{name} is {one.dtype} of shape {tuple(one.shape)}: give contiguous {dtype} of {shape}")
    if rows == 0:
        return
    columns = min(triton.next_power_of_2(vocab), _COLUMNS)
    paths_kernel[(rows,)](
        logits,
        logits.stride(0),
        targets,
        order,
        rank,
        p_target,
        entropy,
        branches,
        vocab,
        depth,
        CAP=softcap,
        DECISIONS=_DECISIONS,
        COLUMNS=columns,
        num_warps=16 if columns == _COLUMNS else 8,  # with half of them some spill
        **FLOATS,
    )
