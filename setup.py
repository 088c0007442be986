"""Builds the C++ extension, and where asked the CUDA one. Everything else about the package is in pyproject.toml.

NGRAM_EVAL_CUDA        1: with nvcc, which must be there; auto: if nvcc is there; 0 (default): not
NGRAM_EVAL_CUDA_ARCHS  what to compile for, default "80;90;100+PTX"; PTX runs on later GPUs too
CUDA_HOME              where CUDA is; default: where nvcc of the PATH is
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

HEADERS = [str(path) for path in Path("csrc").rglob("*.h")]
ARCHS = "80;90;100+PTX"
CUDA_SOURCES = ["csrc/python/cuda.cc"]
SOURCES = [path for path in sorted(map(str, Path("csrc").rglob("*.cc"))) if path not in CUDA_SOURCES]
KERNELS = ["csrc/cuda/device.cu", "csrc/cuda/exact.cu", "csrc/cuda/hashed.cu"]
INCLUDES = ["csrc"]
# Products and sums are rounded apart, as on the host.
NVCC_FLAGS = [
    "-std=c++20",
    "-O3",
    "--fmad=false",
    "--expt-relaxed-constexpr",
    "-Xcompiler=-fPIC,-fvisibility=hidden",
    "-Icsrc",
]


def find_nvcc() -> str | None:
    """The CUDA compiler, if there is one."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc", path=f"{home}/bin") if home else shutil.which("nvcc")


def with_cuda() -> bool:
    """Whether to build the CUDA extension."""
    asked = os.environ.get("NGRAM_EVAL_CUDA", "0")
    if asked not in ("0", "1", "auto", ""):
        raise SystemExit(f"NGRAM_EVAL_CUDA is {asked!r}: give 1, 0 or auto")
    if asked == "1" and find_nvcc() is None:
        raise SystemExit(
            "NGRAM_EVAL_CUDA is 1, but there is no nvcc: install the CUDA toolkit (12.8 or later), set CUDA_HOME or "
            "PATH to it, or leave NGRAM_EVAL_CUDA out"
        )
    return asked in ("1", "auto") and find_nvcc() is not None


def gencode(archs: str) -> list[str]:
    """Nvcc's flags for architectures such as "80;90;100+PTX"."""
    flags = []
    for arch in archs.split(";"):
        parsed = re.fullmatch(r"(\d+[af]?)(\+PTX)?", arch)
        if parsed is None:
            raise SystemExit(f"NGRAM_EVAL_CUDA_ARCHS is {archs!r}: give numbers such as {ARCHS!r}")
        number, ptx = parsed.groups()
        flags += ["-gencode", f"arch=compute_{number},code=sm_{number}"]
        if ptx:
            flags += ["-gencode", f"arch=compute_{number},code=compute_{number}"]
    return flags


def library_dirs(nvcc: str) -> list[str]:
    """Where nvcc itself would have the CUDA runtime linked from: `nvcc` may be a script that calls another."""
    said = subprocess.run([nvcc, "--dryrun", "-c", KERNELS[0]], capture_output=True, text=True, check=True).stderr
    (line,) = re.findall(r"^#\$ LIBRARIES=(.*)$", said, re.MULTILINE)
    return re.findall(r'"-L([^"]+)"', line)


class BuildExt(build_ext):
    """Compiles the kernels with nvcc, then builds the extension that they belong to like any other."""

    def build_extension(self, ext: Pybind11Extension) -> None:
        if ext.name == "ngram_eval._cuda":
            nvcc = find_nvcc()
            assert nvcc is not None
            flags = [*NVCC_FLAGS, *gencode(os.environ.get("NGRAM_EVAL_CUDA_ARCHS", ARCHS)), "--threads=0"]
            for source in KERNELS:
                kernels = Path(self.build_temp) / f"{Path(source).stem}.o"
                kernels.parent.mkdir(parents=True, exist_ok=True)
                subprocess.run([nvcc, *flags, "-c", source, "-o", str(kernels)], check=True)
                ext.extra_objects.append(str(kernels))
            ext.library_dirs += library_dirs(nvcc)
        super().build_extension(ext)


extensions = [
    Pybind11Extension(
        "ngram_eval._core",
        SOURCES,
        include_dirs=INCLUDES,
        depends=HEADERS,
        cxx_std=20,
        # psabi: vectors are passed between functions that become one.
        extra_compile_args=["-O3", "-Wall", "-Wextra", "-Wno-psabi", "-ffp-contract=off"],
    )
]
if with_cuda():
    extensions.append(
        Pybind11Extension(
            "ngram_eval._cuda",
            CUDA_SOURCES,
            include_dirs=INCLUDES,
            depends=[*HEADERS, *KERNELS],
            cxx_std=20,
            extra_compile_args=["-O3", "-Wall", "-Wextra"],
            libraries=["cudart_static", "rt", "dl", "pthread"],  # static: it imports where no CUDA is
        )
    )

setup(ext_modules=extensions, cmdclass={"build_ext": BuildExt})
