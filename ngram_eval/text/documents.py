"""Reads documents from text files: plain text or JSON lines, both also packed, or Parquet; all streamed."""

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

from ngram_eval.errors import InputError
from ngram_eval.files import require_input
from ngram_eval.text.parquet import read_parquet
from ngram_eval.text.unpacking import PACKED, Unpacked

Documents = Literal["file", "line", "blank-lines"]


_PLAIN = (".txt", ".md", ".jsonl")
_SUFFIXES = (*_PLAIN, *(kind + packed for kind in _PLAIN for packed in PACKED), ".parquet")
_KNOWN = f"{', '.join(_PLAIN)}, these also with {', '.join(PACKED)}, or .parquet"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


_SEGMENT_CHARS = 1 << 12
"""Characters of a segment. Long documents are encoded in segments if the tokenizer allows: faster, in less memory."""


_MOST_LINE = 1 << 28
"""Bytes of a line: a small packed file can hold one that fills any memory."""


@dataclass(frozen=True, kw_only=True)
class TextForm:
    """How files hold documents."""

    documents: Documents = "file"
    """A document in .txt: the file, each line, or each block between blank lines. In .jsonl it is always the line, in
    .parquet the row."""

    text_field: str = "text"
    """Field of a .jsonl line, or column of a .parquet file, that holds the text."""

    stdin_format: Literal["txt", "jsonl"] = "txt"
    """Form of the text on stdin."""


class Source(NamedTuple):
    """One input; it can be read more than once unless it is stdin."""

    label: str
    path: Path | None
    """None: stdin."""
    kind: str
    """.txt, .jsonl or .parquet."""
    packing: str = ""
    """One of `PACKED`, or nothing."""


class Segment(NamedTuple):
    """A document, or a part of a long one that ends in a newline; never empty."""

    starts_document: bool
    text: str


def find_sources(inputs: Sequence[str], form: TextForm, *, any_name: bool = False) -> list[Source]:
    """The inputs, folders expanded; raises `InputError` for a path that is missing or of an unknown kind.

    With `any_name`, a file of a name that says nothing is plain text.
    """
    sources = []
    for name in inputs:
        path = Path(name)
        if name == "-":
            sources.append(Source("stdin", None, f".{form.stdin_format}"))
        elif path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.name.endswith(_SUFFIXES) and file.is_file())
            if not files:
                raise InputError(f"{name} holds no text: no file in it ends in {_KNOWN}")
            sources += [_file_source(file) for file in files]
        elif not path.exists() and not any_name:
            raise InputError(f"{name}: no such file or folder")
        elif not name.endswith(_SUFFIXES) and not any_name:
            raise InputError(f"{name} is not of a known kind: its name must end in {_KNOWN}")
        else:
            sources.append(_file_source(path))
    return sources


def _file_source(path: Path) -> Source:
    require_input(path, "check its path and permissions")
    packing = path.suffix if path.suffix in PACKED else ""
    kind = Path(path.name.removesuffix(packing)).suffix
    return Source(str(path), path, kind if kind in (".jsonl", ".parquet") else ".txt", packing)


def read_segments(
    sources: Iterable[Source], form: TextForm, *, split: bool, advance: Callable[[int], None]
) -> Iterator[Segment]:
    """The documents of all sources in order, without empty ones. `advance` is called with the number of bytes read.

    With `split`, long documents come in segments that end in a newline. Raises `InputError`, naming file and line, for
    text that is not UTF-8, and for a line that is not JSON or has no text field.
    """
    for source in sources:
        for document in _read_documents(source, form, advance):
            for index, text in enumerate(_segments(document, split)):
                yield Segment(index == 0, text)


def _read_documents(source: Source, form: TextForm, advance: Callable[[int], None]) -> Iterator[Iterable[str]]:
    """Every document as an iterator of its lines; read it to the end before you ask for the next."""
    if source.path is not None and source.kind == ".parquet":
        for text in read_parquet(source.path, form.text_field, advance):
            yield io.StringIO(text, newline="\n")
        return
    with source.path.open("rb") if source.path else nullcontext(sys.stdin.buffer) as file:
        raw = io.BufferedReader(_Counted(file, advance))
        yield from _documents(_lines(raw, source), source, form)


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
    lines = io.BufferedReader(Unpacked(raw, source.packing, source.label)) if source.packing else raw
    for number, line in enumerate(iter(lambda: lines.readline(_MOST_LINE), b""), 1):
        if len(line) == _MOST_LINE:
            raise InputError(f"{source.label}:{number} is longer than {_MOST_LINE:,} bytes: break the line")
        try:
            yield number, line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode()
        except UnicodeDecodeError as error:
            why = f"{error.reason} at byte {error.start} of the line"
            if number == 1 and line.startswith(_UTF16):
                why = "its byte order mark is UTF-16's"
            raise InputError(f"{source.label}:{number} is not UTF-8 ({why}): convert it") from error


def _documents(lines: Iterator[tuple[int, str]], source: Source, form: TextForm) -> Iterator[Iterable[str]]:
    """Every document as an iterator of its lines; read it to the end before you ask for the next."""
    if source.kind == ".jsonl":
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
