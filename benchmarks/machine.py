"""What a result was measured on."""

import platform
from importlib.metadata import version
from pathlib import Path


def cpu_model() -> str:
    """Name of the processor, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def describe_machine(*packages: str) -> str:
    """One line: processor, Python, and the versions of numpy and other packages that matter."""
    versions = ", ".join(f"{package} {version(package)}" for package in ("numpy", *packages))
    return f"{cpu_model()}, Python {platform.python_version()}, {versions}"
