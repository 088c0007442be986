"""Reads regular files only, and writes files atomically: whole or not at all."""

import fcntl
import glob
import hashlib
import io
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ngram_eval.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to be written, which takes the place of `path` if the block succeeds and leaves no trace if it does not.

    A regular file or a new name is replaced in one step; a symbolic link stays, and what it names is replaced. A FIFO
    or a character device is written to, once the block has succeeded.
    """
    with naming(path):
        if _is_stream(path):
            content = io.BytesIO()
            yield content
            with _open_stream(path) as stream:
                stream.write(content.getbuffer())
            return
        target = Path(os.path.realpath(path))
        _remove_abandoned(target)
        descriptor, temporary = _temporary(target)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.chmod(temporary, 0o666 & ~_umask())
                os.replace(temporary, target)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A full disk and its like name what was asked for: the system names nothing, or a temporary file."""
    try:
        yield
    except OSError as error:
        if error.errno and (error.filename is None or str(error.filename).endswith(_SUFFIX)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _is_stream(path: Path) -> bool:
    """Whether there is something to write into, rather than a file to replace."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or _standard(path) is not None


def _standard(path: Path) -> int | None:
    """The descriptor of standard output or error if `path` is that (/dev/stdout), be it a file or not."""
    for descriptor in (1, 2):
        with suppress(OSError):  # closed, or no such path
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                return descriptor
    return None


def _open_stream(path: Path) -> BinaryIO:
    descriptor = _standard(path)
    if descriptor is None:
        return path.open("wb")
    sys.stdout.flush()
    return os.fdopen(os.dup(descriptor), "wb")  # goes on where it is, and does not cut a file


_SUFFIX = ".part"


def _prefix(target: Path) -> str:
    return f".{target.name[:40]}."  # a name may be as long as the system allows


def _temporary(target: Path) -> tuple[int, str]:
    """(descriptor, path) of a new file beside `target`, locked for as long as it is open."""
    while True:
        descriptor, temporary = tempfile.mkstemp(prefix=_prefix(target), suffix=_SUFFIX, dir=target.parent)
        with suppress(OSError):  # a file system without locks: nothing will be taken for abandoned there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.exists(temporary):  # else it was taken for abandoned before it was locked
            return descriptor, temporary
        os.close(descriptor)


def _remove_abandoned(target: Path) -> None:
    """Remove what killed processes left of the same file."""
    for left in target.parent.glob(f"{glob.escape(_prefix(target))}????????{_SUFFIX}"):
        if abandoned(left):
            left.unlink(missing_ok=True)


def abandoned(path: Path) -> bool:
    """Whether no process holds the lock of this file any more: the system releases it when one dies."""
    try:
        with path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False


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
        with naming(Path("standard output")):
            sys.stdout.write(text)
            sys.stdout.flush()
        return
    with replacing(path) as file:
        file.write(text.encode())


def require_writable(flag: str, path: Path | None) -> None:
    """Raise `InputError` if `path` can't be written, before hours of work."""
    if path is None or path == STDOUT:
        return
    if _is_stream(path):
        if not os.access(path, os.W_OK):
            raise InputError(f"{flag} is {path}, which may not be written to: give another name")
        return
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK) or target.is_dir():
        raise InputError(f"{flag} is {path}: give a file name in an existing, writable folder")
    if target.is_symlink() or (target.exists() and not target.is_file()):  # a circle of links, a socket, a disk
        raise InputError(f"{flag} is {path}, which is no file to be replaced: give another name")


def require_folder(flag: str, path: Path | None) -> None:
    """Raise `InputError` now if `path` could not be a folder to write into."""
    above = None if path is None else next(one for one in (path, *path.absolute().parents) if os.path.lexists(one))
    if above is not None and not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"{flag} is {path}: give a folder that is there, or can be made, and is writable")


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
        raise InputError(f"{path} can't be read ({why}): {remedy}") from error


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
    """The sha256 of a file, in hexadecimal; `advance` is called with the number of bytes read."""
    digest = hashlib.sha256()
    with open_input(path, "check the path") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()
