"""Flags have one name: with hyphens or underscores it is the same, and anything else is an error, never ignored."""

import re

import pytest

from ngram_eval.cli import main as cli
from tests.support.flags import NAMES, flags_of

pytestmark = pytest.mark.usefixtures("wide")


def value_of(kind: str) -> str:
    return re.findall(r"[\w-]+", kind)[0] if kind.startswith("{") else "x"


def unrecognized(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    error = capsys.readouterr().err
    (found,) = re.findall(r"(?s)Unrecognized options: (.*?)\n *-----", error) or [error]
    return re.findall(r"--[\w-]+", found)


@pytest.mark.parametrize("command", NAMES, ids=" ".join)
def test_every_flag_is_known_by_its_names_alone(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    flags = flags_of(command, capsys)
    assert len(flags) >= 3
    values = {flag: kind and value_of(kind) for flag, kind in flags.items()}
    if "--preset" in flags:
        values["--preset"] = "small" if command == ["train"] else "exact"
    values.pop("--from-result", None)  # it is read before the others
    given = [f"{flag}={value}" if value else flag for flag, value in values.items()]
    given += {"codec": ["a", "b"], "convert": ["a"]}.get(command[0], [])
    assert unrecognized([*command, *given, "--wrong"], capsys) == ["--wrong"]
    underscores = [one[:2] + one[2:].replace("-", "_") for one in given]
    assert unrecognized([*command, *underscores, "--wrong"], capsys) == ["--wrong"]
    wrong = {flag[:-1] for flag in flags} | {f"{flag}s" for flag in flags} | {flag.upper() for flag in flags}
    wrong -= flags.keys()
    assert set(unrecognized([*command, *given, *sorted(wrong)], capsys)) == wrong
