"""Wall-clock time by stage, and progress reports."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Track = Callable[[str, int | None], Callable[[int], None]]
"""Starts a progress report: (title, total or None) -> a function to call with the size of each finished part."""


def untracked(title: str, total: int | None) -> Callable[[int], None]:
    """A `Track` that shows nothing."""
    return lambda done: None


class Stopwatch:
    """Seconds spent in each named stage, summed over all visits and threads; stages may overlap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
