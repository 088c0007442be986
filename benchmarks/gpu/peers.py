"""What do the Triton kernels compute? The same in plain PyTorch, which `benchmarks/gpu/bench.py` compares them with.

Written from the specification (`hashing`, `reference` and `gate` of `ngram_eval.scorers.hashed`), sharing only its
constants. Tokens are int64 here, which spares PyTorch a conversion; every position must have a whole context in every
order. Nothing waits for the device, and every function is one graph to `torch.compile`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ngram_eval.bpb import P_FLOOR
from ngram_eval.config import EvalConfig
from ngram_eval.scorers.hashed.hashing import PRIMES


class Rules(NamedTuple):
    """The settings that the functions below read; tensors are on the device, as copying them there would wait."""

    orders: range
    lag: int
    mask: int
    min_count: int
    target_backoff: bool
    base: float
    spread: float
    slope: float
    softcap: float
    numbers: Tensor
    """(orders,) int64: the orders once more."""
    centres: Tensor
    """(10,) float64: of the gate, by order from 0 on."""

    @classmethod
    def of(cls, config: EvalConfig, softcap: float, device: torch.device) -> "Rules":
        """The rules of an evaluation."""
        ngram, gate = config.ngram, config.gate
        return cls(
            orders=ngram.orders,
            lag=ngram.context_lag,
            mask=ngram.buckets - 1,
            min_count=ngram.min_count,
            target_backoff=ngram.target_backoff,
            base=gate.alpha_base,
            spread=gate.alpha_range,
            slope=gate.alpha_slope,
            softcap=softcap,
            numbers=torch.tensor(list(ngram.orders), device=device),
            centres=torch.tensor((0.0, *gate.centres), dtype=torch.float64, device=device),
        )


def context_hash(rules: Rules, tokens: Tensor, positions: Tensor, order: int) -> Tensor:
    """Hash of the context of each position (n,), before the mask; (n,) int64."""
    h = torch.zeros_like(positions)
    for k in range(order - 1):
        h = h ^ (tokens[positions + (2 - rules.lag - order + k)] * PRIMES[k])
    return h


def bucket(rules: Rules, tokens: Tensor, positions: Tensor) -> Tensor:
    """Buckets of positions (n,) in every table: (orders, 2, n)."""
    rows = []
    for order in rules.orders:
        h = context_hash(rules, tokens, positions, order)
        rows += [h, h ^ (tokens[positions + 1] * PRIMES[order - 1])]
    return torch.stack(rows).view(len(rules.orders), 2, -1) & rules.mask


def add(tables: Tensor, ids: Tensor) -> None:
    """Counts buckets (orders, 2, n) in tables (orders, 2, buckets)."""
    tables.scatter_add_(2, ids, torch.ones((), dtype=torch.int32, device=ids.device).expand_as(ids))


def update(rules: Rules, tables: Tensor, tokens: Tensor, positions: Tensor) -> None:
    """Counts positions, one order after another, so that the tables in use stay in the cache."""
    one = torch.ones((), dtype=torch.int32, device=tables.device).expand_as(positions)
    for row, order in enumerate(rules.orders):
        h = context_hash(rules, tokens, positions, order)
        tables[row, 0].scatter_add_(0, h & rules.mask, one)
        tables[row, 1].scatter_add_(0, (h ^ (tokens[positions + 1] * PRIMES[order - 1])) & rules.mask, one)


def lookup(rules: Rules, tables: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
    """Counts of positions in every table: (orders, 2, n)."""
    return tables.gather(2, bucket(rules, tokens, positions))


def stats(rules: Rules, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(probability of the target, float64; entropy, float32) of each row of logits."""
    log_p = torch.log_softmax(rules.softcap * torch.tanh(logits.float() / rules.softcap), dim=1)
    entropy = torch.special.entr(log_p.exp()).sum(dim=1)
    return log_p.gather(1, targets[:, None])[:, 0].double().exp(), entropy


def alpha(rules: Rules, entropy: Tensor, order: Tensor) -> Tensor:
    """Weight of the n-gram estimate; 0 where no order matched."""
    weight = rules.base + rules.spread * torch.sigmoid(rules.slope * (entropy.double() - rules.centres[order]))
    return torch.where(order > 0, weight, 0.0)


def best(rules: Rules, context: Tensor, full: Tensor) -> tuple[Tensor, Tensor]:
    """(highest matched order or 0, its estimate) of counts (orders, ...)."""
    matched = context >= rules.min_count
    if rules.target_backoff:
        matched = matched & (full > 0)
    order = torch.where(matched, rules.numbers.view(-1, *[1] * (context.ndim - 1)), 0).amax(dim=0)
    row = (order - rules.orders[0]).clamp(min=0)[None]
    chosen_context, chosen_full = context.gather(0, row)[0], full.gather(0, row)[0]
    return order, torch.minimum(chosen_full, chosen_context).double() / chosen_context.clamp(min=1)


def score(
    rules: Rules, tables: Tensor, ids: Tensor, before: Tensor, stride: int, p_target: Tensor, entropy: Tensor
) -> tuple[Tensor, Tensor]:
    """(nats of each window of `stride` positions, positions by matched order); `before` as in `score_windows`."""
    earlier = torch.arange(ids.shape[2], device=ids.device) < before[:, None]
    same = (ids[:, :, :, None] == ids[:, :, None, :]) & earlier
    counts = tables.gather(2, ids) + same.sum(dim=3)
    order, p_ngram = best(rules, counts[:, 0], counts[:, 1])
    weight = alpha(rules, entropy, order)
    nats = -torch.log(((1 - weight) * p_target + weight * p_ngram).clamp(min=P_FLOOR))
    hits = torch.zeros(10, dtype=torch.int64, device=ids.device).scatter_add_(0, order, torch.ones_like(order))
    return nats.view(-1, stride).sum(dim=1), hits


def windows(
    rules: Rules,
    tables: Tensor,
    tokens: Tensor,
    positions: Tensor,
    before: Tensor,
    stride: int,
    p_target: Tensor,
    entropy: Tensor,
) -> tuple[Tensor, Tensor]:
    """Scores windows as `score` does, then counts them."""
    ids = bucket(rules, tokens, positions)
    found = score(rules, tables, ids, before, stride, p_target, entropy)
    add(tables, ids)
    return found


def step(
    rules: Rules,
    tables: Tensor,
    tokens: Tensor,
    positions: Tensor,
    before: Tensor,
    stride: int,
    logits: Tensor,
    targets: Tensor,
) -> tuple[Tensor, Tensor]:
    """`windows` with statistics of the logits."""
    return windows(rules, tables, tokens, positions, before, stride, *stats(rules, logits, targets))
