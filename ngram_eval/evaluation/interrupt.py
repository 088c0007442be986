"""Ctrl-C: the first ends the work in good order and keeps what has been done; the second ends it at once."""

import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TypeVar

Item = TypeVar("Item")


class Interrupt:
    """A context in which ctrl-C sets `asked`. In a thread other than the main one it has no effect.

    While `until` makes an item, ctrl-C breaks that off, so that nobody waits for a long forward pass.
    """

    def __init__(self) -> None:
        self.asked = False
        self._making = False

    def __enter__(self) -> "Interrupt":
        self._in_charge = threading.current_thread() is threading.main_thread()
        if self._in_charge:
            self._old = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._in_charge:
            signal.signal(signal.SIGINT, self._old)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked or self._making:
            self.asked = True
            raise KeyboardInterrupt
        self.asked = True

    def until(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield the items until ctrl-C."""
        while not self.asked:
            try:
                self._making = True
                item = next(items)
            except (KeyboardInterrupt, StopIteration):
                return
            finally:
                self._making = False
            yield item
