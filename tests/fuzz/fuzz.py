"""Hands damaged files to every reader: it refuses them by `InputError` or accepts them, and nothing else.

    python -m tests.fuzz.fuzz --seconds 60 [--readers NAME ...] [--seed N]

File number i of a reader follows from its name, the seed and i, so a failure comes back. Each reader runs in a process
of its own under limits of memory and of time a file: what ends the process is a failure, too. Failures are kept in
build/fuzz.
"""

import argparse
import gc
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

from ngram_eval.errors import InputError
from tests.fuzz.readers import READERS, Reader

MEMORY = 4 << 30
LIMITS = {signal.ITIMER_PROF: 30.0, signal.ITIMER_REAL: 300.0}
"""Seconds for a file, of processor and of clock; the signal after them ends the process."""
LEAST = 5
"""Files of each reader, however little time there is."""
KEPT = Path("build/fuzz")
KINDS = ("refusal", "acceptance", "failure")


class Outcome(NamedTuple):
    """What became of a file."""

    kind: str
    number: int
    message: str = ""


def read(reader: Reader, path: Path, number: int) -> Outcome:
    """Hand one file to its reader."""
    try:
        reader.read(path)
    except InputError as error:
        return Outcome("refusal" if len(str(error).splitlines()) == 1 else "failure", number, str(error))
    except BaseException:  # whatever it is, it is what is looked for
        return Outcome("failure", number, traceback.format_exc())
    return Outcome("acceptance", number)


def damaged(reader: Reader, seeds: list[bytes], seed: int, number: int) -> bytes:
    """File `number` of a reader."""
    chance = random.Random(f"{reader.name} {seed} {number}")
    return reader.format.mutate(chance.choice(seeds), chance)


def work(
    reader: Reader, seeds: list[bytes], seed: int, numbers: range, end: float, folder: Path, told: Connection
) -> None:
    """Read so many files until `end`, in a process of its own; tells each number, then what became of it."""
    warnings.simplefilter("ignore")
    errors = os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    gc.collect()  # exact counts that made a valid file hold addresses
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    path = folder / reader.file
    for valid in seeds if numbers.start == 0 else ():
        path.write_bytes(valid)
        kind, _, message = read(reader, path, 0)
        assert kind == "acceptance", f"a valid file: {kind}, {message}"
    for number in numbers:
        if time.monotonic() > end and number >= LEAST:
            break
        path.write_bytes(damaged(reader, seeds, seed, number))
        told.send(number)
        for timer, seconds in LIMITS.items():
            signal.setitimer(timer, seconds)
        outcome = read(reader, path, number)
        for timer in LIMITS:
            signal.setitimer(timer, 0)
        told.send(outcome)
    told.send(None)


def outcomes(reader: Reader, seed: int, most: int, end: float, folder: Path) -> Iterator[Outcome]:
    """What became of each file of one reader; the file of the last one lies in `folder`."""
    torch.set_num_threads(1)  # a thread of OpenMP does not outlive the fork
    seeds = reader.seeds()
    forking, number, ended = multiprocessing.get_context("fork"), -1, False
    while not ended and number + 1 < most:
        ours, theirs = forking.Pipe(duplex=False)
        arguments = (reader, seeds, seed, range(number + 1, most), end, folder, theirs)
        process = forking.Process(target=work, args=arguments)
        process.start()
        theirs.close()
        begun = False
        while True:
            try:
                told = ours.recv()
            except EOFError:
                break
            if isinstance(told, int):
                number, begun = told, True
            elif told is None:
                ended = True
            else:
                yield told
                begun = False
        process.join()
        if not ended:
            said = (folder / "stderr").read_text(errors="replace")[-2000:]
            how = f"the process ended with {process.exitcode}"
            if not begun:
                raise RuntimeError(f"{reader.name}: {how} between files: {said}")
            yield Outcome("failure", number, f"{said}\n{how}")


def fuzz(readers: list[Reader], seed: int, seconds: float, most: int) -> dict[str, Counter[str]]:
    """Outcomes of each reader, which share the time; `most` files each."""
    counts, last = {}, time.monotonic() + seconds
    for index, reader in enumerate(readers):
        counts[reader.name] = count = Counter[str]()
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            for outcome in outcomes(reader, seed, most, began + (last - began) / (len(readers) - index), Path(folder)):
                count[outcome.kind] += 1
                if outcome.kind == "failure":
                    keep(reader, seed, outcome, Path(folder))
        figures = " | ".join(f"{count[kind]:,}" for kind in KINDS)
        print(f"| {reader.name} | {figures} | {time.monotonic() - began:.0f} |", flush=True)
    return counts


def keep(reader: Reader, seed: int, outcome: Outcome, folder: Path) -> None:
    """Save the file of a failure and what was said, and print where."""
    kept = KEPT / f"{reader.name}-{seed}-{outcome.number}"
    kept.mkdir(parents=True, exist_ok=True)
    (kept / reader.file).write_bytes((folder / reader.file).read_bytes())
    (kept / "message.txt").write_text(outcome.message)
    print(f"failure: --readers {reader.name} --seed {seed}, file {outcome.number}, kept in {kept}", file=sys.stderr)
    print(f"  {outcome.message.strip().splitlines()[-1][:200]}", file=sys.stderr, flush=True)


def main() -> int:
    """The command line; 1 where anything but refusal and acceptance came of a file."""
    names = {reader.name: reader for reader in READERS}
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads neither
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--files", type=int, default=1 << 40, help="most files of each reader")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--readers", nargs="+", choices=names, default=list(names))
    asked = options.parse_args()
    print(f"| reader | {' | '.join(KINDS)} | seconds |\n|---|--:|--:|--:|--:|")
    counts = fuzz([names[name] for name in asked.readers], asked.seed, asked.seconds, asked.files)
    total = sum(counts.values(), Counter[str]())
    print(f"| all | {' | '.join(f'{total[kind]:,}' for kind in KINDS)} | |")
    return int(total["failure"] > 0)


if __name__ == "__main__":
    sys.exit(main())
