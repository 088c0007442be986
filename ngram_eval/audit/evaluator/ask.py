"""Questions to an evaluator: put in batches to several processes, counted, and remembered."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.evaluator.process import Limits, Place, Process, Refused, Reply
from ngram_eval.audit.evaluator.streams import Ids
from ngram_eval.audit.precision import Precision, precision_of
from ngram_eval.errors import InputError

TOLERANCES: dict[Precision, float] = {"float64": 1e-6, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Nats by which a charge may differ from itself in a run of another shape, by the type that charges come in."""
_NOISE = 10.0
"""So many times what all charges of an honest float64 differ by, between runs of two lengths, is accepted."""
_REMEMBERED = 1 << 24
"""Charges that are kept to answer a question that comes again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an evaluator charged for a stream of N tokens."""

    nats: NDArray[np.float64] | None
    """(N,): the nats of each token, NaN where it was not charged; None if only a total is known."""
    total: float
    """Nats of all that was charged."""
    said: tuple[float, float]
    """(the number that the total comes from, nats that a unit of it is worth), to know its rounding."""
    sizes: NDArray[np.int64] | None
    """(N,): the bytes counted for each token, if they are known one by one."""
    bytes: float | None
    """The bytes counted in all."""
    odd: str
    """What is wrong with the positions; empty if each was charged once."""
    precision: Precision | None
    summary: tuple[float, float] | None
    """(mean nats that were said, mean nats of the charges) if both are known."""


def read(reply: Reply, length: int) -> Answer:
    """The answer of a reply to a stream of so many tokens; raises `InputError` for a reply that can't be one."""
    arrays, scalars = reply.arrays, reply.scalars
    values = arrays.get("nats")
    if values is None and "p" in arrays:
        with np.errstate(divide="ignore", invalid="ignore"):
            values = -np.log(arrays["p"])
    size = scalars.get("bytes")
    if values is None:
        total, said = _total(scalars, length)
        return Answer(None, total, said, None, size or _implied(scalars, total), _miscount(scalars, length), None, None)
    targets = arrays["positions"] + 1 if "positions" in arrays else np.arange(len(values)) + (len(values) != length)
    if len(targets) != len(values) or len(arrays.get("bytes", values)) != len(values):
        raise InputError(f"--evaluator gave {len(values)} charges, {len(targets)} positions: give one for each")
    inside = (targets >= 0) & (targets < length)
    times = np.bincount(targets[inside], minlength=length)
    nats = np.where(times > 0, np.bincount(targets[inside], values[inside], length), np.nan)
    sizes = None
    if "bytes" in arrays:
        sizes = np.bincount(targets[inside], arrays["bytes"][inside], length).astype(np.int64)
        size = float(arrays["bytes"].sum())
    total = float(values.sum())
    summary = (scalars["loss"], total / max(len(values), 1)) if "loss" in scalars else None
    size = size or _implied(scalars, total)
    odd = _oddities(values, times, targets, inside)
    return Answer(nats, total, (total, 1.0), sizes, size, odd, _precision(reply, values), summary)


def _total(scalars: dict[str, float], length: int) -> tuple[float, tuple[float, float]]:
    if "nats" in scalars:
        return scalars["nats"], (scalars["nats"], 1.0)
    if "loss" in scalars:
        count = scalars.get("count", length - 1)
        return scalars["loss"] * count, (scalars["loss"], count)
    raise InputError("--evaluator gave one p for the whole stream: give nats or loss")


def _implied(scalars: dict[str, float], nats: float) -> float | None:
    """The bytes that bits per byte are of."""
    bpb = scalars.get("bpb", 0.0)
    return nats / np.log(2) / bpb if bpb > 0 else None


def _miscount(scalars: dict[str, float], length: int) -> str:
    count = scalars.get("count", length - 1)
    return "" if count in (length, length - 1) else f"{count:,.0f} positions are counted, of {length - 1:,}"


def _oddities(
    values: NDArray[np.float64], times: NDArray[np.int64], targets: NDArray[np.int64], inside: NDArray[np.bool_]
) -> str:
    missing, repeated = np.flatnonzero(times[1:] == 0), np.flatnonzero(times > 1)
    found = []
    if np.isnan(values).any():
        found.append(f"{np.count_nonzero(np.isnan(values)):,} charges are no numbers")
    if len(missing):
        where = "the last ones" if missing[0] == len(times) - 1 - len(missing) else f"{missing[0]} the first"
        found.append(f"{len(missing):,} of {len(times) - 1:,} positions are not charged, {where}")
    if len(repeated):
        found.append(f"{len(repeated):,} are charged up to {times.max()} times, {repeated[0] - 1} the first")
    if not inside.all():
        found.append(f"{np.count_nonzero(~inside):,} outside the stream are charged")
    if (np.diff(targets) < 0).any():
        found.append("they are not in order")
    return "; ".join(found)


def _precision(reply: Reply, values: NDArray[np.float64]) -> Precision:
    """The type that the charges came in; numbers of float32 that came in a wider type are of float32."""
    known: dict[str, Precision] = {"float32": "float32", "float16": "float16", "bfloat16": "bfloat16"}
    seen = precision_of(reply.arrays["p"] if "nats" not in reply.arrays else values)
    return known.get(reply.precision, "float64" if seen == "float64" else "float32")


class Evaluator:
    """An evaluator that is asked what it charges for streams."""

    def __init__(
        self,
        place: Place,
        limits: Limits,
        precision: Precision | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.place, self.limits, self._declared, self._stopped = place, limits, precision, stopped
        self.runs = 0
        """Streams that it has scored so far."""
        self.lacking: tuple[str, ...] = ()
        """What of its isolation the system did not allow."""
        self.precision: Precision | None = precision
        """Declared, or seen in what it charges; None of totals."""
        self._noise = 0.0
        self._said: list[tuple[float, float]] = []
        self._known: dict[bytes, Answer | Refused] = {}
        self._kept = 0
        self._processes: list[Process] = []
        self.odd = ""
        """What was first seen wrong with the positions of an answer."""

    def __enter__(self) -> "Evaluator":
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._processes:
            one.close()
        self._processes = []

    @property
    def tolerance(self) -> float:
        """Nats by which two charges of the same token may differ: by precision, rounding and noise as seen.

        Of totals nothing shows in which precision they were added up: it is taken for float32 unless declared.
        """
        if not self._said:
            return max(TOLERANCES[self.precision or "float32"], self._noise)
        values = np.array([value for value, _ in self._said])
        unit = rounding(values) * max(scale for _, scale in self._said)
        return max(TOLERANCES[self._declared or "float32"], 2 * unit)

    def ask(self, streams: Sequence[Ids]) -> list[Answer]:
        """Its answer to each stream; raises `Refused` if it raised on one."""
        return answered(self.try_to(streams))

    def try_to(self, streams: Sequence[Ids]) -> list[Answer | Refused]:
        """Its answer to each stream, or that it raised; what was asked before is not asked again."""
        keys = [_key(one) for one in streams]
        new = {key: one for key, one in zip(keys, streams, strict=True) if key not in self._known}
        found = dict(zip(new, self._put(list(new.values())), strict=True))
        answers = [found[key] if key in found else self._known[key] for key in keys]
        for key, answer in found.items():
            size = 1 if isinstance(answer, Refused) or answer.nats is None else len(answer.nats)
            if self._kept + size <= _REMEMBERED:
                self._known[key] = answer
                self._kept += size
        return answers

    def again(self, streams: Sequence[Ids]) -> list[Answer]:
        """Its answers to streams one after another in one and the same process, whatever is remembered."""
        answers = [self._answer(self._started()[0], one) for one in streams]
        self._note(answers)
        return answers

    @contextmanager
    def restarted(self, *, hidden: bool = True) -> Iterator["Evaluator"]:
        """The evaluator in a new process; unless `hidden`, the data's files are reachable there."""
        place = self.place if hidden else replace(self.place, hidden=())
        with Evaluator(place, replace(self.limits, processes=1), self._declared, self._stopped) as other:
            yield other
            self.runs += other.runs

    def learn_noise(self, stream: Ids) -> None:
        """See by how much charges differ between runs of two lengths, as floats of a neural network do."""
        long, short = self.ask([stream, stream[: len(stream) * 3 // 4]])
        if long.nats is not None and short.nats is not None:
            both = np.isfinite(long.nats[: len(short.nats)]) & np.isfinite(short.nats)
            off = np.abs(long.nats[: len(short.nats)][both] - short.nats[both])
            self._noise = min(_NOISE * float(np.quantile(off, 0.9)), TOLERANCES["float32"]) if len(off) else 0.0

    def _started(self) -> list[Process]:
        while len(self._processes) < self.limits.processes:
            self._processes.append(Process(self.place, self.limits))
            self.lacking = self._processes[0].lacking
        return self._processes

    def _put(self, streams: list[Ids]) -> list[Answer | Refused]:
        """Question i goes to process i modulo their number, so that a seed repeats all that a process is asked."""
        processes = self._started()[: max(len(streams), 1)]

        def share(which: int) -> list[Answer | Refused]:
            found: list[Answer | Refused] = []
            for stream in streams[which :: len(processes)]:
                try:
                    found.append(self._answer(processes[which], stream))
                except Refused as refused:
                    found.append(refused)
            return found

        with ThreadPoolExecutor(len(processes)) as pool:
            shares = list(pool.map(share, range(len(processes))))
        answers = [shares[at % len(processes)][at // len(processes)] for at in range(len(streams))]
        self._note(answers)
        return answers

    def _answer(self, process: Process, stream: Ids) -> Answer:
        if self._stopped():
            raise Stopped
        return read(process.ask(stream), len(stream))

    def _note(self, answers: Sequence[Answer | Refused]) -> None:
        """Keep in mind what answers tell of the evaluator."""
        self.runs += len(answers)
        for one in answers:
            if isinstance(one, Answer):
                self.precision = self.precision or one.precision
                self.odd = self.odd or one.odd
                if one.nats is None:
                    self._said.append(one.said)


def answered(answers: Sequence[Answer | Refused]) -> list[Answer]:
    """The answers; raises `Refused` if the evaluator raised on a stream."""
    for one in answers:
        if isinstance(one, Refused):
            raise one
    return [one for one in answers if isinstance(one, Answer)]


class Stopped(Exception):
    """The user has interrupted the audit."""


def rounding(values: NDArray[np.float64]) -> float:
    """Half a unit of the last place that the values have: of decimals up to the ninth, of float32, or of float64."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return 0.0
    for digits in range(10):
        if (np.abs(values - np.round(values, digits)) <= 1e-13 * np.abs(values)).all():
            return float(0.5 * 10.0**-digits)
    largest = np.abs(values).max()
    narrow = bool((values == values.astype(np.float32)).all())
    return float(4 * np.spacing(np.float32(largest)) if narrow else 4 * np.spacing(largest))


def _key(stream: Ids) -> bytes:
    return hashlib.sha256(stream.tobytes()).digest()
