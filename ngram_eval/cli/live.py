"""What is seen of a run while it goes on: the page of `--live`, and the logs of `--log`."""

from collections.abc import Callable, Collection
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from ngram_eval.errors import InputError
from ngram_eval.evaluation.result import Result
from ngram_eval.evaluation.watch import Snapshot, Watch
from ngram_eval.files import STDOUT, require_folder
from ngram_eval.logs import JsonLines, Sink, TensorBoard, Wandb
from ngram_eval.results.page import Live, write_page

SINKS: dict[str, Callable[[Path], Sink]] = {"tensorboard": TensorBoard, "wandb": Wandb}
"""The choices of `--log`; log.jsonl is always written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveSettings:
    """Output: what is seen while the evaluation runs."""

    live: bool = False
    """Write the page of --report while the evaluation runs, too: position, time left, and bits so far."""
    live_every: float = 60.0
    """Seconds between two versions of the page, and between two entries of the logs."""
    log_folder: Path | None = None
    """Write the numbers so far into a folder here for each preset, as log.jsonl."""
    log: tuple[str, ...] = ()
    """Further logs in --log-folder: tensorboard, wandb (optional extras)."""

    def check(self, report: Path | None, presets: Collection[str], *, resumed: bool) -> None:
        """Raise `InputError` for settings that do not go together or are out of range."""
        if self.live and (report is None or report == STDOUT):
            raise InputError("--live writes the page of --report again and again: give --report FILE")
        if not 0 < self.live_every < float("inf"):
            raise InputError(f"--live-every is {self.live_every}: give a number of seconds above 0")
        for name in self.log:
            if name not in SINKS:
                raise InputError(f"--log is {name!r}: choose from {', '.join(SINKS)}")
        if self.log and self.log_folder is None:
            raise InputError(f"--log {self.log[0]} needs a folder: give --log-folder FOLDER")
        require_folder("--log-folder", self.log_folder)
        folder = self.log_folder
        for path in [folder / preset / "log.jsonl" for preset in presets] if folder and not resumed else ():
            if path.exists():
                raise InputError(f"{path} is the log of an earlier run: give another --log-folder, or remove it")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the log of an evaluation, over what has been scored so far."""

    step: int
    """Positions scored; one scored twice counts twice."""
    nats_per_token: float
    """Negative log-likelihood; for a preset that is no probability, see `score`."""
    model_nats_per_token: float
    """Of the model alone."""
    bits_per_byte: float | None
    """None without a tokenizer, and for a preset that is no probability."""
    score: float | None
    """What such a preset has in place of bits per byte."""
    model_bits_per_byte: float | None
    hit_rate: float
    """Share of positions at which an order matched."""
    positions_per_second: float | None
    """Positions counted or scored since the entry before; None in the last entry, which is of the whole text."""


def entry_of(result: Result, passed: int, seconds: float) -> Entry:
    """The entry of a result so far, after another `passed` positions in `seconds`."""
    return Entry(
        step=result.positions,
        nats_per_token=result.val_loss,
        model_nats_per_token=result.neural_nats / result.positions,
        bits_per_byte=result.val_bpb if result.normalised else None,
        score=None if result.normalised else result.val_bpb,
        model_bits_per_byte=result.neural_bpb,
        hit_rate=result.hit_rate,
        positions_per_second=passed / seconds if seconds else None,
    )


class LiveView(ExitStack):
    """Keeps page and logs fresh; a context that closes the logs."""

    def __init__(self, settings: LiveSettings, report: Path | None, presets: Collection[str]) -> None:
        super().__init__()
        self._settings, self._presets = settings, list(presets)
        self._report = report if settings.live else None
        self._finished: list[Result] = []
        self._sinks: dict[str, list[Sink]] = {}

    @property
    def watch(self) -> Watch | None:
        """What the evaluation shows itself to; None if nobody asked for it."""
        asked = self._report is not None or self._settings.log_folder is not None
        return Watch(self._settings.live_every, self.show) if asked else None

    def show(self, seen: Snapshot) -> None:
        """Write the page and an entry of each log."""
        name = seen.result.preset
        self._log(seen.result, seen.passed, seen.seconds)
        if self._report is not None:
            after = self._presets[self._presets.index(name) + 1 :]
            live = Live(
                preset=name,
                done=seen.done,
                total=seen.total,
                seconds_left=seen.seconds_left,
                every=self._settings.live_every,
                waiting=after,
            )
            write_page(self._report, [*self._finished, seen.result], live)

    def finish(self, result: Result) -> None:
        """Keep the result of a preset for the page, and end its logs with it."""
        self._finished.append(result)
        self._log(result, 0, 0.0)

    def _log(self, result: Result, passed: int, seconds: float) -> None:
        if self._settings.log_folder is None:
            return
        if result.preset not in self._sinks:
            folder = self._settings.log_folder / result.preset
            folder.mkdir(parents=True, exist_ok=True)
            opened = [JsonLines(folder), *(SINKS[name](folder) for name in self._settings.log)]
            self._sinks[result.preset] = [self.enter_context(closing(sink)) for sink in opened]
        for sink in self._sinks[result.preset]:
            sink.write(entry_of(result, passed, seconds))
