"""The processes of a `torchrun`, or the one process of a plain run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Ranks:
    """One process among its peers."""

    def __init__(self, rank: int, world: int, local_rank: int) -> None:
        self.rank, self.world, self.local_rank = rank, world, local_rank

    def gather(self, item: T) -> list[T]:
        """Every rank's item, in rank order, on every rank."""
        if self.world == 1:
            return [item]
        import torch.distributed

        items: list[T] = [item] * self.world
        torch.distributed.all_gather_object(items, item)
        return items


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the other ranks if torchrun (or a launcher that sets the same variables) started this process.

    gloo carries what lives on the CPU, NCCL what lives on GPUs.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Ranks(0, 1, 0)
        return
    import torch
    import torch.distributed

    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", "0")))
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield ranks
    finally:
        torch.distributed.destroy_process_group()
