"""Ends every rank when one of them fails, is killed, is stopped or can't be reached, with one message that names it.

Each rank has a thread that every half second writes a sign of life to the store of the process group and reads those of
the others. On one host it also checks the other processes, so it detects a killed one at once. A rank that is stopped,
or on another host, is lost when it gives no sign of life for `timeout` seconds. A rank that fails announces this in the
store. The first rank to announce a failure prints it; then every rank ends with the same exit code.

The thread ends the process with `os._exit`: the main thread may be inside an exchange that no exception can reach.
Files are therefore only ever replaced whole (`ngram_eval.files`).
"""

import json
import os
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # public, but defined in C++

from ngram_eval.errors import FAILED, TERMINATED, InputError

BEAT = 0.5
"""Seconds between signs of life."""
_SUSPECT = 3.0
"""Seconds without a sign of life after which a rank counts as lost, once an exchange has failed or SIGTERM came."""
_LEFT = "left"
"""The last sign of life of a rank that ends in good order."""
_CAUSE = 10.0
"""Seconds to find out which rank was lost."""


class Watch:
    """The thread of a rank; call `close` to leave in good order."""

    def __init__(self, rank: int, world: int, timeout: float) -> None:
        self.rank, self.world, self._timeout = rank, world, timeout
        self._store, self._waiting_store = self._connect(), self._connect()  # a store is for one thread at a time
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._alarm_since: float | None = None
        self._speaking = False
        self._others = [r for r in range(world) if r != rank]
        self._processes: dict[int, list[object]] = {}
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._store.set(f"process/{rank}", json.dumps([_boot(), os.getpid()]))
        # Gets SIGTERM even while the main thread is inside an exchange: torchrun sends it when a rank has died.
        self._woken, waker = socket.socketpair()
        waker.setblocking(False)
        self._waker, self._old_waker = waker, signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        self._old_handler = signal.signal(signal.SIGTERM, lambda *_: None)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    @staticmethod
    def _connect() -> "PrefixStore":
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        client = TCPStore(host, port, is_master=False, wait_for_workers=False)
        return PrefixStore(f"ngram_eval/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", client)

    def await_all(self, patience: float) -> None:
        """Wait until every rank has its own watch; raises `InputError`, naming one that has not, after some seconds."""
        until = time.monotonic() + patience
        for rank in self._others:
            while not self._waiting_store.check([f"process/{rank}"]):
                if time.monotonic() > until:
                    raise InputError(
                        f"rank {rank} has not come within {patience:g} seconds: see why it did not start, or give a "
                        "longer --rank-timeout"
                    )
                time.sleep(BEAT / 10)

    def announce(self, message: str, code: int) -> bool:
        """Announce to every rank that the run has failed; returns whether this rank is the first, which prints it."""
        with self._lock:
            self._speaking = first = self._store.add("failures", 1) == 1
            if first:
                self._store.set("failure", json.dumps([message, code]))
        return first

    def await_cause(self, error: str) -> NoReturn:
        """After an exchange has failed: wait for the thread to find out why and end the process."""
        self._alarm()
        time.sleep(_CAUSE + 2 * BEAT)
        self._give_up(f"rank {self.rank}: lost another rank, it is unknown which ({error})", FAILED)

    def close(self) -> None:
        """Leave the group: the other ranks no longer expect signs of life of this one."""
        self._closing.set()
        self._waker.send(b"\0")
        self._thread.join()
        self._store.set(f"beat/{self.rank}", _LEFT)
        signal.set_wakeup_fd(self._old_waker)
        signal.signal(signal.SIGTERM, self._old_handler)
        self._waker.close()
        self._woken.close()

    def exit(self, code: int) -> NoReturn:
        """End the process at once."""
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[?25h")  # the cursor, which a progress bar hides
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)

    def _give_up(self, message: str, code: int) -> NoReturn:
        if self.announce(message, code):
            print(f"error: {message}", file=sys.stderr)
        self.exit(code)

    def _alarm(self) -> None:
        self._alarm_since = self._alarm_since or time.monotonic()

    def _run(self) -> None:
        beat = 0
        while not self._closing.is_set():
            try:
                beat += 1
                self._look(beat)
            except (RuntimeError, OSError) as error:  # torch's store raises either
                if self._closing.is_set():
                    return
                text = str(error).splitlines()[0]
                print(
                    f"error: rank {self.rank}: the process that holds the ranks together is gone ({text})",
                    file=sys.stderr,
                )
                self.exit(FAILED)
            if select.select([self._woken], [], [], BEAT)[0] and signal.SIGTERM in self._woken.recv(64):
                self._alarm()

    def _look(self, beat: int) -> None:
        with self._lock:
            self._store.set(f"beat/{self.rank}", str(beat))
            failure = json.loads(self._store.get("failure")) if self._store.check(["failure"]) else None
            for rank in self._others:  # a rank is watched once it has joined
                if rank not in self._processes and self._store.check([f"process/{rank}", f"beat/{rank}"]):
                    self._processes[rank] = json.loads(self._store.get(f"process/{rank}"))
                    self._seen[rank] = b"", time.monotonic()
            watched = list(self._processes)
            beats = self._store.multi_get([f"beat/{rank}" for rank in watched]) if watched else []
        if failure is not None and not self._speaking:  # else this rank announced it, prints it and exits
            self.exit(failure[1])
        now = time.monotonic()
        for rank, signs in zip(watched, beats, strict=True):
            if signs == _LEFT.encode():
                continue
            if signs != self._seen[rank][0]:
                self._seen[rank] = signs, now
            if lost := self._lost(rank, now - self._seen[rank][1]):
                self._give_up(f"rank {rank} {lost}", FAILED)
        if self._alarm_since is not None and now - self._alarm_since > _CAUSE:
            self._give_up(f"rank {self.rank}: terminated from outside (SIGTERM)", TERMINATED)

    def _lost(self, rank: int, silent: float) -> str | None:
        """The reason why a rank counts as lost; None if it does not."""
        boot, process = self._processes[rank]
        patience = self._timeout if self._alarm_since is None else min(_SUSPECT, self._timeout)
        state = _process_state(process) if boot == _boot() else None
        if state == "gone" and silent > BEAT:  # it may have announced its failure just now
            return f"was killed (its process {process} is gone)"
        if silent <= patience:
            return None
        stopped = "; its process is stopped" if state == "stopped" else ""
        return f"has given no sign of life for {silent:.0f} seconds{stopped}"


def _process_state(process: object) -> str:
    """State of a process on this host: gone, stopped or running."""
    try:
        os.kill(int(str(process)), 0)
        status = Path(f"/proc/{process}/stat")
        letter = status.read_text().rpartition(")")[2].split()[0] if Path("/proc/self/stat").exists() else ""
    except (ProcessLookupError, FileNotFoundError):
        return "gone"
    return "gone" if letter in ("Z", "X") else "stopped" if letter in ("T", "t") else "running"


def _boot() -> str:
    """A name of the host and process namespace: equal for processes that see each other's process numbers."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return f"{boot.read_text().strip()} {os.readlink(namespace)}" if boot.exists() else socket.gethostname()
