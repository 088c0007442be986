"""What every command shows while it works: bars with the time left on stderr, tables on stdout, colours on terminals.

rich leaves colours out where the stream is no terminal, or NO_COLOR is set.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ngram_eval.timing import Track

_PIPED_WIDTH = 120
"""Columns of a table in a file or a pipe."""


def progress_bars(*columns: ProgressColumn, quiet: bool = False) -> Progress:
    """Bars on stderr: what is done, how much of it, the time it took and the time left; `columns` come in between."""
    share = TextColumn("{task.percentage:.0f}%")
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    shown = (TextColumn("{task.description}"), BarColumn(), share, *columns, *times)
    return Progress(*shown, console=Console(stderr=True), disable=quiet)


@contextmanager
def tracked(*columns: ProgressColumn, quiet: bool = False) -> Iterator[Track]:
    """Bars on stderr for whatever tells how far it is, from the first that is asked for."""
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
    """Where a table goes: stdout, stderr if stdout is taken by JSON, nowhere if `quiet`."""
    console = Console(stderr=stdout_taken, quiet=quiet)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    return console


def show_help(arguments: list[str], text: str, prog: str) -> None:
    """Print `text`, the short help of a command, and exit if --help or -h is among its arguments.

    The long one, every flag there is, is tyro's: --help-all becomes the --help it knows. Arguments behind `--` are
    values.
    """
    flags = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--help-all" in flags:
        arguments[:] = ["--help" if argument == "--help-all" else argument for argument in arguments]
    elif {"-h", "--help"} & set(flags):
        print(f"usage: {prog} [flags]\n\n{text.format(prog=prog)}", end="")
        raise SystemExit(0)
