"""What the documents tell users to type exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ngram_eval.cli import COMMANDS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "ngram_eval/assets/README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[tuple[str, str]]:
    """(module, flag) of every `python -m ngram_eval.X`, torchrun and `ngram-eval X` line in an indented block."""
    found = set()
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^    .*-m (ngram_eval\.[\w.]+ .*)$", text, flags=re.MULTILINE):
            module, *rest = line.split("#")[0].split()
            found |= {(module, word) for word in rest if word.startswith("--")}
        for line in re.findall(r"^    .*ngram-eval (\w+ .*)$", text, flags=re.MULTILINE):
            name, *rest = line.split("#")[0].split()
            if name in COMMANDS:
                module = COMMANDS[name].module.removesuffix(".__main__")
                found |= {(module, word) for word in rest if word.startswith("--")}
    return sorted(found)


@pytest.mark.parametrize("module", [command.module.removesuffix(".__main__") for command in COMMANDS.values()])
def test_flags_in_the_documents_exist(module: str) -> None:
    flags = {flag for name, flag in commands() if name == module}
    assert flags
    command = [sys.executable, "-m", module, *(["compress"] if module == "ngram_eval.codec" else []), "--help-all"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert flags <= set(re.findall(r"--[a-z0-9-]+", shown))


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in [*DOCUMENTS, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} -> {target}"


def test_make_targets_of_the_documents_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        text = document.read_text(encoding="utf-8")
        assert set(re.findall(r"`make ([\w-]+)`|^    make ([\w-]+)", text, flags=re.MULTILINE)) != set()
        named = {a or b for a, b in re.findall(r"`make ([\w-]+)`|^    make ([\w-]+)", text, flags=re.MULTILINE)}
        assert named <= targets
