"""Files: only regular ones are read, and they are written whole or not at all."""

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ngram_eval.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file in the folder of `path`, renamed to `path` if the block succeeds and removed if it does not."""
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
    # mkstemp makes files for their owner alone; the mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


STDOUT = Path("-")
"""Stands for standard output where a command writes JSON."""


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, or to standard output if `path` is `-`."""
    if path == STDOUT:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    with replacing(path) as file:
        file.write(text.encode())


def require_writable(flag: str, path: Path | None) -> None:
    """Raise `InputError` now if `path` could not be written after hours of work."""
    if path is None or path == STDOUT:
        return
    folder = path.resolve().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{flag} is {path}: give a file name in an existing, writable folder")


def open_input(path: Path, remedy: str) -> BinaryIO:
    """A regular file, open for reading; raises `InputError` for anything else. A pipe would be waited for, for ever."""
    try:
        if not (stat.S_ISREG(mode := path.stat().st_mode) or stat.S_ISDIR(mode)):
            raise InputError(f"{path} can't be read (a pipe, a socket or a device): give a file")
        return path.open("rb")
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name, or half a surrogate pair
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{str(path).encode(errors='replace').decode()} can't be read ({why}): {remedy}") from error


def require_input(path: Path, remedy: str) -> None:
    """Raise `InputError` unless a library may be given this path to read from."""
    open_input(path, remedy).close()


def read_input(path: Path, remedy: str, most: int | None = None) -> bytes:
    """The bytes of a regular file, at most so many; raises `InputError` for anything else."""
    with open_input(path, remedy) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise InputError(f"{path} has {size:,} bytes, no file of its kind more than {most:,}: {remedy}")
        return file.read()


def file_sha256(path: Path, advance: Callable[[int], None] = lambda size: None) -> str:
    """The sha256 of a file, in hexadecimal; `advance` hears of bytes read."""
    digest = hashlib.sha256()
    with open_input(path, "check the path") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()
