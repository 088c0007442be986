"""The limit of the table of exact counts on a device: random keys."""

import ctypes
import os
from functools import cache

import torch

from benchmarks.limits import CXX_FLAGS, compiled, found

NVCC_FLAGS = ["-std=c++20", "-O3", "--expt-relaxed-constexpr", "-Xcompiler=-fPIC"]
FULLEST = 0.9  # of a table: in a full one a look-up would not end


@cache
def _keys(on_host: bool) -> ctypes.CDLL:
    if on_host:
        library = compiled("random_keys.cu", found("c++"), *CXX_FLAGS, "-x", "c++")
    else:
        home = os.environ.get("CUDA_HOME")
        arch = "{}{}".format(*torch.cuda.get_device_capability())
        target = ["-gencode", f"arch=compute_{arch},code=sm_{arch}", "-shared", "-cudart", "static"]
        library = compiled("random_keys.cu", found("nvcc", f"{home}/bin" if home else None), *NVCC_FLAGS, *target)
    library.keys_new.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_int]
    library.keys_new.restype = ctypes.c_void_p
    library.keys_delete.argtypes = library.keys_found.argtypes = [ctypes.c_void_p]
    library.keys_add.argtypes = library.keys_find.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]
    library.keys_delete.restype = library.keys_add.restype = library.keys_find.restype = None
    library.keys_found.restype = ctypes.c_uint64
    return library


class RandomKeys:
    """Random keys in the table of exact counts, nothing else. A failure of the device ends the process."""

    def __init__(self, *, on_host: bool, device: int, slots: int, lanes: int) -> None:
        if slots < 8 or slots & (slots - 1):
            raise ValueError(f"slots is {slots}: give a power of two from 8")
        if lanes not in (1, 2, 4, 8):
            raise ValueError(f"lanes is {lanes}: give 1, 2, 4 or 8")
        self._slots, self._library = slots, _keys(on_host)
        self._keys = self._library.keys_new(device, slots, lanes)

    def __del__(self) -> None:
        if hasattr(self, "_keys"):
            self._library.keys_delete(self._keys)

    def add(self, begin: int, end: int) -> None:
        """Add the keys numbered `begin` to `end` - 1; the call does not wait for a GPU."""
        if not 0 <= begin <= end <= FULLEST * self._slots:
            raise ValueError(f"keys {begin} to {end}: {self._slots} slots take the first {FULLEST:.0%} of as many")
        self._library.keys_add(self._keys, begin, end)

    def find(self, begin: int, end: int) -> None:
        """Look them up."""
        if not 0 <= begin <= end < 1 << 63:
            raise ValueError(f"keys {begin} to {end}: give 0 to 2^63 - 1, in order")
        self._library.keys_find(self._keys, begin, end)

    def found(self) -> int:
        """How many keys `find` has found, all calls together."""
        return int(self._library.keys_found(self._keys))
