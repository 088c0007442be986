"""Share of the demo's time that is not the neural forward: `python -m benchmarks.demo --out FILE.md`.

Runs `python -m ngram_eval.run` with no arguments as a user would, several times, on one thread, and compares the stages
it reports, imports and loading left out. The first preset also pays for the first touch of the count tables; the ones
after it get pages that the process has had before.
"""

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.machine import describe_machine, publish


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure the demo."""

    rounds: int = 3
    """Runs; the medians are reported."""
    toy: bool = False
    """One short run, to see that the benchmark works."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


def run_demo(toy: bool) -> tuple[float, dict[str, dict[str, float]]]:
    """(wall seconds of the whole process, preset -> stage -> seconds)."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, "-m", "ngram_eval.run", "--json", str(out)]
        command += ["--max-tokens", "600"] if toy else []
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        wall = time.perf_counter() - started
        return wall, {run["preset"]: run["seconds"] for run in json.loads(out.read_text())["runs"]}


def measure(options: Options) -> str:
    """The result, as Markdown."""
    runs = [run_demo(options.toy) for _ in range(1 if options.toy else options.rounds)]
    presets = list(runs[0][1])
    neural = statistics.median(stages[presets[0]]["neural"] for _, stages in runs)
    lines = [
        "# Time of the demo",
        "",
        f"Command: `{shlex.join(['python', '-m', 'benchmarks.demo', *sys.argv[1:]])}`",
        "",
        describe_machine(),
        "",
        "| one thread | median |",
        "|---|---|",
        f"| whole process, imports included | {statistics.median(wall for wall, _ in runs):.1f} s |",
        f"| neural forward ({presets[0]}; the other presets reuse it) | {neural:.2f} s |",
    ]
    for preset in presets:
        own = statistics.median(
            sum(seconds for stage, seconds in stages[preset].items() if stage not in ("neural", "load", "samples"))
            for _, stages in runs
        )
        touch = ", first touch of the tables included" if preset == presets[0] else ""
        lines.append(f"| the evaluator's own time, {preset}{touch} | {own:.3f} s = {own / neural:.2%} of the forward |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.demo")
    publish(measure(options), options.out)


if __name__ == "__main__":
    main()
