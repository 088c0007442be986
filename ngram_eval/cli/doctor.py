"""`ngram-eval doctor`: what is installed here, what the processor and the GPU offer, and what to do about the rest."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import distributions, requires
from pathlib import Path
from typing import Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

import ngram_eval
from ngram_eval.cli.console import show_help, table_console
from ngram_eval.cli.flags import read_flags
from ngram_eval.errors import exit_on_input_error
from ngram_eval.evaluation.settings import HardwareSettings
from ngram_eval.files import STDOUT, require_writable, write_text

State = Literal["ok", "absent", "broken"]
_MARKS: dict[State, str] = {"ok": "✓", "absent": "-", "broken": "✗"}
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorOptions:
    """Say what is installed here, what the machine offers, and what to do about what is missing."""

    json: Path | None = None
    """Write the findings here; - for standard output, and the table then goes to stderr."""
    quiet: bool = False
    """Show no table."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table."""

    name: str
    state: State
    """absent: something optional is not here, or could be faster; broken: evaluations need it."""
    found: str
    remedy: str = ""
    """What to do; empty where nothing is to be done."""


def findings() -> list[Finding]:
    """Everything that was looked at, in the table's order."""
    home = Path(ngram_eval.__file__).parent
    about = Finding("ngram_eval", "ok", f"{ngram_eval.__version__}, Python {platform.python_version()}, in {home}")
    cores = [extension(), threads(cpu_limit(_CPU_LIMIT)), huge_pages(_HUGE_PAGES)]
    return [about, *packages(requires("ngram_eval") or []), *cores, gpu(), nvcc(), cuda_extension()]


def packages(required: Sequence[str]) -> Iterator[Finding]:
    """What the package requires, and each extra as one line; `required` as in its metadata."""
    extras: dict[str, list[str]] = {"": []}
    for requirement in required:
        asked, _, marker = requirement.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        elsewhere = re.search(r"platform_system == ['\"](\w+)['\"]", marker)
        if elsewhere is None or elsewhere[1] == platform.system():
            extras.setdefault(extra[1] if extra else "", []).append(asked.strip())
    for name, asked_for in extras.items():
        here = [(asked, re.split(r"[<>=!~ ]", asked)[0]) for asked in asked_for]
        wrong = [asked for asked, package in here if not _serves(asked, _version(package))]
        found = ", ".join(f"{package} {_version(package) or 'missing'}" for _, package in here)
        remedy = f"pip install 'ngram_eval[{name}]'" if name else "pip install " + " ".join(f"'{one}'" for one in wrong)
        state: State = "ok" if not wrong else "absent" if name else "broken"
        yield Finding(f"extra {name}" if name else "packages", state, found, remedy if wrong else "")


def _version(package: str) -> str | None:
    found = next(iter(distributions(name=package)), None)
    return None if found is None else found.version


def _serves(asked: str, version: str | None) -> bool:
    """Whether a version is at least the one of `name>=1.2`, or the one of `name==1.2`."""
    if version is None:
        return False
    at_least, exactly = (re.search(rf"{sign}([\d.]+)", asked) for sign in (">=", "=="))
    if exactly is not None:
        return version.split("+")[0] == exactly[1]
    return at_least is None or _numbers(version) >= _numbers(at_least[1])


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version.split("+")[0])]


def extension() -> Finding:
    """The C++ extension and its instruction set."""
    try:
        core = import_module("ngram_eval._core")
    except ImportError as error:
        remedy = "pip install -e . in the checkout, with a C++20 compiler; or --backend reference, which is slow"
        return Finding("C++ extension", "broken", f"can't be imported: {error}", remedy)
    return Finding("C++ extension", "ok", f"{core.simd}, by {core.compiler}")


def cpu_limit(path: Path) -> float | None:
    """Processors that the container may use at once; None where it has no limit."""
    if not path.exists():
        return None
    quota, period = path.read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def threads(limit: float | None) -> Finding:
    """The threads that the count tables would use, beside the processors there are."""
    used = HardwareSettings().count_threads()
    found = f"{used} for the count tables, of {os.cpu_count()} processors"
    if limit is not None and used > limit:
        allowed = max(1, int(limit))
        return Finding("threads", "absent", f"{found}; this container may use {limit:g}", f"OMP_NUM_THREADS={allowed}")
    return Finding("threads", "ok", found)


def huge_pages(path: Path) -> Finding:
    """Whether large tables get huge pages, without which most hits walk the page table as well."""
    if not path.exists():
        return Finding("huge pages", "absent", f"{platform.system()} is not asked for any: tables are hit more slowly")
    (chosen,) = re.findall(r"\[(\w+)\]", path.read_text())
    if chosen == "never":
        return Finding("huge pages", "absent", "never", f"echo madvise | sudo tee {path}")
    return Finding("huge pages", "ok", chosen)


def gpu() -> Finding:
    """The GPUs that torch can use."""
    if _version("torch") is None:
        return Finding("GPU", "absent", "not looked for: there is no torch", "pip install torch")
    import torch  # takes seconds

    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        found = ", ".join(f"{one.name} ({one.total_memory / 2**30:.0f} GiB)" for one in cards)
        return Finding("GPU", "ok", f"{found}; torch {torch.__version__}: --backend triton, --device cuda")
    if shutil.which("nvidia-smi") is None:
        return Finding("GPU", "absent", f"none, torch {torch.__version__}")
    remedy = "install a CUDA build of torch, or a driver that it fits (nvidia-smi shows the driver's CUDA)"
    return Finding("GPU", "absent", f"there is an NVIDIA driver, and torch {torch.__version__} finds no GPU", remedy)


def nvcc() -> Finding:
    """The CUDA compiler."""
    home = os.environ.get("CUDA_HOME")
    path = shutil.which("nvcc", path=f"{home}/bin") if home else shutil.which("nvcc")
    if path is None:
        where = f"none in {home}/bin (CUDA_HOME)" if home else "none on the PATH"
        return Finding("nvcc", "absent", f"{where}; only building --backend cuda needs it")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release ([\d.]+)", said)
    return Finding("nvcc", "ok", f"{release[1] if release else 'of an unknown release'}, {path}")


def cuda_extension() -> Finding:
    """The extension of --backend cuda."""
    try:
        core = import_module("ngram_eval._cuda")
    except ModuleNotFoundError:
        return Finding("CUDA extension", "absent", "not built", "where nvcc is: NGRAM_EVAL_CUDA=1 pip install -e .")
    except ImportError as error:
        return Finding("CUDA extension", "absent", f"can't be imported: {error}", "NGRAM_EVAL_CUDA=1 pip install -e .")
    problem = None if core.on_host else core.problem()
    if problem:
        return Finding("CUDA extension", "absent", f"built, but it finds no GPU: {problem}", "--backend cpu")
    return Finding("CUDA extension", "ok", "built for the host, for tests" if core.on_host else "built")


def print_findings(found: Sequence[Finding], console: Console) -> None:
    """The table, and one line that says whether evaluations run here."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("", "", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for one in found:
        table.add_row(_MARKS[one.state], one.name, one.found, one.remedy)
    console.print(table)
    broken = [one.name for one in found if one.state == "broken"]
    console.print(f"Evaluations need: {', '.join(broken)}." if broken else "Evaluations run here.")


HELP = """\
Say what is installed here, what the machine offers, and what to do about what is missing.

example
  {prog} --json found.json

output
  --json FILE         the findings; - for stdout
  --quiet             no table

exit codes: 0 evaluations run here; 1 something that they need is missing
"""


def main(arguments: Sequence[str], prog: str) -> None:
    """The command line."""
    given = list(arguments)
    with exit_on_input_error():
        show_help(given, HELP, prog)
        options = read_flags(partial(tyro.cli, DoctorOptions), given, prog)
        require_writable("--json", options.json)
        found = findings()
        if options.json is not None:
            write_text(options.json, json.dumps({"findings": [asdict(one) for one in found]}, indent=2) + "\n")
        print_findings(found, table_console(quiet=options.quiet, stdout_taken=options.json == STDOUT))
    if any(one.state == "broken" for one in found):
        sys.exit(1)
