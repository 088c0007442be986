"""The flags of every command, as its help lists them."""

import re

import pytest

from ngram_eval.cli import main as cli

NESTED = {"codec": ("compress", "decompress", "verify"), "memory": ("build", "info", "merge", "learn", "verify")}
NAMES = [
    [name, *more] for name in cli.COMMANDS for more in ([[one] for one in NESTED[name]] if name in NESTED else [[]])
]
"""Every command."""


def flags_of(command: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Flag -> the kind of its value, or nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "119")  # help has several columns on a terminal that is wider
        with pytest.raises(SystemExit, match="0"):
            cli.main([*command, "--help-all"])
    flags: dict[str, str] = {}
    for names, kind in re.findall(r"(?m)^  ((?:-\w, )?--\w[\w-]*(?:, --[\w-]+)*)(?: (\S+))?", capsys.readouterr().out):
        flags |= {flag: kind for flag in names.split(", ") if flag.startswith("--") and flag != "--help"}
    return flags
