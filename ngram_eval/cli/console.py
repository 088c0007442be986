"""The display of all commands: progress bars on stderr, tables on stdout, short help.

rich omits colours if the stream is not a terminal, or if NO_COLOR is set.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ngram_eval.timing import Track

_PIPED_WIDTH = 120
"""Columns of a table in a file or a pipe."""


def progress_bars(*columns: ProgressColumn, quiet: bool = False) -> Progress:
    """Bars on stderr: title, share done, time so far and time left; `columns` come before the times."""
    share = TextColumn("{task.percentage:.0f}%")
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    shown = (TextColumn("{task.description}", markup=False), BarColumn(), share, *columns, *times)
    console = Console(file=sys.stderr)  # this one, though loading a model silences what is printed meanwhile
    return Progress(*shown, console=console, disable=quiet)


@contextmanager
def tracked(*columns: ProgressColumn, quiet: bool = False) -> Iterator[Track]:
    """A context that yields a `Track` with bars on stderr; the display starts with the first bar."""
    progress = progress_bars(*columns, quiet=quiet)

    def track(title: str, total: int | None) -> Callable[[int], None]:
        progress.start()
        return partial(progress.advance, progress.add_task(title, total=total))

    try:
        yield track
    finally:
        if progress.tasks:
            progress.stop()


def table_console(*, quiet: bool = False, stdout_taken: bool = False) -> Console:
    """The console for tables: stdout, stderr if JSON takes stdout, nothing if `quiet`."""
    console = Console(stderr=stdout_taken, quiet=quiet, markup=False)  # names of files may look like it
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    return console


def show_help(arguments: list[str], text: str, prog: str) -> None:
    """Print `text`, the short help of a command, and exit if --help or -h is among its arguments.

    tyro makes the long help with every flag: --help-all is replaced by --help for it. Arguments after `--` are values.
    """
    flags = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--help-all" in flags:
        arguments[:] = ["--help" if argument == "--help-all" else argument for argument in arguments]
    elif {"-h", "--help"} & set(flags):
        print(f"usage: {prog} [flags]\n\n{text.format(prog=prog)}", end="")
        raise SystemExit(0)
