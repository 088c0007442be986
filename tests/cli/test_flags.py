"""Flags have one name: with hyphens or underscores it is the same, and anything else is an error, never ignored."""

import re
import subprocess
import sys

import pytest

from ngram_eval.cli import main as cli
from tests.support.flags import NAMES, flags_of

pytestmark = pytest.mark.usefixtures("wide")


def value_of(kind: str) -> str:
    return re.findall(r"[\w-]+", kind)[0] if kind.startswith("{") else "x"


def unrecognized(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    (found,) = re.findall(r"^error: ngram-eval [a-z ]+ has no flag (.*?): .*\n$", capsys.readouterr().err)
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
    given += {"codec": ["a", "b"], "convert": ["a"], "memory": ["a"] * (command[-1] != "build")}.get(command[0], [])
    assert unrecognized([*command, *given, "--wrong"], capsys) == ["--wrong"]
    underscores = [one[:2] + one[2:].replace("-", "_") for one in given]
    assert unrecognized([*command, *underscores, "--wrong"], capsys) == ["--wrong"]
    wrong = {flag[:-1] for flag in flags} | {f"{flag}s" for flag in flags} | {flag.upper() for flag in flags}
    wrong -= flags.keys()
    assert set(unrecognized([*command, *given, *sorted(wrong)], capsys)) == wrong


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("run --sequence-len 3", "ngram-eval run has no flag --sequence-len: did you mean --seq-len?"),
        ("run --zzzz -- --more", "ngram-eval run has no flag --zzzz: --help-all lists its flags"),
        ("run --stride x", "--stride: invalid literal for int() with base 10: 'x' (see `ngram-eval run --help`)"),
        ("run more", "Unrecognized options: more (see `ngram-eval run --help`)"),
        ("run --preset", "Missing value for argument '--preset'. Expected 1 values"),
        (
            "codec compress --tokeniser x IN OUT",
            "ngram-eval codec compress has no flag --tokeniser: did you mean --tok",
        ),
        ("codec compress --hf m IN OUT", "--hf is none of the codec's models: "),
    ],
)
def test_what_is_wrong_is_one_line(line: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(line.split())
    error = capsys.readouterr().err
    assert error.startswith(f"error: {told}")
    assert error.count("\n") == 1


def test_help_whose_reader_has_gone_is_no_traceback() -> None:
    """As with `--help-all | head`."""
    command = [sys.executable, "-m", "ngram_eval", "prepare", "--help-all"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
