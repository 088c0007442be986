"""The alphabet of a file: the bytes that its tokens spell, which is all that a reader needs of a tokenizer.

A byte that no token spells is written as it is after a token that spells nothing, the escape.
"""

import hashlib
import lzma
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import DTypeLike

from ngram_eval.errors import InputError
from ngram_eval.text.stream import Tokens

MAX_TOKENS = 1 << 17
_MAX_SURFACE = 254
"""Most bytes of a token in a table: one byte holds the number, and 255 marks a token that spells nothing."""
_NOTHING = 255
_COUNTS = struct.Struct("<II")
_MAX_TABLE = _COUNTS.size + MAX_TOKENS * (2 + _MAX_SURFACE)
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 16, "lc": 0, "lp": 0, "pb": 0}]
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Alphabet:
    """The bytes that each token spells."""

    surfaces: tuple[bytes | None, ...]
    """Bytes of each token; None for a token that spells nothing."""
    escape: int | None = None
    """The token after which a byte is written as it is."""

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self.surfaces)

    @property
    def dtype(self) -> DTypeLike:
        """The type of a token stream."""
        return np.uint16 if self.size <= 1 << 16 else np.uint32

    @cached_property
    def tokens(self) -> dict[bytes, int]:
        """Bytes that one token spells -> the last such token: pieces come after the tokens of bytes."""
        return {text: token for token, text in enumerate(self.surfaces) if text}

    @cached_property
    def longest(self) -> int:
        """Most bytes of a token."""
        return max(map(len, self.tokens), default=0)

    @cached_property
    def _written(self) -> list[bytes]:
        return [text or b"" for text in self.surfaces]

    @cached_property
    def digest(self) -> bytes:
        """16 bytes of a sha256 over the whole alphabet."""
        return hashlib.sha256(_table(self)).digest()[:_DIGEST_BYTES]

    def spell(self, tokens: Tokens, raw: bytes = b"") -> bytes:
        """The bytes of tokens; `raw` are the bytes after the escapes, one for each."""
        listed = tokens.tolist()
        if not raw:
            return b"".join(map(self._written.__getitem__, listed))
        after = iter(raw)
        return b"".join(bytes([next(after)]) if t == self.escape else self._written[t] for t in listed)

    def cut_greedily(self, data: bytes) -> tuple[list[int], bytes]:
        """(tokens, bytes after escapes) that spell `data`, by the longest match; raises `InputError` if none do."""
        tokens: list[int] = []
        raw = bytearray()
        at = 0
        while at < len(data):
            for end in range(min(len(data), at + self.longest), at, -1):
                token = self.tokens.get(data[at:end])
                if token is not None:
                    break
            else:
                if self.escape is None:
                    raise InputError(
                        f"the tokenizer has neither a token for the byte {data[at]:#04x} nor an unknown token to "
                        "replace it: give one with byte fallback, or --tokenizer bytes"
                    )
                token, end = self.escape, at + 1
                raw.append(data[at])
            tokens.append(token)
            at = end
        return tokens, bytes(raw)


BYTES = Alphabet(tuple(bytes([value]) for value in range(256)))
"""A token for each byte."""


def in_use(alphabet: Alphabet, tokens: Tokens) -> tuple[Alphabet, Tokens]:
    """(the alphabet of the tokens that occur, sorted by their bytes; the stream in this alphabet).

    The alphabet has at least two tokens, since a coder can't choose among fewer.
    """
    used = sorted(np.unique(tokens).tolist(), key=lambda token: (alphabet.surfaces[token] or b"", token))
    renumbered = np.zeros(alphabet.size, np.int64)
    renumbered[used] = np.arange(len(used))
    surfaces = [alphabet.surfaces[token] for token in used]
    surfaces += [None] * (2 - len(surfaces))
    escape = used.index(alphabet.escape) if alphabet.escape in used else None
    smaller = Alphabet(tuple(surfaces), escape)
    return smaller, renumbered[tokens].astype(smaller.dtype)


def pack(alphabet: Alphabet) -> bytes:
    """The alphabet in its stored form: the compressed `_table`."""
    return lzma.compress(_table(alphabet), lzma.FORMAT_RAW, filters=_FILTERS)


def _table(alphabet: Alphabet) -> bytes:
    """The alphabet as bytes.

    Escape + 1 (0: none) and number of tokens, uint32 each; the number of leading bytes that each token shares with the
    one before; the number of its further bytes (255: it spells nothing); these bytes, one token after another.
    """
    if alphabet.longest > _MAX_SURFACE:
        raise InputError(f"the tokenizer has a piece of {alphabet.longest} bytes: at most {_MAX_SURFACE} can be stored")
    shared, own, text = bytearray(), bytearray(), bytearray()
    before = b""
    for surface in alphabet.surfaces:
        common = 0 if surface is None else _shared(before, surface)
        shared.append(common)
        own.append(_NOTHING if surface is None else len(surface) - common)
        if surface is not None:
            text += surface[common:]
            before = surface
    return _COUNTS.pack(0 if alphabet.escape is None else alphabet.escape + 1, alphabet.size) + shared + own + text


def _shared(a: bytes, b: bytes) -> int:
    """Number of leading bytes that are equal."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def unpack(packed: bytes) -> Alphabet:
    """The alphabet that `pack` packed; raises `InputError` for anything else."""
    damaged = InputError("its table of tokens is damaged")
    try:
        table = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS).decompress(packed, _MAX_TABLE)
        escape, size = _COUNTS.unpack_from(table)
    except (lzma.LZMAError, EOFError, struct.error) as error:
        raise damaged from error
    shared, own = table[_COUNTS.size :][:size], table[_COUNTS.size + size :][:size]
    if len(own) < size or not 2 <= size <= MAX_TOKENS or escape > size:
        raise damaged
    surfaces: list[bytes | None] = []
    before, at = b"", _COUNTS.size + 2 * size
    for common, rest in zip(shared, own, strict=True):
        if rest == _NOTHING:
            surfaces.append(None)
            continue
        before = before[:common] + table[at : at + rest]
        surfaces.append(before)
        at += rest
    if at != len(table):
        raise damaged
    return Alphabet(tuple(surfaces), escape - 1 if escape else None)


def of_surfaces(surfaces: Sequence[bytes | None], unknown: int) -> Alphabet:
    """The alphabet of a tokenizer; if some byte has no token of its own, the unknown token is the escape."""
    spelt = {text for text in surfaces if text is not None and len(text) == 1}
    return Alphabet(tuple(surfaces), None if len(spelt) == 256 else unknown)
