"""How the tokens of a kept memory become a payload: by the codec (small), by zstd, or as they are (fast)."""

import lzma
import struct
from typing import Literal, NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

from ngram_eval.codec import container
from ngram_eval.codec.alphabet import Alphabet, pack, unpack
from ngram_eval.codec.base import UniformBase
from ngram_eval.codec.coder import Coder, make_coder
from ngram_eval.codec.method import Method
from ngram_eval.config import preset
from ngram_eval.errors import InputError
from ngram_eval.text.kept import KeptMemory, dtype_of
from ngram_eval.text.stream import Tokens
from ngram_eval.timing import Track

Coding = Literal["mixer", "exact", "zstd", "none"]
"""From the smallest file to the fastest to load."""
CODINGS: tuple[Coding, ...] = ("none", "zstd", "exact", "mixer")
"""A file holds the index."""
_LEVEL = 19
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 20, "lc": 0, "lp": 0, "pb": 0}]


class Coded(NamedTuple):
    """Tokens in their stored form."""

    coding: Coding
    numbers: bytes
    """Of the codec: the tokens that occur, ascending, packed."""
    table: bytes
    """Of the mixer: what these spell, packed; empty if that is not known."""
    payload: bytes

    @property
    def rules(self) -> bytes:
        """17 bytes that change whenever the payload would stand for other tokens; zeros if nothing can change that."""
        if self.coding not in ("exact", "mixer"):
            return bytes(17)
        return bytes([container.FORMAT_VERSION]) + _method(self.coding).digest


def encode(memory: KeptMemory, coding: Coding, track: Track) -> Coded:
    """The tokens in a coding; raises `InputError` where the mixer can't store what they spell."""
    tokens = memory.tokens
    if coding == "none":
        return Coded(coding, b"", b"", _little(tokens))
    if coding == "zstd":
        return Coded(coding, b"", b"", zstandard.ZstdCompressor(level=_LEVEL).compress(_little(tokens)))
    used = np.union1d(tokens, [0, 1]).astype(np.uint32)  # a coder chooses among at least two
    alphabet = Alphabet((None,) * len(used))
    if coding == "mixer":
        known = memory.surfaces or tuple(number.to_bytes(4, "big") for number in range(memory.vocab_size))
        alphabet = Alphabet(tuple(known[token] for token in used.tolist()))
    payload, _ = _coder(coding, alphabet).encode(
        np.searchsorted(used, tokens).astype(alphabet.dtype), b"", track("compressing", len(tokens))
    )
    numbers = lzma.compress(np.diff(used, prepend=0).astype("<u4").tobytes(), lzma.FORMAT_RAW, filters=_FILTERS)
    table = pack(alphabet) if coding == "mixer" and memory.surfaces else b""
    return Coded(coding, numbers, table, payload)


def decode(coded: Coded, count: int, vocab_size: int, track: Track) -> tuple[Tokens, tuple[bytes | None, ...] | None]:
    """(`count` tokens below `vocab_size`, what each token spells or None if it is not stored).

    Raises `InputError` for a payload that is not of so many.
    """
    if coded.coding in ("none", "zstd"):
        size = count * np.dtype(dtype_of(vocab_size)).itemsize
        content = coded.payload if coded.coding == "none" else _unpacked(coded.payload, size)
        if len(content) != size:
            raise InputError(f"its payload has {len(content):,} bytes for {count:,} tokens")
        kind = np.dtype(dtype_of(vocab_size)).newbyteorder("<")
        return np.frombuffer(content, kind).astype(dtype_of(vocab_size)), None
    used = _numbers(coded.numbers, vocab_size)
    alphabet = Alphabet((None,) * len(used))
    if coded.coding == "mixer":
        spelt = [token.to_bytes(4, "big") for token in used.tolist()]
        alphabet = unpack(coded.table) if coded.table else Alphabet(tuple(spelt))
        if alphabet.size != len(used):
            raise InputError(f"its table has {alphabet.size:,} tokens, its text {len(used):,}")
    found, _ = _coder(coded.coding, alphabet).decode(count, None, coded.payload, track("decompressing", count))
    surfaces: list[bytes | None] = [None] * vocab_size
    for token, one in zip(used.tolist(), alphabet.surfaces, strict=True):
        surfaces[token] = one
    return used[found].astype(dtype_of(vocab_size)), tuple(surfaces) if coded.table else None


def _method(coding: Coding) -> Method:
    base = preset(coding)
    return Method(preset=coding, max_order=base.ngram.max_order, exact=base.exact, mixer=base.mixer, window=None)


def _coder(coding: Coding, alphabet: Alphabet) -> Coder:
    return make_coder(_method(coding), alphabet, UniformBase(alphabet.size), "cpu")


def _little(tokens: Tokens) -> bytes:
    return tokens.astype(tokens.dtype.newbyteorder("<")).tobytes()


def _unpacked(payload: bytes, most: int) -> bytes:
    try:
        if zstandard.frame_content_size(payload) != most:
            raise InputError("its payload announces another number of bytes than its tokens have")
        unpacked: bytes = zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise InputError(f"its payload is damaged ({error})") from error
    return unpacked


def _numbers(packed: bytes, vocab_size: int) -> NDArray[np.uint32]:
    """The tokens that occur."""
    try:
        content = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS).decompress(packed, 4 * vocab_size + 1)
        steps = np.array([step for (step,) in struct.iter_unpack("<I", content)], np.uint64)
    except (lzma.LZMAError, EOFError, struct.error) as error:
        raise InputError("its list of tokens is damaged") from error
    used = np.cumsum(steps)
    if len(used) < 2 or (steps[1:] == 0).any() or used.max() >= vocab_size:
        raise InputError("its list of tokens is damaged")
    return used.astype(np.uint32)
