"""Writes files atomically: whole or not at all."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ngram_eval.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file in the folder of `path`; renamed to `path` if the block succeeds, else removed."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    # mkstemp makes files that only their owner can read; the mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


STDOUT = Path("-")
"""Standard output, where a command writes JSON or a page."""


def write_text(path: Path, text: str) -> None:
    """Write a file atomically, or print to standard output if `path` is `-`."""
    if path == STDOUT:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    with replacing(path) as file:
        file.write(text.encode())


def require_writable(flag: str, path: Path | None) -> None:
    """Raise `InputError` if `path` can't be written, before hours of work."""
    if path is None or path == STDOUT:
        return
    folder = path.resolve().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{flag} is {path}: give a file name in an existing, writable folder")


def file_sha256(path: Path, advance: Callable[[int], None] = lambda size: None) -> str:
    """The sha256 of a file, in hexadecimal; `advance` is called with the number of bytes read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()
