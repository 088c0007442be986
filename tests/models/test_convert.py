"""Model files of PR #890: built here by its names and in its layout, converted, and the same logits to come out."""

import io
import math
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import zstandard
from torch import Tensor

from ngram_eval.cli import convert as command
from ngram_eval.errors import InputError
from ngram_eval.models import artifact, convert
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig

LAYERS, WIDTH, HEADS, KV_HEADS, HIDDEN, VOCABULARY = 5, 32, 4, 2, 40, 67
FLAGS = ["--rope-dims", "4", "--xsa-layers", "3", "--value-layers", "1", "4", "--train-seq-len", "64"]


def published_weights(gate: bool = False) -> dict[str, Tensor]:
    """Random weights by the published names, in the published precisions: tables bfloat16, the rest float32."""
    generator = torch.Generator().manual_seed(5)

    def random(*shape: int, std: float = 0.3, mean: float = 0.0) -> Tensor:
        return mean + std * torch.randn(*shape, generator=generator)

    kv = WIDTH // HEADS * KV_HEADS
    weights = {
        "tok_emb.weight": random(VOCABULARY, WIDTH).bfloat16(),
        "bigram.embed.weight": random(33, 6).bfloat16(),
        "bigram.proj.weight": random(WIDTH, 6),
        "bigram.scale": torch.tensor(0.7),
        "smear.gate": random(WIDTH),
        "skip_weights": random(LAYERS // 2, WIDTH, mean=1),
        "ve_shared.embed.weight": random(VOCABULARY, 5).bfloat16(),
        "ve_shared.proj.weight": random(kv, 5),
        "ve_shared.scale": torch.tensor(0.4),
        "ve_layer_scales.0": random(1, mean=1),
        "ve_layer_scales.1": random(1, mean=1),
    }
    for layer in range(LAYERS):
        block = f"blocks.{layer}."
        weights |= {
            f"{block}attn.c_q.weight": random(WIDTH, WIDTH),
            f"{block}attn.c_k.weight": random(kv, WIDTH),
            f"{block}attn.c_v.weight": random(kv, WIDTH),
            f"{block}attn.proj.weight": random(WIDTH, WIDTH),
            f"{block}attn.q_gain": random(HEADS, mean=1.5),
            f"{block}mlp.fc.weight": random(HIDDEN, WIDTH),
            f"{block}mlp.proj.weight": random(WIDTH, HIDDEN),
            f"{block}attn_scale": random(WIDTH, mean=1),
            f"{block}mlp_scale": random(WIDTH, mean=1),
            f"{block}resid_mix": torch.stack([random(WIDTH, mean=1), random(WIDTH)]),
        }
        if gate:
            weights |= {f"{block}dtg_gate.weight": random(1, WIDTH), f"{block}dtg_gate.bias": random(1)}
    return weights


def logits(weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """(T, V): the published model on one sequence, by its description and its names."""
    w = {name: value.float() for name, value in weights.items()}
    size, length = WIDTH // HEADS, len(tokens)

    def norm(x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.size(-1),))

    def shifted(x: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x[:1]), x[:-1]])

    slots = torch.full((length,), 32)
    slots[1:] = (36313 * tokens[1:]).bitwise_xor(27191 * tokens[:-1]) % 32
    x = w["tok_emb.weight"][tokens]
    x = norm(x + w["bigram.embed.weight"][slots] @ w["bigram.proj.weight"].T * w["bigram.scale"])
    g = torch.sigmoid(w["smear.gate"])
    x = x0 = (1 - g) * x + g * shifted(x)
    value = w["ve_shared.embed.weight"][tokens] @ w["ve_shared.proj.weight"].T * w["ve_shared.scale"]
    angle = torch.outer(torch.arange(length), 10000.0 ** (-torch.arange(0, 4, 2) / 4))
    cos, sin = angle.cos(), angle.sin()

    def rotated(head: Tensor) -> Tensor:
        a, b = head[:, :2], head[:, 2:4]
        return torch.cat([a * cos + b * sin, b * cos - a * sin, head[:, 4:]], dim=1)

    skips: list[Tensor] = []
    for layer in range(LAYERS):
        block = f"blocks.{layer}."
        if layer >= LAYERS // 2 and skips:
            x = x + w["skip_weights"][layer - LAYERS // 2] * skips.pop()
        mix = w[f"{block}resid_mix"]
        x_in = mix[0] * x + mix[1] * x0
        h = norm(x_in) / math.sqrt(layer + 1)
        q, k, v = (h @ w[f"{block}attn.c_{one}.weight"].T for one in "qkv")
        if layer in (1, 4):
            v = v + value * w[f"ve_layer_scales.{(1, 4).index(layer)}"]
        heads = []
        for head in range(HEADS):
            group = head // (HEADS // KV_HEADS)
            vh = v[:, group * size : (group + 1) * size]
            qh = rotated(norm(q[:, head * size : (head + 1) * size])) * w[f"{block}attn.q_gain"][head]
            kh = rotated(norm(k[:, group * size : (group + 1) * size]))
            scores = (qh @ kh.T / math.sqrt(size)).masked_fill(~torch.ones(length, length).tril().bool(), -math.inf)
            y = torch.softmax(scores, dim=-1) @ vh
            if layer >= LAYERS - 3:
                unit = F.normalize(vh, dim=-1)
                y = y - (y * unit).sum(-1, keepdim=True) * unit
            heads.append(y)
        out = x_in + w[f"{block}attn_scale"] * (torch.cat(heads, dim=1) @ w[f"{block}attn.proj.weight"].T)
        hidden = F.leaky_relu((norm(out) / math.sqrt(layer + 1)) @ w[f"{block}mlp.fc.weight"].T, 0.5).square()
        out = out + w[f"{block}mlp_scale"] * (hidden @ w[f"{block}mlp.proj.weight"].T)
        if f"{block}dtg_gate.bias" in w:
            gate = torch.sigmoid(x_in @ w[f"{block}dtg_gate.weight"].T + w[f"{block}dtg_gate.bias"])
            out = x_in + gate * (out - x_in)
        x = out
        if layer < LAYERS // 2:
            skips.append(x)
    return 30 * torch.tanh(norm(x) @ w["tok_emb.weight"].T / 30)


def quantised(weights: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(the published layout, what it stands for): matrices in int8 a row, as if all were large; the rest float16."""
    w: dict[str, Tensor] = {}
    m: dict[str, Any] = {}
    meant: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if tensor.ndim < 2 or "resid_mix" in name or "skip" in name or "dtg" in name:
            w[name], m[name] = tensor.half(), "passthrough_ctrl" if "scale" in name else "passthrough"
            meant[name] = w[name].to(tensor.dtype)
            continue
        levels, kind = (15, "int6") if ".attn." in name or ".mlp." in name else (127, "int8")
        scale = (tensor.float().abs().amax(dim=1) / levels).half()
        w[f"{name}.q"] = (tensor.float() / scale.float()[:, None]).round().clamp(-levels, levels).to(torch.int8)
        w[f"{name}.scale"], m[name] = scale, {"type": kind}
        meant[name] = (w[f"{name}.q"].float() * scale.float()[:, None]).to(tensor.dtype)
    return {"w": w, "m": m}, meant


def zstd22(data: bytes) -> bytes:
    """As published."""
    return zstandard.ZstdCompressor(22).compress(data)


def packed(content: object, compress: Callable[[bytes], bytes] = zstd22) -> bytes:
    """A .ptz of it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return compress(buffer.getvalue())


def run(*flags: object) -> None:
    """The command line."""
    command.main([*map(str, flags)], "ngram-eval convert")


TOKENS = torch.tensor([5, 66, 3, 3, 5, 66, 0, 41, 12, 5, 66])


@pytest.mark.parametrize(
    ("compress", "gate"), [(zstd22, False), (zlib.compress, True)], ids=["plain, zstd", "depth gate, zlib"]
)
def test_a_quantised_file_gives_the_same_logits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], compress: Callable[[bytes], bytes], gate: bool
) -> None:
    content, meant = quantised(published_weights(gate))
    source, out = tmp_path / "final_model.int6.ptz", tmp_path / "model.ngev"
    source.write_bytes(packed(content, compress))
    run(source, "--out", out, *FLAGS)
    model, train_seq_len = artifact.load(out)
    assert train_seq_len == 64
    with torch.inference_mode():
        torch.testing.assert_close(model(TOKENS[None])[0], logits(meant, TOKENS), rtol=1e-5, atol=1e-5)
    assert "5 layers of width 32, 4 heads (2 key/value), vocabulary 67" in capsys.readouterr().out
    # To the bit: what was stored is stored again.
    again = {name: meant[theirs] for name, theirs in {"embedding": "tok_emb.weight", "smear": "smear.gate"}.items()}
    again["blocks.3.mlp.down.weight"] = meant["blocks.3.mlp.proj.weight"]
    for name, tensor in again.items():
        assert (model.state_dict()[name] == tensor).all(), name


def test_a_file_that_is_not_quantised_keeps_its_bits(tmp_path: Path) -> None:
    weights = published_weights()
    torch.save({**weights, "mtp_heads.0.weight": torch.zeros(VOCABULARY, WIDTH)}, tmp_path / "final_model.pt")
    run(tmp_path / "final_model.pt", "--out", tmp_path / "model.ngev", *FLAGS)
    model, _ = artifact.load(tmp_path / "model.ngev")
    state = model.state_dict()
    assert (state["embedding"] == weights["tok_emb.weight"]).all()
    assert (state["blocks.2.attn.v.weight"] == weights["blocks.2.attn.c_v.weight"]).all()
    with torch.inference_mode():
        torch.testing.assert_close(model(TOKENS[None])[0], logits(weights, TOKENS), rtol=1e-5, atol=1e-5)


def zeros(config: ModelConfig) -> dict[str, Any]:
    """The published layout of a model of any size, all weights 0."""
    with torch.device("meta"):
        state = Transformer(config).state_dict()
    theirs = {"embedding": "tok_emb.weight", "smear": "smear.gate", "bigram.table": "bigram.embed.weight"}
    theirs |= {"value.table": "ve_shared.embed.weight"}
    inner = {"q.weight": "c_q.weight", "k.weight": "c_k.weight", "v.weight": "c_v.weight", "out.weight": "proj.weight"}
    content: dict[str, Any] = {"w": {}, "m": {}}
    for name, tensor in state.items():
        head, _, tail = name.rpartition("attn.")
        to = f"{head}attn.{inner.get(tail, tail)}" if head else theirs.get(name, name)
        to = to.replace("mlp.up", "mlp.fc").replace("mlp.down", "mlp.proj").replace(".mix", ".resid_mix")
        to = to.replace("value.", "ve_shared.")
        if name == "value_scales":
            for index in range(len(config.value_layers)):
                content["w"][f"ve_layer_scales.{index}"] = torch.zeros(1, dtype=torch.float16)
                content["m"][f"ve_layer_scales.{index}"] = "passthrough"
        elif tensor.ndim == 2 and tensor.numel() > 65536:
            content["w"][f"{to}.q"] = torch.zeros(tensor.shape, dtype=torch.int8)
            content["w"][f"{to}.scale"] = torch.ones(len(tensor), dtype=torch.float16)
            content["m"][to] = {"type": "int6"}
        else:
            content["w"][to], content["m"][to] = torch.zeros(tensor.shape, dtype=torch.float16), "passthrough"
    return content


@pytest.mark.slow
def test_the_published_model_needs_no_flags(tmp_path: Path) -> None:
    """33,055,836 parameters, by shapes alone."""
    source = tmp_path / "final_model.int6.ptz"
    source.write_bytes(packed(zeros(ModelConfig()), zstandard.ZstdCompressor(1).compress))
    run(source, "--out", tmp_path / "model.ngev")
    model, train_seq_len = artifact.load(tmp_path / "model.ngev")
    assert model.config == ModelConfig()
    assert train_seq_len == 2048


class Planted:
    """What a pickle could do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run!",)


def pickled_zip(content: object) -> bytes:
    """A torch file by its looks."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, 2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


def without(content: dict[str, Any], *names: str) -> dict[str, Any]:
    """The layout with tensors taken out."""
    return {"w": {name: value for name, value in content["w"].items() if name not in names}, "m": content["m"]}


def broken(name: str) -> bytes:
    """A file that must be refused."""
    weights = published_weights()
    content, _ = quantised(weights)
    odd = {
        "code": lambda: zstandard.compress(pickled_zip(Planted())),
        "a pickle": lambda: pickle.dumps({"w": 1}),
        "text": lambda: b"once upon a time",
        "nothing": lambda: b"",
        "cut": lambda: packed(content)[:-50],
        "cut zlib": lambda: packed(content, zlib.compress)[:-50],
        "more": lambda: packed(content) + b"more",
        "a bomb": lambda: b"\x28\xb5\x2f\xfd\xe0" + (convert._MOST_BYTES + 1).to_bytes(8, "little"),
        "a list": lambda: packed([torch.zeros(2)]),
        "other keys": lambda: packed({**content, "ngram": {}}),
        "no tensor": lambda: packed(without(content, "smear.gate")),
        "no factors": lambda: packed(without(content, "blocks.0.mlp.fc.weight.scale")),
        "odd factors": lambda: packed(
            {"w": {**content["w"], "tok_emb.weight.scale": torch.ones(3)}, "m": content["m"]}
        ),
        "more tensors": lambda: packed({"w": {**content["w"], "odd": torch.zeros(1)}, "m": content["m"]}),
        "another storage": lambda: packed({"w": content["w"], "m": {**content["m"], "smear.gate": "int3"}}),
        "another model": lambda: packed({"lm_head.weight": torch.zeros(2)}, bytes),
        "another shape": lambda: packed({**weights, "smear.gate": torch.zeros(3)}, bytes),
        "a missing layer": lambda: packed(
            {name: value for name, value in weights.items() if "blocks.3" not in name}, bytes
        ),
        "no embedding": lambda: packed({"smear.gate": torch.zeros(3)}, bytes),
        "NaN": lambda: packed({**weights, "smear.gate": torch.full((WIDTH,), math.nan)}, bytes),
    }
    made: bytes = odd[name]()  # type: ignore[no-untyped-call]
    return made


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("code", r"torch\.load\(weights_only=True\) refuses it"),
        ("a pickle", "can't be unpacked"),
        ("text", "can't be unpacked"),
        ("nothing", "does not end where the file does"),
        ("cut", "can't be unpacked"),
        ("cut zlib", "does not end where the file does"),
        ("more", "can't be unpacked"),
        ("a bomb", "says that it unpacks to 1342177281 bytes"),
        ("a list", "it holds a list"),
        ("other keys", "it holds m, ngram, w"),
        ("no tensor", "the tensors of smear.gate are missing"),
        ("no factors", "the tensors of blocks.0.mlp.fc.weight are missing"),
        ("odd factors", r"tok_emb.weight.q is torch.int8, with factors of shape \(3,\)"),
        ("more tensors", "it holds odd, which m does not describe"),
        ("another storage", "smear.gate was stored as 'int3'"),
        ("another model", "it holds lm_head.weight, which its model does not have"),
        ("another shape", r"smear has shape \(3,\), its config needs \(32,\)"),
        ("a missing layer", "blocks.3.* is missing"),
        ("no embedding", "its embedding is missing"),
        ("NaN", "smear is not finite"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str) -> None:
    source = tmp_path / "odd.ptz"
    source.write_bytes(broken(name))
    with pytest.raises(SystemExit) as exit_info:
        run(source, "--out", tmp_path / "model.ngev", *FLAGS)
    assert exit_info.value.code == 2
    out, err = capsys.readouterr()
    assert "run!" not in out
    with pytest.raises(InputError, match=message):
        raise InputError(err)
    assert str(source) in err
    assert not (tmp_path / "model.ngev").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--value-layers", "1"], "has 2 layers with a value embedding, and --value-layers names 1"),
        (["--rope-dims", "64"], "rope_dims is 64"),
        (["--train-seq-len", "0"], "--train-seq-len is 0"),
        (["--out", "nowhere/model.ngev"], "--out is nowhere/model.ngev"),
    ],
)
def test_bad_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    content, _ = quantised(published_weights())
    (tmp_path / "a.ptz").write_bytes(packed(content))
    with pytest.raises(SystemExit):
        run(tmp_path / "a.ptz", "--out", tmp_path / "model.ngev", *FLAGS, *flags)
    assert message in capsys.readouterr().err


def test_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path / "none.ptz", "--out", tmp_path / "model.ngev")
    assert "none.ptz can't be read (No such file or directory)" in capsys.readouterr().err
