"""What is timed? The inputs of `benchmarks/gpu/bench.py`, every kernel on them, and the same by PyTorch and by C++."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.gpu import peers
from benchmarks.gpu.prediction import STEP, Sizes
from ngram_eval.config import preset
from ngram_eval.kernels import buckets, score_windows, stats, tables
from ngram_eval.kernels.gating import gate_constants
from ngram_eval.scorers.hashed.counts import Counts

SOFTCAP = 30.0
FIRST = 64
"""First position that is counted: from here on every order has a whole context."""


def repeating_tokens(count: int, vocab: int) -> NDArray[np.uint16]:
    """Tokens as frequent as words are, in phrases that come back, so that every order matches."""
    rng = np.random.default_rng(0)
    frequency = 1 / (np.arange(vocab) + 10)
    pool = rng.choice(vocab, 1 << 18, p=frequency / frequency.sum()).astype(np.uint16)
    starts = rng.integers(0, len(pool) - 12, count // 12 + 1)
    return np.ascontiguousarray(pool[starts[:, None] + np.arange(12)].ravel()[:count])


class Inputs:
    """A stream, counted but for its last batch; that batch, its logits, and everything that its windows need."""

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        self.sizes, self.device = sizes, device
        hashed = preset("hashed")
        self.config = replace(hashed, ngram=replace(hashed.ngram, buckets=sizes.buckets))
        self.rules = peers.Rules.of(self.config, SOFTCAP, device)
        self.gate = gate_constants(self.config.gate, device)
        self.stream = repeating_tokens(FIRST + sizes.prefill + sizes.batch + 1, sizes.vocab)
        self.tokens = torch.from_numpy(self.stream).to(device)
        self.wide_tokens = self.tokens.long()  # as PyTorch's operations take them
        self.prefilled = torch.arange(FIRST, FIRST + sizes.prefill, device=device)
        entries = torch.arange(sizes.batch, device=device)
        window = entries // sizes.stride
        self.listed = score_windows.Listed(FIRST + sizes.prefill + entries, window * sizes.stride, window)
        self.targets = self.wide_tokens[self.listed.positions + 1]
        generator = torch.Generator().manual_seed(0)
        self.logits = (4 * torch.randn(sizes.batch, sizes.vocab, generator=generator)).bfloat16().to(device)
        # What one launch hands to the next, PyTorch works out here.
        self.p_target, self.entropy = peers.stats(self.rules, self.logits, self.targets)
        self.ids = peers.bucket(self.rules, self.wide_tokens, self.listed.positions).int()
        self.tables = tables.empty_tables(self.config.ngram, device)
        peers.update(self.rules, self.tables, self.wide_tokens, self.prefilled)
        self.counted = self.tables.clone()
        self.totals = score_windows.new_totals(sizes.batch // sizes.stride, device)

    def reset(self) -> None:
        """Tables and sums as they were at the start."""
        self.tables.copy_(self.counted)
        self.totals.sums.zero_()
        self.totals.hits.zero_()


class Case(NamedTuple):
    """Something that kernels do, and how else it is done."""

    name: str
    launches: tuple[str, ...]
    """Of `prediction.kernels`: what the floor is made of."""
    ours: Callable[[], object]
    peer: Callable[..., Any]
    """Of `peers`."""
    arguments: tuple[Any, ...]
    """Of the peer."""
    result: Callable[[], tuple[Tensor, ...]] = lambda: ()
    """What `ours` has computed, to compare with what the peer returns; both may also count into the tables."""
    outputs: tuple[Tensor, ...] = ()
    """Where `ours` writes: overwritten before the comparison."""
    cpu: Callable[[Counts], NDArray[np.int64] | None] | None = None
    """The same on the C++ backend; may return the positions by matched order."""


def cases(inputs: Inputs) -> list[Case]:
    """Every kernel, and the launches that go together."""
    sizes, rules, listed, ngram = inputs.sizes, inputs.rules, inputs.listed, inputs.config.ngram
    given = (listed.positions, listed.before, sizes.stride)
    neural = (inputs.p_target, inputs.entropy)
    charging: dict[str, Any] = {"gate": inputs.gate, "stats": neural, "totals": inputs.totals}
    contexts, fulls = torch.empty((2, len(ngram.orders), sizes.lookup), dtype=torch.int32, device=inputs.device)
    ids, scratch = inputs.ids.long(), torch.empty_like(inputs.ids)

    def reduce() -> None:
        stats.neural_stats(inputs.logits, inputs.targets, *neural, softcap=SOFTCAP)

    def score() -> None:
        score_windows.score_listed(inputs.tables, inputs.tokens, 0, listed, scratch, ngram, **charging)

    def step() -> None:
        reduce()
        score()

    def charged() -> tuple[Tensor, ...]:
        return inputs.totals.nats()[:, 0], inputs.totals.hits

    def update_cpu(counts: Counts) -> None:
        counts.update(inputs.stream, FIRST, FIRST + sizes.prefill)

    def windows_cpu(counts: Counts) -> NDArray[np.int64]:
        firsts = FIRST + sizes.prefill + np.arange(0, sizes.batch, sizes.stride)
        best = counts.score_windows(inputs.stream, firsts, firsts + sizes.stride)
        return np.bincount(best.order, minlength=10)

    return [
        Case(
            "update",
            ("update",),
            lambda: tables.update(inputs.tables, inputs.tokens, 0, FIRST, FIRST + sizes.prefill, ngram),
            peers.update,
            (rules, inputs.tables, inputs.wide_tokens, inputs.prefilled),
            cpu=update_cpu,
        ),
        Case(
            "lookup",
            ("lookup",),
            lambda: tables.lookup(inputs.tables, inputs.tokens, 0, FIRST, contexts, fulls, ngram),
            peers.lookup,
            (rules, inputs.tables, inputs.wide_tokens, inputs.prefilled[: sizes.lookup]),
            result=lambda: (torch.stack([contexts, fulls], dim=1),),
            outputs=(contexts, fulls),
        ),
        Case(
            "stats",
            ("stats",),
            reduce,
            peers.stats,
            (rules, inputs.logits, inputs.targets),
            result=lambda: neural,
            outputs=neural,
        ),
        Case(
            "bucket",
            ("bucket",),
            lambda: buckets.list_buckets(scratch, inputs.tokens, 0, listed.positions, ngram),
            peers.bucket,
            (rules, inputs.wide_tokens, listed.positions),
            result=lambda: (scratch,),
            outputs=(scratch,),
        ),
        Case(
            "score",
            ("score",),
            lambda: score_windows.score_buckets(inputs.tables, inputs.ids, listed, ngram, **charging),
            peers.score,
            (rules, inputs.tables, ids, listed.before, sizes.stride, *neural),
            result=charged,
        ),
        Case(
            "add",
            ("add",),
            lambda: score_windows.add_buckets(inputs.tables, inputs.ids, listed.positions, ngram),
            peers.add,
            (inputs.tables, ids),
        ),
        Case(
            "windows: bucket, score, add",
            ("bucket", "score", "add"),
            score,
            peers.windows,
            (rules, inputs.tables, inputs.wide_tokens, *given, *neural),
            result=charged,
            cpu=windows_cpu,
        ),
        Case(
            "step: stats and windows",
            STEP,
            step,
            peers.step,
            (rules, inputs.tables, inputs.wide_tokens, *given, inputs.logits, inputs.targets),
            result=charged,
        ),
    ]
