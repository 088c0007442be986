"""Reads documents from text files: plain text or JSON lines, both also as .zst, streamed."""

import codecs
import io
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import zstandard

from ngram_eval.errors import InputError
from ngram_eval.files import require_input

Documents = Literal["file", "line", "blank-lines"]


_SUFFIXES = (".txt", ".jsonl", ".txt.zst", ".jsonl.zst")


_SEGMENT_CHARS = 1 << 12
"""Characters of a segment. Long documents are encoded in segments if the tokenizer allows: faster, in less memory."""


_MOST_LINE = 1 << 28
"""Bytes of a line: a small .zst can hold one that fills any memory."""


_ZSTD_AT_ONCE = 1 << 11
"""Bytes unpacked at a time: at most 32,768 times as many come of them."""
_LARGEST_WINDOW = 1 << 31
"""Window of `zstd --long=31`, the largest that the format has."""


@dataclass(frozen=True, kw_only=True)
class TextForm:
    """How files hold documents."""

    documents: Documents = "file"
    """A document in .txt: the file, each line, or each block between blank lines. In .jsonl it is always the line."""

    text_field: str = "text"
    """Field of a .jsonl line that holds its text."""

    stdin_format: Literal["txt", "jsonl"] = "txt"
    """Form of the text on stdin."""


class Source(NamedTuple):
    """One input; it can be read more than once unless it is stdin."""

    label: str
    path: Path | None
    """None: stdin."""
    jsonl: bool
    zst: bool


class Segment(NamedTuple):
    """A document, or a part of a long one that ends in a newline; never empty."""

    starts_document: bool
    text: str


def find_sources(inputs: Sequence[str], form: TextForm) -> list[Source]:
    """The inputs, folders expanded; raises `InputError` for a path that is missing or of an unknown kind."""
    sources = []
    for name in inputs:
        path = Path(name)
        if name == "-":
            sources.append(Source("stdin", None, form.stdin_format == "jsonl", zst=False))
        elif path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.name.endswith(_SUFFIXES) and file.is_file())
            if not files:
                raise InputError(f"{name} holds no text: no file in it ends in {', '.join(_SUFFIXES)}")
            sources += [_file_source(file) for file in files]
        elif not path.exists():
            raise InputError(f"{name}: no such file or folder")
        elif not name.endswith(_SUFFIXES):
            raise InputError(f"{name} is not of a known kind: its name must end in {', '.join(_SUFFIXES)}")
        else:
            sources.append(_file_source(path))
    return sources


def _file_source(path: Path) -> Source:
    require_input(path, "check its permissions")
    return Source(str(path), path, jsonl=path.name.endswith((".jsonl", ".jsonl.zst")), zst=path.suffix == ".zst")


def read_segments(
    sources: Iterable[Source], form: TextForm, *, split: bool, advance: Callable[[int], None]
) -> Iterator[Segment]:
    """The documents of all sources in order, without empty ones. `advance` is called with the number of bytes read.

    With `split`, long documents come in segments that end in a newline. Raises `InputError`, naming file and line, for
    text that is not UTF-8, and for a line that is not JSON or has no text field.
    """
    for source in sources:
        with source.path.open("rb") if source.path else nullcontext(sys.stdin.buffer) as file:
            raw = io.BufferedReader(_Counted(file, advance))
            for document in _documents(_lines(raw, source), source, form):
                for index, text in enumerate(_segments(document, split)):
                    yield Segment(index == 0, text)


def size_of(sources: Iterable[Source]) -> int | None:
    """Bytes of all sources together; None if stdin is one of them."""
    paths = [source.path for source in sources]
    return None if None in paths else sum(path.stat().st_size for path in paths if path)


class _Counted(io.RawIOBase):
    """A file that calls `advance` with the number of bytes of each read."""

    def __init__(self, file: BinaryIO, advance: Callable[[int], None]) -> None:
        self._file, self._advance = file, advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._file.read(len(buffer))
        buffer[: len(part)] = part
        self._advance(len(part))
        return len(part)


def _lines(raw: BinaryIO, source: Source) -> Iterator[tuple[int, str]]:
    """Lines with their numbers and newlines. Only a line feed ends a line; a carriage return is text.

    A byte order mark before the first is no text.
    """
    lines = io.BufferedReader(_ZstdText(raw, source.label)) if source.zst else raw
    for number, line in enumerate(iter(lambda: lines.readline(_MOST_LINE), b""), 1):
        if len(line) == _MOST_LINE:
            raise InputError(f"{source.label}:{number} is longer than {_MOST_LINE:,} bytes: break the line")
        try:
            yield number, line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{source.label}:{number} is not UTF-8 ({error.reason} at byte {error.start} of the line): convert it"
            ) from error


def _documents(lines: Iterator[tuple[int, str]], source: Source, form: TextForm) -> Iterator[Iterable[str]]:
    """Every document as an iterator of its lines; read it to the end before you ask for the next."""
    if source.jsonl:
        for number, line in lines:
            if line.strip():
                yield io.StringIO(_json_text(line, f"{source.label}:{number}", form.text_field), newline="\n")
    elif form.documents == "file":
        yield (line for _, line in lines)
    elif form.documents == "line":
        for _, line in lines:
            yield [line.rstrip("\r\n")]
    else:
        for blank, group in itertools.groupby((line for _, line in lines), key=lambda line: not line.strip()):
            if not blank:
                yield group


def _json_text(line: str, place: str, field: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not JSON ({error}): fix the line") from error
    if not isinstance(record, dict) or field not in record:
        raise InputError(f"{place} has no field {field!r}: name the one that holds the text with --text-field")
    text = record[field]
    if not isinstance(text, str):
        raise InputError(f"{place} has {type(text).__name__}, not text, in its field {field!r}: fix the line")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{place} holds half a surrogate pair, which is not Unicode text ({error}): fix the line"
        ) from error
    return text


def _segments(lines: Iterable[str], split: bool) -> Iterator[str]:
    parts: list[str] = []
    size = 0
    for line in lines:
        parts.append(line)
        size += len(line)
        if split and size >= _SEGMENT_CHARS:
            yield "".join(parts)
            parts, size = [], 0
    if size:
        yield "".join(parts)


class _ZstdText(io.RawIOBase):
    """The text in a .zst file of any number of frames; unlike zstandard's reader it raises for a file cut short."""

    def __init__(self, file: BinaryIO, label: str) -> None:
        self._file, self._label = file, label
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._input = b""
        self._text = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._text:
            self._input = self._input or self._file.read(_ZSTD_AT_ONCE)
            if not self._input:
                if self._frame is not None:
                    raise InputError(f"{self._label} is cut short: its last zstd frame has no end; fetch it again")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()
            try:
                self._text = memoryview(self._frame.decompress(self._input))
            except zstandard.ZstdError as error:
                raise InputError(f"{self._label} is not zstd, or damaged ({error}): fetch it again") from error
            self._input = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        part = self._text[: len(buffer)]
        buffer[: len(part)] = part
        self._text = self._text[len(part) :]
        return len(part)
