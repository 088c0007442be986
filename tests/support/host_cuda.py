"""The device code of `csrc/cuda` compiled for threads of the host: what tests run where there is no GPU."""

import fcntl
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

from tests.support.places import ROOT

BUILT = ROOT / "build" / "host_cuda"
FLAGS = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-ffp-contract=off", "-Icsrc"]
KERNELS = ("-x", "c++", "csrc/cuda/device.cu", "csrc/cuda/exact.cu", "csrc/cuda/hashed.cu")


def compiler() -> str | None:
    """The C++ compiler, if there is one."""
    return shutil.which("c++") or shutil.which("g++")


def compiled(out: Path, *arguments: str) -> Path:
    """`out` of the compiler's arguments, made again if a source is newer; one process makes it, others wait."""
    folders = ("csrc", "tests", "benchmarks/limits")
    sources = [*(path for folder in folders for path in (ROOT / folder).rglob("*.[ch]*")), Path(__file__)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_name(f"{out.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists() or out.stat().st_mtime < max(path.stat().st_mtime for path in sources):
            found = compiler()
            assert found is not None
            new = out.with_name(f"{out.name}.new")
            subprocess.run([found, *FLAGS, *arguments, "-o", str(new)], check=True, cwd=ROOT)
            new.replace(out)  # a file in use is not written over
    return out


def device_check(kind: str, *flags: str) -> Path:
    """`tests/csrc/device_check.cu` for threads of the host, with the flags of a sanitizer."""
    sources = ("csrc/hashed/counts.cc", "csrc/exact/counts.cc", *KERNELS, "tests/csrc/device_check.cu")
    return compiled(BUILT / f"device_check_{kind}", "-pthread", "-O0", "-g", *flags, *sources)


@cache
def host_extension() -> ModuleType:
    """`ngram_eval._cuda` on the host: in `sys.modules` from now on."""
    return loaded("_cuda", extension(BUILT, "_cuda", "csrc/python/cuda.cc", *KERNELS))


def extension(folder: Path, name: str, *arguments: str) -> Path:
    """An extension of Python, compiled like `compiled`; torch brings the headers of pybind11."""
    includes = [sysconfig.get_path("include"), str(Path(torch.__file__).parent / "include")]
    return compiled(
        folder / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}",
        *("-fvisibility=hidden", "-shared", "-fPIC", "-pthread"),
        *(f"-isystem{path}" for path in includes),
        *arguments,
    )


def loaded(name: str, path: Path) -> ModuleType:
    """The extension `ngram_eval.name` from there: in `sys.modules` from now on."""
    spec = importlib.util.spec_from_file_location(f"ngram_eval.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[f"ngram_eval.{name}"] = module
    return module
