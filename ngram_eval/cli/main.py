"""The command `ngram-eval` with its subcommands run, compare, ... (`python -m ngram_eval` is the same).

A subcommand is a module with `main(arguments, prog)` and a line in `COMMANDS`.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import tyro

from ngram_eval import __version__
from ngram_eval.errors import InputError, exit_on_input_error

PROG = "ngram-eval"


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand."""

    module: str
    """Module of the subcommand; imported on demand."""
    summary: str
    options: str = "Options"
    """Name of the class in that module that defines the flags, for shell completion; values of flags that it takes for
    any text are in the module's `VALUES`, or else in those of `options`."""


COMMANDS = {
    "run": Command("ngram_eval.cli.run", "score a token stream in bits per byte"),
    "prepare": Command("ngram_eval.cli.prepare", "turn text into token shards; train a tokenizer", "PrepareOptions"),
    "train": Command("ngram_eval.train.__main__", "train a small model and export it"),
    "audit": Command("ngram_eval.cli.audit", "probe whether a score is a probability", "AuditOptions"),
    "codec": Command("ngram_eval.cli.codec", "compress a file to the size that a score claims", "Commands"),
    "memory": Command("ngram_eval.cli.memory", "keep a text that memories begin with", "Commands"),
    "convert": Command("ngram_eval.cli.convert", "convert a model file of PR #890 to an artifact"),
    "compare": Command("ngram_eval.cli.compare", "compare results, with confidence intervals"),
    "explain": Command("ngram_eval.cli.explain", "show how one prediction is made up", "ExplainOptions"),
    "budget": Command("ngram_eval.cli.budget", "predict how long an evaluation takes here", "BudgetOptions"),
    "doctor": Command("ngram_eval.cli.doctor", "say what is installed here, and what is missing", "DoctorOptions"),
}
"""Subcommand -> `Command`: the only list of subcommands."""

HELP = """\
usage: {prog} COMMAND [flags]

Language models in bits per byte, with an n-gram memory, fast and honest.

commands
{commands}

examples
  {prog} run                                 the embedded model on the embedded novel
  {prog} run --preset exact --report out.html
  {prog} COMMAND --help                      the common flags; --help-all: every flag
  {prog} --version

completion, for bash, zsh or fish
  {prog} completion bash > ~/.local/share/bash-completion/completions/{prog}
  {prog} completion zsh > ~/.zfunc/_{prog}
  {prog} completion fish > ~/.config/fish/completions/{prog}.fish

exit codes: 0 done; 1 failed, refuted or different; 2 bad input; 130 interrupted (ctrl-C)
"""


def help_text() -> str:
    """The text of `ngram-eval --help`."""
    width = max(map(len, COMMANDS)) + 2
    listed = "\n".join(f"  {name:<{width}}{command.summary}" for name, command in COMMANDS.items())
    return HELP.format(prog=PROG, commands=listed)


def completion_of(shell: str) -> str:
    """The completion script of a shell, with every subcommand, flag and value that has a name."""
    from ngram_eval.cli.flags import SHELLS, completion  # what only completion needs is imported here
    from ngram_eval.cli.options import VALUES

    if shell not in SHELLS:
        raise InputError(f"completion is for {', '.join(SHELLS)}, not {shell!r}: run `{PROG} completion bash`")
    modules = {name: import_module(command.module) for name, command in COMMANDS.items()}
    flags: dict[str, Callable[..., Any]] = {
        name: getattr(module, COMMANDS[name].options) for name, module in modules.items()
    }
    values = {name: getattr(module, "VALUES", VALUES) for name, module in modules.items()}
    parse = partial(tyro.extras.subcommand_cli_from_dict, flags, config=(tyro.conf.OmitArgPrefixes,))
    return completion(parse, shell, PROG, values)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with exit_on_input_error():
        if not given or given[0] in ("-h", "--help", "--help-all", "help"):
            print(help_text(), end="")
            return
        name, rest = given[0], given[1:]
        if name == "--version":
            print(f"ngram_eval {__version__}")
            return
        if name == "completion":
            print(completion_of(rest[0] if rest else ""), end="")
            return
        if name not in COMMANDS:
            raise InputError(f"{name!r} is not a command: choose from {', '.join(COMMANDS)} (see `{PROG} --help`)")
        run: Callable[[list[str], str], None] = import_module(COMMANDS[name].module).main
        run(rest, f"{PROG} {name}")


if __name__ == "__main__":
    main()
