"""The header of an .npy, read before anything is believed of its size: numpy's own readers believe it."""

from typing import IO, Any, NamedTuple

import numpy as np

_npy: Any = np.lib.format  # comes without types
MAGIC: bytes = _npy.MAGIC_PREFIX
NOT_NPY = ("is not an .npy of plain numbers", "write it with numpy.save")
"""What is said of a file that `npy_header` raises for (`ngram_eval.errors.refusing`)."""


class Header(NamedTuple):
    """Shape and dtype of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def npy_header(content: IO[bytes]) -> tuple[Header, bool]:
    """(what the array of an .npy is, whether it lies column by column); raises anything where it is none.

    `content` is read to the end of the header. Nothing is known of the size of what follows.
    """
    read_header = {(1, 0): _npy.read_array_header_1_0, (2, 0): _npy.read_array_header_2_0}
    shape, by_column, dtype = read_header[_npy.read_magic(content)](content)
    if dtype.hasobject or dtype.itemsize == 0 or min(shape, default=0) < 0:
        raise ValueError(f"it holds {dtype} of shape {shape}")
    return Header(shape, dtype), by_column
