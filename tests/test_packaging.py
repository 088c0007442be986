"""What is shipped, and that what users read is true."""

import re
import subprocess
import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest

from ngram_eval.cli.main import COMMANDS
from tests.support.places import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
WORKFLOWS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / ".github/workflows").iterdir())}


@pytest.mark.slow
def test_the_wheel_holds_one_package_and_no_sources_of_tests(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"ngram_eval"}
    for needed in (
        "py.typed",
        *(path.relative_to(ROOT / "ngram_eval").as_posix() for path in (ROOT / "ngram_eval").rglob("*.py")),
        *(f"{folder}/{path.name}" for folder in ("kernels", "train") for path in (ROOT / folder).glob("*.py")),
        "assets/model.ngev",
        "assets/tokenizer.model",
        "assets/sample_000000.bin",
    ):
        assert f"ngram_eval/{needed}" in names
    assert any(re.fullmatch(r"ngram_eval/_core\..*(so|pyd)", name) for name in names)


def test_the_package_asks_for_minima_and_the_requirements_pin() -> None:
    asked = [requirement for requirement in requires("ngram_eval") or [] if "extra ==" not in requirement]
    assert asked
    assert not any("==" in requirement.split(";")[0] for requirement in asked)
    pinned = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all("==" in line for line in pinned)
    names = {re.split(r"[=<>; ]", line)[0] for line in pinned}
    assert {re.split(r"[=<>; ]", requirement)[0] for requirement in asked} <= names


def test_scoring_saved_statistics_needs_no_torch() -> None:
    script = "import sys, ngram_eval.run; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_embedded_artifact_is_small() -> None:
    assert (ROOT / "ngram_eval/assets/model.ngev").stat().st_size <= 1_000_000


def test_every_package_is_shipped() -> None:
    """A new folder must be listed; the wheel itself is built by `make test-all` alone."""
    listed = set(re.findall(r'^    "(ngram_eval[\w.]*)",$', PYPROJECT, re.MULTILINE))
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "ngram_eval").rglob("__init__.py")}
    assert {".".join(folder.parts) for folder in folders} | {"ngram_eval.kernels", "ngram_eval.train"} == listed


def test_a_release_has_one_version_and_one_date() -> None:
    """pyproject.toml, the changelog's newest release and the citation."""
    (version,) = re.findall(r'^version = "(.*)"$', PYPROJECT, re.MULTILINE)
    newest = re.search(r"^## \[(.*)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    cited = (ROOT / "CITATION.cff").read_text()
    assert newest[1] == version
    assert f"version: {version}\ndate-released: {newest[2]}\n" in cited


def test_workflows_try_every_python_that_is_promised() -> None:
    promised = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    (tried,) = re.findall(r"^        python: \[(.*)\]$", WORKFLOWS["tests.yml"], re.MULTILINE)
    (built,) = re.findall(r"^build = \[(.*)\]$", PYPROJECT, re.MULTILINE)
    assert tried == ", ".join(f'"{version}"' for version in promised)
    assert built == ", ".join(f'"cp{version.replace(".", "")}-*"' for version in promised)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_what_a_workflow_calls_is_there(name: str) -> None:
    text = WORKFLOWS[name]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"run: make ([\w-]+)", text)) <= targets
    for path in re.findall(r"(?:-r |\./|\s)((?:requirements|tests/|\.github/)[\w./-]*\w)", text):
        assert (ROOT / path).exists(), path
    for command in re.findall(r"bin/ngram-eval (\w+)", text):
        assert command in COMMANDS
