"""Shards: token streams on disk.

A shard is a `.bin` file: 256 little-endian int32 header words (word 0 = magic number, word 1 = format version, word 2 =
token count), then that many little-endian tokens (`_DTYPES`). Tokens lie about in two more forms: an `.npy` of one
dimension, and numbers without a header, whose type the caller names (`Raw`).
"""

import glob
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from ngram_eval.errors import InputError, refusing
from ngram_eval.files import Stamp, open_input, replacing, require_unchanged, stamp
from ngram_eval.text import npy
from ngram_eval.text.stream import MAX_VOCABULARY, Stream, Tokens

MAGIC = 20240520
_LLAMA3_MAGIC = 20240801


HEADER_BYTES = 256 * 4


MAX_SHARD_TOKENS = 2**31 - 1
"""The header's token count is an int32."""


_DTYPES: dict[tuple[int, int], np.dtype[Any]] = {
    (MAGIC, 1): np.dtype("<u2"),  # modded-nanogpt, llm.c (GPT-2), parameter-golf
    (MAGIC, 2): np.dtype("<u4"),  # ours, for vocabularies above 65,536
    (_LLAMA3_MAGIC, 7): np.dtype("<u4"),  # llm.c (Llama 3)
}
"""(magic number, version) -> type of the tokens."""
_KNOWN = ", ".join(f"{magic} version {version} ({dtype.name})" for (magic, version), dtype in _DTYPES.items())
_REMEDY = (
    f"shards begin with {_KNOWN}; tokens in an .npy are read as well, and tokens without a header (nanoGPT) with "
    "--raw-dtype uint16 or uint32; text becomes shards with `ngram-eval prepare`"
)


Raw = Literal["uint16", "uint32"]
"""Type of the little-endian tokens of a file without a header."""


class TokenStream(NamedTuple):
    """The tokens of one or more shards, end to end."""

    tokens: Stream
    """N tokens, uint16, or uint32 if any shard is. Slices are read on demand; `tokens[:]` is all."""
    paths: tuple[Path, ...]
    """The shards, in order."""
    total: int
    """Tokens in all shards, before any cut: `total > len(tokens)` means a subset."""
    text: bytes | None = None
    """The text that they were cut from, from its start, if it is known."""


class _Shard(NamedTuple):
    path: Path
    stored: np.dtype[Any]
    """Type of the numbers in the file."""
    tokens: int
    offset: int
    """Bytes before the first token."""
    stamp: Stamp

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16 if every number of the stored type fits, else uint32."""
        return np.dtype(np.uint16 if self.stored.itemsize <= 2 else np.uint32)

    def read(self, start: int, stop: int) -> Tokens:
        """Tokens [start, stop). They are read, not mapped: whatever befalls the file, there is a message."""
        with open_input(self.path, "it is needed to the end of the run") as file:
            require_unchanged(self.path, self.stamp, stamp(os.fstat(file.fileno())))
            offset = self.offset + start * self.stored.itemsize
            found = np.fromfile(file, self.stored, stop - start, offset=offset)
        if len(found) < stop - start:
            raise InputError(f"{self.path} was cut short while it was read: run again once nothing writes to it")
        if self.stored.kind == "i" or self.stored.itemsize > 4:
            outside = (found < 0) | (found > MAX_VOCABULARY)
            if outside.any():
                at = int(np.argmax(outside))
                raise InputError(f"{self.path} holds {found[at]} at {start + at}, which is no token: make it again")
        tokens: Tokens = found.astype(self.dtype, copy=False)
        return tokens


def read_shards(patterns: Sequence[str], max_tokens: int | None = None, raw: Raw | None = None) -> TokenStream:
    """The token stream of the shards that `patterns` (globs or plain paths) match, sorted, each once.

    With `raw`, the files have no headers and hold tokens of that type. Else headers are read and checked, and nothing
    more: the stream may be larger than memory. Raises `InputError` for a pattern without files, for a file that is not
    a shard or whose size differs from its header, and for `max_tokens` below 1; slices of the stream raise it for a
    shard that was changed since, and for numbers that are no tokens.
    """
    if max_tokens is not None and max_tokens < 1:
        raise InputError(f"--max-tokens is {max_tokens}: give at least 1")
    shards = [_read_header(path, raw) for path in _expand(patterns)]
    total = sum(shard.tokens for shard in shards)
    length = total if max_tokens is None else min(total, max_tokens)
    return TokenStream(Shards(shards, length), tuple(shard.path for shard in shards), total)


class Shards:
    """Shards end to end as one stream (`ngram_eval.text.stream.Stream`); slices are read from the files, each time."""

    def __init__(self, shards: Sequence[_Shard], length: int) -> None:
        self._shards, self._length = shards, length
        self._starts = np.cumsum([0, *(shard.tokens for shard in shards)])
        needed = zip(shards, self._starts.tolist(), strict=False)
        self._dtype = max((one.dtype for one, start in needed if start < length), key=lambda dtype: dtype.itemsize)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, positions: slice) -> Tokens:
        start, stop, step = positions.indices(self._length)
        if step != 1:
            raise ValueError(f"a stream is read in slices without a step, not with step {step}")
        if stop <= start:
            return np.zeros(0, self._dtype)
        first, last = np.searchsorted(self._starts, [start, stop - 1], side="right") - 1
        parts = [
            self._shards[i].read(max(start - offset, 0), min(stop - offset, self._shards[i].tokens))
            for i, offset in enumerate(self._starts[first : last + 1].tolist(), first)
        ]
        if len(parts) == 1 and parts[0].dtype == self._dtype:
            return parts[0]
        joined: Tokens = np.concatenate(parts, dtype=self._dtype)
        return joined


def _expand(patterns: Sequence[str]) -> list[Path]:
    if not patterns:
        raise InputError("no shard is given: give --data a file or a pattern such as 'fineweb_val_*.bin'")
    found = {}
    for pattern in patterns:
        # A name with brackets may be a file rather than a pattern.
        matches = [pattern] if os.path.lexists(pattern) else glob.glob(pattern, recursive=True)
        if not matches:
            raise InputError(f"{pattern}: no such shard; check the path, and quote a pattern against the shell")
        found.update({os.path.abspath(match): Path(match) for match in matches})
    return sorted(found.values(), key=str)


def _read_header(path: Path, raw: Raw | None = None) -> _Shard:
    if path.is_dir():
        raise InputError(f"{path} is a directory: name the shards in it, such as '{path}/*.bin'")
    with open_input(path, "check the path and its permissions") as file:
        found = stamp(os.fstat(file.fileno()))
        head = file.read(HEADER_BYTES)
        if head.startswith(npy.MAGIC):
            file.seek(0)
            dtype, count, offset = _read_npy(file, path)
        elif raw is not None:
            dtype, offset = np.dtype(raw).newbyteorder("<"), 0
            count = -(-found.size // dtype.itemsize)
        else:
            dtype, count, offset = _parse_header(head, path)
    if raw is not None and (offset or _has_header(head, found.size)):
        raise InputError(f"{path} has a header, which says what its tokens are: leave out --raw-dtype {raw}")
    expected = offset + count * dtype.itemsize
    if found.size != expected:
        promises = f"its header promises {count} tokens" if raw is None else f"tokens of {raw} would be {count}"
        raise InputError(
            f"{path} is too {'short' if found.size < expected else 'long'}: {promises} "
            f"({expected} bytes), it has {found.size} bytes ({(found.size - offset) / dtype.itemsize:g} tokens); "
            "fetch or make it again"
        )
    if count == 0:
        raise InputError(f"{path} is empty (0 tokens): leave it out, or make it again")
    return _Shard(path, dtype, count, offset, found)


def _parse_header(head: bytes, path: Path) -> tuple[np.dtype[Any], int, int]:
    """(type of the tokens, their number, bytes before them) by the header of a `.bin`."""
    if len(head) < HEADER_BYTES:
        raise InputError(
            f"{path} has {len(head)} bytes, less than the {HEADER_BYTES} of a shard header: it is cut short or not a "
            f"shard; {_REMEDY}"
        )
    magic, version, count = (int(word) for word in np.frombuffer(head, "<i4", 3))
    if (magic, version) not in _DTYPES:
        raise InputError(f"{path} begins with {magic} version {version}, which is no shard's: {_REMEDY}")
    if count < 0:
        raise InputError(f"{path} has a token count of {count} in its header: it is damaged; fetch or make it again")
    return _DTYPES[magic, version], count, HEADER_BYTES


def _has_header(head: bytes, size: int) -> bool:
    """Whether a file of this beginning and size is a shard with a header."""
    if len(head) < HEADER_BYTES:
        return False
    magic, version, count = (int(word) for word in np.frombuffer(head, "<i4", 3))
    dtype = _DTYPES.get((magic, version))
    return dtype is not None and size == HEADER_BYTES + count * dtype.itemsize


def _read_npy(file: BinaryIO, path: Path) -> tuple[np.dtype[Any], int, int]:
    """(type of the tokens, their number, bytes before them) of an `.npy`."""
    with refusing(path, *npy.NOT_NPY):
        (shape, dtype), _ = npy.npy_header(file)
    if len(shape) != 1 or dtype.kind not in "iu":
        raise InputError(f"{path} holds {dtype} of shape {shape}: tokens are integers of one dimension")
    return dtype, math.prod(shape), file.tell()


def write_shard(path: Path, tokens: Tokens) -> None:
    """Write tokens, (N,) uint16 (version 1) or uint32 (version 2), as a shard: the whole file or nothing.

    Raises `ValueError` for other arrays, and unless N is 1 to `MAX_SHARD_TOKENS`.
    """
    versions = {dtype: version for (magic, version), dtype in _DTYPES.items() if magic == MAGIC}
    if tokens.ndim != 1 or tokens.dtype not in versions:
        raise ValueError(f"tokens must be one-dimensional uint16 or uint32, not {tokens.dtype} of shape {tokens.shape}")
    if not 1 <= len(tokens) <= MAX_SHARD_TOKENS:
        raise ValueError(f"a shard holds 1 to {MAX_SHARD_TOKENS} tokens, not {len(tokens)}")
    header = np.zeros(HEADER_BYTES // 4, "<i4")
    header[:3] = MAGIC, versions[tokens.dtype], len(tokens)
    with replacing(path) as file:
        file.write(header.data)
        file.write(np.ascontiguousarray(tokens).data)
