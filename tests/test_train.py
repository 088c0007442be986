"""Training: schedules, averages, the quantisation estimator, parameter groups, batches, and a run from end to end."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ngram_eval import artifact
from ngram_eval.artifact import QuantConfig
from ngram_eval.errors import InputError
from ngram_eval.model import Linear, ModelConfig, Transformer
from ngram_eval.tokens import write_shard
from ngram_eval.train import __main__ as command
from ngram_eval.train import qat
from ngram_eval.train.averaging import Ema
from ngram_eval.train.config import PRESETS, TrainConfig, embedded, pr890
from ngram_eval.train.data import batches
from ngram_eval.train.loop import loss_of, train
from ngram_eval.train.optim import is_table, lr_multiplier, make_optimizers, momentum_at

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
TINY_FLAGS = (
    *("--vocab-size", "20", "--layers", "2", "--width", "16", "--heads", "2"),
    *("--kv-heads", "2", "--mlp-hidden", "24", "--bigram-slots", "16", "--bigram-width", "4"),
    *("--rope-dims", "4", "--xsa-layers", "2", "--value-layers", "1", "--value-width", "4"),
    *("--seq-len", "32", "--batch", "4", "--momentum-warmup", "10", "--device", "cpu"),
)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,000 tokens that mostly count upwards: easy to learn."""
    rng = np.random.default_rng(0)
    steps = np.where(rng.random(4000) < 0.9, 1, rng.integers(0, 20, 4000))
    path = tmp_path_factory.mktemp("train") / "train_000000.bin"
    write_shard(path, (np.cumsum(steps) % 20).astype(np.uint16))
    return path


# Schedules


def test_learning_rate_is_flat_then_falls_to_zero() -> None:
    config = TrainConfig()  # 20,000 steps, the last 3,500 of them falling
    assert lr_multiplier(0, config) == lr_multiplier(16_500, config) == 1
    assert lr_multiplier(18_250, config) == pytest.approx(0.5)
    assert lr_multiplier(19_999, config) == pytest.approx(1 / 3500)
    assert lr_multiplier(19_999, replace(config, warmdown=0.0)) == 1
    falls = [lr_multiplier(step, replace(config, steps=10, warmdown=1.0)) for step in range(10)]
    assert falls == pytest.approx([1 - step / 10 for step in range(10)])


def test_momentum_rises_linearly() -> None:
    config = TrainConfig()
    assert momentum_at(0, config) == 0.92
    assert momentum_at(750, config) == pytest.approx(0.955)
    assert momentum_at(1500, config) == momentum_at(20_000, config) == pytest.approx(0.99)


def test_ema() -> None:
    model = torch.nn.Linear(3, 2)
    ema, expected = Ema(model, 0.9), {name: p.detach().double() for name, p in model.named_parameters()}
    for step in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.full_like(parameter, float(step)))
        ema.update(model)
        expected = {name: 0.9 * value + 0.1 * step for name, value in expected.items()}
    ema.apply_to(model)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach(), expected[name], rtol=1e-5)


def test_ema_keeps_bfloat16_tables_in_float32() -> None:
    """Or small steps would be rounded away."""
    model = Transformer(replace(TINY, table_dtype="bfloat16"))
    ema = Ema(model, 0.999)
    assert {average.dtype for average in ema.average.values()} == {torch.float32}
    ema.update(model)
    ema.apply_to(model)
    assert model.embedding.dtype == torch.bfloat16


# Quantisation-aware training


@pytest.mark.parametrize("floor", [True, False])
@pytest.mark.parametrize("size", [1.0, 0.01])
def test_fake_quantisation(floor: bool, size: float) -> None:
    weight = (size * torch.randn(6, 50)).requires_grad_(True)
    seen = qat.fake_quantise_int5(weight, floor)
    for row, out in zip(weight.detach().double(), seen.detach().double(), strict=True):
        scale = float(row.abs().max()) / 15
        scale = max(scale, 1 / 15) if floor else scale
        grid = out / scale
        np.testing.assert_allclose(grid, grid.round(), atol=1e-4)
        assert float(grid.abs().max()) <= 15 + 1e-4
        np.testing.assert_allclose(out, scale * (row / scale).round(), atol=1e-5 * scale + 1e-7)
    coefficients = torch.randn_like(weight)
    (seen * coefficients).sum().backward()
    assert torch.equal(weight.grad, coefficients)


def test_qat_covers_every_linear_layer_but_the_heads() -> None:
    model = Transformer(replace(TINY, mtp_heads=1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    tokens = torch.randint(20, (1, 8))
    plain = model(tokens)
    qat.enable(model, False)
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
            name: qat.fake_quantise_int5(value, False) if name.removesuffix(".weight") in quantised else value
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
    muon, adamw = make_optimizers(model, config)
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


def test_muon_steps_are_orthogonal_and_scaled_by_the_shape() -> None:
    model = Transformer(TINY)
    muon, _ = make_optimizers(model, TrainConfig(model=TINY, weight_decay=0.0, matrix_lr=1.0))
    weight = model.blocks[0].mlp.up.weight  # (24, 16)
    before = weight.detach().clone()
    weight.grad = torch.randn_like(weight)
    muon.step()
    singular = torch.linalg.svdvals((before - weight.detach()).double()) / (24 / 16) ** 0.5
    assert float(singular.min()) > 0.5
    assert float(singular.max()) < 1.3


# Data


def test_each_sequence_once_an_epoch() -> None:
    tokens = np.arange(1003, dtype=np.uint16)
    stream = batches(tokens, seq_len=10, batch=3, seed=4)
    seen: list[set[int]] = []
    for _ in range(3):
        epoch = list(islice(stream, 33))  # 99 or 100 sequences, whatever the offset: 33 batches of 3
        assert all(inputs.shape == targets.shape == (3, 10) for inputs, targets in epoch)
        assert all(inputs.dtype == targets.dtype == torch.int64 for inputs, targets in epoch)
        assert all(torch.equal(inputs + 1, targets) for inputs, targets in epoch)
        assert all(torch.equal(inputs - inputs[:, :1], torch.arange(10).expand(3, 10)) for inputs, _ in epoch)
        starts = torch.cat([inputs[:, 0] for inputs, _ in epoch]).tolist()
        assert len(set(starts)) == 99
        assert len({start % 10 for start in starts}) == 1
        assert starts != sorted(starts)
        seen.append(set(starts))
    assert len({frozenset(starts) for starts in seen}) > 1  # epochs differ in their offset


def test_batches_repeat_with_their_seed() -> None:
    tokens = np.arange(500, dtype=np.uint16)

    def first(seed: int) -> torch.Tensor:
        return next(batches(tokens, 10, 4, seed))[0]

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


@pytest.mark.parametrize("length", [0, 1, 50])
def test_too_little_data(length: int) -> None:
    with pytest.raises(InputError, match=f"{length} training tokens.* needs 51"):
        next(batches(np.zeros(length, np.uint16), 10, 4, 0))


def test_just_enough_data() -> None:
    for seed in range(20):
        stream = batches(np.zeros(51, np.uint16), 10, 4, seed)
        assert len(list(islice(stream, 5))) == 5


# The loss and the loop


def test_loss_of_the_multi_token_prediction_heads() -> None:
    model = Transformer(replace(TINY, mtp_heads=2))
    tokens = torch.randint(20, (2, 9))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    with torch.no_grad():
        for head in model.mtp:
            head.weight.copy_(torch.randn_like(head.weight))
        loss, nats = loss_of(model, inputs, targets, 0.2)
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


def test_training_in_process_learns(shard: Path) -> None:
    tokens = np.fromfile(shard, "<u2", offset=1024)
    config = TrainConfig(model=replace(TINY, mtp_heads=1, depth_gate=True), seq_len=32, batch=4, steps=40, ema=0.5)
    model = train(config, tokens, torch.device("cpu"))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.fake_quantise for module in model.modules() if isinstance(module, Linear))
    sequences = torch.from_numpy(tokens[: 33 * 20].astype(np.int64)).view(20, 33)
    _, nats = loss_of(model, sequences[:, :-1], sequences[:, 1:], 0.0)
    assert float(nats) < 0.8 * np.log(20)


# The command line


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The command line in this process."""

    def main(*arguments: object) -> None:
        monkeypatch.setattr(artifact, "code_bytes", lambda: 1)  # takes seconds; test_artifact.py covers it
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
        command.main()

    return main


def test_from_shards_to_an_evaluated_artifact(
    tmp_path: Path, shard: Path, call: Callable[..., None], evaluate: Callable[..., dict[str, dict[str, Any]]]
) -> None:
    """`python -m ngram_eval.train`, again in this process with the same seed, with another, and the evaluator."""
    flags = ("--data", shard, *TINY_FLAGS, "--steps", 40)
    first, second, other = tmp_path / "1.ngev", tmp_path / "2.ngev", tmp_path / "3.ngev"
    script = [sys.executable, "-m", "ngram_eval.train", *map(str, flags), "--out", str(first)]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "under 16,000,000" in done.stdout
    call(*flags, "--out", second)
    assert first.read_bytes() == second.read_bytes()
    call(*flags, "--out", other, "--seed", 7)
    assert first.read_bytes() != other.read_bytes()

    model, train_seq_len = artifact.load(first)
    assert model.config == replace(TINY, rope_train_len=256)
    assert train_seq_len == 32
    result = evaluate("--artifact", first, "--data", shard, "--seq-len", 32, "--stride", 32, "--buckets", 64)
    for one in result.values():
        assert one["neural_nats"] / one["positions"] < 0.8 * np.log(20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "best"), "--preset is 'best': choose from embedded, pr890"),
        (("--steps", 0), "--steps is 0"),
        (("--ema", 1.5), "--ema is 1.5"),
        (("--matrix-lr", "nan"), "--matrix-lr is nan"),
        (("--layers", 0), "layers is 0"),
        (("--data", "missing_*.bin"), "missing_*.bin: no such shard"),
        (("--device", "abacus"), "--device is 'abacus'"),
        (("--out", "no/such/folder/m.ngev"), "--out is no/such/folder/m.ngev"),
        (("--batch", 1000), "training tokens"),
        (("--vocab-size", 19), "--vocab-size"),
        (("--nonsense", 1), "nonsense"),
    ],
)
def test_bad_command_lines_exit_2(
    tmp_path: Path,
    shard: Path,
    call: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    message: str,
) -> None:
    out = tmp_path / "m.ngev"
    with pytest.raises(SystemExit) as stopped:
        call("--data", shard, "--out", out, *TINY_FLAGS, *arguments)
    assert stopped.value.code == 2
    captured = capsys.readouterr().err
    assert message in captured
    assert "Traceback" not in captured
    assert not list(tmp_path.iterdir())


def test_presets() -> None:
    assert {"embedded": embedded, "pr890": pr890} == PRESETS
    assert pr890().model == ModelConfig()
    assert pr890().quant == QuantConfig()
    assert pr890().seq_len * pr890().batch == 786_432
