"""Logits → what the evaluator needs of them, in one pass: no probabilities are ever written."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ngram_eval.kernels.runtime import FLOATS, block

_COLUMNS = 4096  # of the vocabulary, held by a program at a time


@triton.jit
def softcapped(x: tl.tensor, CAP: tl.constexpr) -> tl.tensor:
    """CAP * tanh(x / CAP) in float32, within 7e-8 of CAP; x itself where CAP is 0.

    (1 - e) / (1 + e) with e = exp(-2u) loses digits near 0, where a series takes over. On a GPU, exp and division are
    approximate (2^-22 each), which makes it 5e-7 of CAP.
    """
    z = x
    if CAP > 0:
        u = tl.abs(x) * (1 / CAP)
        v = tl.minimum(u, 0.125)
        v2 = v * v
        series = v * (1 + v2 * (-1 / 3 + v2 * (2 / 15 + v2 * (-17 / 315))))
        e = tl.exp(-2 * u)
        size = CAP * tl.where(u < 0.125, series, (1 - e) / (1 + e))
        z = tl.where(x < 0, -size, size)
    return z


@triton.jit(do_not_specialize=["rows"])
def stats_kernel(
    logits: tl.tensor,
    row_stride: tl.int64,
    targets: tl.tensor,
    p_target: tl.tensor,
    entropy: tl.tensor,
    rows: tl.tensor,
    vocab: tl.tensor,
    CAP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Online softmax over each row; grid (blocks of rows,).

    With m the largest logit so far: s = Σ exp(z - m) and t = Σ (z - m) exp(z - m), rescaled when m grows. Then
    log Σ exp z = m + ln s and the entropy is ln s - t / s. A row with NaN or +inf, or of -inf alone, gives NaN.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    in_rows = row < rows
    row_start = logits + row.to(tl.int64) * row_stride
    m = tl.full([ROWS], float("-inf"), tl.float32)
    base = tl.zeros([ROWS], tl.float32)  # m, or 0 while m is -inf, so that no difference of infinities is taken
    s = tl.zeros([ROWS], tl.float32)
    t = tl.zeros([ROWS], tl.float32)
    for column in range(0, vocab, COLUMNS):
        v = column + tl.arange(0, COLUMNS)
        here = in_rows[:, None] & (v < vocab)[None, :]
        z = softcapped(tl.load(row_start[:, None] + v[None, :], mask=here, other=0.0).to(tl.float32), CAP)
        z = tl.where(here, z, float("-inf"))
        m_new = tl.maximum(m, tl.max(z, axis=1))
        base_new = tl.where(m_new == float("-inf"), 0.0, m_new)
        d = z - base_new[:, None]
        e = tl.exp(d)
        scale = tl.exp(m - base_new)
        t = (t + s * (base - base_new)) * scale + tl.sum(tl.maximum(d, -1e4) * e, axis=1)  # 0, not NaN, where e is 0
        s = s * scale + tl.sum(e, axis=1)
        m, base = m_new, base_new
    s = tl.where(s > 0, s, float("nan"))
    log_s = tl.log(s)
    tl.store(entropy + row, log_s - t / s, mask=in_rows)
    target = tl.load(targets + row, mask=in_rows, other=0).to(tl.int64)
    z_target = softcapped(tl.load(row_start + target, mask=in_rows, other=0.0).to(tl.float32), CAP)
    tl.store(p_target + row, tl.exp((z_target - base - log_s).to(tl.float64)), mask=in_rows)


def neural_stats(logits: Tensor, targets: Tensor, p_target: Tensor, entropy: Tensor, *, softcap: float = 0.0) -> None:
    """Statistics of softmax(softcap * tanh(logits / softcap)), or of softmax(logits) with `softcap` 0.

    logits (rows, V): float32, bfloat16 or float16, neighbours in a row adjacent in memory, any row stride. targets
    (rows,): any integer dtype, within [0, V). Outputs (rows,): p_target float64, entropy float32 in nats. Raises
    `ValueError` for other shapes or dtypes; contents are not checked, as that would wait for the device.
    """
    check_stats(logits, targets, p_target, entropy, softcap)
    rows, vocab = logits.shape
    if rows == 0:
        return
    columns = min(triton.next_power_of_2(vocab), _COLUMNS)
    at_once = block(max(1, 1024 // columns), rows, interpreted=1 << 10)
    stats_kernel[(triton.cdiv(rows, at_once),)](
        logits,
        logits.stride(0),
        targets,
        p_target,
        entropy,
        rows,
        vocab,
        CAP=softcap,
        ROWS=at_once,
        COLUMNS=columns,
        num_warps=8 if columns == _COLUMNS else 4,
        **FLOATS,
    )


def check_stats(logits: Tensor, targets: Tensor, p_target: Tensor, entropy: Tensor, softcap: float) -> None:
    """Raise `ValueError` unless they are as `neural_stats` says."""
    if not (math.isfinite(softcap) and softcap >= 0):
        raise ValueError(f"softcap is {softcap}: give a finite number >= 0")
    if logits.ndim != 2 or logits.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"logits are {logits.dtype} of shape {tuple(logits.shape)}: give (rows, V) floats")
    if logits.shape[1] == 0 or (logits.shape[1] > 1 and logits.stride(1) != 1):
        raise ValueError(f"logits have strides {logits.stride()}: the values of a row must be adjacent")
    for name, one, dtype in (
        ("targets", targets, None),
        ("p_target", p_target, torch.float64),
        ("entropy", entropy, torch.float32),
    ):
        right = one.dtype == dtype if dtype else not (one.is_floating_point() or one.is_complex())
        if one.shape != logits.shape[:1] or not right or not one.is_contiguous():
            raise ValueError(
                f"{name} is {one.dtype} of shape {tuple(one.shape)}: give contiguous {dtype or 'integers'} of shape "
                f"{tuple(logits.shape[:1])}"
            )
