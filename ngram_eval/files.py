"""Reads regular files only, and writes files atomically: whole or not at all."""

import fcntl
import glob
import hashlib
import io
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ngram_eval.errors import ESCAPED, InputError


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
        remove_abandoned(target)
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


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, for what is to be moved into place; removed at the end, unless it was moved."""
    with ExitStack() as stack:
        with locked(target.parent):  # else another one may take it for abandoned before it is locked
            remove_abandoned(target)
            folder = Path(tempfile.mkdtemp(prefix=_prefix(target), suffix=_SUFFIX, dir=target.parent))
            stack.enter_context(locked(folder))
            stack.callback(_remove, folder)
        yield folder


def remove_abandoned(target: Path) -> None:
    """Remove what killed processes left beside `target` as they made it: the system releases a dead one's lock."""
    for left in target.parent.glob(f"{glob.escape(_prefix(target))}????????{_SUFFIX}"):
        try:
            descriptor = os.open(left, os.O_RDONLY if left.is_dir() else os.O_RDWR)
        except OSError:  # another process was faster, or it is another user's
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # a process is at work on it, or the file system has no locks
            continue
        else:
            _remove(left)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, refusal: str = "") -> Iterator[None]:
    """Hold the lock of a folder; where another process holds it, wait, or raise `InputError` of a `refusal`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
    except BlockingIOError as error:
        os.close(descriptor)
        raise InputError(refusal) from error
    except OSError:  # a file system without locks keeps nobody out
        pass
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def working_in(flag: str, folder: Path) -> Iterator[None]:
    """Make a folder and keep other runs out of it; raises `InputError` where one is at work there."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, f"{flag} is {folder}, where another run is at work: wait for its end, or give another folder"):
        yield


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
        file.write(text.encode(errors=ESCAPED))


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


_LFS = b"version https://git-lfs.github.com/spec/"
_LARGEST_POINTER = 1024  # by Git LFS's specification


def open_input(path: Path, remedy: str) -> BinaryIO:
    """A regular file, open for reading; raises `InputError` for anything else. A pipe would be waited for, for ever."""
    try:
        if not (stat.S_ISREG(mode := path.stat().st_mode) or stat.S_ISDIR(mode)):
            raise InputError(f"{path} can't be read (a pipe, a socket or a device): give a file")
        file = path.open("rb")
        if os.fstat(file.fileno()).st_size < _LARGEST_POINTER and file.peek(len(_LFS)).startswith(_LFS):
            file.close()
            raise InputError(f"{path} is a Git LFS pointer, not the file it stands for: fetch that with `git lfs pull`")
        return file
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


class Stamp(NamedTuple):
    """What another process changes as it writes to a file or replaces it."""

    size: int
    modified: int
    """Nanoseconds."""
    inode: int


def stamp(status: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


def require_unchanged(path: Path, before: Stamp, now: Stamp) -> None:
    """Raise `InputError` unless the stamps of a file, at two times, are the same."""
    if now != before:
        what = f"{before.size:,} bytes then, {now.size:,} now" if now.size != before.size else "as many bytes as before"
        raise InputError(f"{path} was changed while it was in use ({what}): run again once nothing writes to it")


class Unchanged:
    """Files that must stay as they are while they are used."""

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        """Raises `InputError` for a file that can't be read."""
        self._before = {path: _stamp_of(path) for path in paths}

    def check(self) -> None:
        """Raise `InputError` for a file that was changed, replaced or removed."""
        for path, before in self._before.items():
            require_unchanged(path, before, _stamp_of(path))


def _stamp_of(path: Path) -> Stamp:
    with open_input(path, "check the path") as file:
        return stamp(os.fstat(file.fileno()))


def file_sha256(path: Path, advance: Callable[[int], None] = lambda size: None) -> str:
    """The sha256 of a file, in hexadecimal; `advance` is called with the number of bytes read."""
    digest = hashlib.sha256()
    with open_input(path, "check the path") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()
