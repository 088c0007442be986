"""What a result was measured on, and where it goes."""

import os
import platform
import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import numpy as np

from ngram_eval.files import replacing

KEPT_FROM = "\n## Reading the figures\n"
"""A result file is written by hand from here on, and that part is kept."""


def publish(text: str, out: Path | None) -> None:
    """Print the Markdown, or write it to `out` and keep what was written there by hand."""
    if out is None:
        print(text, end="")
        return
    if out.exists():
        _, heading, kept = out.read_text(encoding="utf-8").partition(KEPT_FROM)
        text += heading + kept
    with replacing(out) as file:
        file.write(text.encode())


def publish_lines(lines: Iterable[str], out: Path | None) -> None:
    """The same of lines that take long: each is shown on stderr when it is known."""
    found = []
    for line in lines:
        print(line, file=sys.stderr, flush=True)
        found.append(line)
    publish("\n".join(found) + "\n", out)


def describe_machine() -> str:
    """Date, processor, cores, and the versions that matter, in one line."""
    from ngram_eval import _core  # here and not above: benchmarks/gpu/suite.sh may have to do without

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    return (
        f"{date.today().isoformat()}, {model}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}, numpy {np.__version__}, {_core.compiler}"
    )
