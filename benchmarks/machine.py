"""What a result was measured on."""

import os
import platform
from datetime import date
from pathlib import Path

import numpy as np

from ngram_eval import _core


def describe_machine() -> str:
    """Date, processor, cores, and the versions that matter, in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    return (
        f"{date.today().isoformat()}, {model}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}, numpy {np.__version__}, {_core.compiler}"
    )
