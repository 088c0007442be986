"""Flags as tyro reads them: what is wrong is told in one line, and shells get to know their values."""

import ast
import io
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from difflib import get_close_matches
from itertools import takewhile
from typing import Any, TypeVar

from ngram_eval.errors import BAD_INPUT, InputError

SHELLS = ("bash", "zsh", "fish")
_EDGE = re.compile(r"[╭╰]|\W*[─-]{3}")
"""Begins a line of a box that holds no text but its title."""
_FISH = str.maketrans({"\\": "\\\\", '"': '\\"', "$": "\\$"})
"""The escapes of a string in fish's double quotes."""

Parsed = TypeVar("Parsed")


def read_flags(parse: Callable[..., Parsed], arguments: Sequence[str], prog: str) -> Parsed:
    """`parse(args=arguments, prog=prog)`, for a `parse` that is made of `tyro.cli`.

    What tyro would tell in a box raises `InputError`.
    """
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            found = parse(args=list(arguments), prog=prog)
    except SystemExit as end:
        if end.code != BAD_INPUT:
            raise
        raise InputError(_refusal(parse, arguments, prog, told.getvalue())) from None
    print(told.getvalue(), end="", file=sys.stderr)
    return found


def _refusal(parse: Callable[..., Any], arguments: Sequence[str], prog: str, told: str) -> str:
    """What is wrong with the arguments, of which tyro has `told`."""
    commands, known = [prog], set[str]()
    for options, word in _path(_specification(_script(parse, "bash")), arguments):
        known |= {flag for option in options["options"] for flag in option["flags"]}
        commands += [word] if word else []
    flags = arguments[: arguments.index("--")] if "--" in arguments else arguments
    given = dict.fromkeys(one.partition("=")[0] for one in flags if re.match("--[A-Za-z]", one))
    unknown = [one for one in given if one.replace("_", "-") not in known]
    command = " ".join(commands)
    if not unknown:
        text = " ".join(_boxed(told)).removeprefix("Error parsing ").rstrip(".")
        return f"{text} (see `{command} --help`)" if command else text
    near = dict.fromkeys(match for one in unknown for match in get_close_matches(one, known, n=1))
    remedy = f"did you mean {', '.join(near)}?" if near else "--help-all lists its flags"
    return f"{command} has no flag {', '.join(unknown)}: {remedy}"


def _boxed(told: str) -> list[str]:
    """The first words in a box of tyro's, by line. Where a terminal can't show one, its title is a line of text."""
    lines = iter(told.splitlines())
    if not next(lines).startswith("╭"):
        next(lines)
    return [line.strip(" │") for line in takewhile(lambda line: not _EDGE.match(line), lines)]


def _path(specification: dict[str, Any], arguments: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """The specification and, one after another, those of the subcommands that the arguments name, with the name."""
    yield specification, ""
    for word in arguments:
        if word in specification["subcommands"]:
            specification = specification["subcommands"][word]
            yield specification, word


def _script(parse: Callable[..., Any], shell: str, prog: str = "x") -> str:
    """Tyro's completion script."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            parse(args=["--tyro-print-completion", shell], prog=prog)
    except SystemExit:
        return printed.getvalue()
    raise AssertionError("tyro prints a script and exits")


def _line(script: str) -> str:
    return next(line for line in script.splitlines() if line.startswith("COMPLETION_SPEC = "))


def _specification(script: str) -> dict[str, Any]:
    found: dict[str, Any] = ast.literal_eval(_line(script).partition(" = ")[2])
    return found


def completion(parse: Callable[..., Any], shell: str, prog: str, values: Mapping[str, Mapping[str, list[str]]]) -> str:
    """The completion script of a shell, one of `SHELLS`.

    `values` has the values of flags that tyro takes for any text: subcommand -> flag -> values.
    """
    script = _script(parse, shell, prog)
    specification = _specification(_script(parse, "bash", prog))
    for name, command in specification["subcommands"].items():
        for part in (command, *command["subcommands"].values()):
            for option in part["options"]:
                option["description"] = " ".join(option["description"].split())  # a line is a candidate
                chosen = values.get(name, {}).get(option["flags"][0])
                if chosen:
                    option |= {"type": "choice", "choices": chosen}
    line = f"COMPLETION_SPEC = {specification!r}"
    return script.replace(_line(script), line.translate(_FISH) if shell == "fish" else line)
