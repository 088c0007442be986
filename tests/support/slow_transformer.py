"""The transformer once more: slow, float64, position by position; and models to hold against it."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ngram_eval.models.banded_attention import Band
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig

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
    p: dict[str, Array],
    layer: int,
    xs: list[Array],
    values: list[Array] | None,
    length: int,
    c: ModelConfig,
    band: Band | None,
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
            seen = [s for s in range(t + 1) if band is None or s > t - band.window or s < band.sinks]
            scores = np.array([queries[t][head] @ keys[s][group] / math.sqrt(size) for s in seen])
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            y = sum((w * vs[s][group] for s, w in zip(seen, weights, strict=True)), np.zeros(size))
            if layer >= c.layers - c.xsa_layers:
                unit = vs[t][group] / np.linalg.norm(vs[t][group])
                y = y - (y @ unit) * unit
            heads.append(y)
        out.append(p[prefix + "out.weight"] @ np.concatenate(heads))
    return out


def slow_forward(
    model: Transformer, tokens: list[int], length: int | None = None, band: Band | None = None
) -> tuple[Array, list[Array]]:
    """(logits (T, V), logits (T, V) of each multi-token-prediction head), where a position sees its `band` if given."""
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
        attended = slow_attention(p, layer, [s * rms(x) for x in xs], values, length, c, band)
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
