"""The kernels compile for GPUs and spill no registers; the interpreter accepts what the compiler rejects."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.aot_report import compile_all
from ngram_eval.errors import InputError
from ngram_eval.kernels.runtime import INTERPRETED

OTHER_TRITONS = ["3.6.0", "3.9.0"]


def compile_for(*targets: str, cache: Path, path: Path | None = None, variants: str = "") -> str:
    """The report; raises `CalledProcessError` when a kernel does not compile or spills."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(cache)
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, "-m", "benchmarks.gpu.aot_report", "--targets", *targets, "--variants", variants]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


def check_report(report: str, targets: int) -> None:
    assert "None spills registers." in report
    cells = r" \| \d+, \d+ B" * targets
    rows = re.findall(rf"^\| (\w+) \| [^|]+{cells} \|$", report, re.MULTILINE)
    assert {"update", "lookup", "bucket", "score", "add", "stats", "paths"} <= set(rows)
    adding = [line for line in report.splitlines() if line.startswith(("| update", "| add")) and "`" in line]
    assert adding, "the tables are added to by atomics"
    assert not re.search(r"`[^`]*(?:F16|F32|F64|BF16|_f(?:16|32|64)|pk_)[^`]*`", report), "no float is added atomically"


def test_kernels_compile_without_spills(tmp_path: Path) -> None:
    """One of each kernel and form, for one target; the slow test takes all."""
    of_logits = "^softcap, float32, V = 1,024|^no softcap, bfloat16, V = 1,024|^paths, softcap, bfloat16, V = 1,024"
    variants = f"charged, fixed, 16|span, fixed, 16|{of_logits}"
    report = compile_for("sm_90", cache=tmp_path, variants=variants)
    check_report(report, 1)
    ((once, again),) = set(re.findall(r"^\| score \| windows.* \| (\d+); (\d+) \|", report, re.MULTILINE))
    assert int(once) <= 4, "what needs no other load is asked for with the first"
    assert int(again) == 1, "a trip over earlier positions waits once"


@pytest.mark.slow
def test_kernels_compile_for_every_target(tmp_path: Path) -> None:
    check_report(compile_for("sm_80", "sm_90", "sm_100", "gfx942", cache=tmp_path), 4)


@pytest.mark.slow
@pytest.mark.parametrize("version", OTHER_TRITONS)
def test_other_versions_of_triton(version: str, tmp_path: Path) -> None:
    """They compile and interpret the kernels alike."""
    packages = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages)]
    subprocess.run([*install, f"triton=={version}"], check=True)
    report = compile_for("sm_90", cache=tmp_path / "cache", path=packages)
    assert f"triton {version}," in report
    check_report(report, 1)
    # Triton 3.6's own interpreter uses what numpy has deprecated.
    options = ["-q", "-x", "-m", "not slow", "-W", "ignore::DeprecationWarning"]
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    for tests in (
        ["tests/kernels/test_kernels.py", "tests/scorers/test_device.py"],
        ["tests/scorers/test_conformance.py", "-k", "triton"],
    ):
        subprocess.run([sys.executable, "-m", "pytest", *options, *tests], check=True, env=environment)


def test_the_report_refuses_the_interpreter() -> None:
    if not INTERPRETED:
        pytest.skip("kernels are not interpreted here")
    with pytest.raises(InputError, match="TRITON_INTERPRET is set"):
        next(compile_all("sm_90"))
