"""`--from-result`: the run of a result file once more, on the same files, and whether the result is equal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from ngram_eval.errors import FAILED, InputError
from ngram_eval.job import Input
from ngram_eval.report import Result, plain
from ngram_eval.results import Run, read_runs

SAME = ("nats", "neural_nats", "positions", "bytes", "hits_by_order", "vocabulary_sum", "unknown_targets", "profile")
"""Fields that must be equal, to the bit."""


@dataclass(frozen=True)
class _Named:
    from_result: Path | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """The runs of a result file, to be run again."""

    path: Path
    runs: list[Run]

    @classmethod
    def named_in(cls, arguments: Sequence[str]) -> "Again | None":
        """What --from-result names in a command line; None without one."""
        if not any(argument.partition("=")[0] == "--from-result" for argument in arguments):
            return None
        named, _ = tyro.cli(_Named, args=arguments, return_unknown_args=True, add_help=False)
        return None if named.from_result is None else cls(named.from_result, read_runs(named.from_result))

    @property
    def arguments(self) -> list[str]:
        """The command line that led to them, without what says where results go. Raises `InputError` without one."""
        arguments = self.runs[0]["arguments"]
        if arguments is None:
            raise InputError(f"{self.path} is of ngram_eval.evaluate, called from Python: call it again there")
        return list(arguments)

    def check_inputs(self, found: Sequence[Input]) -> None:
        """Raise `InputError` unless the files that were read are, byte for byte, those of the result."""
        expected = self.runs[0]["inputs"]
        if len(expected) != len(found):
            raise InputError(
                f"{self.path} was made of {len(expected)} files, here are {len(found)}: give the same --data, "
                "--tokenizer and model"
            )
        for old, new in zip(expected, found, strict=True):
            if (old["role"], old["sha256"]) != (new.role, new.sha256):
                raise InputError(
                    f"{new.path} ({new.role}, sha256 {new.sha256[:12]}...) is not the file that {self.path} was made "
                    f"of ({old['path']}, {old['role']}, sha256 {old['sha256'][:12]}...): give that one"
                )

    def verdict(self, results: Sequence[Result], console: Console) -> int:
        """Say whether the results are equal; the exit code, 1 where they are not."""
        old, new = {run["preset"]: run for run in self.runs}, {one.preset: plain(one) for one in results}
        lines = []
        for name, run in new.items():
            if name not in old:
                lines.append(f"{name}: not in {self.path}")
            elif differences := list(_differences(old[name], run)):
                lines.append(f"{name}: DIFFERENT: {'; '.join(differences)}")
            else:
                lines.append(f"{name}: equal to {self.path}, to the bit")
        lines += [f"{name}: not run again" for name in old if name not in new]
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False)
        return FAILED if any("equal to" not in line for line in lines) else 0


def _differences(old: Run, new: Run) -> Iterator[str]:
    """What is another, and what may be the reason."""
    wrong = [name for name in SAME if old.get(name) != new[name]]
    for name in wrong:
        was, now = old.get(name), new[name]
        if isinstance(was, float) and isinstance(now, float):
            yield f"{name} was {was!r}, is {now!r} ({(now - was) / was:+.1e})" if was else f"{name} was 0, is {now!r}"
        elif name in ("profile", "hits_by_order"):
            yield f"{name} differs"
        else:
            yield f"{name} was {was!r}, is {now!r}"
    if not wrong:
        return
    for name in ("config", "backend", "neural_settings", "versions", "world_size", "complete"):
        yield from _changed(name, old.get(name), new[name])


def _changed(name: str, was: Any, now: Any) -> Iterator[str]:
    """The settings that are others, by their full names."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted(was.keys() | now.keys()):
            yield from _changed(f"{name}.{key}", was.get(key), now.get(key))
    elif was != now:
        yield f"{name} was {was!r}, is {now!r}"
