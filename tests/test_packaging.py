"""What is shipped, and that what users read is true."""

import re
import subprocess
import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest

from tests.support.places import ROOT


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
