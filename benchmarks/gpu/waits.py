"""How often does a warp wait for global loads, one wait after another? Read from SASS, without a GPU.

A warp issues its instructions in their order and stops at the first that needs what a load has not yet brought. So
loads that are issued together cost one wait, and a load whose address or mask needs another's value costs one more. The
model counts these: a load takes one unit of time and anything else none. It passes every branch, and knows nothing of
caches, of other warps, or of what a wait takes.
"""

import re
from typing import NamedTuple

_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?(U?P\d)\s+)?([A-Z][\w.]*)\s*([^;]*);")
_REGISTER = re.compile(r"\b(UR|R|UP|P)(\d+)\b(\.64)?")
_NO_RESULT = ("ST", "RED", "BRA", "BAR", "EXIT")
_DOUBLE = re.compile(r"D(FMA|ADD|MUL|SETP)\b")

Register = tuple[str, int]


class Instruction(NamedTuple):
    """One line of SASS."""

    address: int
    guard: str | None
    name: str
    results: list[Register]
    operands: list[Register]
    target: int | None
    """Where a branch leads."""


class Waits(NamedTuple):
    """Waits for global loads."""

    once: int
    """From the first instruction to the first unconditional exit, the first loop being passed once."""
    again: int
    """More for each further trip of the first loop."""


def load_waits(sass: str) -> Waits:
    """The waits of a kernel, as cuobjdump -sass prints it."""
    lines = [_instruction(*found) for found in _INSTRUCTION.findall(sass)]
    stop = next(i for i, line in enumerate(lines) if line.name == "EXIT" and line.guard is None) + 1
    index = {line.address: i for i, line in enumerate(lines)}
    loop = next(
        (
            (index[line.target], i + 1)
            for i, line in enumerate(lines[:stop])
            if line.target is not None and line.target < line.address
        ),
        (0, 0),
    )
    body = lines[slice(*loop)]
    once, twice, thrice = (_waits([*lines[: loop[0]], *(body * trips), *lines[loop[1] : stop]]) for trips in (1, 2, 3))
    return Waits(once, thrice - twice)


def _instruction(address: str, guard: str, name: str, arguments: str) -> Instruction:
    parts = arguments.split(",")
    has_result = not name.startswith(_NO_RESULT)
    results = _registers(parts[0]) if has_result else []
    operands = [register for part in parts[has_result:] for register in _registers(part)]
    if _DOUBLE.match(name):
        operands += _upper(operands)
    if _DOUBLE.match(name) or re.search(r"\.(64|WIDE)\b", name):
        results += _upper(results)
    target = int(parts[-1].strip(), 16) if name == "BRA" else None
    return Instruction(int(address, 16), guard or None, name, results, operands + _registers(guard), target)


def _registers(text: str) -> list[Register]:
    found: list[Register] = []
    for kind, number, wide in _REGISTER.findall(text):
        found += [(kind, int(number) + half) for half in range(2 if wide else 1)]
    return found


def _upper(registers: list[Register]) -> list[Register]:
    return [(kind, number + 1) for kind, number in registers]


def _waits(lines: list[Instruction]) -> int:
    ready: dict[Register, int] = {}
    now = 0
    for line in lines:
        now = max([now, *(ready.get(register, 0) for register in line.operands)])
        arrives = now + line.name.startswith("LDG")
        for register in line.results:
            ready[register] = max(arrives, ready.get(register, 0)) if line.guard else arrives
    return now
