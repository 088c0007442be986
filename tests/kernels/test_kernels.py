"""The Triton kernels against float64 and against the reference, in the interpreter unless there is a GPU."""

import itertools
import traceback
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime import interpreter

from ngram_eval.bpb import P_FLOOR
from ngram_eval.config import EvalConfig, GateConfig, NgramConfig, preset
from ngram_eval.kernels.gating import gate_constants
from ngram_eval.kernels.hashing import list_buckets
from ngram_eval.kernels.mass import vocabulary_mass
from ngram_eval.kernels.runtime import INTERPRETED, kernel_device
from ngram_eval.kernels.stats import neural_stats
from ngram_eval.kernels.step import FusedStep
from ngram_eval.kernels.tables import empty_tables
from ngram_eval.kernels.windows import AT_ONCE, NO_POSITION, Listed, score_listed
from ngram_eval.models.source import Stats
from ngram_eval.scorers.hashed.counts import Best
from ngram_eval.scorers.hashed.gate import GatedBackoff
from ngram_eval.scorers.hashed.hashing import bucket_pair
from ngram_eval.scorers.hashed.reference import ReferenceCounts, best_match
from tests.support.documents import Python, steps

DEVICE = kernel_device()
NAN = float("nan")
APPROXIMATE = 0.0 if INTERPRETED else 1.5e-5
"""What a GPU adds to bounds in nats: its float32 exp, log and division are approximate, to 2^-22, so that a softcap of
30 is off by up to 5e-7 * 30 (`kernels.stats.softcapped`). The interpreter rounds them correctly.
"""
POISON = -7.0


def exact_stats(logits: Tensor, targets: Tensor, softcap: float) -> tuple[Tensor, Tensor, Tensor]:
    """(log-probability of the target, entropy, log-sum-exp) in float64."""
    z = logits.double()
    z = softcap * torch.tanh(z / softcap) if softcap else z
    log_sum = torch.logsumexp(z, dim=1)
    log_p = z - log_sum[:, None]
    return log_p.gather(1, targets[:, None])[:, 0], torch.special.entr(log_p.exp()).sum(dim=1), log_sum


def run_stats(logits: Tensor, targets: Tensor, softcap: float = 0.0, hints: Tensor | None = None) -> tuple[Tensor, ...]:
    """(p_target, entropy, log_sum, p_hint) from poisoned buffers."""
    rows = len(logits)
    p_target, p_hint = (torch.full((rows,), POISON, dtype=torch.float64, device=DEVICE) for _ in range(2))
    entropy, log_sum = (torch.full((rows,), POISON, device=DEVICE) for _ in range(2))
    neural_stats(
        logits.to(DEVICE),
        targets.to(DEVICE),
        p_target,
        entropy,
        softcap=softcap,
        log_sum=log_sum,
        hints=None if hints is None else hints.to(DEVICE),
        p_hint=None if hints is None else p_hint,
    )
    return p_target.cpu(), entropy.cpu(), log_sum.cpu(), p_hint.cpu()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "vocab"), [(1, 256), (31, 1000), (33, 1024), (1000, 257), (5, 4097), (2, 131_072)])
@pytest.mark.parametrize("softcap", [0.0, 30.0])
def test_stats_against_float64(dtype: torch.dtype, rows: int, vocab: int, softcap: float) -> None:
    """Bounds: 1e-5 nats for the logarithms, 2e-5 for the entropy; float32 sums of up to 131,072 terms keep to them."""
    generator = torch.Generator().manual_seed(rows + vocab)
    logits = (4 * torch.randn(rows, vocab, generator=generator)).to(dtype)
    targets, hints = torch.randint(0, vocab, (2, rows), generator=generator)
    p_target, entropy, log_sum, p_hint = run_stats(logits, targets, softcap, hints)
    log_p, exact_entropy, exact_log_sum = exact_stats(logits, targets, softcap)
    torch.testing.assert_close(p_target.log(), log_p, rtol=0, atol=1e-5 + APPROXIMATE)
    torch.testing.assert_close(p_hint.log(), exact_stats(logits, hints, softcap)[0], rtol=0, atol=1e-5 + APPROXIMATE)
    torch.testing.assert_close(log_sum.double(), exact_log_sum, rtol=0, atol=1e-5 + APPROXIMATE)
    torch.testing.assert_close(entropy.double(), exact_entropy, rtol=0, atol=2e-5 + APPROXIMATE)


@pytest.mark.parametrize("index_dtype", [torch.uint8, torch.uint16, torch.int32, torch.int64])
def test_stats_of_rows_far_apart_and_any_index(index_dtype: torch.dtype) -> None:
    wide = torch.randn(7, 1003)
    logits, targets = wide[:, 3:203], torch.arange(7)
    p_target, entropy, *_ = run_stats(logits, targets.to(index_dtype))
    log_p, exact_entropy, _ = exact_stats(logits, targets, 0.0)
    torch.testing.assert_close(p_target.log(), log_p, rtol=0, atol=1e-5 + APPROXIMATE)
    torch.testing.assert_close(entropy.double(), exact_entropy, rtol=0, atol=1e-5 + APPROXIMATE)


def test_stats_with_impossible_tokens() -> None:
    """-inf is a probability of 0, which adds nothing to the entropy."""
    logits = torch.full((4, 6000), float("-inf"))
    logits[0, 5000], logits[1, 7], logits[1, 4099], logits[2, :3] = 2.0, 1.0, 1.0, 0.0
    logits[3] = 0.0
    p_target, entropy, log_sum, _ = run_stats(logits, torch.tensor([5000, 7, 4, 5999]))
    assert p_target.tolist() == pytest.approx([1.0, 0.5, 0.0, 1 / 6000], rel=1e-6 + APPROXIMATE)
    assert entropy.tolist() == pytest.approx([0.0, np.log(2), np.log(3), np.log(6000)], abs=1e-6 + APPROXIMATE)
    assert log_sum.tolist() == pytest.approx([2.0, 1 + np.log(2), np.log(3), np.log(6000)], rel=1e-6 + APPROXIMATE)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(
    "row", [[NAN, 0.0, 0.0], [0.0, 0.0, NAN], [float("-inf")] * 3, [0.0, float("inf"), 0.0]], ids=str
)
def test_stats_of_what_is_no_distribution_are_nan(row: list[float]) -> None:
    p_target, entropy, log_sum, _ = run_stats(torch.tensor([[1.0, 2.0, 3.0], row]), torch.tensor([0, 0]))
    assert torch.isnan(torch.stack([entropy, log_sum])[:, 1]).all()
    assert torch.isnan(p_target[1])
    assert not torch.isnan(torch.stack([entropy, log_sum])[:, 0]).any()


@pytest.mark.parametrize("cap", [30.0, 1.0])
def test_softcap_edges(cap: float) -> None:
    """Near 0, where the series hands over, and where tanh is 1: within 7e-8 of the cap, 5e-7 with a GPU's exp."""
    u = torch.tensor([0.0, 1e-30, 1e-6, 1e-3, 0.1249, 0.125, 0.1251, 0.5, 1.0, 5.0, 20.0, 1e30, float("inf")])
    x = torch.cat([u, -u]) * cap
    rows = torch.stack([x, torch.zeros_like(x)], dim=1)  # log p(0) - log p(1) is the capped logit
    targets, others = torch.zeros(len(x), dtype=torch.int64), torch.ones(len(x), dtype=torch.int64)
    p_target, _, _, p_other = run_stats(rows, targets, cap, others)
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
    with pytest.raises(ValueError, match="nats is"):
        neural_stats(logits, targets, p_target, p_target)
    with pytest.raises(ValueError, match="go together"):
        neural_stats(logits, targets, p_target, entropy, hints=targets)
    with pytest.raises(ValueError, match="softcap"):
        neural_stats(logits, targets, p_target, entropy, softcap=-1.0)


def test_stats_of_no_rows() -> None:
    empty = torch.zeros(0, device=DEVICE)
    neural_stats(torch.zeros(0, 5, device=DEVICE), empty.long(), empty.double(), empty)


def charged_everywhere(
    config: EvalConfig, counts: ReferenceCounts, tokens: NDArray[Any], position: int, stats: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What each token of the vocabulary would be charged with at a position, from the reference's tables."""
    vocab = len(stats)
    entropy = float(-(stats * np.log(stats)).sum())
    changed = np.tile(tokens, (vocab, 1))
    changed[:, position + 1] = np.arange(vocab)
    found = [best_match(counts.lookup(row, position, position + 1), config.ngram) for row in changed]
    best = Best(*map(np.concatenate, zip(*found, strict=True)))
    return GatedBackoff(config.gate)(Stats(stats, np.full(vocab, entropy, np.float32)), best)


@pytest.mark.parametrize("context_gap", [False, True])
@pytest.mark.parametrize("target_backoff", [False, True])
@pytest.mark.parametrize("uniform", [False, True])
def test_mass_is_the_sum_over_the_vocabulary(context_gap: bool, target_backoff: bool, uniform: bool) -> None:
    """Within 1e-6: neural probabilities are single precision, the rest double."""
    vocab, softcap = 300, 30.0
    ngram = NgramConfig(buckets=512, context_gap=context_gap, target_backoff=target_backoff, min_order=1)
    config = EvalConfig(ngram=ngram)
    rng = np.random.default_rng(5)
    tokens = rng.choice(np.array([0, 1, 2, 299], np.uint16), 900)
    reference = ReferenceCounts(ngram)
    reference.update(tokens, 0, 800)
    positions = np.array([0, 1, 7, 8, 9, 450, 800, 897, 3, 3])
    logits = torch.from_numpy(rng.normal(0, 3, (len(positions), vocab))).float()
    capped = torch.zeros_like(logits) if uniform else softcap * torch.tanh(logits / softcap)
    probabilities = torch.softmax(capped.double(), dim=1).numpy()
    expected = [
        charged_everywhere(config, reference, tokens, int(p), row).sum()
        for p, row in zip(positions, probabilities, strict=True)
    ]

    mass = torch.full((len(positions),), NAN, dtype=torch.float64, device=DEVICE)
    tables = empty_tables(ngram, DEVICE)
    tables.copy_(torch.from_numpy(reference.state().view(np.int32)))
    vocabulary_mass(
        tables,
        torch.from_numpy(tokens).to(DEVICE),
        0,
        torch.from_numpy(positions).to(DEVICE),
        torch.full((9, 2, len(positions)), -1, dtype=torch.int32, device=DEVICE),
        ngram,
        gate=gate_constants(config.gate, DEVICE),
        vocab=vocab,
        logits=None if uniform else logits.to(DEVICE),
        log_sum=torch.logsumexp(capped, dim=1).to(DEVICE),
        entropy=torch.special.entr(torch.from_numpy(probabilities)).sum(dim=1).float().to(DEVICE),
        mass=mass,
        softcap=0.0 if uniform else softcap,
    )
    np.testing.assert_allclose(mass.cpu().numpy(), expected, rtol=1e-6 + APPROXIMATE)
    assert max(expected) > 2  # collisions and back-off make it no probability


class NothingButLaunches(TorchDispatchMode):
    """Fails when a torch operation runs: only kernels may be launched while this is on."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(frame.filename == interpreter.__file__ for frame in traceback.extract_stack()):
            return function(*args, **kwargs or {})  # the interpreter's own work
        raise AssertionError(f"{function} ran")


def batches_of(length: int, windows: int, scored: int) -> list[tuple[int, int]]:
    starts = range(0, length, windows * scored)
    return [(start, min(start + windows * scored, length)) for start in starts]


@pytest.mark.parametrize("buckets", [1 << 10, 1 << 16])
def test_fused_step(buckets: int) -> None:
    """Batches of 8 windows of 32 positions: what the reference, the blend and float64 give, window by window."""
    config = preset("hashed")
    config = replace(config, ngram=replace(config.ngram, buckets=buckets))
    vocab, windows, scored, softcap = 100, 8, 32, 30.0
    rng = np.random.default_rng(3)
    phrases = [rng.integers(0, vocab, 9) for _ in range(12)]
    tokens = np.concatenate([phrases[i] for i in rng.integers(0, 12, 200)])[: 4 * 256 + 1].astype(np.uint16)
    logits = torch.from_numpy(rng.normal(0, 4, (len(tokens) - 1, vocab))).float()
    tables = empty_tables(config.ngram, DEVICE)
    step = FusedStep.allocate(
        config,
        tables,
        torch.full((windows * scored, vocab), NAN, device=DEVICE),
        torch.from_numpy(tokens).to(DEVICE),
        windows=4 * windows,
        softcap=softcap,
    )
    reference, blend = ReferenceCounts(config.ngram), GatedBackoff(config.gate)
    expected, hits = [], np.zeros(10, np.int64)
    for batch, (start, stop) in enumerate(batches_of(len(tokens) - 1, windows, scored)):
        entries = torch.arange(stop - start)
        step.logits.copy_(logits[start:stop])
        step.targets.copy_(torch.from_numpy(tokens[start + 1 : stop + 1].astype(np.int64)))
        rows = batch * windows + entries // scored
        for buffer, values in zip(step.listed, (start + entries, entries // scored * scored, rows), strict=True):
            buffer.copy_(values)
        with NothingButLaunches():  # type: ignore[no-untyped-call]
            step()
        for first in range(start, stop, scored):
            span = slice(first, first + scored)
            log_p, entropy, _ = exact_stats(logits[span], torch.from_numpy(tokens[1:][span].astype(np.int64)), softcap)
            best = reference.score_windows(tokens, np.array([first]), np.array([first + scored]))
            p = blend(Stats(log_p.exp().numpy(), entropy.float().numpy()), best)
            expected.append([-np.log(np.maximum(p, P_FLOOR)).sum(), -log_p.sum().item()])
            hits += np.bincount(best.order, minlength=10)
    np.testing.assert_array_equal(tables.cpu().numpy().view(np.uint32), reference.state())
    np.testing.assert_allclose(step.charges.nats().cpu().numpy(), expected, rtol=1e-6 + APPROXIMATE)
    np.testing.assert_array_equal(step.charges.hits.cpu().numpy(), hits)
    assert hits[2:].all()
    assert step.charges.bad.item() == NO_POSITION


class StandInGraph:
    """For `torch.cuda.CUDAGraph` where there is no GPU; replays the step of the namespace given."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace

    def replay(self) -> None:
        self.namespace["step"]()


def test_the_graph_in_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [step for step in steps("docs/gpu.md") if isinstance(step, Python)]
    found: dict[str, Any] = {}
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: StandInGraph(found))
        monkeypatch.setattr(torch.cuda, "graph", lambda graph: nullcontext())
    exec(block.code, found)
    step = found["step"]
    assert found["neural_nats"] == pytest.approx(8192 * np.log(1024), rel=1e-6)
    assert step.charges.hits.sum().item() == 8192
    reference = ReferenceCounts(step.config.ngram)
    reference.update(found["tokens"].cpu().numpy().astype(np.uint16), 0, 8192)
    np.testing.assert_array_equal(step.tables.cpu().numpy().view(np.uint32), reference.state())


def test_runs_are_bit_identical() -> None:
    """Also where nearly everything is added to the same few counts and sums. (Only a GPU could break this.)"""
    config = preset("hashed")
    config = replace(config, ngram=replace(config.ngram, buckets=4))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 3, (AT_ONCE + 1,), generator=generator).to(DEVICE, torch.uint16)
    logits = torch.randn(AT_ONCE, 100, generator=generator).to(DEVICE)
    runs = []
    for _ in range(2 if INTERPRETED else 20):
        step = FusedStep.allocate(
            config, empty_tables(config.ngram, DEVICE), logits, tokens, windows=AT_ONCE // 32, softcap=30.0
        )
        entries = torch.arange(AT_ONCE, device=DEVICE)
        for buffer, values in zip(step.listed, (entries, entries // 32 * 32, entries // 32), strict=True):
            buffer.copy_(values)
        for _ in range(2):
            step()
        runs.append((step.tables, *step.charges, step.p_target, step.entropy))
    assert all(torch.equal(one, first) for run in runs for one, first in zip(run, runs[0], strict=True))
    assert runs[0][2].count_nonzero() > 1


def test_fused_step_takes_no_more_than_is_compared_at_once() -> None:
    config = preset("hashed")
    config = replace(config, ngram=replace(config.ngram, buckets=2))
    tables, tokens = empty_tables(config.ngram, DEVICE), torch.zeros(9, dtype=torch.uint16, device=DEVICE)
    with pytest.raises(ValueError, match="1025 positions"):
        FusedStep.allocate(config, tables, torch.zeros(AT_ONCE + 1, 2, device=DEVICE), tokens, windows=1, softcap=0.0)


def test_gate_weighs_like_the_blend() -> None:
    """A fixed weight, and weights at both ends of the sigmoid, through a table in which everything matches."""
    for gate, entropy in itertools.product(
        (GateConfig(), GateConfig(alpha_range=0.0), GateConfig(alpha_slope=1e6)), (0.0, 3.0, 800.0)
    ):
        config = EvalConfig(gate=gate, ngram=NgramConfig(buckets=1, min_order=3, max_order=3, min_count=1))
        tables = empty_tables(config.ngram, DEVICE).copy_(torch.tensor([[[4], [1]]]))
        step = FusedStep.allocate(
            config,
            tables,
            torch.zeros(1, 2, device=DEVICE),
            torch.zeros(9, dtype=torch.uint16, device=DEVICE),
            windows=1,
            softcap=0.0,
        )
        step.listed.positions.fill_(5)
        p = torch.full((1,), 0.5, dtype=torch.float64, device=DEVICE)
        h = torch.full((1,), entropy, device=DEVICE)
        score_listed(
            tables,
            step.tokens,
            0,
            Listed(*step.listed),
            step.ids,
            config.ngram,
            gate=step.gate,
            stats=(p, h),
            charges=step.charges,
        )
        best = Best(np.array([3], np.uint8), np.array([4], np.uint32), np.array([1], np.uint32))
        charged = GatedBackoff(gate)(Stats(np.array([0.5]), np.array([entropy], np.float32)), best)
        assert step.charges.nats()[0].tolist() == pytest.approx([-np.log(charged[0]), np.log(2)], rel=1e-13)


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
