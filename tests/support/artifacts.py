"""Tiny artifacts, taken apart and put together."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ngram_eval.errors import InputError
from ngram_eval.models import artifact
from ngram_eval.models.artifact import QuantConfig
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig

TINY = ModelConfig(
    vocab_size=20,
    layers=2,
    width=8,
    heads=2,
    kv_heads=1,
    mlp_hidden=12,
    table_dtype="float32",
    bigram_slots=16,
    bigram_width=4,
    rope_dims=4,
    xsa_layers=1,
    value_layers=(1,),
    value_width=4,
)
TINY_QUANT = QuantConfig(float16_max_elements=60, scale_floor=False)
PREFIX_BYTES = 8 + 32 + 4


def random_model(config: ModelConfig = TINY, spread: float = 0.3) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape))
    return model


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """(header, payload) of an artifact's bytes."""
    length = int.from_bytes(data[40:44], "little")
    return json.loads(data[44 : 44 + length]), data[44 + length :]


def assembled(header: Any, payload: bytes, *, consistent: bool = True) -> bytes:
    """An artifact of these parts, its digests made right: what only a hostile or broken writer could have made."""
    if consistent:
        header = {**header, "payload_bytes": len(payload), "payload_sha256": hashlib.sha256(payload).hexdigest()}
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return b"NGRMEVAL" + hashlib.sha256(encoded).digest() + len(encoded).to_bytes(4, "little") + encoded + payload


def refusal(tmp_path: Path, data: bytes) -> str:
    """The message with which `load` refuses the file."""
    path = tmp_path / "bad.ngev"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        artifact.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def repacked(good: bytes, change: Callable[[dict[str, torch.Tensor]], object]) -> bytes:
    """The artifact with its tensors changed and all else made to agree."""
    header, payload = parts(good)
    tensors = load_tensors(zstandard.decompress(payload))
    change(tensors)
    unpacked = save_tensors(tensors)
    return assembled({**header, "unpacked_bytes": len(unpacked)}, zstandard.compress(unpacked))
