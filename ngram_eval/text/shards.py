"""Shards: token streams on disk.

A shard is a `.bin` file: 256 little-endian int32 header words (word 0 = 20240520, word 1 = format version, word 2 =
token count), then that many little-endian tokens: uint16 in version 1, uint32 in version 2 (our extension).
"""

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ngram_eval.errors import InputError
from ngram_eval.files import Stamp, open_input, replacing, require_unchanged, stamp
from ngram_eval.text.stream import Stream, Tokens

MAGIC = 20240520


HEADER_BYTES = 256 * 4


MAX_SHARD_TOKENS = 2**31 - 1
"""The header's token count is an int32."""


_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<u2"), 2: np.dtype("<u4")}


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
    dtype: np.dtype[Any]
    tokens: int
    stamp: Stamp

    def read(self, start: int, stop: int) -> Tokens:
        """Tokens [start, stop). They are read, not mapped: whatever befalls the file, there is a message."""
        with open_input(self.path, "it is needed to the end of the run") as file:
            require_unchanged(self.path, self.stamp, stamp(os.fstat(file.fileno())))
            offset = HEADER_BYTES + start * self.dtype.itemsize
            tokens: Tokens = np.fromfile(file, self.dtype, stop - start, offset=offset)
        if len(tokens) < stop - start:
            raise InputError(f"{self.path} was cut short while it was read: run again once nothing writes to it")
        return tokens


def read_shards(patterns: Sequence[str], max_tokens: int | None = None) -> TokenStream:
    """The token stream of the shards that `patterns` (globs or plain paths) match, sorted, each once.

    Only headers are read, and checked: the stream may be larger than memory. Raises `InputError` for a pattern without
    files, for a file that is not a shard or whose size differs from its header, and for `max_tokens` below 1; slices of
    the stream raise it for a shard that was changed since.
    """
    if max_tokens is not None and max_tokens < 1:
        raise InputError(f"--max-tokens is {max_tokens}: give at least 1")
    shards = [_read_header(path) for path in _expand(patterns)]
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


def _read_header(path: Path) -> _Shard:
    if path.is_dir():
        raise InputError(f"{path} is a directory: name the shards in it, such as '{path}/*.bin'")
    with open_input(path, "check the path and its permissions") as file:
        found = stamp(os.fstat(file.fileno()))
        raw = file.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES:
        raise InputError(
            f"{path} has {len(raw)} bytes, less than the {HEADER_BYTES} of a shard header: "
            "it is cut short or not a shard; make shards with `ngram-eval prepare`"
        )
    magic, version, count = (int(word) for word in np.frombuffer(raw, "<i4", 3))
    if magic != MAGIC:
        raise InputError(
            f"{path} starts with {magic} where a shard has {MAGIC}: it is not a shard; "
            "make shards from text with `ngram-eval prepare`"
        )
    if version not in _DTYPES:
        raise InputError(f"{path} has format version {version}: only 1 (uint16) and 2 (uint32) can be read")
    if count < 0:
        raise InputError(f"{path} has a token count of {count} in its header: it is damaged; fetch or make it again")
    dtype = _DTYPES[version]
    expected = HEADER_BYTES + count * dtype.itemsize
    if found.size != expected:
        raise InputError(
            f"{path} is too {'short' if found.size < expected else 'long'}: its header promises {count} tokens "
            f"({expected} bytes), it has {found.size} bytes ({(found.size - HEADER_BYTES) / dtype.itemsize:g} tokens); "
            "fetch or make it again"
        )
    if count == 0:
        raise InputError(f"{path} is empty (0 tokens): leave it out, or make it again")
    return _Shard(path, dtype, count, found)


def write_shard(path: Path, tokens: Tokens) -> None:
    """Write tokens, (N,) uint16 (version 1) or uint32 (version 2), as a shard: the whole file or nothing.

    Raises `ValueError` for other arrays, and unless N is 1 to `MAX_SHARD_TOKENS`.
    """
    versions = {dtype: version for version, dtype in _DTYPES.items()}
    if tokens.ndim != 1 or tokens.dtype not in versions:
        raise ValueError(f"tokens must be one-dimensional uint16 or uint32, not {tokens.dtype} of shape {tokens.shape}")
    if not 1 <= len(tokens) <= MAX_SHARD_TOKENS:
        raise ValueError(f"a shard holds 1 to {MAX_SHARD_TOKENS} tokens, not {len(tokens)}")
    header = np.zeros(HEADER_BYTES // 4, "<i4")
    header[:3] = MAGIC, versions[tokens.dtype], len(tokens)
    with replacing(path) as file:
        file.write(header.data)
        file.write(np.ascontiguousarray(tokens).data)
