"""Evaluations by real processes: torchrun, gloo, the command line."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def launch(
    world: int,
    *arguments: object,
    module: tuple[str, ...] = ("-m", "ngram_eval.run"),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> "subprocess.Popen[str]":
    """Start an evaluation on `world` ranks, in a session of its own."""
    command = [*TORCHRUN, f"--nproc_per_node={world}", *module, *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]", timeout: float = 120) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) once it has ended; kills what is left of it at the time limit."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        destroy(process)
    return process.returncode, out, err


def destroy(process: "subprocess.Popen[str]") -> None:
    """Kill torchrun and every rank at once."""
    for pid in [process.pid, *rank_processes(process).values()]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def rank_processes(process: "subprocess.Popen[str]") -> dict[int, int]:
    """Rank -> process number, of the ranks that run."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) != process.pid:
                continue
            environment = dict(
                entry.split("=", 1) for entry in (folder / "environ").read_text().split("\0") if "=" in entry
            )
            found[int(environment["RANK"])] = int(folder.name)
        except (FileNotFoundError, ProcessLookupError, PermissionError, KeyError):
            continue
    return found


def wait_for(folder: Path, pattern: str, timeout: float = 60) -> None:
    """Wait until a file of that name is there."""
    until = time.monotonic() + timeout
    while not list(folder.glob(pattern)):
        assert time.monotonic() < until, f"no {pattern} in {folder} after {timeout} s: {list(folder.glob('**/*'))}"
        time.sleep(0.02)
