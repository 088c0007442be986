"""What scorers learned on a kept text, packed: arrays by name, in one zstd frame."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ngram_eval.errors import InputError

_MOST_BYTES = 1 << 28
_LEVEL = 19
_SEPARATOR = " "
"""Between the key of method and model, and the name of an array."""


def pack(learned: Mapping[str, Mapping[str, NDArray[Any]]]) -> bytes:
    """The arrays in their stored form; nothing of nothing."""
    arrays = {
        f"{key}{_SEPARATOR}{name}": _rounded(one) for key, named in learned.items() for name, one in named.items()
    }
    return zstandard.ZstdCompressor(level=_LEVEL).compress(save(arrays)) if arrays else b""


def _rounded(array: NDArray[Any]) -> NDArray[Any]:
    """float32 with 8 bits of its mantissa, which take a third of the bytes; others as they are."""
    if array.dtype != np.float32:
        return array
    bits = np.ascontiguousarray(array).view(np.uint32) + np.uint32(1 << 15)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def unpack(packed: bytes) -> dict[str, dict[str, NDArray[Any]]]:
    """What `pack` packed; raises `InputError` for anything else."""
    if not packed:
        return {}
    found: dict[str, dict[str, NDArray[Any]]] = {}
    try:
        if not 0 < zstandard.frame_content_size(packed) <= _MOST_BYTES:
            raise InputError("what was learned on it announces more than any release writes")
        for whole, array in load(zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False)).items():
            key, _, name = whole.rpartition(_SEPARATOR)
            found.setdefault(key, {})[name] = array
    except (zstandard.ZstdError, SafetensorError, KeyError, TypeError) as error:
        raise InputError(f"what was learned on it can't be read ({error!r})") from error
    return found
