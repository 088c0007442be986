"""Destinations of numbers that a run logs: JSON lines, and the extras TensorBoard and Weights & Biases."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TextIO

from ngram_eval.errors import InputError
from ngram_eval.files import naming


class Sink(Protocol):
    """A destination of entries."""

    def write(self, entry: Any) -> None:
        """Add one entry: a dataclass of numbers, None where one was not measured; `step` says how far the run was."""

    def close(self) -> None:
        """Finish; no more entries will come."""


def _numbers(entry: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(entry).items() if value is not None}


class JsonLines:
    """log.jsonl: one JSON object per line."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log.jsonl"
        self._file: TextIO = self._path.open("a", encoding="utf-8")

    def write(self, entry: Any) -> None:
        with naming(self._path):
            self._file.write(json.dumps(asdict(entry)) + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Event files in tensorboard/, for TensorBoard (an optional extra)."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(f"--log tensorboard: {error}; pip install 'ngram_eval[tensorboard]'") from error
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"))

    def write(self, entry: Any) -> None:
        for name, value in _numbers(entry).items():
            if name != "step":
                self._writer.add_scalar(name, value, entry.step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of Weights & Biases, named after the folder (an optional extra with environment variables of its own)."""

    def __init__(self, folder: Path) -> None:
        try:
            import wandb
        except ImportError as error:
            raise InputError(f"--log wandb: {error}; pip install 'ngram_eval[wandb]'") from error
        self._run: Any = wandb.init(dir=str(folder), name=folder.resolve().name)

    def write(self, entry: Any) -> None:
        self._run.log(_numbers(entry), step=entry.step)

    def close(self) -> None:
        self._run.finish()
