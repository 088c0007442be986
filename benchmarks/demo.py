"""Share of the demo's time that is not the neural forward: `python -m benchmarks.demo --out FILE.md`.

Runs `python -m ngram_eval.run` with no arguments as a user would, several times, on one thread, and compares the stages
it reports. Imports are left out, and so is the first touch of the count tables, which the second preset does not pay.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.machine import describe_machine


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure the demo."""

    rounds: int = 3
    """Runs; the medians are reported."""
    toy: bool = False
    """One short run, to see that the benchmark works."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


def measure(options: Options) -> list[tuple[float, dict[str, dict[str, float]]]]:
    """(wall seconds of the process, preset -> stage -> seconds) of each run."""
    runs = []
    for _ in range(1 if options.toy else options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.json"
            command = [sys.executable, "-m", "ngram_eval.run", "--json", str(out)]
            command += ["--max-tokens", "1100"] if options.toy else []
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            wall = time.perf_counter() - started
            runs.append((wall, {run["preset"]: run["seconds"] for run in json.loads(out.read_text())["runs"]}))
    return runs


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.demo")
    runs = measure(options)
    presets = list(runs[0][1])
    lines = [
        "# Time of the demo",
        "",
        f"Command: `OMP_NUM_THREADS=1 {' '.join(['python -m benchmarks.demo', *sys.argv[1:]])}`",
        f"{describe_machine()}",
        "",
        "| | median |",
        "|---|---|",
        f"| whole process, imports included | {statistics.median(wall for wall, _ in runs):.1f} s |",
    ]
    first, later = presets[0], presets[1:]
    neural = statistics.median(seconds[first]["neural"] for _, seconds in runs)
    lines.append(f"| neural forward ({first}; the others reuse it) | {neural:.2f} s |")
    for preset in presets:
        own = statistics.median(
            sum(s[preset].values()) - s[preset]["neural"] - s[preset].get("load", 0) for _, s in runs
        )
        lines.append(f"| the evaluator's own time, {preset} | {own:.3f} s = {own / neural:.2%} of the forward |")
    lines.append("")
    lines.append(f"{first} touches fresh table memory; {', '.join(later)} use pages the process has had before.")
    text = "\n".join(lines) + "\n"
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
