"""`InputError`, the exception for bad input, and exit codes.

Command lines catch it, print its message to stderr without a traceback, and exit with code 2. The message names the
file or flag, the value found, and the remedy. Any other exception is a bug and keeps its traceback.
"""

import errno
import io
import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

_OUTSIDE = frozenset(
    {errno.EACCES, errno.EDQUOT, errno.EISDIR, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS}
)
"""OS errors about the user's files, permissions and disk space. Others (such as a broken pipe) may be bugs."""

_FULL = frozenset({errno.EDQUOT, errno.ENOSPC})


BAD_INPUT, FAILED, INTERRUPTED, TERMINATED = 2, 1, 130, 143
"""Exit codes; the last two are the shell's for SIGINT and SIGTERM."""
INTERNAL, INCONCLUSIVE = 3, 4
"""Exit codes of the audit alone: an error of its own; nothing was refuted, and what matters could not be asked."""


ESCAPED = "backslashreplace"
"""How what names files is encoded. A byte of a name that is not UTF-8 is \\udc and its hexadecimal digits, in JSON too,
where that is read back as the byte."""


class InputError(ValueError):
    """Bad input: names the file or flag, the offending value and the remedy, in one line that any terminal shows.

    A message is written with flags. Unless a command line runs (`exit_on_input_error`), it names arguments of Python in
    their place: --seq-len becomes seq_len. What of it comes from a file may hold line breaks, half surrogate pairs and
    codes for terminals: they are escaped.
    """

    names_flags: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        named = message if self.names_flags else _FLAG.sub(_argument, message)
        super().__init__("".join(map(_shown, named)))


_FLAG = re.compile(r"`[^`]* [^`]*`|(?<![\w-])--(?P<name>[a-z][a-z0-9-]*)")
"""A command, which stays as it is, or a flag."""


def _argument(found: re.Match[str]) -> str:
    return found["name"].replace("-", "_") if found["name"] else found[0]


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def is_failure(error: BaseException) -> bool:
    """Whether a library failed: any exception, or a panic of Rust, which is none and whose type can't be imported."""
    return not isinstance(error, MemoryError) and (isinstance(error, Exception) or "Panic" in type(error).__name__)


@contextmanager
def refusing(source: object, what: str, remedy: str) -> Iterator[None]:
    """A context for a library that reads a file of a stranger's: whatever it raises becomes an `InputError`.

    Its message is `source what (the error): remedy`. Libraries raise almost any type where a file is damaged.
    """
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        if not is_failure(error):
            raise
        raise InputError(f"{source} {what} ({error or type(error).__name__}): {remedy}") from error


def exit_code(error: BaseException) -> int:
    """The exit code for an exception."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED if error.code else 0
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    # What names a file is about that file, whatever befell it: a reader that has gone, a circle of links.
    outside = isinstance(error, OSError) and (error.errno in _OUTSIDE or error.filename is not None)
    return BAD_INPUT if outside or isinstance(error, (InputError, MemoryError)) else FAILED


def one_line(error: BaseException) -> str:
    """The message of an exception in one line."""
    if isinstance(error, MemoryError):
        return f"out of memory ({error or 'no memory left'}): use fewer --buckets, --threads or --batch-windows"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
        return f"{error}: 'standard output'"  # whatever writes a file names it (`ngram_eval.files.naming`)
    return str(error) if exit_code(error) == BAD_INPUT else f"{type(error).__name__}: {error}"


def _takes_nothing(error: BaseException) -> bool:
    """Whether stdout is full, or a pipe without a reader.

    Then it leads nowhere from now on: Python flushes it again in the end, and would exit with a code of its own.
    """
    stdout = sys.__stdout__
    if stdout is None or stdout is not sys.stdout or not isinstance(error, OSError) or error.filename is not None:
        return False
    pipe = select.poll()
    pipe.register(stdout, 0)
    if error.errno not in _FULL and not any(event & select.POLLERR for _, event in pipe.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
    return True


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """A context for a command line: bad input and files, disk or memory that the system refuses exit with code 2.

    The error is one line on stderr. Ctrl-C exits with 130, the shell's code for it. Other exceptions pass through.
    Names of files that are not UTF-8 are printed with escapes, as stderr does by itself. Where the reader of stdout has
    gone, as `head` does, the command ends with 1 and says nothing.
    """
    InputError.names_flags, before = True, InputError.names_flags
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=ESCAPED)
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except (InputError, OSError, MemoryError, KeyboardInterrupt) as error:
        code = exit_code(error)
        if _takes_nothing(error) and isinstance(error, BrokenPipeError):
            raise SystemExit(FAILED) from None
        if code == FAILED:
            raise
        prefix = "error: " if code == BAD_INPUT else ""
        print(prefix + one_line(error), file=sys.stderr)
        raise SystemExit(code) from None
    finally:
        InputError.names_flags = before
