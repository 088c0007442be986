"""The transformer against a slow float64 implementation of its description, position by position."""

import math
import sys
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ngram_eval.errors import InputError
from ngram_eval.models import transformer_source as forward
from ngram_eval.models.transformer import (
    Cache,
    Transformer,
    attention_kernel,
    bigram_slots,
    parameter_count,
    rope_angles,
)
from ngram_eval.models.transformer_config import MAX_LAYERS, MAX_SIZE, ModelConfig
from ngram_eval.models.transformer_source import TransformerSource, choose_device, choose_dtype, target_stats
from ngram_eval.text.windows import Windows

Array = NDArray[np.float64]

SMALL = ModelConfig(
    vocab_size=37,
    layers=5,
    width=24,
    heads=4,
    kv_heads=4,
    mlp_hidden=20,
    bigram_slots=11,
    bigram_width=5,
    rope_dims=4,
    rope_train_len=1024,
    xsa_layers=5,
    value_layers=(1, 4),
    value_width=7,
)
SWITCHES: dict[str, dict[str, Any]] = {
    "everything": {},
    "no bigram": {"bigram_slots": 0},
    "two bigram slots": {"bigram_slots": 2},
    "no smear gate": {"smear_gate": False},
    "no skips": {"unet_skips": False},
    "no input mix": {"input_mix": False},
    "no layer norm scale": {"layer_norm_scale": False},
    "no rope": {"rope_dims": 0},
    "rope on whole heads": {"rope_dims": 6},
    "rope beyond the trained length": {"rope_train_len": 3},
    "no xsa": {"xsa_layers": 0},
    "xsa on the last two": {"xsa_layers": 2},
    "no value embedding": {"value_layers": ()},
    "value embedding elsewhere": {"value_layers": (3, 0)},
    "no softcap": {"logit_softcap": 0.0},
    "tight softcap": {"logit_softcap": 0.5},
    "plain relu": {"leaky_slope": 0.0},
    "depth gate": {"depth_gate": True},
    "grouped queries": {"kv_heads": 2},
    "one key head": {"kv_heads": 1},
    "one layer": {"layers": 1, "value_layers": (0,)},
    "two layers": {"layers": 2, "value_layers": (1,)},
    "four layers": {"layers": 4, "value_layers": (0,)},
    "float32 tables": {"table_dtype": "float32"},
    "documents": {"bos_id": 3},
}


# The slow implementation: one sequence, loops over positions and heads, float64


def rms(x: Array) -> Array:
    return x / np.sqrt((x * x).mean() + np.finfo(np.float64).eps)


def rotated(vector: Array, position: int, length: int, config: ModelConfig) -> Array:
    """One head's query or key, turned by its position."""
    d, base = config.rope_dims, config.rope_base
    if length > config.rope_train_len:
        base *= (length / config.rope_train_len) ** (d / (d - 2))
    out = vector.copy()
    for i in range(d // 2):
        angle = position / base ** (2 * i / d)
        a, b = vector[i], vector[i + d // 2]
        out[i] = a * math.cos(angle) + b * math.sin(angle)
        out[i + d // 2] = -a * math.sin(angle) + b * math.cos(angle)
    return out


def slow_attention(
    p: dict[str, Array], layer: int, xs: list[Array], values: list[Array] | None, length: int, c: ModelConfig
) -> list[Array]:
    prefix, size = f"blocks.{layer}.attn.", c.width // c.heads
    queries, keys, vs = [], [], []
    for t, x in enumerate(xs):
        v = p[prefix + "v.weight"] @ x
        if values is not None:
            v = v + values[t]
        vs.append(v.reshape(c.kv_heads, size))
        keys.append([rotated(rms(k), t, length, c) for k in (p[prefix + "k.weight"] @ x).reshape(c.kv_heads, size)])
        queries.append(
            [
                p[prefix + "q_gain"][head] * rotated(rms(q), t, length, c)
                for head, q in enumerate((p[prefix + "q.weight"] @ x).reshape(c.heads, size))
            ]
        )
    out = []
    for t in range(len(xs)):
        heads = []
        for head in range(c.heads):
            group = head // (c.heads // c.kv_heads)
            scores = np.array([queries[t][head] @ keys[s][group] / math.sqrt(size) for s in range(t + 1)])
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            y = sum((w * vs[s][group] for s, w in enumerate(weights)), np.zeros(size))
            if layer >= c.layers - c.xsa_layers:
                unit = vs[t][group] / np.linalg.norm(vs[t][group])
                y = y - (y @ unit) * unit
            heads.append(y)
        out.append(p[prefix + "out.weight"] @ np.concatenate(heads))
    return out


def slow_forward(model: Transformer, tokens: list[int], length: int | None = None) -> tuple[Array, list[Array]]:
    """(logits (T, V), logits (T, V) of each multi-token-prediction head)."""
    c = model.config
    p = {name: value.double().numpy() for name, value in model.state_dict().items()}
    length = len(tokens) if length is None else length

    xs = []
    for t, token in enumerate(tokens):
        x = p["embedding"][token]
        if c.bigram_slots:
            slot = c.bigram_slots - 1
            if t > 0 and token != c.bos_id:
                slot = ((36313 * token) ^ (27191 * tokens[t - 1])) % (c.bigram_slots - 1)
            x = x + p["bigram.scale"] * (p["bigram.proj.weight"] @ p["bigram.table"][slot])
        xs.append(rms(x))
    if c.smear_gate:
        g = 1 / (1 + np.exp(-p["smear"]))
        befores = [np.zeros(c.width), *xs]
        xs = [(1 - g) * x + g * befores[t] * (tokens[t] != c.bos_id) for t, x in enumerate(xs)]
    x0s, stack = xs, []

    for layer in range(c.layers):
        half = c.layers // 2
        if c.unet_skips and layer >= half and stack:
            xs = [x + p["skip_weights"][layer - half] * skip for x, skip in zip(xs, stack.pop(), strict=True)]
        values = None
        if layer in c.value_layers:
            gain = p["value_scales"][c.value_layers.index(layer)] * p["value.scale"]
            values = [gain * (p["value.proj.weight"] @ p["value.table"][token]) for token in tokens]
        block, s = f"blocks.{layer}.", 1 / math.sqrt(layer + 1) if c.layer_norm_scale else 1.0
        if c.input_mix:
            xs = [p[block + "mix"][0] * x + p[block + "mix"][1] * x0 for x, x0 in zip(xs, x0s, strict=True)]
        attended = slow_attention(p, layer, [s * rms(x) for x in xs], values, length, c)
        outs = []
        for x_in, y in zip(xs, attended, strict=True):
            x = x_in + p[block + "attn_scale"] * y
            hidden = p[block + "mlp.up.weight"] @ (s * rms(x))
            hidden = np.where(hidden > 0, hidden, c.leaky_slope * hidden) ** 2
            x = x + p[block + "mlp_scale"] * (p[block + "mlp.down.weight"] @ hidden)
            if c.depth_gate:
                gate = 1 / (1 + math.exp(-(p[block + "gate_weight"] @ x_in + p[block + "gate_bias"])))
                x = x_in + gate * (x - x_in)
            outs.append(x)
        xs = outs
        if c.unet_skips and layer < half:
            stack.append(xs)

    def capped(matrix: Array) -> Array:
        z = np.stack([matrix @ rms(x) for x in xs])
        return c.logit_softcap * np.tanh(z / c.logit_softcap) if c.logit_softcap else z

    return capped(p["embedding"]), [capped(p[f"mtp.{head}.weight"]) for head in range(c.mtp_heads)]


# Helpers


def random_model(config: ModelConfig, seed: int = 0) -> Transformer:
    """Float64, every parameter far from its initial value: a part left out or misplaced shows."""
    torch.manual_seed(seed)
    model = Transformer(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 1.0 if name.endswith("table") or name == "embedding" else 0.4
            parameter.copy_(spread * torch.randn(parameter.shape) + (0.7 if "scale" in name else 0))
    return model.double().eval().requires_grad_(False)


def random_tokens(batch: int, length: int, vocab: int = SMALL.vocab_size) -> torch.Tensor:
    """With token 3, which `bos_id` names in some of the models, at every fifth position."""
    tokens = torch.randint(vocab, (batch, length), generator=torch.Generator().manual_seed(length))
    tokens[:, 2::5] = 3
    return tokens


def close(a: Any, b: Any, tolerance: float = 2e-5) -> None:
    # Angles and the softcap are float32 whatever the weights are.
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


# Size and initialisation


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
    cos, sin = rope_angles(config, 3, 2048, torch.device("cpu"))
    base = 10000 * 2 ** (16 / 14)
    close(cos, [[math.cos(t / base ** (i / 8)) for i in range(8)] for t in range(3)], 1e-6)
    close(sin, [[math.sin(t / base ** (i / 8)) for i in range(8)] for t in range(3)], 1e-6)
    assert all(
        torch.equal(a, b)
        for length in (1, 1023, 1024)
        for a, b in zip(
            rope_angles(config, 3, length, torch.device("cpu")),
            rope_angles(config, 3, 3, torch.device("cpu")),
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


# Bad configurations


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"layers": 0}, "layers is 0"),
        ({"layers": MAX_LAYERS + 1}, "layers is 1025"),
        ({"width": MAX_SIZE + 8}, "width is"),
        ({"width": 100}, "must divide"),
        ({"kv_heads": 3}, "must divide"),
        ({"mlp_hidden": 0}, "mlp_hidden is 0"),
        ({"bigram_slots": -1}, "bigram_slots is -1"),
        ({"bigram_slots": 1}, "bigram_slots is 1"),
        ({"bigram_width": 0}, "bigram_width is 0"),
        ({"value_width": 0}, "value_width is 0"),
        ({"rope_dims": 3}, "rope_dims is 3"),
        ({"rope_dims": 2}, "rope_dims is 2"),
        ({"rope_dims": 66}, "rope_dims is 66"),
        ({"rope_dims": -2}, "rope_dims is -2"),
        ({"bos_id": 1024}, "bos_id is 1024"),
        ({"bos_id": -2}, "bos_id is -2"),
        ({"rope_base": 0.5}, "rope_base is 0.5"),
        ({"rope_train_len": 0}, "rope_train_len is 0"),
        ({"xsa_layers": -1}, "xsa_layers is -1"),
        ({"value_layers": (11,)}, "layers are 0 to 10"),
        ({"value_layers": (-1,)}, "layers are 0 to 10"),
        ({"value_layers": (9, 9)}, "each layer once"),
        ({"mtp_heads": -1}, "mtp_heads is -1"),
        ({"logit_softcap": -1.0}, "logit_softcap is -1"),
        ({"logit_softcap": math.nan}, "logit_softcap is nan"),
        ({"leaky_slope": math.inf}, "leaky_slope is inf"),
        ({"q_gain": math.nan}, "q_gain is nan"),
        ({"table_init_std": -0.1}, "table_init_std is -0.1"),
        ({"table_dtype": "float16"}, "table_dtype is 'float16'"),
    ],
)
def test_bad_configurations_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelConfig(**change)


# ngram_eval.models.transformer_source


def test_target_stats() -> None:
    rng = np.random.default_rng(0)
    logits = 20 * rng.standard_normal((3, 5, 40))
    targets = rng.integers(40, size=(3, 5))
    log_p, entropy = target_stats(torch.tensor(logits), torch.tensor(targets))
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    close(log_p, np.log(np.take_along_axis(p, targets[..., None], -1))[..., 0])
    close(entropy, -(p * np.log(p)).sum(-1))
    assert log_p.dtype == entropy.dtype == torch.float32


def source_of(model: Transformer) -> TransformerSource:
    cpu = torch.device("cpu")
    return TransformerSource(model, train_seq_len=0, batch_windows=4, device=cpu, dtype=torch.float32)


@pytest.mark.parametrize("at_once", [1 << 25, 5 * SMALL.vocab_size, 1])
@pytest.mark.parametrize(("length", "scored"), [(16, 16), (16, 3), (9, 4), (1, 1)])
def test_model_source(monkeypatch: pytest.MonkeyPatch, length: int, scored: int, at_once: int) -> None:
    """Windows of 16 positions, whole or cut short, logits in one part or in many."""
    monkeypatch.setattr(forward, "_LOGITS_AT_ONCE", at_once)
    model = random_model(replace(SMALL, rope_train_len=8))
    tokens = np.random.default_rng(3).integers(SMALL.vocab_size, size=60, dtype=np.uint16)
    start = np.array([0, 7, 20])
    windows = Windows(start, start + length - scored, start + length, 16)
    stats = source_of(model).stats(tokens, windows)
    p_target, entropy = [], []
    for begin in start:
        logits = slow_forward(model, tokens[begin : begin + length].tolist(), 16)[0][-scored:]
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        targets = tokens[begin + length - scored + 1 : begin + length + 1]
        p_target.append(p[np.arange(scored), targets])
        entropy.append(-(p * np.log(p)).sum(-1))
    close(stats.p_target, np.concatenate(p_target), 1e-4)
    close(stats.entropy, np.concatenate(entropy), 1e-4)
    assert stats.p_target.dtype == np.float64
    assert stats.entropy.dtype == np.float32


def test_full_batches_are_compiled_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = []

    def traced(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        traces.append(graph)
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **kwargs: compile_(function, backend=traced, **kwargs))
    model, cpu = random_model(SMALL), torch.device("cpu")
    compiled = TransformerSource(
        model, train_seq_len=0, batch_windows=4, device=cpu, dtype=torch.float32, compiled=True
    )
    tokens = np.random.default_rng(3).integers(SMALL.vocab_size, size=80, dtype=np.uint16)
    start = np.arange(0, 32, 4)
    for rows, length, traces_then in ((3, 16, 0), (4, 16, 1), (4, 9, 1), (4, 16, 1)):
        windows = Windows(start[:rows], start[:rows] + length - 4, start[:rows] + length, 16)
        assert (compiled.stats(tokens, windows).entropy == source_of(model).stats(tokens, windows).entropy).all()
        assert len(traces) == traces_then
    assert compiled.settings["compiled"] == "full batches"


def test_bfloat16_stays_close() -> None:
    model = random_model(SMALL).float()
    tokens = np.random.default_rng(3).integers(SMALL.vocab_size, size=60, dtype=np.uint16)
    windows = Windows(np.array([0]), np.array([4]), np.array([16]), 16)
    exact = source_of(model).stats(tokens, windows)
    cpu = torch.device("cpu")
    narrow = TransformerSource(model, train_seq_len=0, batch_windows=4, device=cpu, dtype=torch.bfloat16)
    assert narrow.settings == {"device": "cpu", "dtype": "bfloat16", "attention": "sdpa"}
    close(narrow.stats(tokens, windows).entropy, exact.entropy, 0.2)


def test_flash_attention_gets_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for FlashAttention-3, which needs a Hopper GPU: half precision, last query aligned with last key."""

    def flash_attn_func(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
        assert q.dtype == k.dtype == v.dtype == torch.bfloat16
        assert causal
        groups = q.size(2) // k.size(2)
        k, v = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)
        scores = torch.einsum("bshd,bthd->bhst", q.float(), k.float()) / math.sqrt(q.size(-1))
        hidden = torch.ones(q.size(1), k.size(1)).triu(k.size(1) - q.size(1) + 1).bool()
        weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
        return torch.einsum("bhst,bthd->bshd", weights, v.float()).to(q.dtype)

    # Autocast on GPUs, unlike on CPUs, computes norms in float32.
    monkeypatch.setattr(
        "ngram_eval.models.transformer.norm", lambda x: torch.nn.functional.rms_norm(x.float(), (x.size(-1),))
    )
    monkeypatch.setitem(sys.modules, "flash_attn_interface", SimpleNamespace(flash_attn_func=flash_attn_func))
    model = random_model(replace(SMALL, kv_heads=2)).float()
    tokens = random_tokens(2, 9)
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(tokens, last=4)
        model.use_attention("fa3")
        close(model(tokens, last=4), expected, 0.2)


def test_flash_attention_is_for_hopper_in_half_precision() -> None:
    assert attention_kernel(torch.device("cpu"), torch.bfloat16) == "sdpa"
    assert attention_kernel(torch.device("cuda"), torch.float32) == "sdpa"


def test_choosing_device_and_dtype() -> None:
    cpu = choose_device("cpu")
    assert cpu.type == "cpu"
    assert choose_dtype("auto", cpu) == torch.float32
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert choose_dtype("float16", cpu) == torch.float16
    if not torch.cuda.is_available():
        assert choose_device("auto") == cpu


def test_a_gpu_without_a_number_is_this_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The `set_device` of torch takes none without: a stand-in for a GPU."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(device.index))
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    assert [choose_device(name, 3) for name in ("cuda", "cuda:1")] == [torch.device("cuda:3"), torch.device("cuda:1")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto", 2) == torch.device("cuda:2")
    assert chosen == [3, 1, 2]


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "cpu:x"])
def test_unusable_devices_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="--device is"):
        choose_device(name)
