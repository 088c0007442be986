"""Ranks that are threads of one process, for tests of what ranks exchange: quick, in any number, and in a debugger."""

import queue
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ngram_eval.distributed.ranks import Ranks

T = TypeVar("T")


class Meeting:
    """Where the threads exchange."""

    def __init__(self, world: int) -> None:
        self.barrier = threading.Barrier(world)
        self.slots: list[Any] = [None] * world
        self.mail: dict[tuple[int, int, int], queue.Queue[NDArray[np.uint8]]] = defaultdict(queue.Queue)
        self.lock = threading.Lock()

    def box(self, source: int, to: int, tag: int) -> "queue.Queue[NDArray[np.uint8]]":
        with self.lock:
            return self.mail[source, to, tag]


class ThreadRanks(Ranks):
    """One thread among its peers."""

    def __init__(self, rank: int, world: int, meeting: Meeting) -> None:
        super().__init__(rank, world)
        self._meeting = meeting

    def gather(self, item: T) -> list[T]:
        self._meeting.slots[self.rank] = item
        self._meeting.barrier.wait(60)
        items = list(self._meeting.slots)
        self._meeting.barrier.wait(60)
        return items

    def broadcast(self, item: T) -> T:
        return self.gather(item)[0]

    def all_reduce(self, array: NDArray[Any], operation: Literal["sum", "min"]) -> None:
        parts = np.stack(self.gather(array.copy()))
        array[:] = parts.sum(axis=0) if operation == "sum" else parts.min(axis=0)

    def all_to_all(self, received: Tensor, sent: Tensor, received_sizes: list[int], sent_sizes: list[int]) -> None:
        parts = self.gather([part.clone() for part in sent.split(sent_sizes)])
        mine = [part[self.rank] for part in parts]
        assert [len(part) for part in mine] == received_sizes
        received.copy_(torch.cat(mine))
        self.sent += (sum(sent_sizes) - sent_sizes[self.rank]) * sent.element_size()

    def send(self, message: NDArray[np.uint8], to: int, tag: int) -> None:
        self._meeting.box(self.rank, to, tag).put(message.copy())
        self.sent += message.nbytes

    def receive(self, message: NDArray[np.uint8], source: int, tag: int) -> Callable[[], None]:
        def wait() -> None:
            message[:] = self._meeting.box(source, self.rank, tag).get(timeout=60)

        return wait


def on_ranks(world: int, work: Callable[[Ranks], T]) -> list[T]:
    """`work` on every rank at once; results in rank order, or the first rank's exception."""
    meeting = Meeting(world)

    def one(rank: int) -> T:
        try:
            return work(ThreadRanks(rank, world, meeting))
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(world) as pool:
        results = [pool.submit(one, rank) for rank in range(world)]
    failed = [error for result in results if (error := result.exception()) is not None]
    for error in failed:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [result.result() for result in results]
