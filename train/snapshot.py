"""Checkpoints: the whole state of a run in one safetensors file, written atomically. Nothing is unpickled."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from ngram_eval.errors import InputError
from ngram_eval.files import replacing
from ngram_eval.models.artifact import QuantConfig
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.train.config import ExportWeights, TrainConfig
from ngram_eval.train.trainer import SWA_COUNT, Trainer

FORMAT = "ngram_eval checkpoint 1"


def save(path: Path, trainer: Trainer) -> None:
    """Write the run's state and configuration."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in trainer.state().items()}
    metadata = {"format": FORMAT, "config": json.dumps(asdict(trainer.config))}
    with replacing(path) as file:
        file.write(save_tensors(tensors, metadata=metadata))


def read_config(path: Path) -> TrainConfig:
    """The configuration of the run. Raises `InputError` if the file is not a checkpoint of this release."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise InputError(f"{path}: not a checkpoint of this release (its format is {metadata.get('format')!r})")
        stored: dict[str, Any] = json.loads(metadata["config"])
        model: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in stored.pop("model").items()
        }
        return TrainConfig(model=ModelConfig(**model), quant=QuantConfig(**stored.pop("quant")), **stored)
    except OSError as error:
        raise InputError(
            f"{path}: can't be read ({error.strerror or error}); check the path, or start without --resume"
        ) from error
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a checkpoint, or damaged ({error}); start without --resume") from error


def read_weights(path: Path, which: ExportWeights) -> dict[str, Tensor]:
    """The last weights or an average, by parameter name, on the CPU. Raises `InputError` if SWA had not begun."""
    prefix = "model." if which == "raw" else f"{which}."
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
        swa_count = int(file.get_tensor("counters")[SWA_COUNT])
        if which == "swa" and not swa_count:
            raise InputError(f"--export-weights is 'swa', but {path} has none yet: train on, or give ema")
        return {name.removeprefix(prefix): file.get_tensor(name) for name in names}


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
            trainer.load_state({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise InputError(
            f"{path}: not a checkpoint of this model, or damaged ({error}); start without --resume"
        ) from error
