"""The Triton kernels against float64 and against the reference, in the interpreter unless there is a GPU."""

import itertools
import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime import interpreter

from ngram_eval import kernels
from ngram_eval.bpb import P_FLOOR
from ngram_eval.config import EvalConfig, GateConfig, NgramConfig, preset
from ngram_eval.kernels import stats
from ngram_eval.kernels.buckets import list_buckets
from ngram_eval.kernels.gating import gate_constants
from ngram_eval.kernels.runtime import INTERPRETED, kernel_device
from ngram_eval.kernels.score_windows import AT_ONCE, NO_POSITION, Listed, new_totals, score_listed
from ngram_eval.kernels.stats import neural_stats
from ngram_eval.kernels.tables import empty_tables
from ngram_eval.models.source import Stats
from ngram_eval.scorers.hashed.counts import Best
from ngram_eval.scorers.hashed.gate import GatedBackoff
from ngram_eval.scorers.hashed.hashing import bucket_pair
from ngram_eval.scorers.hashed.reference import ReferenceCounts

DEVICE = kernel_device()
NAN = float("nan")
APPROXIMATE = 0.0 if INTERPRETED else 1.5e-5
"""What a GPU adds to bounds in nats: its float32 exp, log and division are approximate, to 2^-22, so that a softcap of
30 is off by up to 5e-7 * 30 (`kernels.stats.softcapped`). The interpreter rounds them correctly.
"""
POISON = -7.0


def exact_stats(logits: Tensor, targets: Tensor, softcap: float) -> tuple[Tensor, Tensor]:
    """(log-probability of the target, entropy) in float64."""
    z = logits.double()
    z = softcap * torch.tanh(z / softcap) if softcap else z
    log_p = torch.log_softmax(z, dim=1)
    return log_p.gather(1, targets[:, None])[:, 0], torch.special.entr(log_p.exp()).sum(dim=1)


def run_stats(logits: Tensor, targets: Tensor, softcap: float = 0.0) -> tuple[Tensor, Tensor]:
    """(p_target, entropy) from poisoned buffers."""
    p_target = torch.full((len(logits),), POISON, dtype=torch.float64, device=DEVICE)
    entropy = torch.full((len(logits),), POISON, device=DEVICE)
    neural_stats(logits.to(DEVICE), targets.to(DEVICE), p_target, entropy, softcap=softcap)
    return p_target.cpu(), entropy.cpu()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "vocab"), [(1, 256), (31, 1000), (33, 1024), (1000, 257), (5, 4097), (2, 131_072)])
@pytest.mark.parametrize("softcap", [0.0, 30.0])
def test_stats_against_float64(dtype: torch.dtype, rows: int, vocab: int, softcap: float) -> None:
    """Bounds: 1e-5 nats for the logarithms, 2e-5 for the entropy; float32 sums of up to 131,072 terms keep to them."""
    generator = torch.Generator().manual_seed(rows + vocab)
    logits = (4 * torch.randn(rows, vocab, generator=generator)).to(dtype)
    targets = torch.randint(0, vocab, (rows,), generator=generator)
    p_target, entropy = run_stats(logits, targets, softcap)
    log_p, exact_entropy = exact_stats(logits, targets, softcap)
    torch.testing.assert_close(p_target.log(), log_p, rtol=0, atol=1e-5 + APPROXIMATE)
    torch.testing.assert_close(entropy.double(), exact_entropy, rtol=0, atol=2e-5 + APPROXIMATE)


@pytest.mark.parametrize("index_dtype", [torch.uint8, torch.uint16, torch.int32, torch.int64])
def test_stats_of_rows_far_apart_and_any_index(index_dtype: torch.dtype) -> None:
    wide = torch.randn(7, 1003)
    logits, targets = wide[:, 3:203], torch.arange(7)
    p_target, entropy = run_stats(logits, targets.to(index_dtype))
    log_p, exact_entropy = exact_stats(logits, targets, 0.0)
    torch.testing.assert_close(p_target.log(), log_p, rtol=0, atol=1e-5 + APPROXIMATE)
    torch.testing.assert_close(entropy.double(), exact_entropy, rtol=0, atol=1e-5 + APPROXIMATE)


def test_stats_with_impossible_tokens() -> None:
    """-inf is a probability of 0, which adds nothing to the entropy."""
    logits = torch.full((4, 6000), float("-inf"))
    logits[0, 5000], logits[1, 7], logits[1, 4099], logits[2, :3] = 2.0, 1.0, 1.0, 0.0
    logits[3] = 0.0
    p_target, entropy = run_stats(logits, torch.tensor([5000, 7, 4, 5999]))
    assert p_target.tolist() == pytest.approx([1.0, 0.5, 0.0, 1 / 6000], rel=1e-6 + APPROXIMATE)
    assert entropy.tolist() == pytest.approx([0.0, np.log(2), np.log(3), np.log(6000)], abs=1e-6 + APPROXIMATE)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(
    "row", [[NAN, 0.0, 0.0], [0.0, 0.0, NAN], [float("-inf")] * 3, [0.0, float("inf"), 0.0]], ids=str
)
def test_stats_of_what_is_not_a_distribution_are_nan(row: list[float]) -> None:
    p_target, entropy = run_stats(torch.tensor([[1.0, 2.0, 3.0], row]), torch.tensor([0, 0]))
    assert torch.isnan(p_target).tolist() == [False, True]
    assert torch.isnan(entropy).tolist() == [False, True]


@pytest.mark.parametrize("cap", [30.0, 1.0])
def test_softcap_edges(cap: float) -> None:
    """Near 0, where the series hands over, and where tanh is 1: within 7e-8 of the cap, 5e-7 with a GPU's exp."""
    u = torch.tensor([0.0, 1e-30, 1e-6, 1e-3, 0.1249, 0.125, 0.1251, 0.5, 1.0, 5.0, 20.0, 1e30, float("inf")])
    x = torch.cat([u, -u]) * cap
    rows = torch.stack([x, torch.zeros_like(x)], dim=1)  # log p(0) - log p(1) is the capped logit
    (p_target, _), (p_other, _) = (run_stats(rows, torch.full((len(x),), token), cap) for token in (0, 1))
    capped = cap * torch.tanh(x.double() / cap)
    torch.testing.assert_close(
        p_target.log() - p_other.log(), capped, rtol=1e-7, atol=(7e-8 if INTERPRETED else 5e-7) * cap
    )


def test_stats_refuse_other_shapes() -> None:
    logits, targets = torch.zeros(4, 8, device=DEVICE), torch.zeros(4, dtype=torch.int64, device=DEVICE)
    p_target, entropy = torch.zeros(4, dtype=torch.float64, device=DEVICE), torch.zeros(4, device=DEVICE)
    with pytest.raises(ValueError, match="logits are"):
        neural_stats(logits.double(), targets, p_target, entropy)
    with pytest.raises(ValueError, match="adjacent"):
        neural_stats(torch.zeros(8, 4, device=DEVICE).T, targets, p_target, entropy)
    with pytest.raises(ValueError, match="targets is"):
        neural_stats(logits, targets[:3], p_target, entropy)
    with pytest.raises(ValueError, match="targets is"):
        neural_stats(logits, p_target, p_target, entropy)
    with pytest.raises(ValueError, match="p_target is"):
        neural_stats(logits, targets, entropy, entropy)
    with pytest.raises(ValueError, match="entropy is"):
        neural_stats(logits, targets, p_target, p_target)
    with pytest.raises(ValueError, match="softcap"):
        neural_stats(logits, targets, p_target, entropy, softcap=-1.0)


def test_stats_of_no_rows_launch_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU refuses an empty grid."""
    monkeypatch.setattr(stats, "stats_kernel", kernel := MagicMock())
    for rows in (0, 1):
        empty = torch.zeros(rows, device=DEVICE)
        neural_stats(torch.zeros(rows, 5, device=DEVICE), empty.long(), empty.double(), empty)
        assert kernel.__getitem__.call_count == rows


def test_kernels_import_settings_and_constants_only() -> None:
    """They do not know of evaluations, models, scorers or command lines."""
    names = ", ".join(f"ngram_eval.kernels.{path.stem}" for path in sorted(Path(kernels.__path__[0]).glob("[!_]*.py")))
    script = f"import {names}, sys; print(*(name for name in sys.modules if name.startswith('ngram_eval')))"
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    rest = {name.removeprefix("ngram_eval.") for name in said.split() if not name.startswith("ngram_eval.kernels")}
    assert rest == {"ngram_eval", "bpb", "config", "errors", "scorers", "scorers.hashed", "scorers.hashed.hashing"}


class NothingButLaunches(TorchDispatchMode):
    """Fails when a torch operation runs: only kernels may be launched while this is on."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(frame.filename == interpreter.__file__ for frame in traceback.extract_stack()):
            return function(*args, **kwargs or {})  # the interpreter's own work
        raise AssertionError(f"{function} ran")


def batches_of(length: int, windows: int, scored: int) -> list[tuple[int, int]]:
    starts = range(0, length, windows * scored)
    return [(start, min(start + windows * scored, length)) for start in starts]


class Batch:
    """Buffers of fixed size that one batch after another is put into, charged and counted."""

    def __init__(self, config: EvalConfig, logits: Tensor, tokens: Tensor, windows: int) -> None:
        count = len(logits)
        self.config, self.logits, self.tokens = config, logits, tokens
        self.targets = torch.zeros(count, dtype=torch.int64, device=DEVICE)
        self.listed = Listed(*torch.zeros((3, count), dtype=torch.int64, device=DEVICE))
        self.ids = torch.zeros((len(config.ngram.orders), 2, count), dtype=torch.int32, device=DEVICE)
        self.neural = (torch.zeros(count, dtype=torch.float64, device=DEVICE), torch.zeros(count, device=DEVICE))
        self.gate = gate_constants(config.gate, DEVICE)
        self.tables = empty_tables(config.ngram, DEVICE)
        self.totals = new_totals(windows, DEVICE)

    def score(self) -> None:
        """With what `neural` holds, and count."""
        score_listed(
            self.tables,
            self.tokens,
            0,
            self.listed,
            self.ids,
            self.config.ngram,
            gate=self.gate,
            stats=self.neural,
            totals=self.totals,
        )

    def step(self, softcap: float) -> None:
        """From the logits on."""
        neural_stats(self.logits, self.targets, *self.neural, softcap=softcap)
        self.score()


@pytest.mark.parametrize("buckets", [1 << 10, 1 << 16])
def test_batches_from_logits_to_nats(buckets: int) -> None:
    """Batches of 8 windows of 32 positions: what the reference, the blend and float64 give, window by window."""
    config = preset("hashed")
    config = replace(config, ngram=replace(config.ngram, buckets=buckets))
    vocab, windows, scored, softcap = 100, 8, 32, 30.0
    rng = np.random.default_rng(3)
    phrases = [rng.integers(0, vocab, 9) for _ in range(12)]
    tokens = np.concatenate([phrases[i] for i in rng.integers(0, 12, 200)])[: 4 * 256 + 1].astype(np.uint16)
    logits = torch.from_numpy(rng.normal(0, 4, (len(tokens) - 1, vocab))).float()
    buffers = Batch(
        config,
        torch.full((windows * scored, vocab), NAN, device=DEVICE),
        torch.from_numpy(tokens).to(DEVICE),
        windows=4 * windows,
    )
    reference, blend = ReferenceCounts(config.ngram), GatedBackoff(config.gate)
    expected, hits = [], np.zeros(10, np.int64)
    for batch, (start, stop) in enumerate(batches_of(len(tokens) - 1, windows, scored)):
        entries = torch.arange(stop - start)
        buffers.logits.copy_(logits[start:stop])
        buffers.targets.copy_(torch.from_numpy(tokens[start + 1 : stop + 1].astype(np.int64)))
        rows = batch * windows + entries // scored
        for buffer, values in zip(buffers.listed, (start + entries, entries // scored * scored, rows), strict=True):
            buffer.copy_(values)
        with NothingButLaunches():  # type: ignore[no-untyped-call]
            buffers.step(softcap)
        for first in range(start, stop, scored):
            span = slice(first, first + scored)
            log_p, entropy = exact_stats(logits[span], torch.from_numpy(tokens[1:][span].astype(np.int64)), softcap)
            best = reference.score_windows(tokens, np.array([first]), np.array([first + scored]))
            p = blend(Stats(log_p.exp().numpy(), entropy.float().numpy()), best)
            expected.append([-np.log(np.maximum(p, P_FLOOR)).sum(), -log_p.sum().item()])
            hits += np.bincount(best.order, minlength=10)
    np.testing.assert_array_equal(buffers.tables.cpu().numpy().view(np.uint32), reference.state())
    np.testing.assert_allclose(buffers.totals.nats().cpu().numpy(), expected, rtol=1e-6 + APPROXIMATE)
    np.testing.assert_array_equal(buffers.totals.hits.cpu().numpy(), hits)
    assert hits[2:].all()
    assert buffers.totals.bad.item() == NO_POSITION


def test_runs_are_bit_identical() -> None:
    """Also where nearly everything is added to the same few counts and sums. (Only a GPU could break this.)"""
    config = preset("hashed")
    config = replace(config, ngram=replace(config.ngram, buckets=4))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 3, (AT_ONCE + 1,), generator=generator).to(DEVICE, torch.uint16)
    logits = torch.randn(AT_ONCE, 100, generator=generator).to(DEVICE)
    runs = []
    for _ in range(2 if INTERPRETED else 20):
        batch = Batch(config, logits, tokens, windows=AT_ONCE // 32)
        entries = torch.arange(AT_ONCE, device=DEVICE)
        for buffer, values in zip(batch.listed, (entries, entries // 32 * 32, entries // 32), strict=True):
            buffer.copy_(values)
        for _ in range(2):
            batch.step(softcap=30.0)
        runs.append((batch.tables, *batch.totals, *batch.neural))
    assert all(torch.equal(one, first) for run in runs for one, first in zip(run, runs[0], strict=True))
    assert runs[0][2].count_nonzero() > 1


def test_gate_weighs_like_the_blend() -> None:
    """A fixed weight, and weights at both ends of the sigmoid, through a table in which everything matches."""
    for gate, entropy in itertools.product(
        (GateConfig(), GateConfig(alpha_range=0.0), GateConfig(alpha_slope=1e6)), (0.0, 3.0, 800.0)
    ):
        config = EvalConfig(gate=gate, ngram=NgramConfig(buckets=1, min_order=3, max_order=3, min_count=1))
        tokens = torch.zeros(9, dtype=torch.uint16, device=DEVICE)
        batch = Batch(config, torch.zeros(1, 2, device=DEVICE), tokens, windows=1)
        batch.tables.copy_(torch.tensor([[[4], [1]]]))
        batch.listed.positions.fill_(5)
        p_target, h = batch.neural
        p_target.fill_(0.5)
        h.fill_(entropy)
        batch.score()
        best = Best(np.array([3], np.uint8), np.array([4], np.uint32), np.array([1], np.uint32))
        charged = GatedBackoff(gate)(Stats(np.array([0.5]), np.array([entropy], np.float32)), best)
        assert batch.totals.nats()[0].tolist() == pytest.approx([-np.log(charged[0]), np.log(2)], rel=1e-13)


def test_buckets_are_those_of_the_specification() -> None:
    """Also where 32 bits are all used: hashes of big tokens, 2^32 buckets."""
    tokens = np.random.default_rng(1).integers(2**31, 2**32, 40).astype(np.uint32)
    positions = np.array([9, 20, 38, 30])
    config = NgramConfig(buckets=1 << 32)
    ids = torch.full((8, 2, 4), POISON, device=DEVICE).int()
    on_device = torch.from_numpy(tokens.view(np.int32)).to(DEVICE)
    list_buckets(ids, on_device[1:], 1, torch.from_numpy(positions).to(DEVICE), config)
    found = ids.cpu().numpy().view(np.uint32)
    for row, order in enumerate(config.orders):
        expected = bucket_pair(tokens, positions + 1, tokens[positions + 1], order, config.buckets)
        np.testing.assert_array_equal(found[row], expected)
    with pytest.raises(ValueError, match="ids have shape"):
        list_buckets(ids[:7], on_device, 0, torch.from_numpy(positions).to(DEVICE), config)
