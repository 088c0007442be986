"""How ranks share an evaluation (`--ngram`).

Sharded: each rank forwards and scores a stretch of the stream, with its own tables, which begin with the counts of
everything before. Pipelined: ranks take the batches in turn, and send their readings in order to one engine on rank 0.
Either way the engine runs on a thread beside the forward passes (or on the GPU). The number of readings that wait for
it is bounded: a slow engine holds up the forward passes but fills no memory.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import chain, islice
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ngram_eval.bpb import Tally
from ngram_eval.config import EvalConfig
from ngram_eval.distributed.prefill import faster_prefill, prefill_cuts, prefill_stop
from ngram_eval.distributed.ranks import Ranks
from ngram_eval.errors import InputError
from ngram_eval.evaluation.checkpoint import Record
from ngram_eval.evaluation.engine import Engine
from ngram_eval.evaluation.reader import Reader, Reading
from ngram_eval.scorers.backends import ON_DEVICE
from ngram_eval.text.windows import Plan, share
from ngram_eval.timing import Stopwatch

ROOM = 4
"""Readings of each rank that may wait for the engine."""

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


Sharing = Literal["sharded", "pipelined"]


def sharing_of(asked: Literal["auto", "sharded", "pipelined"], name: str, config: EvalConfig, backend: str) -> Sharing:
    """How the ranks share the n-gram work of a preset; raises `InputError` if the preset does not allow `asked`."""
    if asked == "sharded" and config.learns_online:
        raise InputError(
            f"--ngram sharded and --preset {name}: it learns from each position for the next, so no rank can begin "
            "in the middle of the stream; give --ngram pipelined"
        )
    if asked == "pipelined" and backend in ON_DEVICE and not config.learns_online:
        raise InputError(
            f"--ngram pipelined runs its engine on a CPU thread, and --backend {backend} counts on the GPU: "
            "give --backend cpu, or --ngram sharded"
        )
    if asked == "auto":
        return "pipelined" if config.learns_online else "sharded"
    return asked


def share_left(before: Record, plan: Plan, config: EvalConfig, ranks: Ranks, batch_windows: int) -> list[range]:
    """The windows that this rank scores in a sharded evaluation, in runs, without those that `before` has done."""
    if config.depends_on_ranks or not before.done:
        return before.remaining(share(plan, ranks.rank, ranks.world, batch_windows))
    left = before.remaining(range(len(plan)))
    count, mine, start = sum(map(len, left)), [], 0
    first, stop = (count * rank // ranks.world for rank in (ranks.rank, ranks.rank + 1))
    for run in left:
        mine.append(run[max(first - start, 0) : max(stop - start, 0)])
        start += len(run)
    return [run for run in mine if run]


def sharded(
    reader: Reader,
    engine: Engine,
    before: Record,
    config: EvalConfig,
    ranks: Ranks,
    batch_windows: int,
    prefill: Literal["auto", "scan", "local"],
) -> tuple[Tally, Literal["scan", "local"]]:
    """(tally of this rank's stretch, how the rank got the counts before it). A resumed run always counts locally."""
    plan, world = engine.plan, ranks.world
    pieces = share_left(before, plan, config, ranks, batch_windows)
    whole = share(plan, ranks.rank, world, batch_windows)
    cuts = prefill_cuts(plan, world, batch_windows, config.ngram)
    way: Literal["scan", "local"] = faster_prefill(cuts, config.ngram) if prefill == "auto" else prefill
    if before.done or world == 1:
        way = "local"

    counted = [*cuts, cuts[-1]][ranks.rank + 1] - cuts[ranks.rank] if way == "scan" else 0
    if way == "local" and pieces:
        counted = plan.first_scored(pieces[0].start)
    engine.expect(counted + sum(map(plan.scored, pieces)))

    def score(readings: Iterator[Reading]) -> Tally:
        if way == "scan":
            engine.prefill_by_scan(cuts, whole.start, ranks)
        elif pieces and config.depends_on_ranks:
            engine.prefill(prefill_stop(plan, whole, config.ngram), whole.start)
        return engine.run(readings)  # also counts what comes before each piece

    readings = reader.read(chain.from_iterable(map(reader.grid.cut, pieces)))
    return score(readings) if engine.scorer.on_device else beside(score, readings, engine.clock), way


def pipelined(reader: Reader, engine: Engine, before: Record, ranks: Ranks) -> Tally:
    """The tally of the whole stream on rank 0, an empty one on the others."""
    left = before.remaining(range(len(engine.plan)))
    engine.expect(engine.plan.scored(range(len(engine.plan))))

    def batches() -> Iterator[range]:
        return chain.from_iterable(map(reader.grid.cut, left))

    def score(mine: Iterator[Reading]) -> Tally:
        if ranks.rank == 0:
            return engine.run(in_order(mine, batches, reader, ranks))
        send_all(mine, reader, ranks)
        return Tally()

    return beside(score, reader.read(islice(batches(), ranks.rank, None, ranks.world)), engine.clock)


def beside(work: Callable[[Iterator[Item]], Outcome], items: Iterator[Item], clock: Stopwatch) -> Outcome:
    """Run `work(items)` on its own thread, and make the items on this one, at most `ROOM` ahead.

    Returns what `work` returns; raises an exception of either side, once the thread has ended: a process that exits
    while a thread runs compiled code may abort.
    """
    waiting: queue.Queue[Item | None] = queue.Queue(ROOM)
    outcome: Future[Outcome] = Future()

    def run() -> None:
        try:
            outcome.set_result(work(iter(waiting.get, None)))
        except BaseException as error:  # carried over to the other thread
            outcome.set_exception(error)

    def put(item: Item | None) -> bool:
        """Pass an item to the thread; False if the thread has ended."""
        with clock.stage("waiting"):
            while not outcome.done():
                try:
                    waiting.put(item, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

    thread = threading.Thread(target=run, name="engine", daemon=True)
    thread.start()
    try:
        for item in items:
            if not put(item):
                break
    finally:
        put(None)  # ends the thread, also after an exception
        with clock.stage("waiting"):
            thread.join()
    return outcome.result()


def in_order(
    mine: Iterator[Reading], batches: Callable[[], Iterator[range]], reader: Reader, ranks: Ranks
) -> Iterator[Reading]:
    """Readings of all batches in order, on rank 0. Batch i is read by rank i mod world; receives are posted ahead."""
    coming: deque[tuple[NDArray[np.uint8], Callable[[], None]]] = deque()
    ahead = ((i, rows) for i, rows in enumerate(batches()) if i % ranks.world)

    def ask(count: int) -> None:
        for i, rows in islice(ahead, count):
            message = reader.message(rows)
            coming.append((message, ranks.receive(message, i % ranks.world, _tag(i))))

    ask(ROOM)
    for i, rows in enumerate(batches()):
        if i % ranks.world == 0:
            if (reading := next(mine, None)) is None:  # ctrl-C has ended them
                return
            yield reading
            continue
        message, wait = coming.popleft()
        with reader.clock.stage("receiving"):
            wait()
        ask(1)
        yield reader.unpack(rows, message)


def send_all(mine: Iterator[Reading], reader: Reader, ranks: Ranks) -> None:
    """Send this rank's readings to rank 0, each once the engine has room for it."""
    for i, reading in enumerate(mine):
        message = reader.pack(reading)
        ranks.send(message, 0, _tag(ranks.rank + i * ranks.world))


def _tag(batch: int) -> int:
    return batch % (1 << 20)
