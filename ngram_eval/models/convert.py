"""Converts a model file of PR #890 to an artifact (`ngram-eval convert final_model.int6.ptz --out model.ngev`).

It reads two kinds of files, as the training script of PR #890 writes them:

- `.ptz`: a zstd frame (zlib, if zstd was not installed) of a torch file with `w`, tensors by name, and `m`, how each is
  stored: kept (`passthrough`, `passthrough_ctrl`), or an int8 `name.q` with a factor per row, `name.scale`;
- `.pt`: a torch file of the weights by name, not quantised.

Both are opened by `torch.load(weights_only=True)`, which builds tensors and runs no code; other files are refused.
Values do not change by a bit: int8 stays int8 with its factors, floats keep their precision.
"""

import hashlib
import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import zstandard
from torch import Tensor

from ngram_eval.errors import InputError
from ngram_eval.files import read_input, replacing, require_writable
from ngram_eval.models import artifact
from ngram_eval.models.transformer import Transformer, parameter_count
from ngram_eval.models.transformer_config import ModelConfig

_ZSTD, _ZIP = b"\x28\xb5\x2f\xfd", b"PK\x03\x04"


_MOST_BYTES = 5 * artifact.MAX_PARAMETERS
"""Most bytes that are unpacked; real files are much smaller."""


_DTYPES = (torch.int8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


_KEPT = ("passthrough", "passthrough_ctrl")


_QUANTISED = ("int5", "int6", "int8")


_NAMES = (
    (r"tok_emb\.weight", "embedding"),
    (r"(bigram)\.embed\.weight", r"\1.table"),
    (r"(bigram)\.(proj\.weight|scale)", r"\1.\2"),
    (r"(smear)\.gate", r"\1"),
    (r"(skip_weights)", r"\1"),
    (r"ve_shared\.embed\.weight", "value.table"),
    (r"ve_shared\.(proj\.weight|scale)", r"value.\1"),
    (r"(blocks\.\d{1,4}\.attn\.)c_([qkv]\.weight)", r"\1\2"),
    (r"(blocks\.\d{1,4}\.attn\.)proj(\.weight)", r"\1out\2"),
    (r"(blocks\.\d{1,4}\.attn\.q_gain)", r"\1"),
    (r"(blocks\.\d{1,4}\.mlp\.)fc(\.weight)", r"\1up\2"),
    (r"(blocks\.\d{1,4}\.mlp\.)proj(\.weight)", r"\1down\2"),
    (r"(blocks\.\d{1,4}\.)resid_mix", r"\1mix"),
    (r"(blocks\.\d{1,4}\.(?:attn|mlp)_scale)", r"\1"),
    (r"(blocks\.\d{1,4}\.)dtg_gate\.(weight|bias)", r"\1gate_\2"),
)
"""(pattern of a tensor's name in PR #890, name in an artifact). `ve_layer_scales.N` are joined into one tensor;
`mtp_heads` are only for training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """Convert a model file of PR #890 (.ptz, .pt) to an artifact, value by value, and print what it holds.

    Sizes are taken from the tensors. Settings that no tensor shows are as published, unless a flag changes them.
    """

    source: Path
    """The file to convert."""
    out: Path
    """The artifact to write."""
    train_seq_len: int = 2048
    """Sequence length the model was trained on; evaluations cut the stream to a multiple of it."""
    value_layers: tuple[int, ...] = (9, 10)
    """Layers with a value embedding, if the file has one."""
    rope_dims: int = 16
    """Leading dims of each head that are rotated."""
    rope_base: float = 10000.0
    """Base of the rotation frequencies."""
    xsa_layers: int | None = None
    """Number of layers with XSA, the last ones; default: all."""
    layer_norm_scale: bool = True
    """Scale the normed inputs of layer l by 1/sqrt(l + 1)."""
    leaky_slope: float = 0.5
    """Negative slope before the MLP's square."""
    logit_softcap: float = 30.0
    """c in c * tanh(z / c)."""


def read(path: Path) -> dict[str, Any]:
    """The file's tensors by name: a tensor, or (int8 tensor, factors). Raises `InputError` for any other file."""
    data = read_input(path, "check the path", _MOST_BYTES)
    found = _load(path, _unpack(path, data))
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found):
        raise _refusal(path, f"it holds a {type(found).__name__}")
    tensors = found.get("w", found)
    if isinstance(tensors, dict):
        _check(path, tensors)
    if all(isinstance(value, Tensor) for value in found.values()):
        return found
    if found.keys() != {"w", "m"}:
        raise _refusal(path, f"it holds {', '.join(sorted(found)[:8])}")
    return _quantised(path, found["w"], found["m"])


def _refusal(path: Path, why: str) -> InputError:
    return InputError(f"{path}: not a model file of PR #890, {why}: give its final_model.int6.ptz or final_model.pt")


def _check(path: Path, tensors: dict[str, Any]) -> None:
    """Refuse tensors that are not plain: without values, or views that say one value over and over again."""
    total = 0
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            continue  # told of elsewhere, by what was expected
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.dtype not in _DTYPES:
            raise _refusal(path, f"{name} is {tensor.dtype} ({tensor.layout}, {tensor.device})")
        total += tensor.numel() * tensor.element_size()
        if total > _MOST_BYTES or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise _refusal(path, f"{name} of shape {tuple(tensor.shape)} has more values than are stored")


def _unpack(path: Path, data: bytes) -> bytes:
    """The torch file in the unpacked frame."""
    if data.startswith(_ZIP):
        return data
    try:
        if data.startswith(_ZSTD):
            size = zstandard.frame_content_size(data)
            if not 0 <= size <= _MOST_BYTES:
                raise _refusal(path, f"it says that it unpacks to {size} bytes")
            unpacked: bytes = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
        else:
            stream = zlib.decompressobj()
            unpacked = stream.decompress(data, _MOST_BYTES)
            if not stream.eof or stream.unused_data:
                raise _refusal(path, "its zlib stream does not end where the file does")
    except (zstandard.ZstdError, zlib.error) as error:
        raise _refusal(path, f"it can't be unpacked ({error})") from error
    return unpacked


def _load(path: Path, data: bytes) -> Any:
    """The object that the torch file holds; no code in it is run."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _MOST_BYTES:
            raise _refusal(path, f"it says that it unpacks to {size} bytes")
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # the file may be anyone's, and torch's reader may raise anything
        if isinstance(error, (InputError, MemoryError)):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise _refusal(path, f"torch.load(weights_only=True) refuses it ({reason})") from error


def _quantised(path: Path, tensors: Any, done: Any) -> dict[str, Any]:
    """`read` of a quantised file's `w` and `m`."""
    if not isinstance(tensors, dict) or not isinstance(done, dict):
        raise _refusal(path, "w and m are not dictionaries")
    left = dict(tensors)
    found: dict[str, Any] = {}
    for name, what in done.items():
        kind = what.get("type") if isinstance(what, dict) else what
        if kind in _KEPT:
            found[name] = left.pop(name, None)
        elif kind in _QUANTISED:
            found[name] = left.pop(f"{name}.q", None), left.pop(f"{name}.scale", None)
        else:
            raise _refusal(path, f"{name} was stored as {what!r}, which is not known")
        parts: tuple[Any, ...] = found[name] if isinstance(found[name], tuple) else (found[name],)
        if not all(isinstance(part, Tensor) for part in parts):
            raise _refusal(path, f"the tensors of {name} are missing")
        if len(parts) == 2 and (parts[0].dtype != torch.int8 or parts[1].shape not in ((), parts[0].shape[:1])):
            raise _refusal(path, f"{name}.q is {parts[0].dtype}, with factors of shape {tuple(parts[1].shape)}")
    if left:
        raise _refusal(path, f"it holds {', '.join(sorted(left)[:8])}, which m does not describe")
    return found


def renamed(path: Path, found: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors in stored form, by their names in an artifact. Raises `InputError` for an unknown name."""
    tensors: dict[str, Tensor] = {}
    scales: dict[int, Tensor] = {}
    for name, value in found.items():
        if name.startswith("mtp_heads."):
            continue
        if layer := re.fullmatch(r"ve_layer_scales\.(\d{1,4})", name):
            scales[int(layer[1])] = _floats(value).reshape(())
            continue
        for pattern, ours in _NAMES:
            if re.fullmatch(pattern, name):
                _store(tensors, re.sub(pattern, ours, name), value)
                break
        else:
            raise _refusal(path, f"it holds {name}, which its model does not have")
    if scales:
        if sorted(scales) != list(range(len(scales))):
            raise _refusal(path, f"it holds only ve_layer_scales {sorted(scales)}")
        tensors["value_scales"] = torch.stack([scales[index] for index in range(len(scales))])
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def _floats(value: Any) -> Tensor:
    if isinstance(value, tuple):
        values, scale = value
        rows: Tensor = scale.float().reshape(-1, *[1] * (values.ndim - 1)) if scale.ndim else scale.float()
        product: Tensor = values.float() * rows
        return product
    kept: Tensor = value
    return kept


def _store(tensors: dict[str, Tensor], name: str, value: Any) -> None:
    if isinstance(value, tuple) and value[0].ndim == 2 and value[1].ndim == 1:
        tensors[name], tensors[f"{name}.scale"] = value
        return
    tensor = _floats(value)
    if name.endswith("gate_weight"):
        tensor = tensor.reshape(-1)  # a linear layer with one output
    elif name.endswith("gate_bias"):
        tensor = tensor.reshape(())
    tensors[name] = tensor


def infer_config(path: Path, tensors: dict[str, Tensor], asked: Conversion) -> ModelConfig:
    """The architecture: sizes from the tensors, and the rest from `asked`. Raises `InputError` if they do not fit."""

    def shape(name: str, dims: int) -> tuple[int, ...]:
        if name not in tensors or tensors[name].ndim != dims:
            raise _refusal(path, f"its {name} is missing or has another number of dimensions than {dims}")
        return tuple(tensors[name].shape)

    (vocab_size, width), (heads,) = shape("embedding", 2), shape("blocks.0.attn.q_gain", 1)
    layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    size = width // max(heads, 1)
    has_bigram, has_values = "bigram.table" in tensors, "value.table" in tensors
    bigram = shape("bigram.table", 2) if has_bigram else (0, 1)
    value = shape("value.table", 2) if has_values else (0, 1)
    if has_values and shape("value_scales", 1)[0] != len(asked.value_layers):
        raise InputError(
            f"{path} has {len(tensors['value_scales'])} layers with a value embedding, and --value-layers names "
            f"{len(asked.value_layers)}: name the layers that the model was trained with"
        )
    return ModelConfig(
        vocab_size=vocab_size,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=shape("blocks.0.attn.k.weight", 2)[0] // max(size, 1),
        mlp_hidden=shape("blocks.0.mlp.up.weight", 2)[0],
        leaky_slope=asked.leaky_slope,
        logit_softcap=asked.logit_softcap,
        bigram_slots=bigram[0],
        bigram_width=bigram[1],
        smear_gate="smear" in tensors,
        unet_skips="skip_weights" in tensors,
        input_mix="blocks.0.mix" in tensors,
        layer_norm_scale=asked.layer_norm_scale,
        rope_dims=asked.rope_dims,
        rope_base=asked.rope_base,
        xsa_layers=layers if asked.xsa_layers is None else asked.xsa_layers,
        value_layers=asked.value_layers if has_values else (),
        value_width=value[1],
        depth_gate="blocks.0.gate_weight" in tensors,
    )


def convert(asked: Conversion) -> str:
    """Load the artifact that it makes, write it, and return a description of it."""
    if asked.train_seq_len < 1:
        raise InputError(f"--train-seq-len is {asked.train_seq_len}: give at least 1")
    require_writable("--out", asked.out)
    try:
        tensors = renamed(asked.source, read(asked.source))
    except RuntimeError as error:  # shapes that do not go together
        raise _refusal(asked.source, f"torch says {error}") from error
    config = infer_config(asked.source, tensors, asked)
    with torch.device("meta"):
        model = Transformer(config)
    artifact.dequantised(asked.source, model, dict(tensors))  # errors name the file that was given
    origin = {"converted_from": asked.source.name, "sha256": hashlib.sha256(asked.source.read_bytes()).hexdigest()}
    data = artifact.encode(tensors, config, origin, asked.train_seq_len)
    loaded, _ = artifact.decode(asked.out, data)
    with replacing(asked.out) as file:
        file.write(data)
    quantised = sum(tensor.dtype == torch.int8 for tensor in tensors.values())
    return (
        f"{config.layers} layers of width {config.width}, {config.heads} heads ({config.kv_heads} key/value), "
        f"vocabulary {config.vocab_size}: {parameter_count(loaded):,} parameters, {quantised} matrices in int8\n"
        f"{asked.out}: {artifact.size_report(len(data))}"
    )
