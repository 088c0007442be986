"""What does Triton's compiler make of the kernels? `python -m benchmarks.gpu.aot_report --out FILE.md`, without a GPU.

Every launch function of `ngram_eval.kernels` is called as it is on a GPU, with tensors of the host and a stand-in for
Triton's driver: the kernels are specialised and compiled for each target, and "launched" into nothing. Registers,
spills, shared memory and the instructions that touch memory are read from the machine code. Nothing is executed, so
nothing here says that a result is right or fast. Needs `TRITON_INTERPRET` unset.
"""

import re
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
import tyro
from triton.backends.compiler import GPUTarget

from benchmarks.gpu.waits import Waits, load_waits
from benchmarks.machine import describe_machine, publish
from ngram_eval.config import GateConfig, NgramConfig
from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.kernels import buckets, paths, score_windows, stats, tables
from ngram_eval.kernels.gating import gate_constants
from ngram_eval.kernels.runtime import INTERPRETED

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Compile every kernel variant and report what came out."""

    targets: tuple[str, ...] = tuple(TARGETS)
    """Which of sm_80, sm_90, sm_100, gfx942."""
    variants: str = ""
    """Only variants whose name this regular expression finds."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


class _Driver:
    """Stands in for Triton's driver: kernels are compiled for `target`, and launching them does nothing."""

    def __init__(self, target: GPUTarget, device: int) -> None:
        self._target, self._device = target, device
        self.utils = self
        self.launcher_cls = lambda source, metadata: lambda *arguments: None

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return self._device  # one a target: Triton caches compiled kernels by device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 1 << 30}

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        return 1, 1, 0, 0, 1024  # module, function, registers, spills, threads

    def unload_module(self, module: int) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Compiled:
    """One kernel variant on one target."""

    kernel: str
    variant: str
    target: str
    registers: int
    spilled_bytes: int
    shared_bytes: int
    loads: Counter[str]
    """Global load instructions by width in bits."""
    atomics: Counter[str]
    """Global atomic instructions by name."""
    waits: Waits | None
    """For global loads, one after another; None where it is not read."""


KERNELS = (
    tables.update_kernel,
    tables.lookup_kernel,
    buckets.bucket_kernel,
    score_windows.score_kernel,
    score_windows.add_kernel,
    stats.stats_kernel,
    paths.paths_kernel,
)


def variants() -> Iterator[tuple[str, Callable[[], None]]]:
    """(name, a call that launches it) of everything the package launches, with tensors of the sizes that matter."""
    published = NgramConfig(context_gap=True, target_backoff=True, buckets=1 << 22)
    fixed = replace(published, context_gap=False)
    count = 1024
    table = torch.zeros(1, dtype=torch.int32)  # stands for tables of any size: nothing is executed
    ids = torch.zeros((8, 2, count), dtype=torch.int32)
    listed = score_windows.Listed(*torch.zeros((3, count), dtype=torch.int64))
    gate = gate_constants(GateConfig(), _CPU)
    p_target, entropy = torch.zeros(count, dtype=torch.float64), torch.zeros(count)
    charging: dict[str, Any] = {
        "gate": gate,
        "stats": (p_target, entropy),
        "totals": score_windows.new_totals(32, _CPU),
    }
    best = tuple(torch.zeros(count, dtype=dtype) for dtype in (torch.uint8, torch.int32, torch.int32))
    for dtype, bits in ((torch.uint16, 16), (torch.int32, 32)):
        tokens = torch.zeros(1 << 16, dtype=dtype)
        for rule, config in (("gap", published), ("fixed", fixed)):
            of = f"{rule}, {bits}-bit tokens"
            yield f"a span, {of}", partial(tables.update, table, tokens, 0, 17, 50_000, config)
            yield f"a span, {of}", partial(tables.lookup, table, tokens, 0, 17, ids[:, 0], ids[:, 1], config)
            for what, results in (
                ("charged", charging),
                ("charged and kept", {**charging, "values": p_target}),
                ("matches", {"best": best}),
            ):
                for one_window in (False, True):
                    yield (
                        f"{'one window' if one_window else 'windows'}, {what}, {of}",
                        partial(
                            score_windows.score_listed,
                            table,
                            tokens,
                            0,
                            listed,
                            ids,
                            config,
                            one_window=one_window,
                            **results,
                        ),
                    )
    all_orders = replace(fixed, min_order=1)
    yield (
        "windows, charged, orders 1 to 9",
        partial(
            score_windows.score_listed, table, tokens, 0, listed, torch.cat([ids, ids[:1]]), all_orders, **charging
        ),
    )
    two = slice(0, 2)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for vocab in (256, 1024, 50_257, 131_072):
            logits = torch.zeros((2, vocab), dtype=dtype)
            reduce = partial(stats.neural_stats, logits, listed.rows[two], p_target[two], entropy[two])
            of = f"{str(dtype).removeprefix('torch.')}, V = {vocab:,}"
            yield f"softcap, {of}", partial(reduce, softcap=30.0)
            yield f"no softcap, {of}", reduce
            order, rank = torch.zeros((2, vocab), dtype=torch.int32)
            branches = torch.zeros((2, (vocab - 1).bit_length()), dtype=torch.float64)
            given = (logits, listed.rows[two], order, rank, p_target[two], entropy[two], branches)
            through: Callable[..., None] = partial(paths.path_stats, *given)
            yield f"paths, softcap, {of}", partial(through, softcap=30.0)
            yield f"paths, no softcap, {of}", through


def compile_all(target: str, only: Callable[[str], object] = lambda name: True) -> Iterator[Compiled]:
    """Every kernel of the variants whose name `only` accepts, compiled for `target`; each once."""
    if INTERPRETED:
        raise InputError("TRITON_INTERPRET is set, so kernels are not compiled: unset it")
    device = 1 + list(TARGETS).index(target)
    triton.runtime.driver.set_active(_Driver(TARGETS[target], device))
    read = _from_cubin if TARGETS[target].backend == "cuda" else _from_amdgcn
    reported = {kernel: set(kernel.device_caches[device][0]) for kernel in KERNELS}
    for name, launch in variants():
        if not only(name):
            continue
        launch()
        for kernel, seen in reported.items():
            cache = kernel.device_caches[device][0]
            for key in cache.keys() - seen:
                seen.add(key)
                yield Compiled(kernel.__name__.removesuffix("_kernel"), name, target, *read(cache[key]))


Read = tuple[int, int, int, Counter[str], Counter[str], Waits | None]
"""(registers, spilled bytes, shared bytes, loads, atomics, waits)."""


def _from_cubin(kernel: Any) -> Read:
    """By the disassembler that comes with Triton."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage, sass = (
            subprocess.run([tools / "cuobjdump", flag, file.name], capture_output=True, text=True, check=True).stdout
            for flag in ("--dump-resource-usage", "-sass")
        )
    counted = {key: int(value) for key, value in re.findall(r"\b(REG|LOCAL|STACK):(\d+)", usage)}
    if not {"REG", "LOCAL", "STACK"} <= counted.keys():
        raise AssertionError(f"cuobjdump's resource usage has another form: {usage}")
    loads: Counter[str] = Counter()
    for modifiers in re.findall(r"\bLDG\.(\S+)", sass):
        width = re.search(r"\b(?:U?8|S8|U16|S16|64|128)\b", modifiers)
        loads[width.group().lstrip("US") if width else "32"] += 1
    atomics = Counter(name for name in re.findall(r"\b((?:ATOMG|ATOM|RED|REDG)\.\S+)", sass))
    spilled = max(counted["LOCAL"], counted["STACK"])
    return counted["REG"], spilled, kernel.metadata.shared, loads, atomics, load_waits(sass)


def _from_amdgcn(kernel: Any) -> Read:
    text = kernel.asm["amdgcn"]

    def note(key: str) -> int:
        return int(re.findall(rf"\.{key}:\s+(\d+)", text)[0])

    bits = {
        "ubyte": "8",
        "sbyte": "8",
        "ushort": "16",
        "sshort": "16",
        "dword": "32",
        "dwordx2": "64",
        "dwordx4": "128",
    }
    loads = Counter(bits.get(kind, kind) for kind in re.findall(r"\b(?:global|buffer)_load_([a-z0-9]+)", text))
    atomics = Counter(re.findall(r"\b((?:global|buffer)_atomic_\w+)", text))
    spilled = 4 * (note("vgpr_spill_count") + note("sgpr_spill_count"))
    return note("vgpr_count"), spilled, kernel.metadata.shared, loads, atomics, None


def report(found: list[Compiled]) -> str:
    """Markdown: what was compiled, what it takes, and which instructions touch memory."""
    targets = list(dict.fromkeys(c.target for c in found))
    by_row: dict[tuple[str, str], dict[str, Compiled]] = {}
    for c in found:
        by_row.setdefault((c.kernel, c.variant), {})[c.target] = c
    spilling = [c for c in found if c.spilled_bytes]
    lines = [
        "# What the kernels compile to",
        "",
        f"Command: `{shlex.join(['python', '-m', 'benchmarks.gpu.aot_report', *sys.argv[1:]])}`",
        "",
        f"{describe_machine()}, triton {triton.__version__}, torch {torch.__version__}",
        "",
        f"{len(found)} kernels compiled ahead of time for {', '.join(targets)}, specialised as they are launched. "
        "Nothing was executed: no GPU was there. "
        + (f"**{len(spilling)} spill registers.**" if spilling else "None spills registers."),
        "",
        "## Registers a thread, and bytes of shared memory a program",
        "",
        "| kernel | variant | " + " | ".join(targets) + " |",
        "|---|---|" + "---|" * len(targets),
    ]
    for (kernel, variant), row in by_row.items():
        lines.append(f"| {kernel} | {variant} | " + " | ".join(map(_resources, map(row.get, targets))) + " |")
    for target in targets:
        lines += [
            "",
            f"## Global loads (width in bits x instructions), waits for them, and atomics, {target}",
            "",
            "| kernel | variant | loads | waits, each loop once; a further trip of the first | atomics |",
            "|---|---|---|---|---|",
        ]
        for (kernel, variant), row in by_row.items():
            if target in row:
                loads = ", ".join(
                    f"{w} x {n}" for w, n in sorted(row[target].loads.items(), key=lambda item: int(item[0]))
                )
                atomics = ", ".join(f"`{name}` x {n}" for name, n in row[target].atomics.items())
                waits = row[target].waits
                waited = f"{waits.once}; {waits.again}" if waits else "-"
                lines.append(f"| {kernel} | {variant} | {loads} | {waited} | {atomics} |")
    return "\n".join(lines) + "\n"


def _resources(compiled: Compiled | None) -> str:
    if compiled is None:
        return "-"
    spilled = f", {compiled.spilled_bytes} B SPILLED" if compiled.spilled_bytes else ""
    return f"{compiled.registers}, {compiled.shared_bytes} B{spilled}"


def main() -> None:
    """The command line; exits with 1 if a kernel spills."""
    with exit_on_input_error():
        options = tyro.cli(Options, prog="python -m benchmarks.gpu.aot_report")
        unknown = set(options.targets) - set(TARGETS)
        if unknown:
            raise InputError(f"--targets has {', '.join(unknown)}: choose from {', '.join(TARGETS)}")
        of_name = partial(re.search, options.variants)
        found = [compiled for target in options.targets for compiled in compile_all(target, of_name)]
        publish(report(found), options.out)
        sys.exit(int(any(c.spilled_bytes for c in found)))


if __name__ == "__main__":
    main()
