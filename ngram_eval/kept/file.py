"""The file of a kept memory (.ngm): a header of fixed size, the parts that it announces, and a sha256 of all before it.

Reading it gives numbers and tokens and runs nothing (docs/memory.md has the layout).
"""

import hashlib
import struct
from dataclasses import astuple, dataclass
from itertools import accumulate
from pathlib import Path

from ngram_eval.errors import InputError
from ngram_eval.files import read_input, replacing
from ngram_eval.kept.coding import CODINGS, Coded, Coding, decode, encode
from ngram_eval.kept.learning import pack, unpack
from ngram_eval.text.kept import MOST_TOKENS, KeptMemory
from ngram_eval.text.stream import MAX_VOCABULARY
from ngram_eval.timing import Track, untracked

MAGIC = b"NGRMKEPT"
FORMAT_VERSION = 1
MOST_BYTES = 1 << 33
_MOST_A_BYTE = 1 << 12
"""Tokens that a byte of payload may stand for: text has 2 or 3, a file of more could only be meant to fill memory."""
_PREFIX = struct.Struct("<8sB")
_FIXED = struct.Struct("<B17sIQQIIQI32s32s32s")
_DIGEST = 32
HEADER_BYTES = _PREFIX.size + _FIXED.size + _DIGEST
"""Size of a file without its parts."""
_REMEDY = "fetch it again, or build it with `ngram-eval memory build`"


@dataclass(frozen=True, kw_only=True)
class Header:
    """The fixed part, field by field."""

    coding: int
    """Index in `CODINGS`."""
    rules: bytes
    """`Coded.rules`."""
    vocab_size: int
    tokens: int
    text_bytes: int
    numbers_bytes: int
    table_bytes: int
    payload_bytes: int
    learned_bytes: int
    tokenizer_sha256: bytes
    surfaces_sha256: bytes
    """Zeros without a tokenizer, as the one before."""
    tokens_sha256: bytes


@dataclass(frozen=True, kw_only=True)
class KeptFile:
    """A file's parts, checked for damage and not yet decoded."""

    header: Header
    coded: Coded
    learned: bytes
    """`learning.pack`."""
    size: int
    """Bytes of the file."""
    sha256: str
    """Of the file."""

    @property
    def coding(self) -> Coding:
        return self.coded.coding


def to_bytes(memory: KeptMemory, coding: Coding, track: Track = untracked) -> bytes:
    """The contents of the file of a memory; raises `InputError` for one that no reader would take."""
    coded, learned = encode(memory, coding, track), pack(memory.learned)
    if len(memory.tokens) > _MOST_A_BYTE * (len(coded.payload) + 1):
        raise InputError(
            f"{len(memory.tokens):,} tokens take {len(coded.payload):,} bytes: there is nothing to remember; give "
            "another text, or --coding none"
        )
    header = Header(
        coding=CODINGS.index(coding),
        rules=coded.rules,
        vocab_size=memory.vocab_size,
        tokens=len(memory.tokens),
        text_bytes=memory.text_bytes,
        numbers_bytes=len(coded.numbers),
        table_bytes=len(coded.table),
        payload_bytes=len(coded.payload),
        learned_bytes=len(learned),
        tokenizer_sha256=bytes.fromhex(memory.tokenizer_sha256) or bytes(_DIGEST),
        surfaces_sha256=bytes.fromhex(memory.surfaces_sha256) or bytes(_DIGEST),
        tokens_sha256=bytes.fromhex(memory.sha256),
    )
    body = _PREFIX.pack(MAGIC, FORMAT_VERSION) + _FIXED.pack(*astuple(header))
    body += coded.numbers + coded.table + coded.payload + learned
    return body + hashlib.sha256(body).digest()


def write(path: Path, memory: KeptMemory, coding: Coding, track: Track = untracked) -> KeptFile:
    """Write a memory's file, whole or not at all; returns its parts."""
    content = to_bytes(memory, coding, track)
    with replacing(path) as file:
        file.write(content)
    return parse(content, path)


def open_kept(path: Path) -> KeptFile:
    """A file's parts; raises `InputError` for one that is damaged, of another kind or version, or says too much."""
    return parse(read_input(path, "give a file that `ngram-eval memory build` wrote", MOST_BYTES), path)


def parse(data: bytes, path: Path) -> KeptFile:
    """As `open_kept`, from the file's bytes."""
    if not data.startswith(MAGIC) or len(data) < HEADER_BYTES:
        raise InputError(f"{path} is not a kept memory, or its start is damaged: {_REMEDY}")
    _, version = _PREFIX.unpack_from(data)
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {version}, and this release reads {FORMAT_VERSION}: build it again"
        )
    header = Header(**dict(zip(Header.__dataclass_fields__, _FIXED.unpack_from(data, _PREFIX.size), strict=True)))
    parts = header.numbers_bytes, header.table_bytes, header.payload_bytes, header.learned_bytes
    body, digest = data[:-_DIGEST], data[-_DIGEST:]
    if len(data) != HEADER_BYTES + sum(parts):
        raise InputError(f"{path} has {len(data):,} bytes and announces {HEADER_BYTES + sum(parts):,}: {_REMEDY}")
    if hashlib.sha256(body).digest() != digest:
        raise InputError(f"{path} is damaged (its sha256 does not match): {_REMEDY}")
    if header.coding >= len(CODINGS) or not 2 <= header.vocab_size <= MAX_VOCABULARY:
        raise InputError(f"{path} has a coding or a vocabulary that no release writes: {_REMEDY}")
    if not 0 < header.tokens <= min(MOST_TOKENS, _MOST_A_BYTE * (header.payload_bytes + 1)):
        raise InputError(f"{path} announces {header.tokens:,} tokens, more than it can hold: {_REMEDY}")
    at = HEADER_BYTES - _DIGEST
    ends = [at + end for end in accumulate(parts)]
    numbers, table, payload, learned = (data[end - size : end] for end, size in zip(ends, parts, strict=True))
    coded = Coded(CODINGS[header.coding], numbers, table, payload)
    if coded.rules != header.rules:
        raise InputError(
            f"{path} was coded by {coded.coding} with other rules than this release has: build it again, or with the "
            "release that wrote it and --coding zstd"
        )
    return KeptFile(
        header=header, coded=coded, learned=learned, size=len(data), sha256=hashlib.sha256(data).hexdigest()
    )


def read(path: Path, track: Track = untracked) -> KeptMemory:
    """The memory in a file; raises `InputError` as `open_kept` does, and for tokens that are not those written."""
    return load(open_kept(path), path, track)


def load(found: KeptFile, path: Path, track: Track = untracked) -> KeptMemory:
    """The memory of an opened file, which messages call `path`."""
    header = found.header
    try:
        tokens, surfaces = decode(found.coded, header.tokens, header.vocab_size, track)
        learned = unpack(found.learned)
    except InputError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    memory = KeptMemory(
        tokens=tokens,
        vocab_size=header.vocab_size,
        text_bytes=header.text_bytes,
        tokenizer_sha256=header.tokenizer_sha256.hex() if any(header.tokenizer_sha256) else "",
        surfaces_sha256=header.surfaces_sha256.hex() if any(header.surfaces_sha256) else "",
        surfaces=surfaces,
        learned=learned,
    )
    if bytes.fromhex(memory.sha256) != header.tokens_sha256 or int(tokens.max()) >= header.vocab_size:
        raise InputError(
            f"{path} is whole, but its tokens are not those written (this machine computes other probabilities than "
            "the one that wrote it): build it again here"
        )
    return memory
