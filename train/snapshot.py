"""Checkpoints: the whole state of a run in one safetensors file, written atomically. Nothing is unpickled.

Its metadata hold the sha256 of the file, computed with zeros in the place of the digest.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from ngram_eval.errors import InputError
from ngram_eval.files import open_input, replacing
from ngram_eval.models.transformer import Transformer
from ngram_eval.structured import build, parse
from ngram_eval.train.config import ExportWeights, TrainConfig
from ngram_eval.train.trainer import COUNTERS, SWA_COUNT, Trainer

FORMAT = "ngram_eval checkpoint 2"
_WITHOUT_DIGEST = "ngram_eval checkpoint 1"
"""An older format, which is still read."""
_NO_DIGEST = "0" * 64

_ALWAYS = ("model.", "ema.", "swa.", "counters")
"""What the names of those tensors begin with that every checkpoint has."""
_REMEDY = "start without --resume"


def save(path: Path, trainer: Trainer) -> None:
    """Write the run's state and configuration."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in trainer.state().items()}
    metadata = {"format": FORMAT, "config": json.dumps(asdict(trainer.config)), "sha256": _NO_DIGEST}
    data = save_tensors(tensors, metadata=metadata)
    size = _header_bytes(data[:8])
    header = data[:size].replace(_NO_DIGEST.encode(), hashlib.sha256(data).hexdigest().encode())
    with replacing(path) as file:
        file.write(header)
        file.write(memoryview(data)[size:])


def _header_bytes(start: bytes) -> int:
    """Where the tensors begin: the first eight bytes are the length of the JSON after them."""
    return 8 + int.from_bytes(start, "little")


def _read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a file that agrees with its digest, or of one of the older format without."""
    with safe_open(path, "pt") as opened:
        metadata: dict[str, str] = opened.metadata() or {}
    name, digest = metadata.get("format"), metadata.get("sha256")
    if name not in (FORMAT, _WITHOUT_DIGEST):
        raise InputError(f"{path}: not a checkpoint of this release (its format is {name!r})")
    if digest is None and name == _WITHOUT_DIGEST:
        return metadata
    with path.open("rb") as file:
        start = file.read(8)
        header = start + file.read(_header_bytes(start) - 8)
        found = hashlib.sha256(header.replace(str(digest).encode(), _NO_DIGEST.encode()))
        while block := file.read(1 << 20):
            found.update(block)
    if found.hexdigest() != digest:
        raise InputError(f"{path}: damaged (its sha256 does not match); {_REMEDY}")
    return metadata


def read_config(path: Path) -> TrainConfig:
    """The configuration of the run. Raises `InputError` if the file is not a checkpoint of this release."""
    try:
        open_input(path, _REMEDY).close()
        config = _read_metadata(path)["config"].encode()
        return build(parse(config, path, _REMEDY), TrainConfig, path, _REMEDY)
    except OSError as error:
        raise InputError(
            f"{path}: can't be read ({error.strerror or error}); check the path, or start without --resume"
        ) from error
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{path}: not a checkpoint, or damaged ({error}); {_REMEDY}") from error


def _check_tensors(path: Path, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise `InputError` unless all that is expected is there: torch would spread a single number over a matrix."""
    for name, wanted in expected.items():
        tensor = found.get(name)
        if tensor is None or (tensor.shape, tensor.dtype) != (wanted.shape, wanted.dtype):
            told = "missing" if tensor is None else f"{tensor.dtype} of shape {tuple(tensor.shape)}"
            raise InputError(f"{path}: not a checkpoint of this model, {name} is {told}; {_REMEDY}")


def read_weights(path: Path, which: ExportWeights) -> dict[str, Tensor]:
    """The last weights or an average, by parameter name, on the CPU. Raises `InputError` if SWA had not begun."""
    prefix = "model." if which == "raw" else f"{which}."
    with torch.device("meta"):
        weights = dict(Transformer(read_config(path).model).named_parameters())
        expected = {prefix + name: one if which == "raw" else one.float() for name, one in weights.items()}
        expected["counters"] = torch.empty(COUNTERS, dtype=torch.float64)
    with safe_open(path, "pt") as file:
        found = {name: file.get_tensor(name) for name in expected.keys() & set(file.keys())}
    _check_tensors(path, found, expected)
    if which == "swa" and not found["counters"][SWA_COUNT]:
        raise InputError(f"--export-weights is 'swa', but {path} has none yet: train on, or give ema")
    return {name: found[prefix + name] for name in weights}


def resume(path: Path, trainer: Trainer) -> None:
    """Load the checkpoint into the trainer. Raises `InputError`, also if its configuration differs."""
    stored, wanted = asdict(read_config(path)), asdict(trainer.config)
    for part in ("model", "quant"):
        stored |= stored.pop(part)
        wanted |= wanted.pop(part)
    for name, value in stored.items():
        if wanted[name] != value:
            raise InputError(
                f"--{name.replace('_', '-')} is {wanted[name]}, {path} was made with {value}: resume with the same "
                "settings, or start without --resume"
            )
    try:
        with safe_open(path, "pt", device=str(trainer.device)) as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = trainer.state()  # that of optimisers begins with the first step
        _check_tensors(path, found, {name: state[name] for name in state if name.startswith(_ALWAYS)})
        trainer.load_state(found)
    except InputError:
        raise
    except (SafetensorError, KeyError, RuntimeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: not a checkpoint of this model, or damaged ({error}); start without --resume"
        ) from error
