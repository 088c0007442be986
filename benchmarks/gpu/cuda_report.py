"""What does nvcc make of the CUDA kernels? `python -m benchmarks.gpu.cuda_report --out FILE.md`, without a GPU.

nvcc compiles them as `setup.py` does; registers, spills, shared memory and the instructions that touch memory are read
from the machine code, by the disassembler that comes with Triton. Occupancy follows from registers and threads by the
limits of each GPU. Nothing is executed.
"""

import ast
import re
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import triton
import tyro

from benchmarks.machine import describe_machine, publish
from ngram_eval.errors import InputError, exit_on_input_error

ROOT = Path(__file__).parents[2]
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
WARPS = {"80": 64, "90": 64, "100": 64}
"""Warps that a multiprocessor holds; its 65,536 registers are dealt out to warps in portions of 256."""
THREADS = {"rows": 256, "groups": 256, "team": 512}
"""Of a block, by form of work (`csrc/cuda/parallel.h`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Compile the CUDA kernels and report what came out."""

    targets: tuple[str, ...] = tuple(WARPS)
    """Which of 80, 90, 100."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """One kernel on one target."""

    kernel: str
    form: str
    """`rows`, `groups<2>` ... or `team`."""
    token: str
    """Width of the tokens in bits, where there are kernels for both."""
    target: str
    registers: int
    spilled_bytes: int
    shared_bytes: int
    loads: Counter[str] = field(default_factory=Counter)
    """Global load instructions by width in bits; S for those of the device's scope."""
    atomics: Counter[str] = field(default_factory=Counter)
    """Global atomic instructions by name."""

    @property
    def occupancy(self) -> float:
        """Share of the warps that a multiprocessor holds at most: what registers and threads leave room for."""
        threads = THREADS[self.form.split("<")[0]]
        portion = -(-self.registers * 32 // 256) * 256
        blocks = min(65536 // portion // (threads // 32), WARPS[self.target] * 32 // threads)
        return blocks * threads / 32 / WARPS[self.target]


def of_setup(name: str) -> list[str]:
    """A list of `setup.py`, which can't be imported: it builds."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            value: list[str] = ast.literal_eval(node.value)
            return value
    raise AssertionError(f"setup.py has no {name}")


def compile_all(targets: list[str], folder: Path) -> list[Compiled]:
    """Every kernel for every target; raises `CalledProcessError` when nvcc fails."""
    found = []
    for target, source in product(targets, of_setup("KERNELS")):
        cubin = folder / f"{Path(source).stem}_{target}.cubin"
        arch = ["-gencode", f"arch=compute_{target},code=sm_{target}", "-cubin"]
        subprocess.run(["nvcc", *of_setup("NVCC_FLAGS"), *arch, source, "-o", str(cubin)], check=True, cwd=ROOT)
        usage, sass = (
            subprocess.run([TOOLS / "cuobjdump", flag, cubin], capture_output=True, text=True, check=True).stdout
            for flag in ("--dump-resource-usage", "-sass")
        )
        code = {
            name: body for name, body in re.findall(r"Function : (\S+)\n(.*?)(?=\n\s*Function : |\Z)", sass, re.DOTALL)
        }
        resources = re.findall(r"Function (\S+):\n\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
        if len(resources) != len(code):
            raise AssertionError(f"cuobjdump's resource usage has another form: {usage}")
        for name, registers, stack, shared, local in resources:
            found.append(
                Compiled(
                    *read_name(name),
                    target,
                    int(registers),
                    max(int(stack), int(local)),
                    int(shared),
                    *instructions(code[name]),
                )
            )
    return sorted(found, key=lambda one: (one.kernel, one.form, one.token, one.target))


def read_name(mangled: str) -> tuple[str, str, str]:
    """(kernel, form of work, width of the tokens) of a mangled name: names are written with their lengths."""
    form = re.search(r"6kernel\d+(rows|groups|team)I(?:Li(\d+)E)?", mangled)
    body = (
        [name[: int(size)] for size, name in re.findall(r"(?<!\d)(\d+)([A-Z]\w+)", mangled[form.end() :])]
        if form
        else []
    )
    if form is None or not body:
        raise AssertionError(f"a kernel of another form: {mangled}")
    kernel = body[-1]
    token = re.search(rf"{kernel}I([tj])E", mangled)
    lanes = f"<{form.group(2)}>" if form.group(2) else ""
    return kernel, form.group(1) + lanes, {"t": "16", "j": "32"}[token.group(1)] if token else ""


def instructions(sass: str) -> tuple[Counter[str], Counter[str]]:
    """(loads by width, atomics by name)."""
    loads: Counter[str] = Counter()
    for modifiers in re.findall(r"\bLDG?\.(\S+)", sass):
        width = re.search(r"\b(?:U?8|S8|U16|S16|64|128)\b", modifiers)
        bits = width.group().lstrip("US") if width else "32"
        loads[bits + (" S" if "STRONG.GPU" in modifiers else "")] += 1
    return loads, Counter(re.findall(r"\b((?:ATOMG?|REDG?)\.[A-Z0-9.]+)", sass))


def report(found: list[Compiled], targets: list[str]) -> str:
    """Markdown."""
    nvcc = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    (release,) = re.findall(r"release ([\d.]+)", nvcc)
    spilling = [one for one in found if one.spilled_bytes]
    lines = [
        "# What the CUDA kernels compile to",
        "",
        f"Command: `{shlex.join(['python', '-m', 'benchmarks.gpu.cuda_report', *sys.argv[1:]])}`",
        "",
        f"{describe_machine()}, nvcc {release}",
        "",
        f"{len(found)} kernels compiled for {', '.join(f'sm_{target}' for target in targets)}. Nothing was executed: "
        "no GPU was there. "
        + (f"**{len(spilling)} spill registers.**" if spilling else "None spills registers.")
        + " Registers a thread, "
        "and the share of a multiprocessor's warps that they leave room for. No kernel uses shared memory.",
        "",
        "| kernel | form | tokens, bits | " + " | ".join(f"sm_{target}" for target in targets) + " |",
        "|---|---|---|" + "---|" * len(targets),
    ]
    rows: dict[tuple[str, str, str], dict[str, Compiled]] = {}
    for one in found:
        rows.setdefault((one.kernel, one.form, one.token), {})[one.target] = one
    for key, row in rows.items():
        cells = [
            f"{row[t].registers}, {row[t].occupancy:.0%}"
            + (f", {row[t].spilled_bytes} B SPILLED" if row[t].spilled_bytes else "")
            for t in targets
        ]
        lines.append(f"| {' | '.join([*key, *cells])} |")
    last = targets[-1] if "90" not in targets else "90"
    lines += [
        "",
        f"## Loads (width in bits x instructions; S: of the device's scope) and atomics, sm_{last}",
        "",
        "| kernel | form | tokens, bits | loads | atomics |",
        "|---|---|---|---|---|",
    ]
    for key, row in rows.items():
        loads = ", ".join(f"{width} x {n}" for width, n in sorted(row[last].loads.items()))
        atomics = ", ".join(f"`{name}` x {n}" for name, n in row[last].atomics.items())
        lines.append(f"| {' | '.join([*key, loads, atomics])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line; exits with 1 if a kernel spills."""
    with exit_on_input_error(), TemporaryDirectory() as folder:
        options = tyro.cli(Options, prog="python -m benchmarks.gpu.cuda_report")
        if unknown := set(options.targets) - set(WARPS):
            raise InputError(f"--targets has {', '.join(unknown)}: choose from {', '.join(WARPS)}")
        found = compile_all(list(options.targets), Path(folder))
        publish(report(found, list(options.targets)), options.out)
        sys.exit(int(any(one.spilled_bytes for one in found)))


if __name__ == "__main__":
    main()
