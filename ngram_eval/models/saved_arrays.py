"""Named arrays in a file, .npz or .safetensors; shapes are known before contents are read."""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from ngram_eval.errors import refusing
from ngram_eval.files import Unchanged, require_input
from ngram_eval.text.npy import Header, npy_header


class Floats(Protocol):
    """One dimension of floats, in memory or mapped, read in slices."""

    def __len__(self) -> int: ...

    def __getitem__(self, positions: slice, /) -> NDArray[np.floating]: ...


class SavedArrays(Protocol):
    """An open file of arrays."""

    headers: dict[str, Header]

    def read(self, name: str) -> NDArray[Any]:
        """A whole array; raises `InputError` if it is damaged."""

    def floats(self, name: str) -> Floats:
        """An array of one dimension, mapped where the format allows it."""


def open_arrays(path: Path, flag: str) -> SavedArrays:
    """The arrays of an .npz or a .safetensors file; raises `InputError`, naming `flag`, for anything else."""
    require_input(path, f"check {flag}")
    return Safetensors(path, flag) if path.suffix == ".safetensors" else Npz(path, flag)


class Npz:
    """The arrays of numpy.savez, which are read into memory."""

    def __init__(self, path: Path, flag: str) -> None:
        self._path, self._flag, self.headers = path, flag, dict[str, Header]()
        with self._read_by_numpy(), zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"{member.filename} is compressed in a way that numpy.savez has not")
                with archive.open(member) as content:
                    header, _ = npy_header(content)
                    size = content.tell() + math.prod(header.shape) * header.dtype.itemsize
                if size != member.file_size:
                    raise ValueError(f"{member.filename} has {member.file_size} bytes, its header promises {size}")
                name = member.filename.removesuffix(".npy")
                if name in self.headers:  # numpy may read the other one
                    raise ValueError(f"there are two arrays {name}")
                self.headers[name] = header

    def read(self, name: str) -> NDArray[Any]:
        """The whole array, its checksum verified."""
        with self._read_by_numpy(), np.load(self._path, allow_pickle=False) as arrays:
            array: NDArray[Any] = arrays[name]
        return array

    def floats(self, name: str) -> Floats:
        """As `read`."""
        return self.read(name)

    @contextmanager
    def _read_by_numpy(self) -> Iterator[None]:
        with refusing(self._path, "is not an .npz of plain arrays", f"check {self._flag}; numpy.savez writes them"):
            yield


class Safetensors:
    """The arrays of a .safetensors file, mapped: slices are read on demand."""

    def __init__(self, path: Path, flag: str) -> None:
        with refusing(path, "is not a safetensors file", f"check {flag}"):
            opened: Any = safe_open(path, framework="np")  # comes without types
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  # not a dictionary
        self._file, self._mapped = opened, Unchanged([path])
        self.headers = {
            name: Header(tuple(one.get_shape()), np.dtype(_DTYPES.get(one.get_dtype(), "V1")))
            for name, one in slices.items()
        }

    def read(self, name: str) -> NDArray[Any]:
        """The whole array."""
        array: NDArray[Any] = self._file.get_tensor(name)
        return array

    def floats(self, name: str) -> Floats:
        """The array, read slice by slice."""
        return _Mapped(self._file.get_slice(name), self._mapped)


_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32}


class _Mapped:
    """A tensor of a safetensors file, as `Floats`."""

    def __init__(self, tensor: Any, file: Unchanged) -> None:
        self._tensor, self._length, self._file = tensor, int(tensor.get_shape()[0]), file

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, positions: slice) -> NDArray[np.floating]:
        start, stop, _ = positions.indices(self._length)
        if stop <= start:
            return np.zeros(0)
        self._file.check()  # the system kills who reads a mapping beyond the end of its file
        part: NDArray[np.floating] = self._tensor[start:stop]
        return part
