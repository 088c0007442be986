"""Ranks: the processes of a `torchrun`, or the one process of a plain run. They exchange data by torch.distributed."""

import io
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Literal, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from ngram_eval.errors import FAILED, InputError, exit_code, one_line

if TYPE_CHECKING:
    from torch import Tensor

    from ngram_eval.distributed.watchdog import Watch

T = TypeVar("T")
P = ParamSpec("P")


_TIME_TO_SPEAK = 5.0
"""Seconds that rank 0 has to print an error that all ranks raise."""
_AGENTS_PATIENCE = 1800.0
"""Seconds to wait for ranks that torchrun has started."""
_BETWEEN_TRIES = 0.2
"""Seconds."""
_REMEDY = "start it with torchrun, or unset RANK and WORLD_SIZE for a run of one process"


class RankLostError(RuntimeError):
    """Another rank did not take part in an exchange."""


def _exchange(method: Callable[Concatenate["Ranks", P], T]) -> Callable[Concatenate["Ranks", P], T]:
    """Raise `RankLostError` for a `RuntimeError` of torch.distributed: it raises that when another rank is gone."""

    @wraps(method)
    def call(self: "Ranks", /, *arguments: P.args, **named: P.kwargs) -> T:
        try:
            return method(self, *arguments, **named)
        except RuntimeError as error:
            raise RankLostError(str(error)) from error

    return call


class Ranks:
    """One process of a run. Every rank calls the same exchanges in the same order."""

    def __init__(self, rank: int, world: int, local_rank: int = 0) -> None:
        self.rank, self.world, self.local_rank = rank, world, local_rank
        self.sent = 0
        """Bytes of tables and arrays that this rank has sent to others, by the formulas of the algorithms."""

    @property
    def part(self) -> tuple[int, int]:
        """(rank, world)."""
        return self.rank, self.world

    @_exchange
    def gather(self, item: T) -> list[T]:
        """The items of all ranks, in rank order, on every rank."""
        if self.world == 1:
            return [item]
        import torch.distributed

        items: list[T] = [item] * self.world
        torch.distributed.all_gather_object(items, item)
        return items

    @_exchange
    def broadcast(self, item: T) -> T:
        """Rank 0's item, on every rank."""
        if self.world == 1:
            return item
        import torch.distributed

        items = [item]
        torch.distributed.broadcast_object_list(items)
        return items[0]

    @_exchange
    def all_reduce(self, array: NDArray[Any], operation: Literal["sum", "min"]) -> None:
        """Replace a contiguous int32 or int64 array by its sum or minimum over the ranks."""
        if self.world == 1:
            return
        import torch
        from torch.distributed import ReduceOp, all_reduce

        all_reduce(torch.from_numpy(array), {"sum": ReduceOp.SUM, "min": ReduceOp.MIN}[operation])
        self.sent += 2 * array.nbytes * (self.world - 1) // self.world

    @_exchange
    def all_to_all(self, received: "Tensor", sent: "Tensor", received_sizes: list[int], sent_sizes: list[int]) -> None:
        """Send part r of a vector (of `sent_sizes[r]` elements) to rank r; parts arrive in rank order."""
        from torch.distributed import all_to_all_single

        all_to_all_single(received, sent, received_sizes, sent_sizes)
        self.sent += (sum(sent_sizes) - sent_sizes[self.rank]) * sent.element_size()

    @_exchange
    def send(self, message: NDArray[np.uint8], to: int, tag: int) -> None:
        """Send a message to another rank; returns when that rank has received it."""
        import torch
        from torch.distributed import send

        send(torch.from_numpy(message), to, tag=tag)
        self.sent += message.nbytes

    @_exchange
    def receive(self, message: NDArray[np.uint8], source: int, tag: int) -> Callable[[], None]:
        """Start to receive another rank's `send` into `message`; returns a function that waits until it has arrived."""
        import torch
        from torch.distributed import irecv

        work = irecv(torch.from_numpy(message), source, tag=tag)
        assert work is not None, "this rank belongs to the group"

        def wait() -> None:
            try:
                work.wait()
            except RuntimeError as error:
                raise RankLostError(str(error)) from error

        return wait


ALONE = Ranks(0, 1)
"""The one process of a plain run."""


@contextmanager
def joined_ranks(timeout: float) -> Iterator[Ranks]:
    """Join the other ranks if torchrun (or a launcher that sets the same variables) started this process.

    gloo sends tensors on the CPU, NCCL tensors on GPUs. If a rank fails, all ranks end with one message that names it
    (`ngram_eval.distributed.watchdog`); `timeout` is the seconds that a rank may be unreachable, and, unless torchrun
    has started it, late. Raises `InputError` where ranks can't meet.
    """
    if not _launched():
        yield ALONE
        return
    place = _place()
    import torch
    from torch.distributed import destroy_process_group

    from ngram_eval.distributed.watchdog import Watch

    # The agents of torchrun have met, and know of every process that ends; no others do.
    patience = _AGENTS_PATIENCE if place.agents else timeout
    store = _connect(place, patience)
    watch = Watch(place.rank, place.world, timeout)
    try:
        _join(store, watch, "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", patience)
        yield Ranks(place.rank, place.world, place.local_rank)
    except BaseException as error:  # torch.distributed can't be left in good order while calls are pending
        if _says_a_rank_is_lost(error):
            watch.await_cause(str(error))
        _fail(watch, error)
    watch.close()
    destroy_process_group()


class _Place(NamedTuple):
    """What the environment says of this process."""

    rank: int
    world: int
    local_rank: int
    host: str
    port: int
    agents: bool
    """Whether torchrun holds the store, and not rank 0."""


def _place() -> _Place:
    """Raises `InputError`, naming the variable that is wrong or missing."""

    def number(name: str, least: int, most: int, default: str = "") -> int:
        text = os.environ.get(name, default)
        if not (text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
            raise InputError(f"{name} is {text!r} in the environment, and not {least} to {most}: {_REMEDY}")
        return int(text)

    world = number("WORLD_SIZE", 1, 1 << 20)
    if not (host := os.environ.get("MASTER_ADDR", "")):
        raise InputError(f"RANK and WORLD_SIZE are set in the environment, and MASTER_ADDR is not: {_REMEDY}")
    return _Place(
        rank=number("RANK", 0, world - 1),
        world=world,
        local_rank=number("LOCAL_RANK", 0, world - 1, "0"),
        host=host,
        port=number("MASTER_PORT", 1, (1 << 16) - 1),
        agents=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True),
    )


def _connect(place: _Place, patience: float) -> Any:
    """The store of the process group; raises `InputError` unless it is there within `patience` seconds."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but defined in C++

    leads, limit = place.rank == 0 and not place.agents, timedelta(seconds=patience)
    try:  # plain sockets first: torch says at length what they say in a word
        if leads:
            socket.create_server(("", place.port)).close()
        else:
            _await_server(place, patience)
        # It is the watch that waits for the others, and names them.
        store = TCPStore(place.host, place.port, place.world, leads, limit, wait_for_workers=False, multi_tenant=True)
    except (OSError, RuntimeError) as error:
        what = "can't be listened on" if leads else f"has no answer within {patience:g} seconds"
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"rank {place.rank}: MASTER_ADDR={place.host} MASTER_PORT={place.port} {what} ({reason}): start rank 0 "
            "there with a free port, or give a longer --rank-timeout"
        ) from error
    return store


def _await_server(place: _Place, patience: float) -> None:
    """Wait until somebody listens; raises `OSError` if nobody does within `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            socket.create_connection((place.host, place.port), timeout=patience).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(_BETWEEN_TRIES)


def _join(store: Any, watch: "Watch", backend: str, patience: float) -> None:
    """Form the process group. Exchanges have no time limit of their own: the watch detects a rank that is lost."""
    from torch.distributed import init_process_group

    watch.await_all(patience)
    try:
        init_process_group(backend, store=store, rank=watch.rank, world_size=watch.world, timeout=timedelta(days=30))
    except RuntimeError as error:
        raise RankLostError(str(error)) from error


def _says_a_rank_is_lost(error: BaseException) -> bool:
    """Whether an exchange raised `error`, also one inside torch (DistributedDataParallel)."""
    from torch.distributed import DistError

    return isinstance(error, (RankLostError, DistError)) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _fail(watch: "Watch", error: BaseException) -> None:
    """End all ranks because of this one's error; prints it unless another rank has announced a failure first."""
    if isinstance(error, SystemExit) and not error.code:
        watch.close()
        raise error
    message = f"rank {watch.rank}: {one_line(error)}"
    speaks = watch.announce(message, exit_code(error))
    if speaks:
        if exit_code(error) == FAILED:
            traceback.print_exception(error)
        print(f"error: {message}", file=sys.stderr)
    watch.exit(exit_code(error))


@contextmanager
def first_rank_speaks() -> Iterator[None]:
    """A context for work that all ranks do alike, such as reading the command line: only rank 0 prints, errors too.

    The others fail later: torchrun ends all ranks when the first one fails, and rank 0 must have printed by then.
    """
    if not _launched() or os.environ["RANK"] == "0":
        yield
        return
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    except (InputError, SystemExit) as error:
        if code := exit_code(error):
            time.sleep(_TIME_TO_SPEAK)
        raise SystemExit(code) from error


def _launched() -> bool:
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ
