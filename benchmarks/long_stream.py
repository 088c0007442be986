"""Memory of an evaluation of a stream that is never in memory: `python -m benchmarks.long_stream --out FILE.md`.

Writes shards of drawn tokens, evaluates them with the n-gram memory alone (`--uniform --preset hashed`) by the command
line, and looks at the memory of the process as it goes: its own (anonymous) pages, and those of files it has mapped,
which the system takes back when it needs them.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.machine import describe_machine, publish
from ngram_eval.text.shards import write_shard

SHARD = 100_000_000
VOCAB = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure the memory of a long evaluation."""

    tokens: int = 1_000_000_000
    """Length of the stream; its shards take twice as many bytes of disk."""
    folder: Path | None = None
    """Where the shards are written, and removed again; default: a temporary folder."""
    toy: bool = False
    """A short stream, to see that the benchmark works."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


def write_stream(folder: Path, tokens: int) -> None:
    """Shards of at most 100 M tokens; each renames the tokens of one drawn sequence, so that their n-grams differ."""
    drawn = (np.random.default_rng(0).zipf(1.2, min(SHARD, tokens)) % VOCAB).astype(np.uint16)
    for index, start in enumerate(range(0, tokens, SHARD)):
        write_shard(folder / f"long_{index:06}.bin", drawn[: tokens - start] ^ np.uint16(index * 37 % VOCAB))


def memory(process: int) -> tuple[float, float]:
    """(MiB of anonymous pages, MiB of mapped files) that are resident."""
    status = Path(f"/proc/{process}/status").read_text()
    anonymous, mapped = (int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) for name in ("RssAnon", "RssFile"))  # type: ignore[index]
    return anonymous / 1024, mapped / 1024


def measure(options: Options) -> str:
    """The result, as Markdown."""
    tokens = 1_000_000 if options.toy else options.tokens
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_stream(Path(folder), tokens)
        out = Path(folder) / "out.json"
        arguments = ["--data", f"{folder}/long_*.bin", "--uniform", "--vocab-size", str(VOCAB), "--preset", "hashed"]
        command = [sys.executable, "-m", "ngram_eval.run", *arguments, "--json", str(out), "--threads", "1"]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seen: list[tuple[float, float, float]] = []
        while process.poll() is None:
            try:
                seen.append((time.perf_counter() - started, *memory(process.pid)))
            except (FileNotFoundError, TypeError):  # it has just ended
                break
            time.sleep(0.05 if options.toy else 1.0)
        if process.wait() != 0:
            raise RuntimeError(f"{shlex.join(command)} exited with {process.returncode}")
        wall = time.perf_counter() - started
        (run,) = json.loads(out.read_text())["runs"]
    rows = [seen[min(int(len(seen) * part / 10), len(seen) - 1)] for part in (1, 2, 4, 6, 8, 10)]
    peak = max(anonymous for _, anonymous, _ in seen)
    shown = shlex.join(["python", "-m", "benchmarks.long_stream", *sys.argv[1:]])
    lines = [
        "# A long stream",
        "",
        f"Command: `{shown}`",
        "",
        describe_machine(),
        "",
        f"{run['tokens']:,} tokens ({run['tokens'] * 2 / 2**20:,.0f} MiB) in {len(run['data'])} shard(s), one process, "
        f"{wall:.0f} seconds of the clock ({run['positions'] / wall / 1e6:.1f} M positions a second, all included). "
        "The tables take 256 MiB.",
        "",
        "| after | own memory, MiB | mapped files, MiB |",
        "|---|---|---|",
        *(f"| {seconds:.0f} s | {anonymous:,.0f} | {mapped:,.0f} |" for seconds, anonymous, mapped in rows),
        "",
        f"Largest own memory: {peak:,.0f} MiB.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.long_stream")
    if not os.path.exists("/proc/self/status"):
        raise SystemExit("error: memory is read from /proc, which this system does not have")
    publish(measure(options), options.out)


if __name__ == "__main__":
    main()
