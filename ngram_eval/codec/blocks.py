"""Blocks of a text that are written and read apart, a thread each."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

MOST_BLOCKS = 256
Result = TypeVar("Result")
Advance = Callable[[int], None]


class _Stopped(Exception):
    """Another block has failed, or ctrl-C was pressed."""


def span(total: int, block: int, blocks: int) -> slice:
    """The block's part of `total` tokens."""
    return slice(total * block // blocks, total * (block + 1) // blocks)


def each_block(blocks: int, work: Callable[[int, Advance], Result], advance: Advance) -> list[Result]:
    """work(block, advance) for every block, at most as many at once as there are cores.

    What one raises, ctrl-C too, stops the others where they advance, and is raised here.
    """
    if blocks == 1:
        return [work(0, advance)]
    stop = threading.Event()

    def advance_unless_stopped(done: int) -> None:
        if stop.is_set():
            raise _Stopped
        advance(done)

    with ThreadPoolExecutor(min(blocks, os.cpu_count() or 1)) as pool:
        try:
            running = [pool.submit(work, block, advance_unless_stopped) for block in range(blocks)]
            return [one.result() for one in running]
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
