"""The transformer against a slow float64 implementation of its description, position by position."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from ngram_eval.models.cache import Cache
from ngram_eval.models.transformer import (
    Transformer,
    bigram_slots,
    parameter_count,
    rope_angles,
)
from ngram_eval.models.transformer_config import ModelConfig
from tests.support.slow_transformer import SMALL, SWITCHES, close, random_model, random_tokens, slow_forward


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_published_model_has_33055836_parameters(device: str) -> None:
    with torch.device(device):
        model = Transformer(ModelConfig())
    assert parameter_count(model) == 33_055_836
    assert {parameter.device.type for parameter in model.parameters()} == {device}
    narrow = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.bfloat16}
    assert narrow == {"embedding", "bigram.table", "value.table"}


def test_initial_values() -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        width=128, heads=2, kv_heads=2, mlp_hidden=192, value_layers=(9, 10), mtp_heads=2, depth_gate=True
    )
    p = {name: value.double() for name, value in Transformer(config).state_dict().items()}

    def is_orthogonal(matrix: torch.Tensor) -> bool:
        small = matrix if matrix.size(0) <= matrix.size(1) else matrix.T
        return torch.allclose(small @ small.T, torch.eye(len(small), dtype=torch.float64), atol=1e-4)

    assert abs(float(p["embedding"].std()) - 0.005) < 1e-4
    assert abs(float(p["value.table"].std()) - 0.01) < 2e-4
    assert not p["bigram.table"].any()
    shrunk = math.sqrt(2 * config.layers)
    assert is_orthogonal(p["bigram.proj.weight"] * shrunk)
    assert is_orthogonal(p["value.proj.weight"] * shrunk)
    assert abs(float(p["bigram.scale"]) - 0.05) < 1e-7
    assert abs(float(p["value.scale"]) - 0.1) < 1e-7
    assert (p["value_scales"] == 1).all()
    assert p["skip_weights"].shape == (5, 128)
    assert (p["skip_weights"] == 1).all()
    assert not p["smear"].any()
    for layer in range(config.layers):
        block = f"blocks.{layer}."
        for name in ("attn.q", "attn.k", "attn.v", "mlp.up"):
            assert is_orthogonal(p[f"{block}{name}.weight"]), name
        for name in ("attn.out.weight", "mlp.down.weight", "gate_weight"):
            assert not p[block + name].any(), name
        assert (p[block + "attn.q_gain"] == 1.5).all()
        assert (p[block + "attn_scale"] == 1).all()
        assert (p[block + "mlp_scale"] == 1).all()
        assert (p[block + "mix"] == torch.tensor([[1.0], [0.0]])).all()
        assert p[block + "gate_bias"] == 2
    assert not any(p[f"mtp.{head}.weight"].any() for head in range(2))


# The forward


@pytest.mark.parametrize("name", SWITCHES)
def test_forward_equals_the_slow_implementation(name: str) -> None:
    model = random_model(replace(SMALL, **SWITCHES[name]))
    tokens = random_tokens(2, 7)
    logits = model(tokens)
    assert logits.dtype == torch.float32
    for row, sequence in zip(logits, tokens.tolist(), strict=True):
        close(row, slow_forward(model, sequence)[0])


@pytest.mark.parametrize("length", [1, 2, 7, 63])
@pytest.mark.parametrize("config", [replace(SMALL, rope_train_len=5, depth_gate=True, kv_heads=2)])
def test_odd_lengths(length: int, config: ModelConfig) -> None:
    model = random_model(config)
    tokens = random_tokens(1, length)
    close(model(tokens)[0], slow_forward(model, tokens[0].tolist())[0])


def test_every_switch_matters() -> None:
    """A switch that did nothing would pass the comparison above if the slow version ignored it too."""
    tokens = random_tokens(1, 7)
    everything = random_model(SMALL)
    for name, change in SWITCHES.items():
        if set(change) & {"layers", "kv_heads", "bigram_slots", "value_layers", "table_dtype"} or not change:
            continue
        other = Transformer(replace(SMALL, **change)).double()
        other.load_state_dict(everything.state_dict(), strict=False)
        assert not torch.allclose(other(tokens), everything(tokens), atol=1e-3), name


def test_multi_token_prediction_heads() -> None:
    model = random_model(replace(SMALL, mtp_heads=2))
    tokens = random_tokens(1, 7)
    for fast, slow in zip(
        model.mtp_logits(model.hidden(tokens)), slow_forward(model, tokens[0].tolist())[1], strict=True
    ):
        close(fast[0], slow)


def test_the_depth_gate_stops_the_gradient() -> None:
    """The gate's own weight learns; nothing flows through the gate into its input."""
    block = random_model(replace(SMALL, depth_gate=True, input_mix=False)).blocks[0].requires_grad_(True)
    with torch.no_grad():
        block.attn_scale.zero_()
        block.mlp_scale.zero_()  # the block is the identity, so the gate multiplies zero
    x = torch.randn(1, 3, SMALL.width, dtype=torch.float64, requires_grad=True)
    block(x, x, None, None, 3).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("vocab", [1024, 65536])
def test_bigram_slots(vocab: int) -> None:
    tokens = torch.randint(vocab, (3, 50), generator=torch.Generator().manual_seed(1))
    tokens[0, 4:6] = vocab - 1
    slots = bigram_slots(tokens, 4096)
    for row, sequence in zip(slots.tolist(), tokens.tolist(), strict=True):
        assert row[0] == 4095
        assert row[1:] == [((36313 * b) ^ (27191 * a)) % 4095 for a, b in pairwise(sequence)]
    assert int(slots[:, 1:].max()) < 4095


def test_bigrams_and_smear_gate_do_not_look_over_the_start_of_a_document() -> None:
    """What was read before a BOS token changes nothing at it but through attention, which is cut off here."""
    assert bigram_slots(torch.tensor([[5, 6, 3, 7]]), 11, 3).tolist()[0][2] == 10
    deaf = random_model(replace(SMALL, layers=1, value_layers=(), bos_id=3))
    with torch.no_grad():
        deaf.blocks[0].attn_scale.zero_()
    one, other = torch.tensor([[5, 6, 3, 7]]), torch.tensor([[5, 8, 3, 7]])
    close(deaf(one)[:, 2:], deaf(other)[:, 2:], 1e-12)
    leaky = Transformer(replace(deaf.config, bos_id=-1)).double()
    leaky.load_state_dict(deaf.state_dict())
    assert not torch.allclose(leaky(one)[:, 2], leaky(other)[:, 2], atol=1e-3)


def test_rope_base_grows_beyond_the_trained_length() -> None:
    config = ModelConfig()
    cos, sin = rope_angles(config, torch.arange(3.0), 2048)
    base = 10000 * 2 ** (16 / 14)
    close(cos, [[math.cos(t / base ** (i / 8)) for i in range(8)] for t in range(3)], 1e-6)
    close(sin, [[math.sin(t / base ** (i / 8)) for i in range(8)] for t in range(3)], 1e-6)
    assert all(
        torch.equal(a, b)
        for length in (1, 1023, 1024)
        for a, b in zip(
            rope_angles(config, torch.arange(3.0), length),
            rope_angles(config, torch.arange(3.0), 3),
            strict=True,
        )
    )


# Only the scored positions, and windows cut short


@pytest.mark.parametrize("change", [{}, {"kv_heads": 2, "depth_gate": True}, {"layers": 1, "value_layers": (0,)}])
@pytest.mark.parametrize(("length", "last"), [(1, 1), (7, 1), (7, 7), (63, 32), (63, 62)])
def test_last_positions_equal_the_full_forward(change: dict[str, Any], length: int, last: int) -> None:
    model = random_model(replace(SMALL, rope_train_len=16, **change))
    tokens = random_tokens(2, length)
    close(model(tokens, last=last), model(tokens)[:, -last:], 1e-6)


def test_last_in_float32() -> None:
    model = random_model(SMALL).float()
    tokens = random_tokens(2, 63)
    close(model(tokens, last=5), model(tokens)[:, -5:], 1e-4)


@pytest.mark.parametrize(
    "change", [{"bos_id": 3}, {"kv_heads": 2, "depth_gate": True}, {"layers": 1, "value_layers": (0,)}]
)
@pytest.mark.parametrize("parts", [(1,) * 9, (4, 5), (7, 1, 1), (1, 8)])
def test_a_window_in_parts_equals_the_whole(change: dict[str, Any], parts: tuple[int, ...]) -> None:
    model = random_model(replace(SMALL, rope_train_len=6, **change)).float()
    tokens = random_tokens(1, 9)
    cache = Cache(model.config, 12)
    found = [model.logits(model.hidden(part, length=12, cache=cache)) for part in tokens.split(parts, dim=1)]
    close(torch.cat(found, dim=1), model(tokens, length=12), 1e-4)
    assert cache.filled == 9


def test_a_part_gives_its_last_positions() -> None:
    model = random_model(SMALL).float()
    tokens = random_tokens(1, 9)
    cache = Cache(model.config, 9)
    model.hidden(tokens[:, :4], last=1, length=9, cache=cache)
    close(model.logits(model.hidden(tokens[:, 4:], last=2, length=9, cache=cache)), model(tokens)[:, -2:], 1e-4)


@pytest.mark.parametrize("last", [0, -1, 8])
def test_last_must_be_within_the_sequence(last: int) -> None:
    with pytest.raises(ValueError, match="7 positions"):
        random_model(SMALL)(random_tokens(1, 7), last=last)


@pytest.mark.parametrize("length", [7, 8, 33])
def test_length_equals_padding_on_the_right(length: int) -> None:
    model = random_model(replace(SMALL, rope_train_len=6))
    tokens = random_tokens(2, 7)
    padded = torch.nn.functional.pad(tokens, (0, length - 7))
    close(model(tokens, length=length), model(padded)[:, :7], 1e-6)
    close(model(tokens, last=2, length=length), model(padded)[:, 5:7], 1e-6)
    close(model(tokens, length=length)[0], slow_forward(model, tokens[0].tolist(), length)[0])


def test_the_future_does_not_show() -> None:
    model = random_model(SMALL)
    tokens = random_tokens(1, 9)
    changed = tokens.clone()
    changed[0, 5:] = (changed[0, 5:] + 1) % SMALL.vocab_size
    close(model(tokens)[:, :5], model(changed)[:, :5], 1e-6)
    assert not torch.allclose(model(tokens)[:, 5:], model(changed)[:, 5:])
