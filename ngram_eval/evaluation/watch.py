"""A look at an evaluation while it runs: the result so far, at most every so many seconds."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from ngram_eval.evaluation.result import Result


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A running evaluation of one preset."""

    result: Result
    """Of what has been scored so far on rank 0; it is not `complete`."""
    done: int
    """Positions that rank 0 has counted or scored."""
    total: int
    """Positions that it will have counted or scored at the end."""
    seconds: float
    """Seconds since the watch began, or since the snapshot before."""
    passed: int
    """Positions counted or scored in these seconds."""

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the preset is done, at the pace since the snapshot before; None before there is a pace."""
        return self.seconds * (self.total - self.done) / self.passed if self.passed else None


class Watch:
    """Shows a snapshot of each preset as soon as something was scored, and then every `every` seconds."""

    def __init__(self, every: float, show: Callable[[Snapshot], None]) -> None:
        self._every, self._show = every, show
        self._preset, self._done, self._at = "", 0, time.monotonic()

    def due(self, preset: str) -> bool:
        """Whether a snapshot of this preset would be shown now."""
        return preset != self._preset or time.monotonic() - self._at >= self._every

    def show(self, result: Result, done: int, total: int) -> None:
        """Show the result so far, after `done` of `total` positions."""
        if result.preset != self._preset:
            self._done = 0
        now = time.monotonic()
        passed, seconds = done - self._done, now - self._at
        self._preset, self._done, self._at = result.preset, done, now
        self._show(Snapshot(result=result, done=done, total=total, seconds=seconds, passed=passed))
