"""`--from-result`: runs a result file again, on the same files, and compares the results."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngram_eval.config import EvalConfig
from ngram_eval.errors import InputError
from ngram_eval.evaluation.job import Input
from ngram_eval.evaluation.result import Result
from ngram_eval.evaluation.settings import Settings
from ngram_eval.results.result_file import REMEDY, Run, plain, read_runs
from ngram_eval.structured import build

SAME = ("nats", "neural_nats", "positions", "bytes", "hits_by_order", "vocabulary_sum", "unknown_targets", "profile")
"""Fields that must be equal, bit for bit."""


@dataclass(frozen=True, slots=True)
class Again:
    """The runs of a result file that is run again."""

    path: Path
    runs: list[Run]

    @classmethod
    def read(cls, path: Path) -> "Again":
        """The runs of a file that --json wrote; raises `InputError` for one of `ngram_eval.evaluate`."""
        again = cls(path, read_runs(path))
        if again.runs[0].settings is None and again.runs[0].arguments is None:
            raise InputError(f"{path} is of ngram_eval.evaluate, called from Python: call it there again")
        return again

    @property
    def settings(self) -> Settings | None:
        """Data, model and hardware; None for a file of version 0.1, which has `arguments` instead."""
        found = self.runs[0].settings
        return None if found is None else build(found, Settings, f"{self.path}: its settings", REMEDY)

    @property
    def configs(self) -> dict[str, EvalConfig]:
        """Preset -> configuration."""
        return {
            run.preset: build(run.everything["config"], EvalConfig, f"{self.path}: its config", REMEDY)
            for run in self.runs
        }

    @property
    def arguments(self) -> list[str]:
        """The command line of a file of version 0.1."""
        return list(self.runs[0].arguments or ())

    def check_inputs(self, found: Sequence[Input]) -> None:
        """Raise `InputError` unless the files that were read are those of the result, byte for byte."""
        expected = self.runs[0].inputs
        if len(expected) != len(found):
            raise InputError(
                f"{self.path} was made from {len(expected)} files, here are {len(found)}: give the same --data, "
                "--tokenizer and model"
            )
        for old, new in zip(expected, found, strict=True):
            if (old.role, old.sha256) != (new.role, new.sha256):
                raise InputError(
                    f"{new.path} ({new.role}, sha256 {new.sha256[:12]}...) is not the file that {self.path} was made "
                    f"from ({old.path}, {old.role}, sha256 {old.sha256[:12]}...): give that one"
                )


def differences(again: Again, results: Sequence[Result]) -> tuple[bool, list[str]]:
    """(whether the results are equal to those of the file, one line for each preset)."""
    old, new = {run.preset: run.everything for run in again.runs}, {one.preset: plain(one) for one in results}
    lines, same = [], old.keys() == new.keys()
    for name, run in new.items():
        if name not in old:
            lines.append(f"{name}: not in {again.path}")
        elif different := list(_differences(old[name], run)):
            same = False
            lines.append(f"{name}: DIFFERENT: {'; '.join(different)}")
        else:
            lines.append(f"{name}: equal to {again.path}, bit for bit")
    lines += [f"{name}: not run again" for name in old if name not in new]
    return same, lines


def _differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """The fields that differ, and settings that may be the reason."""
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
    """The settings that differ, by their full names."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted(was.keys() | now.keys()):
            yield from _changed(f"{name}.{key}", was.get(key), now.get(key))
    elif was != now:
        yield f"{name} was {was!r}, is {now!r}"
