"""What README and docs tell users to type, and how it is tried: one reading of all pages.

- A block of Python (```python) is run; a page's blocks share one session. If its first line is `# name.py`, it is
  written to that file as well.
- An indented block holds commands, and so does ```sh. They are run in the folder of the session, in the page's order,
  with the blocks of Python between them.
- A command with a comment of what it `needs` or `takes` (`# needs 8 GPUs`, `# takes 15 minutes`) is not run, nor is one
  with an ellipsis, which is no whole command. Their flags are checked: parsed with their values if it is whole.
- Anything else in ``` is text. A command that none of this covers is an error, so that none is passed over.
"""

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

from tests.support.places import ROOT

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "ngram_eval/assets/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")),
]
_BLOCKS = re.compile(r"^```(\w*)\n(.*?)^```$|(?<=\n\n)((?:    [^\n]*\n+)+)", re.MULTILINE | re.DOTALL)
_OPERATORS = re.compile(r"[|&;<>()]+")
_UNIX = ("head", "tail")
"""Programs that are run as they are."""


@dataclass(frozen=True)
class Command:
    """A command of a page."""

    line: str
    words: tuple[str, ...]
    """Of its first program, without variables before it and whatever the shell does with its output."""
    comment: str

    @property
    def sketched(self) -> bool:
        """Whether something is left out of it."""
        return any(word in ("...", "…") for word in self.words)

    @property
    def run(self) -> bool:
        """Whether it can be run wherever the tests are."""
        return not self.sketched and not re.match(r"(needs|takes) ", self.comment)


@dataclass(frozen=True)
class Python:
    """A block of Python."""

    code: str


Step = Command | Python


def steps(page: str) -> list[Step]:
    """What a page shows, in its order."""
    return list(_steps((ROOT / page).read_text(encoding="utf-8")))


def _steps(text: str) -> Iterator[Step]:
    for language, fenced, indented in _BLOCKS.findall(text):
        if language == "python":
            yield Python(fenced)
        elif indented or language == "sh":
            block = re.sub(r"\\\n\s*", " ", fenced or indented)
            yield from (parse(line.strip()) for line in block.splitlines() if line.strip())


def parse(line: str) -> Command:
    """A line of a block."""
    shell = shlex.shlex(line, posix=True, punctuation_chars=True)
    shell.whitespace_split = True
    words: list[str] = []
    for word in shell:
        if _OPERATORS.fullmatch(word) and words:
            break
        if not words and (_OPERATORS.fullmatch(word) or re.match(r"\w+=", word)):
            continue
        words.append(word)
    comment = re.search(r"\s#\s(.*)$", line)
    return Command(line, tuple(words), comment[1] if comment else "")


def module_of(command: Command) -> tuple[str, list[str]] | None:
    """(module, arguments) where it is one of ours, under `python -m`, torchrun or as a subcommand."""
    from ngram_eval.cli.main import COMMANDS

    program, *rest = command.words
    if program == "ngram-eval":
        if rest[0] == "completion":
            return "ngram_eval.cli.main", rest
        if rest[0] not in COMMANDS:
            raise ValueError(f"no such subcommand: {command.line}")
        return COMMANDS[rest[0]].module, rest[1:]
    if program in ("python", "torchrun") and "-m" in rest:
        at = rest.index("-m")
        return _main_module(rest[at + 1], command.line), rest[at + 2 :]
    return None


def _main_module(name: str, line: str) -> str:
    if name in ("ngram_eval.run", "ngram_eval.audit", "ngram_eval.codec"):  # thin: the commands themselves
        return name.replace("ngram_eval.", "ngram_eval.cli.")
    found = importlib.util.find_spec(name)
    if found is None:
        raise ValueError(f"there is no module {name}: {line}")
    return f"{name}.__main__" if found.submodule_search_locations is not None else name


def check(command: Command) -> None:
    """Raise `ValueError` unless what it names exists: its flags, a make target, an extra, a script."""
    ours = module_of(command)
    if ours is not None:
        _check_flags(command, *ours)
        return
    program, *rest = command.words
    if program == "make":
        known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
        unknown = {word for word in rest if "=" not in word} - known
    elif program == "pip":
        extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE))
        unknown = {extra for word in rest for extra in re.findall(r"\[(\w+)\]", word)} - extras
    elif program in _UNIX:
        return
    else:
        unknown = {program} if not (ROOT / program).is_file() else set()
    if unknown:
        raise ValueError(f"no such {', '.join(sorted(unknown))}: {command.line}")


class _Parsed(BaseException):
    """All arguments were taken."""


def _check_flags(command: Command, module: str, arguments: list[str]) -> None:
    if command.sketched:
        nested = [arguments[0]] if module == "ngram_eval.cli.codec" else []
        shown = _output(module, [*nested, "--help-all"])
        unknown = {word for word in arguments if word.startswith("--")} - set(re.findall(r"--[a-z0-9-]+", shown))
        if unknown:
            raise ValueError(f"no such flag as {', '.join(sorted(unknown))}: {command.line}")
        return
    import tyro  # not everywhere that a page's Python runs

    parse_flags = tyro.cli

    def parsed(*given: Any, **named: Any) -> Any:
        found: Any = parse_flags(*given, **named)
        if named.get("return_unknown_args"):
            return found
        raise _Parsed

    tyro.cli = parsed
    try:
        said = _output(module, arguments)
    except _Parsed:
        return
    finally:
        tyro.cli = parse_flags
    raise ValueError(f"{command.line}\n{said}")


def _output(module: str, arguments: list[str]) -> str:
    said = StringIO()
    with redirect_stdout(said), redirect_stderr(said), suppress(SystemExit):
        call(module, arguments)
    return said.getvalue()


def call(module: str, arguments: list[str]) -> None:
    """The command line of a module, in this process."""
    from ngram_eval.cli.main import COMMANDS

    if module in {command.module for command in COMMANDS.values()}:
        import_module(module).main(arguments, module)
        return
    before = sys.argv
    sys.argv = [module, *arguments]
    try:
        import_module(module).main()
    finally:
        sys.argv = before


def run(page: str, folder: Path, skip: Callable[[Command], bool] = lambda command: False) -> dict[str, Any]:
    """Do in `folder`, the current one, what a page shows; returns the session of its Python."""
    session: dict[str, Any] = {"__name__": "session"}
    for step in steps(page):
        if isinstance(step, Python):
            name = re.match(r"# (\w+\.py)\n", step.code)
            if name:
                (folder / name[1]).write_text(step.code, encoding="utf-8")
            exec(compile(step.code, page, "exec"), session)
        elif step.run and not skip(step):
            _run(step)
    return session


def _run(command: Command) -> None:
    ours = module_of(command)
    if ours is None:
        check(command)
        if command.words[0] in _UNIX:
            subprocess.run(command.line, shell=True, check=True)
        return
    module, arguments = ours
    if command.words[0] == "torchrun":
        raise ValueError(f"several processes: say in a comment what it needs: {command.line}")
    try:
        call(module, arguments)
    except SystemExit as end:
        told = module == "ngram_eval.cli.audit" and end.code in (1, 4)  # refuted, inconclusive
        if end.code and not told:
            raise AssertionError(f"exit code {end.code}: {command.line}") from end
