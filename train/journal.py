"""The progress of a run: a live line on the terminal, and logs for programs.

The log is JSON lines; CSV, TensorBoard and Weights & Biases are further sinks, each a line in `SINKS`.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ngram_eval.errors import InputError
from ngram_eval.files import naming, write_text
from ngram_eval.logs import JsonLines, Sink, TensorBoard, Wandb


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the log."""

    step: int
    """Number of steps taken."""
    seconds: float
    """Seconds that these steps took."""
    loss: float
    """Mean nats per training token since the last entry."""
    lr: float
    """Multiplier of the learning rates."""
    tokens_per_second: float
    """Training tokens per second of all ranks, since the last entry."""
    val_nats: float | None = None
    """Nats per token of the validation text, by the weights to be exported; None if it was not scored."""
    val_bpb: float | None = None
    """Bits per byte of the validation text."""

    def __str__(self) -> str:
        text = f"loss {self.loss:.3f} nats, lr x{self.lr:.2f}, {self.tokens_per_second:,.0f} tokens/s"
        if self.val_nats is not None:
            text += f", validation {self.val_nats:.4f} nats"
        return text + (f", {self.val_bpb:.4f} bits per byte" if self.val_bpb is not None else "")


class Csv:
    """log.csv: the log as a table; values that were not measured are empty. It is rewritten from log.jsonl."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log.csv"
        self._file: TextIO = self._path.open("w", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._file, [field.name for field in fields(Entry)])
        self._writer.writeheader()
        for entry in read(folder):
            self.write(entry)

    def write(self, entry: Entry) -> None:
        with naming(self._path):
            self._writer.writerow(asdict(entry))
            self._file.flush()

    def close(self) -> None:
        self._file.close()


SINKS: dict[str, Callable[[Path], Sink]] = {"csv": Csv, "tensorboard": TensorBoard, "wandb": Wandb}
"""The choices of `--log`; log.jsonl is always written."""


def read(folder: Path) -> list[Entry]:
    """The entries of log.jsonl, but for a last one that was cut short as it was written. Raises `InputError`."""
    path = folder / "log.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            if not all(isinstance(value, (int, float, type(None))) for value in values.values()):
                raise ValueError("not only numbers")
            entries.append(Entry(**values))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            if number == len(lines) and not line.endswith(b"\n"):
                break
            raise InputError(f"{path}:{number} is no entry of a log ({error}): remove the line") from error
    return entries


def cut(folder: Path, step: int) -> None:
    """Remove the entries after `step`, at which the run resumes from a checkpoint."""
    kept = [entry for entry in read(folder) if entry.step <= step] if (folder / "log.jsonl").exists() else []
    write_text(folder / "log.jsonl", "".join(json.dumps(asdict(entry)) + "\n" for entry in kept))


@contextmanager
def open_sinks(folder: Path, names: tuple[str, ...]) -> Iterator[list[Sink]]:
    """Open log.jsonl and the sinks `names`, for a run that continues where log.jsonl ends."""
    opened: list[Sink] = [JsonLines(folder)]
    try:
        for name in names:
            opened.append(SINKS[name](folder))
        yield opened
    finally:
        for sink in opened:
            sink.close()


class Live:
    """The line on the terminal; if stderr is not a terminal, one line per entry instead."""

    def __init__(self, steps: int, quiet: bool = False) -> None:
        self._console, self._quiet = Console(stderr=True), quiet
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=self._console, disable=quiet or not self._console.is_terminal)
        self._task = self._progress.add_task("", total=steps)
        self._last = ""

    def __enter__(self) -> "Live":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, step: int, seconds_left: float, entry: Entry | None = None) -> None:
        """Show the state after a step, and the step's entry of the log if it has one."""
        minutes, seconds = divmod(round(min(seconds_left, 1e6)), 60)
        left = f"{minutes}:{seconds:02} left"
        if entry is not None:
            self._last = str(entry)
            if not self._console.is_terminal and not self._quiet:
                print(f"step {step}: {entry}, {left}", file=sys.stderr, flush=True)
        self._progress.update(self._task, completed=step, description=f"{self._last}, {left}")
