"""The one exception that means "what you gave me is wrong".

Command lines catch it, print its message to stderr without a traceback and exit with code 2. The message
names the file or flag, the value found, and the remedy. Anything else that escapes is a bug and keeps its traceback.
"""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OUTSIDE = frozenset(
    {errno.EACCES, errno.EDQUOT, errno.EISDIR, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS}
)
"""OS errors about the user's files, rights and disk space. Others (a broken pipe, a bad descriptor) may be bugs."""


class InputError(ValueError):
    """Bad input: names the file or flag, the offending value and the remedy."""


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Run a command line: bad input, or a file or disk the system refuses, becomes one line on stderr and exit code 2.

    Ctrl-C exits with 130, the shell's code for it. Every other exception passes, traceback and all.
    """
    try:
        yield
    except InputError as error:
        _exit(f"error: {error}", 2)
    except OSError as error:
        if error.errno not in _OUTSIDE:
            raise
        _exit(f"error: {error}", 2)
    except KeyboardInterrupt:
        _exit("interrupted", 130)


def _exit(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(code) from None
