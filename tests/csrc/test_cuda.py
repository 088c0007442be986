"""The CUDA code without a GPU: its algorithm on threads of the host, under sanitizers; its build; what it says."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import cuda_report
from tests.support.host_cuda import compiler, device_check
from tests.support.places import ROOT

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "flags", "cases", "threads"),
    [
        ("address", ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"), 60, 1),
        ("thread", ("-fsanitize=thread",), 3, 3),
    ],
)
def test_the_algorithm_under_sanitizers(kind: str, flags: tuple[str, ...], cases: int, threads: int) -> None:
    """Against the C++ backend, on random streams; ThreadSanitizer sees every access that no barrier orders."""
    check = device_check(kind, *flags)
    done = subprocess.run([check, str(cases), str(threads)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{cases} cases of each kind on threads of the host: no difference" in done.stdout


NO_GPU = r"--backend cuda found no GPU \(.*, built with CUDA \d+\.\d+\): use --backend cpu"


def said_by(environment: dict[str, str], *command: str) -> tuple[int, str]:
    """(exit status, stderr) of a python command."""
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env={**os.environ, **environment}, cwd=ROOT
    )
    return done.returncode, done.stderr


NOT_BUILT = """
import sys
sys.modules["ngram_eval._cuda"] = None
sys.argv = ["run", "--backend", "cuda", "--preset", "hashed"]
from ngram_eval.run import main
main()
"""


@pytest.mark.usefixtures("evaluate")  # so that it is skipped where the command line can't run
def test_an_installation_without_it_says_how_to_build_it() -> None:
    code, error = said_by({}, "-c", NOT_BUILT)
    assert code == 2
    assert re.search(r"--backend cuda is not part of this installation .*NGRAM_EVAL_CUDA=1 pip install -e \.", error)
    assert len(error.strip().splitlines()) == 1


STAND_IN = """
import sys, types
names = {"Pybind11Extension": lambda *_, **__: None, "build_ext": object, "setup": None}
sys.modules["stand_in"] = types.SimpleNamespace(**names)
"""


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"NGRAM_EVAL_CUDA": "yes"}, "NGRAM_EVAL_CUDA is 'yes': give 1, 0 or auto"),
        ({"NGRAM_EVAL_CUDA": "1", "CUDA_HOME": "/nowhere"}, "there is no nvcc: install the CUDA toolkit"),
    ],
)
def test_a_build_that_cannot_be_says_why(environment: dict[str, str], message: str) -> None:
    """setup.py is run as far as its decision: what it imports need not be installed here."""
    script = re.sub(r"from (pybind11|setuptools)\S* import", "from stand_in import", (ROOT / "setup.py").read_text())
    code, error = said_by(environment, "-c", STAND_IN + script)
    assert code != 0
    assert message in error


@needs_nvcc
@pytest.mark.slow
def test_the_kernels_compile_for_gpus_and_spill_nothing(tmp_path: Path) -> None:
    """For one target; the slow test takes all. As in the report (`benchmarks/results/cuda_report.md`)."""
    found = cuda_report.compile_all(["90"], tmp_path)
    check_compiled(found, 1)


@needs_nvcc
@pytest.mark.slow
def test_the_kernels_compile_for_every_gpu(tmp_path: Path) -> None:
    check_compiled(cuda_report.compile_all(["80", "90", "100"], tmp_path), 3)


def check_compiled(found: list[cuda_report.Compiled], targets: int) -> None:
    names = {one.kernel for one in found}
    assert {"Update", "Lookup", "MatchWindows", "Charge", "Insert", "Count", "Recall", "Settle", "Look"} <= names
    assert len({one.target for one in found}) == targets
    assert not [one for one in found if one.spilled_bytes]
    assert all(one.registers <= 128 for one in found)
    atomics = [name for one in found for name in one.atomics]
    assert any(name.startswith("RED") for name in atomics)
    assert not [name for name in atomics if re.search(r"F16|F32|F64|BF16", name)], "no float is added atomically"


@pytest.mark.usefixtures("evaluate")
@pytest.mark.skipif(find_spec("ngram_eval._cuda") is None, reason="this installation has no CUDA extension")
@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_the_installed_extension_says_that_there_is_no_gpu() -> None:
    code, error = said_by({}, "-m", "ngram_eval.run", "--backend", "cuda", "--preset", "hashed")
    assert code == 2
    assert re.search(NO_GPU, error)
    assert len(error.strip().splitlines()) == 1


@needs_nvcc
@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_the_extension_is_built_imports_without_a_gpu_and_says_so(tmp_path: Path) -> None:
    """As `NGRAM_EVAL_CUDA=1 pip install` builds it, for all targets, in less than three minutes of a quiet machine."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, env={**os.environ, "NGRAM_EVAL_CUDA": "1"})
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    unpack = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(wheel)]
    subprocess.run(unpack, check=True)
    assert wheel.stat().st_size < 4_000_000
    code, error = said_by(
        {"PYTHONPATH": str(installed)}, "-P", "-m", "ngram_eval.run", "--backend", "cuda", "--preset", "hashed"
    )
    assert code == 2
    assert re.search(NO_GPU, error)
