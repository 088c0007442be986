"""Parts of the recipe: schedules, averages, the quantisation estimator, parameter groups, batches, the loss."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ngram_eval.distributed.ranks import ALONE
from ngram_eval.errors import InputError
from ngram_eval.models.artifact import QuantConfig
from ngram_eval.models.transformer import Linear, Transformer, parameter_count
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.text.shards import read_shards, write_shard
from ngram_eval.train import qat
from ngram_eval.train.averaging import Ema, Swa, put
from ngram_eval.train.config import PRESETS, TrainConfig, embedded, pr890, small
from ngram_eval.train.data import Batches
from ngram_eval.train.objective import Objective
from ngram_eval.train.optim import is_table, make_optimizers
from ngram_eval.train.schedule import lr_multiplier, momentum_at

TINY = ModelConfig(
    vocab_size=20,
    layers=2,
    width=16,
    heads=2,
    kv_heads=2,
    mlp_hidden=24,
    table_dtype="float32",
    table_init_std=0.02,
    bigram_slots=16,
    bigram_width=4,
    rope_dims=4,
    xsa_layers=2,
    value_layers=(1,),
    value_width=4,
)

# Schedules


def test_learning_rate_is_flat_then_falls_to_zero() -> None:
    config = TrainConfig(max_seconds=0.0)  # 20,000 steps, the last 3,500 of them falling
    assert lr_multiplier(0, 0.0, config) == lr_multiplier(16_500, 1e6, config) == 1
    assert lr_multiplier(18_250, 1.0, config) == pytest.approx(0.5)
    assert lr_multiplier(19_999, 1.0, config) == pytest.approx(1 / 3500)
    assert lr_multiplier(19_999, 1.0, replace(config, warmdown_steps=0)) == 1
    falls = [lr_multiplier(step, 0.0, replace(config, steps=10, warmdown_steps=10)) for step in range(10)]
    assert falls == pytest.approx([1 - step / 10 for step in range(10)])


def test_learning_rate_falls_in_time_for_the_cap() -> None:
    config = TrainConfig()  # 600 s; at 0.1 s a step the last 350 s fall
    for step, expected in ((1, 1.0), (2_500, 1.0), (2_501, 1 - 1 / 3500), (4_250, 0.5), (5_999, 1 / 3500), (6_000, 0)):
        assert lr_multiplier(step, step * 0.1, config) == pytest.approx(expected)
    assert lr_multiplier(6_001, 600.1, config) == 0
    assert lr_multiplier(2_500, 500.0, config) == pytest.approx(500 / 3500)  # slower: 500 steps are left
    # Where the steps run out first, they decide.
    assert lr_multiplier(19_000, 190.0, config) == pytest.approx(1000 / 3500)


def test_momentum_rises_linearly() -> None:
    config = TrainConfig()
    assert momentum_at(0, config) == 0.92
    assert momentum_at(750, config) == pytest.approx(0.955)
    assert momentum_at(1500, config) == momentum_at(20_000, config) == pytest.approx(0.99)


def walk(model: torch.nn.Module, steps: int) -> list[dict[str, torch.Tensor]]:
    """The weights of a model that moves at random, step after step."""
    generator, path = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        path.append({name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()})
    return path


def test_ema_is_torchs_and_its_definition() -> None:
    model = torch.nn.Linear(3, 2)
    ema = Ema(model, 0.9)
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    averaged.update_parameters(model)  # the first call copies
    expected = {name: p.detach().double() for name, p in model.named_parameters()}
    for weights in walk(model, 5):
        put(weights, model)
        ema.update(model)
        averaged.update_parameters(model)
        expected = {name: 0.9 * value + 0.1 * weights[name].double() for name, value in expected.items()}
    put(ema.average, model)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach().double(), expected[name], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(parameter, averaged.module.get_parameter(name))


def test_swa_is_the_mean() -> None:
    model = torch.nn.Linear(3, 2)
    swa, path = Swa(model), walk(model, 7)
    for weights in path:
        put(weights, model)
        swa.update(model)
    assert swa.count == 7
    for name, average in swa.average.items():
        torch.testing.assert_close(average, torch.stack([weights[name] for weights in path]).mean(0))


def test_averages_of_bfloat16_tables_are_float32() -> None:
    """Or small steps would be rounded away."""
    model = Transformer(replace(TINY, table_dtype="bfloat16"))
    ema, swa = Ema(model, 0.999), Swa(model)
    for average in (ema, swa):
        average.update(model)
        assert {tensor.dtype for tensor in average.average.values()} == {torch.float32}
    start = ema.average["embedding"].clone()
    with torch.no_grad():
        model.embedding.add_(1)
    ema.update(model)
    step = (ema.average["embedding"] - start).mean()
    assert float(step) == pytest.approx(1e-3, rel=0.05)  # bfloat16 would not tell it from 0
    put(ema.average, model)
    assert model.embedding.dtype == torch.bfloat16


# Quantisation-aware training


@pytest.mark.parametrize("levels", [15, 31])
@pytest.mark.parametrize("floor", [True, False])
@pytest.mark.parametrize("size", [1.0, 0.01])
def test_fake_quantisation(levels: int, floor: bool, size: float) -> None:
    weight = (size * torch.randn(6, 50)).requires_grad_(True)
    seen = qat.fake_quantise(weight, levels, floor)
    for row, out in zip(weight.detach().double(), seen.detach().double(), strict=True):
        scale = float(row.abs().max()) / levels
        scale = max(scale, 1 / levels) if floor else scale
        grid = out / scale
        np.testing.assert_allclose(grid, grid.round(), atol=1e-4)
        assert float(grid.abs().max()) <= levels + 1e-4
        np.testing.assert_allclose(out, scale * (row / scale).round(), atol=1e-5 * scale + 1e-7)
    coefficients = torch.randn_like(weight)
    (seen * coefficients).sum().backward()
    assert torch.equal(weight.grad, coefficients)


def test_gradients_of_the_estimator_are_those_at_the_rounded_weights() -> None:
    """Straight through: the loss is taken at the rounded weights, its gradient given to the weights as they are."""
    model, tokens = Transformer(TINY), torch.randint(20, (2, 9))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    rounded = Transformer(TINY)
    rounded.load_state_dict(
        {
            name: qat.fake_quantise(value, 15, False).detach() if name.endswith(".weight") else value
            for name, value in model.state_dict().items()
        }
    )
    qat.enable(model, QuantConfig(scale_floor=False))
    for one in (model, rounded):
        Objective(one, 0.0)(tokens[:, :-1], tokens[:, 1:])[0].backward()
    gradients = dict(rounded.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-4, atol=1e-6)


def test_compiled_models_notice_quantisation() -> None:
    """A flag that the compiler takes for a constant would leave QAT without effect."""
    model, tokens = Transformer(TINY), torch.randint(20, (2, 9))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    compiled = torch.compile(model, backend="eager")
    plain = compiled(tokens)
    torch.testing.assert_close(plain, model(tokens))
    qat.enable(model, QuantConfig(scale_floor=False))
    quantised = compiled(tokens)
    torch.testing.assert_close(quantised, model(tokens))
    assert not torch.allclose(quantised, plain, atol=1e-3)


def test_qat_covers_every_linear_layer_but_the_heads() -> None:
    model = Transformer(replace(TINY, mtp_heads=1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    tokens = torch.randint(20, (1, 8))
    plain = model(tokens)
    qat.enable(model, QuantConfig(scale_floor=False))
    quantised = {name for name, module in model.named_modules() if isinstance(module, Linear) and module.fake_quantise}
    blocks = {
        f"blocks.{layer}.{name}"
        for layer in range(2)
        for name in ("attn.q", "attn.k", "attn.v", "attn.out", "mlp.up", "mlp.down")
    }
    assert quantised == blocks | {"bigram.proj", "value.proj"}
    seen = model(tokens)
    assert not torch.allclose(seen, plain, atol=1e-3)
    by_hand = Transformer(TINY)
    by_hand.load_state_dict(
        {
            name: qat.fake_quantise(value, 15, False) if name.removesuffix(".weight") in quantised else value
            for name, value in model.state_dict().items()
            if not name.startswith("mtp.")
        }
    )
    assert torch.allclose(seen, by_hand(tokens), atol=1e-5)
    qat.disable(model)
    assert torch.equal(model(tokens), plain)


# Parameter groups


@pytest.mark.parametrize("change", [{}, {"mtp_heads": 2, "depth_gate": True, "table_dtype": "bfloat16"}])
def test_every_parameter_is_in_one_group(change: dict[str, Any]) -> None:
    model = Transformer(replace(TINY, **change))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    config = TrainConfig(model=model.config)
    muon, adamw = make_optimizers(model, config, ALONE)
    groups = [group for optimizer in (muon, adamw) for group in optimizer.param_groups]
    found = Counter(names[id(parameter)] for group in groups for parameter in group["params"])
    assert found == Counter(names.values())
    matrices, tables, vectors = ({names[id(parameter)] for parameter in group["params"]} for group in groups)
    assert tables == {"embedding", "bigram.table", "value.table"}
    assert all(is_table(name) for name in tables)
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Linear)}
    assert matrices == linear
    assert vectors == set(names.values()) - tables - linear
    assert [group["peak_lr"] for group in groups] == [0.025, 0.035, 0.025]
    assert {group["weight_decay"] for group in groups} == {0.04}
    assert all(group["betas"] == (0.9, 0.95) and group["eps"] == 1e-8 for group in adamw.param_groups)


# Data


def batches(tokens: NDArray[np.integer[Any]], seq_len: int, batch: int, seed: int = 0, shuffle: bool = True) -> Batches:
    stream = tokens.astype(np.uint16)
    return Batches(stream, vocab_size=1 << 16, seq_len=seq_len, batch=batch, shuffle=shuffle, seed=seed)


ALL = slice(None)


def test_each_sequence_once_an_epoch() -> None:
    data = batches(np.arange(1003), seq_len=10, batch=3, seed=4)
    assert data.per_epoch == 33  # 99 sequences, whatever the offset
    seen: list[set[int]] = []
    for epoch in range(3):
        rows = np.concatenate([data.rows(epoch * 33 + i, ALL) for i in range(33)])
        assert rows.shape == (99, 11)
        assert rows.dtype == np.int64
        assert (rows - rows[:, :1] == np.arange(11)).all()
        starts = rows[:, 0].tolist()
        assert len(set(starts)) == 99
        assert len({start % 10 for start in starts}) == 1
        assert starts != sorted(starts)
        seen.append(set(starts))
    assert len({frozenset(starts) for starts in seen}) > 1  # epochs differ in their offset


def test_stream_order() -> None:
    data = batches(np.arange(1001), seq_len=10, batch=3, shuffle=False)
    assert data.per_epoch == 33
    for n, first in ((0, 0), (1, 30), (32, 960), (33, 0)):
        assert data.rows(n, ALL)[:, 0].tolist() == [first, first + 10, first + 20]


@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_and_micro_batches_share_a_batch_out(shuffle: bool) -> None:
    data, whole = (batches(np.arange(500), 10, 12, shuffle=shuffle) for _ in range(2))
    for n in (0, 1, 3, 4, 9):
        parts = [data.rows(n, slice(first, first + 3)) for first in range(0, 12, 3)]
        assert (np.concatenate(parts) == whole.rows(n, ALL)).all()


def test_any_batch_can_be_asked_for_at_once() -> None:
    """A run that resumes reads what it would have read."""
    steady, sudden = (batches(np.arange(700), 10, 4, seed=3) for _ in range(2))
    steps = [steady.rows(n, ALL) for n in range(60)]
    for n in (59, 0, 30, 17, 16):
        assert (sudden.rows(n, ALL) == steps[n]).all()
    assert not (batches(np.arange(700), 10, 4, seed=5).rows(0, ALL) == steps[0]).all()


def test_sequences_cross_shards_and_are_checked_as_they_are_read(tmp_path: Path) -> None:
    write_shard(tmp_path / "b.bin", np.arange(100, 131, dtype=np.uint32))
    write_shard(tmp_path / "a.bin", np.arange(100, dtype=np.uint16))
    stream = read_shards([str(tmp_path / "*.bin")]).tokens
    small, large = (Batches(stream, vocab_size=size, seq_len=13, batch=1, shuffle=False, seed=0) for size in (120, 131))
    for n in range(10):
        assert large.rows(n, ALL).tolist() == [list(range(13 * n, 13 * n + 14))]
    assert small.rows(7, ALL).tolist() == [list(range(91, 105))]
    with pytest.raises(InputError, match=r"token 120 at position 120 .*vocab_size"):
        small.rows(9, ALL)


@pytest.mark.parametrize(
    ("length", "shuffle", "needed"), [(0, True, 50), (1, False, 41), (49, True, 50), (40, False, 41)]
)
def test_too_little_data(length: int, shuffle: bool, needed: int) -> None:
    with pytest.raises(InputError, match=f"{length} training tokens.* needs {needed};"):
        batches(np.zeros(length), 10, 4, shuffle=shuffle)


@pytest.mark.parametrize(("length", "shuffle"), [(50, True), (41, False)])
def test_just_enough_data(length: int, shuffle: bool) -> None:
    for seed in range(20):
        data = batches(np.arange(length), 10, 4, seed, shuffle)
        assert data.per_epoch == 1
        assert all(data.rows(n, ALL).shape == (4, 11) for n in range(5))


# The loss


def test_loss_of_the_multi_token_prediction_heads() -> None:
    model = Transformer(replace(TINY, mtp_heads=2))
    tokens = torch.randint(20, (2, 9))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    with torch.no_grad():
        for head in model.mtp:
            head.weight.copy_(torch.randn_like(head.weight))
        loss, nats = Objective(model, 0.2)(inputs, targets)
        hidden = model.hidden(inputs)
        log_p = model.logits(hidden).log_softmax(-1)
        expected = -torch.stack([log_p[b, t, tokens[b, t + 1]] for b in range(2) for t in range(8)]).mean()
        extra = []
        for k, logits in enumerate(model.mtp_logits(hidden)):
            log_q = logits.log_softmax(-1)
            pairs = [(b, t) for b in range(2) for t in range(8) if t + k + 2 <= 8]
            extra.append(-torch.stack([log_q[b, t, tokens[b, t + k + 2]] for b, t in pairs]).mean())
    assert float(nats) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss) == pytest.approx(float(expected) + 0.2 * float(sum(extra)) / 2, rel=1e-5)


# Configuration


def test_presets() -> None:
    assert {"embedded": embedded, "small": small, "pr890": pr890} == PRESETS
    published = pr890()
    assert published.model == ModelConfig()
    assert published.quant == QuantConfig(matrix_levels=15, scale_floor=True)
    assert published.seq_len * published.batch == 786_432
    assert [published.micro_batches(world) for world in (1, 2, 8)] == [8, 4, 1]
    assert (published.max_seconds, published.steps, published.warmdown_steps, published.warmup_steps) == (
        *(600, 20_000, 3500, 20),
    )
    for name, preset in PRESETS.items():
        preset().micro_batches(1)
        with torch.device("meta"):
            count = parameter_count(Transformer(preset().model))
        assert count == {"embedded": 1_322_524, "small": 3_800_052, "pr890": 33_055_836}[name]


@pytest.mark.parametrize(
    ("change", "world", "message"),
    [
        ({"batch": 12, "micro_batch": 5}, 1, "micro_batch is 5: it must divide a rank's 12"),
        ({"batch": 12, "micro_batch": 4}, 2, "micro_batch is 4: it must divide a rank's 6"),
        ({"batch": 12}, 8, "batch is 12: 8 ranks"),
    ],
)
def test_batches_that_cannot_be_shared_out(change: dict[str, Any], world: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(embedded(), **change).micro_batches(world)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"swa_every": 0}, "swa_every is 0"),
        ({"warmdown_steps": -1}, "warmdown_steps is -1"),
        ({"ema": 1.5}, "ema is 1.5"),
        ({"qat_below": -0.1}, "qat_below is -0.1"),
        ({"max_seconds": float("inf")}, "max_seconds is inf"),
        ({"matrix_lr": float("nan")}, "matrix_lr is nan"),
        ({"export_weights": "best"}, "export_weights is 'best'"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(**change)
