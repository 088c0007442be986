"""`ngram-eval compare`: results side by side, with confidence intervals of the differences."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from ngram_eval.cli.console import show_help, table_console
from ngram_eval.cli.flags import read_flags
from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.files import STDOUT, require_writable, write_text
from ngram_eval.results.compare import Comparison, compare, print_comparison


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(Comparison):
    """Compare results of the evaluator: bits per byte, differences, and their confidence intervals."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RESULT.json ...")]
    """Results of --json. Each run is compared with the same preset of the first file, or else with its first run."""
    json: Path | None = None
    """Write the comparison here; - for standard output, and the table then goes to stderr."""
    quiet: bool = False
    """Show no table."""

    def check(self) -> None:
        super(Options, self).check()
        if not self.files:
            raise InputError("no result is given: give files that `ngram-eval run --json` wrote")


HELP = """\
Compare results of --json: bits per byte, differences, and their confidence intervals.

example
  {prog} before.json after.json --preset exact

data
  RESULT.json ...      each run is compared with the same preset of the first file
  --preset NAME ...    only these presets
method (intervals: paired block bootstrap over stretches of the stream)
  --against neural     compare each run with its own neural model alone
  --mixed              compare scores with bits per byte too, which is otherwise refused
  --confidence 0.95    confidence level of the intervals
  --draws 2000 --seed 0
output
  --json FILE          the comparison; - for stdout
  --quiet              no table
"""


def main(arguments: Sequence[str], prog: str) -> None:
    """The command line."""
    given = list(arguments)
    with exit_on_input_error():
        show_help(given, HELP, prog)
        options = read_flags(partial(tyro.cli, Options), given, prog)
        options.check()
        require_writable("--json", options.json)
        compared = compare(options.files, options)
        if options.json is not None:
            write_text(options.json, json.dumps({"compared": [asdict(one) for one in compared]}, indent=2) + "\n")
        print_comparison(compared, options, table_console(quiet=options.quiet, stdout_taken=options.json == STDOUT))
