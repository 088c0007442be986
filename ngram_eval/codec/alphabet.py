"""What the tokens of a file stand for: all that its reader needs to know of a tokenizer.

A byte that no token spells is written as it is behind a token that stands for nothing, the escape.
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
"""Most bytes of a token in a table: a byte counts them, and 255 says that the token stands for nothing."""
_NOTHING = 255
_COUNTS = struct.Struct("<II")
_MAX_TABLE = _COUNTS.size + MAX_TOKENS * (2 + _MAX_SURFACE)
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 16, "lc": 0, "lp": 0, "pb": 0}]
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Alphabet:
    """What each token stands for."""

    surfaces: tuple[bytes | None, ...]
    """By token; None where it stands for nothing."""
    escape: int | None = None
    """The token behind which a byte follows as it is."""

    @property
    def size(self) -> int:
        """Tokens."""
        return len(self.surfaces)

    @property
    def dtype(self) -> DTypeLike:
        """The type of a token stream."""
        return np.uint16 if self.size <= 1 << 16 else np.uint32

    @cached_property
    def tokens(self) -> dict[bytes, int]:
        """What can be spelt by one token -> the last token that does: pieces come after the tokens of bytes."""
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
        """The bytes of tokens; `raw` are those behind the escapes, one for each."""
        listed = tokens.tolist()
        if not raw:
            return b"".join(map(self._written.__getitem__, listed))
        behind = iter(raw)
        return b"".join(bytes([next(behind)]) if t == self.escape else self._written[t] for t in listed)

    def cut_greedily(self, data: bytes) -> tuple[list[int], bytes]:
        """(tokens, bytes behind escapes) that spell `data`: the longest token that fits, again and again."""
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
                        f"the tokenizer has neither a token for the byte {data[at]:#04x} nor an unknown token to stand "
                        "for it: give one with byte fallback, or --tokenizer bytes"
                    )
                token, end = self.escape, at + 1
                raw.append(data[at])
            tokens.append(token)
            at = end
        return tokens, bytes(raw)


BYTES = Alphabet(tuple(bytes([value]) for value in range(256)))
"""A token for each byte."""


def in_use(alphabet: Alphabet, tokens: Tokens) -> tuple[Alphabet, Tokens]:
    """(the alphabet of those tokens alone that occur, sorted by what they stand for; the same stream in it).

    It has two tokens at least, for a coder can't choose among fewer.
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
    """The alphabet as it is stored in a file: `_table`, compressed."""
    return lzma.compress(_table(alphabet), lzma.FORMAT_RAW, filters=_FILTERS)


def _table(alphabet: Alphabet) -> bytes:
    """Escape + 1 (0: none) and number of tokens, uint32 each; bytes that each token shares with the one before; bytes
    of its own (255: it stands for nothing); these bytes, one token after another.
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
    """Bytes at the start that are alike."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def unpack(packed: bytes) -> Alphabet:
    """The alphabet of `pack`; raises `InputError` for anything else."""
    damaged = InputError("its table of tokens is damaged")
    try:
        table = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS).decompress(packed, _MAX_TABLE)
        behind, size = _COUNTS.unpack_from(table)
    except (lzma.LZMAError, EOFError, struct.error) as error:
        raise damaged from error
    shared, own = table[_COUNTS.size :][:size], table[_COUNTS.size + size :][:size]
    if len(own) < size or not 2 <= size <= MAX_TOKENS or behind > size:
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
    return Alphabet(tuple(surfaces), behind - 1 if behind else None)


def of_surfaces(surfaces: Sequence[bytes | None], unknown: int) -> Alphabet:
    """The alphabet of a tokenizer; its unknown token is the escape where some byte has no token of its own."""
    spelt = {text for text in surfaces if text is not None and len(text) == 1}
    return Alphabet(tuple(surfaces), None if len(spelt) == 256 else unknown)
