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
from ngram_eval.files import open_input, replacing
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

    def map(self) -> Tokens:
        # A plain array over the mapping: indexing np.memmap itself makes a memmap object of every slice.
        tokens: Tokens = np.asarray(
            np.memmap(self.path, dtype=self.dtype, mode="r", offset=HEADER_BYTES, shape=(self.tokens,))
        )
        return tokens


def read_shards(patterns: Sequence[str], max_tokens: int | None = None) -> TokenStream:
    """The token stream of the shards that `patterns` (globs or plain paths) match, sorted, each once.

    Shards are mapped, not read: the stream may be larger than memory. Every header is checked. Raises `InputError` for
    a pattern without files, for a file that is not a shard or whose size differs from its header, and for `max_tokens`
    below 1.
    """
    if max_tokens is not None and max_tokens < 1:
        raise InputError(f"--max-tokens is {max_tokens}: give at least 1")
    shards = [_read_header(path) for path in _expand(patterns)]
    total = sum(shard.tokens for shard in shards)
    length = total if max_tokens is None else min(total, max_tokens)
    paths = tuple(shard.path for shard in shards)
    if length <= shards[0].tokens:
        return TokenStream(shards[0].map()[:length], paths, total)
    return TokenStream(Shards(shards, length), paths, total)


class Shards:
    """Shards end to end as one stream (`ngram_eval.text.stream.Stream`); each is mapped when it is first read.

    A slice within one shard is a view of its file; a slice over several shards is a copy.
    """

    def __init__(self, shards: Sequence[_Shard], length: int) -> None:
        self._shards, self._length = shards, length
        self._starts = np.cumsum([0, *(shard.tokens for shard in shards)])
        self._dtype = max((shard.dtype for shard in shards), key=lambda dtype: dtype.itemsize)
        self._maps: dict[int, Tokens] = {}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, positions: slice) -> Tokens:
        start, stop, step = positions.indices(self._length)
        if step != 1:
            raise ValueError(f"a stream is read in slices without a step, not with step {step}")
        index = min(int(np.searchsorted(self._starts, start, side="right")), len(self._shards)) - 1
        parts = []
        while True:
            offset = int(self._starts[index])
            parts.append(self._map(index)[start - offset : max(stop, start) - offset])
            start += len(parts[-1])
            index += 1
            if start >= stop:
                break
        if len(parts) == 1 and parts[0].dtype == self._dtype:
            return parts[0]
        joined: Tokens = np.concatenate(parts, dtype=self._dtype)
        return joined

    def _map(self, index: int) -> Tokens:
        if index not in self._maps:
            self._maps[index] = self._shards[index].map()
        return self._maps[index]


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
        size = os.fstat(file.fileno()).st_size
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
    if size != expected:
        raise InputError(
            f"{path} is too {'short' if size < expected else 'long'}: its header promises {count} tokens "
            f"({expected} bytes), it has {size} bytes ({(size - HEADER_BYTES) / dtype.itemsize:g} tokens); "
            "fetch or make it again"
        )
    if count == 0:
        raise InputError(f"{path} is empty (0 tokens): leave it out, or make it again")
    return _Shard(path, dtype, count)


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
