"""What a model says on the CPU, the same bits whatever the number of torch's threads.

An operation that torch shares out to threads is cut differently for each number of them, and some give other bits then:
matrix products of few rows, attention of a single query, sums over a single row, even the last elements of a sigmoid.
So here every operation has one thread, and several threads each take parts of a batch, cut by its shape alone.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

_POSITIONS = 1024
"""Fewest positions of a part; with fewer the calls cost more than the arithmetic."""
_SCORED = 8
"""Fewest scored positions of a part: products of 1 to 3 rows have a way of their own, with other bits."""

Part = TypeVar("Part")
Outcome = TypeVar("Outcome")


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, for the thread that asks."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_parts(windows: Tensor, scored: int) -> list[Tensor]:
    """A batch of windows (B, T), each scoring as many positions, in parts whose sizes differ by one; whole on a GPU."""
    if windows.device.type != "cpu":
        return [windows]
    fewest = max(-(-_POSITIONS // windows.size(1)), -(-_SCORED // scored))
    return list(windows.tensor_split(max(1, len(windows) // fewest)))


def side_by_side(work: Callable[[Part], Outcome], parts: Sequence[Part], device: torch.device) -> list[Outcome]:
    """`work` of every part, in order and in inference mode.

    On the CPU each has one thread, and as many have one at a time as torch has threads.
    """
    infer = torch.inference_mode()(work)  # a thread is in the modes that it has entered itself
    if device.type != "cpu":
        return [infer(part) for part in parts]
    workers = min(torch.get_num_threads(), len(parts))
    with one_thread():
        if workers == 1:
            return [infer(part) for part in parts]
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(infer, parts))
