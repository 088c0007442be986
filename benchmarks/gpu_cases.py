"""What `benchmarks.gpu_bench` times: the inputs, every kernel on them, and the same by PyTorch and by C++."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import gpu_peers as peers
from benchmarks.gpu_prediction import STEP, Sizes
from ngram_eval.config import preset
from ngram_eval.kernels import hashing, mass, stats, tables, windows
from ngram_eval.kernels.step import FusedStep
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
    """A stream, counted but for its last batch; that batch, its logits, and a step ready to score it."""

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        self.sizes, self.device = sizes, device
        hashed = preset("hashed")
        self.config = replace(hashed, ngram=replace(hashed.ngram, buckets=sizes.buckets))
        self.rules = peers.Rules.of(self.config, SOFTCAP, self.device)
        self.stream = repeating_tokens(FIRST + sizes.prefill + sizes.batch + 1, sizes.vocab)
        self.tokens = torch.from_numpy(self.stream.astype(np.int64)).to(self.device)
        self.prefilled = torch.arange(FIRST, FIRST + sizes.prefill, device=self.device)
        generator = torch.Generator().manual_seed(0)
        logits = (4 * torch.randn(sizes.batch, sizes.vocab, generator=generator)).bfloat16().to(self.device)
        # A step with its inputs in place; what it works out for itself, PyTorch works out here.
        self.step = FusedStep.allocate(
            self.config,
            tables.empty_tables(self.config.ngram, self.device),
            logits,
            torch.from_numpy(self.stream).to(self.device),
            windows=sizes.batch // sizes.stride,
            softcap=SOFTCAP,
        )
        entries = torch.arange(sizes.batch, device=self.device)
        self.step.listed.positions.copy_(FIRST + sizes.prefill + entries)
        self.step.listed.before.copy_(entries // sizes.stride * sizes.stride)
        self.step.listed.rows.copy_(entries // sizes.stride)
        self.step.targets.copy_(self.tokens[self.step.listed.positions + 1])
        for buffer, values in zip(
            (self.step.p_target, self.step.entropy), peers.stats(self.rules, logits, self.step.targets), strict=True
        ):
            buffer.copy_(values)
        self.step.ids.copy_(peers.bucket(self.rules, self.tokens, self.step.listed.positions))
        self.log_sum = torch.logsumexp(SOFTCAP * torch.tanh(logits.float() / SOFTCAP), dim=1)
        peers.update(self.rules, self.step.tables, self.tokens, self.prefilled)
        self.counted = self.step.tables.clone()

    def reset(self) -> None:
        """Tables and sums as they were at the start."""
        self.step.tables.copy_(self.counted)
        self.step.charges.sums.zero_()
        self.step.charges.hits.zero_()


class Case(NamedTuple):
    """Something that kernels do, and how else it is done."""

    name: str
    launches: tuple[str, ...]
    """Of `gpu_prediction.kernels`: what the floor is made of."""
    ours: Callable[[], object]
    peer: Callable[..., Any]
    """Of `gpu_peers`."""
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
    sizes, step, rules, ngram = inputs.sizes, inputs.step, inputs.rules, inputs.config.ngram
    positions, orders = step.listed.positions, len(ngram.orders)
    looked_up = inputs.prefilled[: sizes.lookup]
    contexts, fulls = torch.empty((2, orders, sizes.lookup), dtype=torch.int32, device=inputs.device)
    masses = torch.empty(sizes.batch, dtype=torch.float64, device=inputs.device)
    ids, scratch = step.ids.long(), torch.empty_like(step.ids)
    charging: dict[str, Any] = {
        "gate": step.gate,
        "stats": (step.p_target, step.entropy),
        "charges": step.charges,
    }
    given = (positions, step.listed.before, sizes.stride)

    def charged() -> tuple[Tensor, ...]:
        return step.charges.nats()[:, 0], step.charges.hits

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
            lambda: tables.update(step.tables, step.tokens, 0, FIRST, FIRST + sizes.prefill, ngram),
            peers.update,
            (rules, step.tables, inputs.tokens, inputs.prefilled),
            cpu=update_cpu,
        ),
        Case(
            "lookup",
            ("lookup",),
            lambda: tables.lookup(step.tables, step.tokens, 0, FIRST, contexts, fulls, ngram),
            peers.lookup,
            (rules, step.tables, inputs.tokens, looked_up),
            result=lambda: (torch.stack([contexts, fulls], dim=1),),
            outputs=(contexts, fulls),
        ),
        Case(
            "stats",
            ("stats",),
            lambda: stats.neural_stats(step.logits, step.targets, step.p_target, step.entropy, softcap=SOFTCAP),
            peers.stats,
            (rules, step.logits, step.targets),
            result=lambda: (step.p_target, step.entropy),
            outputs=(step.p_target, step.entropy),
        ),
        Case(
            "bucket",
            ("bucket",),
            lambda: hashing.list_buckets(step.ids, step.tokens, 0, positions, ngram),
            peers.bucket,
            (rules, inputs.tokens, positions),
            result=lambda: (step.ids,),
            outputs=(step.ids,),
        ),
        Case(
            "score",
            ("score",),
            lambda: windows.score_buckets(step.tables, step.ids, step.listed, ngram, **charging),
            peers.score,
            (rules, step.tables, ids, step.listed.before, sizes.stride, step.p_target, step.entropy),
            result=charged,
        ),
        Case(
            "add",
            ("add",),
            lambda: windows.add_buckets(step.tables, step.ids, positions, ngram),
            peers.add,
            (step.tables, ids),
        ),
        Case(
            "windows: bucket, score, add",
            ("bucket", "score", "add"),
            lambda: windows.score_listed(step.tables, step.tokens, 0, step.listed, scratch, ngram, **charging),
            peers.windows,
            (rules, step.tables, inputs.tokens, *given, step.p_target, step.entropy),
            result=charged,
            cpu=windows_cpu,
        ),
        Case(
            "step: stats and windows",
            STEP,
            step,
            peers.step,
            (rules, step.tables, inputs.tokens, *given, step.logits, step.targets),
            result=charged,
        ),
        Case(
            "mass, with its buckets",
            ("bucket", "mass"),
            lambda: mass.vocabulary_mass(
                step.tables,
                step.tokens,
                0,
                positions,
                scratch,
                ngram,
                gate=step.gate,
                vocab=sizes.vocab,
                logits=step.logits,
                log_sum=inputs.log_sum,
                entropy=step.entropy,
                mass=masses,
                softcap=SOFTCAP,
            ),
            peers.mass,
            (rules, step.tables, inputs.tokens, positions, step.logits, inputs.log_sum, step.entropy),
            result=lambda: (masses,),
            outputs=(masses,),
        ),
    ]
