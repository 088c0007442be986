"""Waits for loads are read from SASS: of a few lines written by hand, whose waits are plain."""

import pytest

from benchmarks.gpu.waits import Waits, load_waits

TOGETHER = ["LDG.E R2, desc[UR4][R8.64]", "LDG.E.64 R4, desc[UR4][R10.64]", "IADD3 R6, R2, R5, RZ"]
LINED_UP = [
    "LDG.E R2, desc[UR4][R8.64]",
    "IMAD.WIDE R4, R2, 0x4, R10",
    "LDG.E R6, desc[UR4][R4.64]",
    "IADD3 R7, R6, 0x1, RZ",
]
MASKED = [
    "LDG.E R2, desc[UR4][R8.64]",
    "ISETP.GE.AND P0, PT, R2, RZ, PT",
    "@!P0 LDG.E R6, desc[UR4][R8.64]",
    "STG.E R9, R6",
]
LOOP = ["MOV R3, RZ", "LDG.E R2, desc[UR4][R8.64]", "IADD3 R3, R3, R2, RZ", "@P1 BRA 0x10"]
UNUSED = ["LDG.E R2, desc[UR4][R8.64]", "STG.E R9, R7"]


@pytest.mark.parametrize(
    ("lines", "waits"),
    [(TOGETHER, (1, 0)), (LINED_UP, (2, 0)), (MASKED, (2, 0)), (LOOP, (1, 1)), (UNUSED, (0, 0))],
)
def test_loads_that_need_each_other_are_lined_up(lines: list[str], waits: tuple[int, int]) -> None:
    sass = "\n".join(f"        /*{16 * i:04x}*/   {line} ;   /* 0x0 */" for i, line in enumerate([*lines, "EXIT"]))
    assert load_waits(sass) == Waits(*waits)
