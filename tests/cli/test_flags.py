"""Flags have one name: with hyphens or underscores it is the same, and anything else is an error, never ignored."""

import re

import pytest

from ngram_eval.cli import main as cli

NAMES = [[name] for name in cli.COMMANDS if name != "codec"] + [["codec", name] for name in ("compress", "decompress")]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "4000")  # nothing is broken into lines


def flags_of(command: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Flag of a command, as its help lists them -> a value for it, or nothing."""
    with pytest.raises(SystemExit, match="0"):
        cli.main([*command, "--help-all"])
    flags = {}
    for names, kind in re.findall(r"(?m)^  ((?:-\w, )?--\w[\w-]*(?:, --[\w-]+)*)(?: (\S+))?", capsys.readouterr().out):
        choices = re.findall(r"[\w-]+", kind) if kind.startswith("{") else ["x"]
        flags |= {flag: kind and choices[0] for flag in names.split(", ") if flag.startswith("--") and flag != "--help"}
    return flags


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
    values = flags | ({"--preset": "small" if command == ["train"] else "exact"} if "--preset" in flags else {})
    values.pop("--from-result", None)  # it is read before the others
    given = [f"{flag}={value}" if value else flag for flag, value in values.items()]
    given += {"codec": ["a", "b"], "convert": ["a"]}.get(command[0], [])
    assert unrecognized([*command, *given, "--wrong"], capsys) == ["--wrong"]
    underscores = [one[:2] + one[2:].replace("-", "_") for one in given]
    assert unrecognized([*command, *underscores, "--wrong"], capsys) == ["--wrong"]
    wrong = {flag[:-1] for flag in flags} | {f"{flag}s" for flag in flags} | {flag.upper() for flag in flags}
    wrong -= flags.keys()
    assert set(unrecognized([*command, *given, *sorted(wrong)], capsys)) == wrong
