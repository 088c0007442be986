"""Hands damaged files to every reader: it refuses them by `InputError` or takes them, and nothing else.

    python -m tests.fuzz.fuzz --seconds 60 [--reader NAME ...] [--seed N] [--replay READER FILE]

Each file is a function of the reader's name and a number, so a failure comes back. Readers run in a process of their
own, under a limit of memory and a time limit: what kills or stops it is a failure, too. Its file is kept in build/fuzz.
"""

import argparse
import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

MEMORY = 4 << 30
SECONDS_EACH = 30.0
KEPT = Path("build/fuzz")
OUTCOMES = ("refusal", "acceptance", "failure")


def outcome(reader: "object", path: Path) -> tuple[str, str]:
    """(what became of a file, the message or the traceback)."""
    from ngram_eval.errors import InputError

    try:
        reader.read(path)  # type: ignore[attr-defined]
    except InputError as error:
        message = str(error)
        if not message or "\n" in message:
            return "failure", f"not one line: {message!r}"
        return "refusal", message
    except BaseException:
        return "failure", traceback.format_exc()
    return "acceptance", ""


def damaged(reader: "object", seeds: list[bytes], number: int) -> bytes:
    """File number `number` of a reader."""
    chance = random.Random(f"{reader.name} {number}")  # type: ignore[attr-defined]
    data: bytes = reader.format.mutate(chance.choice(seeds), chance)  # type: ignore[attr-defined]
    return data


def work(name: str, start: int, stop: int) -> None:
    """Cases start to stop of one reader, told line by line; for a process of its own."""
    warnings.simplefilter("ignore")
    from tests.fuzz.readers import READERS

    reader = next(one for one in READERS if one.name == name)
    seeds = reader.seeds()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / reader.file
        for seed in seeds if start == 0 else ():
            path.write_bytes(seed)
            result = outcome(reader, path)
            if result[0] != "acceptance":
                print(json.dumps(["failure", -1, f"a valid file is refused: {result[1]}"]), file=told, flush=True)
        for number in range(start, stop):
            print(json.dumps(["begin", number, ""]), file=told, flush=True)
            path.write_bytes(damaged(reader, seeds, number))
            print(json.dumps([*_at(outcome(reader, path), number)]), file=told, flush=True)


def _at(result: tuple[str, str], number: int) -> tuple[str, int, str]:
    return result[0], number, result[1]


class Worker:
    """A process that runs cases of one reader."""

    def __init__(self, name: str, start: int) -> None:
        self.name, self.number = name, start
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.fuzz.fuzz", "--work", self.name, str(self.number), str(1 << 40)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        errors = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        self._errors = errors
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment)
        assert self._process.stdout is not None
        self._out = self._process.stdout
        self._buffer = b""

    def step(self, until: float) -> tuple[str, int, str] | None:
        """The next case's outcome, None if there is no time for it."""
        limit = time.monotonic() + SECONDS_EACH + (60 if not self._buffer else 0)
        while True:
            line, _, rest = self._buffer.partition(b"\n")
            if _:
                self._buffer = rest
                what, number, message = json.loads(line)
                if what == "begin":
                    self.number, limit = number, time.monotonic() + SECONDS_EACH
                    continue
                self.number = number + 1
                return what, number, message
            now = time.monotonic()
            if now > until:
                return None
            ready, _, _ = select.select([self._out], [], [], max(0.0, min(limit, until) - now))
            chunk = os.read(self._out.fileno(), 1 << 16) if ready else b""
            if ready and not chunk:
                return self._died(f"the process ended with {self._process.wait()}")
            if not ready and time.monotonic() >= limit:
                return self._died(f"more than {SECONDS_EACH:g} seconds")
            self._buffer += chunk

    def _died(self, how: str) -> tuple[str, int, str]:
        self.end()
        self._errors.seek(0)
        said = self._errors.read()[-2000:].decode(errors="replace")
        number = self.number
        self.number += 1
        self._start()
        return "failure", number, f"{how}; {said}"

    def end(self) -> None:
        """Stop it."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._out.close()


def keep(name: str, number: int, message: str) -> Path:
    """Save the file of a failure and what it did."""
    from tests.fuzz.readers import READERS

    reader = next(one for one in READERS if one.name == name)
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / f"{name}-{number}"
    seeds = reader.seeds()
    path.write_bytes(damaged(reader, seeds, number) if number >= 0 else seeds[0])
    path.with_name(path.name + ".txt").write_text(message)
    return path


def fuzz(names: list[str], seconds: float, seed: int, most: int = 1 << 40) -> dict[str, Counter[str]]:
    """Outcomes of each reader, which share the time (at most `most` cases each)."""
    counts: dict[str, Counter[str]] = {}
    end = time.monotonic() + seconds
    for index, name in enumerate(names):
        counts[name] = Counter()
        until = time.monotonic() + max(0.0, end - time.monotonic()) / (len(names) - index)
        worker, kinds = Worker(name, seed), Counter[str]()
        try:
            while counts[name].total() < most and (found := worker.step(until)) is not None:
                what, number, message = found
                counts[name][what] += 1
                if what == "failure":
                    kind = message.strip().splitlines()[-1][:200] if message.strip() else "?"
                    kinds[kind.split(":")[0]] += 1
                    if kinds[kind.split(":")[0]] <= 3:
                        print(f"FAILURE {name} {number}: {kind} ({keep(name, number, message)})", flush=True)
        finally:
            worker.end()
        print(f"{name}: {', '.join(f'{counts[name][one]:,} {one}' for one in OUTCOMES)}", flush=True)
    return counts


def main() -> int:
    """The command line; 1 where anything but refusal and acceptance came of a file."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--seed", type=int, default=0, help="number of the first file of each reader")
    options.add_argument("--reader", nargs="*", default=[])
    options.add_argument("--replay", nargs=2, metavar=("READER", "FILE"))
    options.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.work:
        work(asked.work[0], int(asked.work[1]), int(asked.work[2]))
        return 0
    from tests.fuzz.readers import READERS

    if asked.replay:
        reader = next(one for one in READERS if one.name == asked.replay[0])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / reader.file
            path.write_bytes(Path(asked.replay[1]).read_bytes())
            what, message = outcome(reader, path)
        print(what, message)
        return int(what == "failure")
    counts = fuzz(asked.reader or [one.name for one in READERS], asked.seconds, asked.seed)
    total = sum(counts.values(), Counter[str]())
    print(f"all: {', '.join(f'{total[one]:,} {one}' for one in OUTCOMES)}")
    return int(total["failure"] > 0)


if __name__ == "__main__":
    sys.exit(main())
