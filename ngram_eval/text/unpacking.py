"""Unpacks .zst, .gz, .bz2 and .xz files, streamed, a little at a time."""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import zstandard

from ngram_eval.errors import InputError

_PACKED_AT_ONCE = 1 << 11
"""Bytes unpacked at a time: of .zst at most 32,768 times as many come of them, of .gz 1,032 times."""
_UNPACKED_AT_ONCE = 1 << 20
"""Bytes that come of .bz2 and .xz at a time, where a few can stand for gigabytes."""
_LARGEST_WINDOW = 1 << 31
"""Window of `zstd --long=31`, the largest that the format has; and memory for .xz, whose largest preset needs 65 MB."""


class _Packing(NamedTuple):
    start: Callable[[], Any]
    """Makes an object that unpacks one frame: `decompress`, `eof`, `unused_data`."""
    limited: bool
    """Whether it takes a limit, and tells when it `needs_input`."""


_PACKINGS = {
    ".zst": _Packing(lambda: zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj(), False),
    ".gz": _Packing(lambda: zlib.decompressobj(wbits=31), False),
    ".bz2": _Packing(bz2.BZ2Decompressor, True),
    ".xz": _Packing(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LARGEST_WINDOW), True),
}
PACKED = tuple(_PACKINGS)
"""Suffixes of packed files."""


class Unpacked(io.RawIOBase):
    """What a packed file of any number of frames holds; unlike libraries' readers it raises for a file cut short."""

    def __init__(self, file: BinaryIO, suffix: str, label: str) -> None:
        """`suffix` is one of `PACKED`."""
        self._file, self._label, self._kind, self._packing = file, label, suffix[1:], _PACKINGS[suffix]
        self._frame: Any = None
        self._input = b""
        self._hungry = True
        self._text = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._text:
            if self._hungry and not self._input:
                self._input = self._file.read(_PACKED_AT_ONCE)
                if not self._input:
                    if self._frame is not None:
                        raise InputError(
                            f"{self._label} is cut short: its last {self._kind} frame has no end; fetch it again"
                        )
                    return 0
            self._unpack()
        part = self._text[: len(buffer)]
        buffer[: len(part)] = part
        self._text = self._text[len(part) :]
        return len(part)

    def _unpack(self) -> None:
        self._frame = frame = self._frame or self._packing.start()
        limit = [_UNPACKED_AT_ONCE] if self._packing.limited else []
        try:
            self._text = memoryview(frame.decompress(self._input, *limit))
        except (zstandard.ZstdError, zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            raise InputError(f"{self._label} is not {self._kind}, or damaged ({error}): fetch it again") from error
        self._input = frame.unused_data
        self._hungry = frame.eof or not self._packing.limited or frame.needs_input
        if frame.eof:
            self._frame = None
