"""Evaluators in processes of their own: started, asked by a pipe, held to limits, ended."""

import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.evaluator import worker
from ngram_eval.errors import InputError, refusing

_KEPT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""Variables of the environment that an evaluator gets; HOME and TMPDIR are new."""
_HEAD = 1 << 16
_MOST_VALUES = 1 << 20
"""Values that a function of the past gives at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What an evaluator may use, and how it is run."""

    timeout: float = 120.0
    """Seconds that one run of the evaluator may take."""
    cpu: int = 3600
    """Seconds of processor time that a process of the evaluator may use in all; 0: no limit."""
    gigabytes: float = 16.0
    """Memory that a process of the evaluator may use; 0: no limit."""
    processes: int = 2
    """Processes of the evaluator that are asked side by side."""
    fresh: bool = False
    """Answer every question from a copy of the process as it was after the import (a fork): for evaluators that keep
    what they learned in globals, such as a model with test-time training."""

    def check(self) -> None:
        """Raise `InputError` for numbers out of range."""
        if self.processes < 1 or not self.timeout > 0 or self.cpu < 0 or not self.gigabytes >= 0:
            raise InputError("--processes is at least 1, --timeout is above 0, --cpu and --gigabytes are at least 0")


@dataclass(frozen=True, slots=True)
class Place:
    """A function of an evaluator."""

    name: str
    """As it was given: module:function or path/eval.py:function."""
    module: str
    function: str
    hidden: tuple[Path, ...] = ()
    """Files that must not be reachable by their path, resolved."""
    flag: str = "--evaluator"
    of_bytes: bool = False
    """Whether it is given the bytes of a text, not an array of tokens."""

    @classmethod
    def of(
        cls, name: str, hidden: Sequence[Path] = (), flag: str = "--evaluator", *, of_bytes: bool = False
    ) -> "Place":
        """The place that a flag names; raises `InputError` for a name without a function, and a file that is none."""
        module, _, function = name.rpartition(":")
        if not module or not function:
            raise InputError(f"{flag} is {name!r}: give module:function or path/eval.py:function")
        if module.endswith(".py"):
            if not Path(module).is_file():
                raise InputError(f"{flag} is {name!r}: there is no file {module}")
            module = str(Path(module).resolve())
        return cls(name, module, function, tuple(Path(os.path.realpath(one)) for one in hidden), flag, of_bytes)


@dataclass(frozen=True, slots=True)
class Reply:
    """What an evaluator said to one stream."""

    scalars: dict[str, float]
    arrays: dict[str, NDArray[Any]]
    """`nats` or `p` in float64; `positions` and `bytes` in int64."""
    precision: str
    """The type that its charges came in."""


class Refused(InputError):
    """The evaluator raised an exception on a stream."""


class Process:
    """One process of an evaluator, with a home, a folder for temporary files and a working folder of its own."""

    def __init__(self, place: Place, limits: Limits) -> None:
        self._place, self._limits = place, limits
        self._folder = Path(tempfile.mkdtemp(prefix="run"))
        for name in ("home", "tmp", "work"):
            (self._folder / name).mkdir()
        program = shutil.copy(worker.__file__, self._folder / "main.py")
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {"HOME": str(self._folder / "home"), "TMPDIR": str(self._folder / "tmp")}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1"}
        with (self._folder / "errors").open("wb") as errors:
            self._child = subprocess.Popen(
                [sys.executable, program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=self._folder / "work",
                env=environment,
                start_new_session=True,
            )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._sink, self._source = self._child.stdin.fileno(), self._child.stdout.fileno()
        os.set_blocking(self._sink, False)
        setup = {
            "module": place.module,
            "function": place.function,
            "hidden": [str(one) for one in place.hidden],
            "path": [os.getcwd()],
            "memory": int(limits.gigabytes * 1e9),
            "seconds": limits.cpu,
            "fresh": limits.fresh,
        }
        try:
            ready, _ = self._exchange(setup, b"", "at its import", 0)
            if "error" in ready:
                raise InputError(
                    f"{place.flag} {place.name} can't be loaded ({ready['error']}): give module:function, "
                    "with its folder on PYTHONPATH, or path/eval.py:function"
                )
            with self._strict("at its import"):
                self.lacking: tuple[str, ...] = tuple(map(str, ready["lacking"]))
                """What of its isolation the system did not allow."""
        except BaseException:
            self.close()
            raise

    def ask(self, stream: NDArray[np.int64]) -> Reply:
        """The evaluator's answer; raises `Refused` if it raised, and `InputError` if it ended or took too long."""
        kind = "bytes" if self._place.of_bytes else "tokens"
        body = stream.astype(np.uint8 if self._place.of_bytes else "<i8").tobytes()
        what = f"on a stream of {len(stream):,} {kind}"
        head, found = self._answer({"kind": kind, "size": len(body)}, body, what, len(stream))
        arrays, offset = {}, 0
        with self._strict(what):
            for name, size in head["arrays"]:
                kind = "<f8" if name in ("nats", "p") else "<i8"
                arrays[name] = np.frombuffer(found, kind, size, offset)
                offset += 8 * size
            scalars = {name: float(value) for name, value in head["scalars"].items()}
            return Reply(scalars, arrays, str(head["precision"]))

    def predict(self, token: int, *, first: bool) -> NDArray[np.float64]:
        """What a function of the past gives after one more token; `first` starts a pass anew. Raises as `ask` does."""
        what = f"on token {token} of a pass"
        head, found = self._answer({"kind": "next", "token": token, "first": first}, b"", what, _MOST_VALUES)
        return np.frombuffer(found, "<f8").reshape(head["shape"]).copy()

    def close(self) -> None:
        """End the process and remove its folders."""
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answer(self, head: dict[str, Any], body: bytes, what: str, length: int) -> tuple[dict[str, Any], bytes]:
        """The answer to a message; raises `Refused` if it is that the function raised."""
        answer, found = self._exchange(head, body, what, length)
        if "error" in answer:
            raise Refused(f"{self._place.flag} {self._place.name} raised {answer['error']} {what}")
        return answer, found

    def _exchange(self, head: dict[str, Any], body: bytes, what: str, length: int) -> tuple[dict[str, Any], bytes]:
        """Send a message and wait for one; what comes is not trusted to be of a sensible size."""
        until = time.monotonic() + self._limits.timeout
        text = json.dumps(head).encode()
        self._write(struct.pack("<q", len(text)) + text + body, until, what)
        (size,) = struct.unpack("<q", self._read(8, until, what))
        most = 64 * (length + 1024)
        if not 0 <= size <= _HEAD:
            raise self._failure(what, f"sent a head of {size:,} bytes")
        text = self._read(size, until, what)
        with self._strict(what):
            found = dict(json.loads(text))
            size = int(found.get("size", 0))
        if not 0 <= size <= most:
            raise self._failure(what, f"charged {size // 8:,} positions")
        return found, self._read(size, until, what)

    def _strict(self, what: str) -> AbstractContextManager[None]:
        """A context for what it says, which is a stranger's: whatever can't be read of it is refused."""
        return refusing(
            f"{self._place.flag} {self._place.name}", f"wrote into its answer {what}", "leave the pipe alone"
        )

    def _write(self, message: bytes, until: float, what: str) -> None:
        rest = memoryview(message)
        while rest:
            if not select.select([], [self._sink], [], max(until - time.monotonic(), 0))[1]:
                raise self._late(what)
            try:
                rest = rest[os.write(self._sink, rest) :]
            except BrokenPipeError:
                raise self._ended(what) from None

    def _read(self, size: int, until: float, what: str) -> bytes:
        parts = []
        while size:
            if not select.select([self._source], [], [], max(until - time.monotonic(), 0))[0]:
                raise self._late(what)
            part = os.read(self._source, min(size, 1 << 20))
            if not part:
                raise self._ended(what)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _late(self, what: str) -> InputError:
        return self._failure(what, f"took more than {self._limits.timeout:g} seconds", "a longer --timeout")

    def _ended(self, what: str) -> InputError:
        self._child.wait()
        last = (self._folder / "errors").read_bytes().decode(errors="replace").strip().rpartition("\n")[2]
        said = f", its last line: {last}" if last else ""
        return self._failure(what, f"ended with exit code {self._child.returncode}{said}", "more --gigabytes or --cpu")

    def _failure(self, what: str, happened: str, remedy: str = "") -> InputError:
        remedy = f": if it needs that, give it {remedy}" if remedy else ": give one charge for each position"
        return InputError(f"{self._place.flag} {self._place.name} {happened} {what}{remedy}")
