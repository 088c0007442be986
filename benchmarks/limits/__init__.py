"""The machine's limits that benchmarks compare with: small C++ sources, compiled when a benchmark asks for them."""

import ctypes
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from ngram_eval.errors import InputError

HERE = Path(__file__).parent
INCLUDES = [f"-I{HERE.parents[1] / 'csrc'}"]
CXX_FLAGS = ["-std=c++20", "-O3", "-shared", "-fPIC", "-pthread"]
MOST_INCREMENTS = 1 << 36  # some minutes
MOST_AHEAD = 1 << 12


def compiled(name: str, *command: str) -> ctypes.CDLL:
    """The library that a compiler makes of the source `name`; seconds of a C++ compiler, a minute of nvcc."""
    with TemporaryDirectory() as folder:
        library = Path(folder) / "limit.so"
        subprocess.run([*command, *INCLUDES, str(HERE / name), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


def found(compiler: str, path: str | None = None) -> str:
    """Where a compiler is; raises `InputError` if it is nowhere."""
    where = shutil.which(compiler, path=path)
    if where is None:
        raise InputError(f"no {compiler} in {path or 'the PATH'}: the benchmark's limit can't be compiled without it")
    return where


@cache
def _increments() -> ctypes.CDLL:
    library = compiled("random_increments.cc", found("c++"), *CXX_FLAGS)
    library.random_increments.argtypes = [ctypes.c_void_p, *[ctypes.c_uint64] * 3]
    library.random_increments.restype = None
    return library


def random_increments(counts: NDArray[np.uint32], increments: int, ahead: int) -> None:
    """Random increments over all counts, each requested `ahead` increments early; other threads go on meanwhile."""
    if counts.dtype != np.uint32 or not counts.flags.c_contiguous or not counts.flags.writeable:
        raise ValueError("counts must be contiguous, writeable, uint32")
    if counts.size == 0 or counts.size & (counts.size - 1):
        raise ValueError(f"{counts.size} counts: not a power of two")
    if not (0 <= increments <= MOST_INCREMENTS and 0 <= ahead <= MOST_AHEAD):
        raise ValueError(
            f"{increments} increments requested {ahead} ahead: at most {MOST_INCREMENTS} and {MOST_AHEAD}, not negative"
        )
    _increments().random_increments(counts.ctypes.data, counts.size, increments, ahead)
