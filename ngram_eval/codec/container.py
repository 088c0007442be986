"""The file format: a header of fixed size, the parts that it announces, and a checksum (details: docs/codec.md)."""

import struct
import zlib
from dataclasses import astuple, dataclass
from pathlib import Path

from ngram_eval import __version__
from ngram_eval.errors import InputError
from ngram_eval.files import read_input

MAGIC = b"NGRMCODE"
FORMAT_VERSION = 2
"""Must be raised whenever the same tokens would get other probabilities, even if the layout does not change."""
READ_VERSIONS = (1, FORMAT_VERSION)
"""Those that are read; 1 differs in its payload alone (`version_1`)."""
TOKENIZERS = ("bytes", "packaged", "table")
"""Sources of the alphabet; the header holds the index."""

_PREFIX = struct.Struct("<8sB")
_FIXED = struct.Struct("<BHIQQQ32s16s16s16s8s")
_CHECKSUM = struct.Struct("<I")
HEADER_BYTES = _PREFIX.size + _FIXED.size + _CHECKSUM.size
"""Size of a file without settings, table and payload."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """The fixed part of the header, field by field."""

    tokenizer: int
    """Index in `TOKENIZERS`."""
    settings_bytes: int
    table_bytes: int
    payload_bytes: int
    content_bytes: int
    tokens: int
    content_sha256: bytes
    config_digest: bytes
    """Digest of every setting that decides a probability, defaults included."""
    alphabet_digest: bytes
    artifact_digest: bytes
    """Digest of the neural model's file; zeros without one."""
    probe_digest: bytes
    """Digest of the neural model's output on a fixed text, bit for bit; zeros without a model."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """The parts of a whole file."""

    header: Header
    settings: bytes
    """JSON: the preset and the fields that differ from it."""
    table: bytes
    """The packed alphabet; empty unless `header.tokenizer` is "table"."""
    payload: bytes
    """The output of the coder."""
    version: int = FORMAT_VERSION

    def to_bytes(self) -> bytes:
        """The contents of the file."""
        fixed = _PREFIX.pack(MAGIC, self.version) + _FIXED.pack(*astuple(self.header))
        body = fixed + self.settings + self.table + self.payload
        return body + _CHECKSUM.pack(zlib.crc32(body))


def read(path: Path) -> Container:
    """The parts of a file; raises `InputError` if it is not one, of another version, cut short or damaged."""
    return parse(read_input(path, "check the path"), path)


def parse(data: bytes, path: Path) -> Container:
    """As `read`, from the file's bytes."""
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        raise InputError(f"{path} was not written by `python -m ngram_eval.codec compress`, or its start is damaged")
    if len(data) < HEADER_BYTES:
        raise InputError(f"{path} is cut short: it has {len(data)} of at least {HEADER_BYTES} bytes; fetch it again")
    _, version = _PREFIX.unpack_from(data)
    if version not in READ_VERSIONS:
        raise InputError(
            f"{path} has format version {version}, and ngram_eval {__version__} reads "
            f"{' and '.join(map(str, READ_VERSIONS))}: use the release that wrote it (or the file is damaged)"
        )
    header = Header(**dict(zip(Header.__dataclass_fields__, _FIXED.unpack_from(data, _PREFIX.size), strict=True)))
    expected = HEADER_BYTES + header.settings_bytes + header.table_bytes + header.payload_bytes
    if len(data) < expected:
        raise InputError(f"{path} is cut short or damaged: it has {len(data)} of {expected} bytes; fetch it again")
    body = data[: -_CHECKSUM.size]
    if len(data) > expected or zlib.crc32(body) != _CHECKSUM.unpack(data[-_CHECKSUM.size :])[0]:
        raise InputError(f"{path} is damaged: it does not match its checksum; fetch it again")
    if header.tokenizer >= len(TOKENIZERS):
        raise InputError(f"{path} names a tokenizer of kind {header.tokenizer}, which no release writes")
    if header.tokens > header.content_bytes:
        raise InputError(f"{path} announces {header.tokens} tokens for {header.content_bytes} bytes: it is damaged")
    settings_at = _PREFIX.size + _FIXED.size
    table_at = settings_at + header.settings_bytes
    payload_at = table_at + header.table_bytes
    return Container(
        header=header,
        settings=body[settings_at:table_at],
        table=body[table_at:payload_at],
        payload=body[payload_at:],
        version=version,
    )
