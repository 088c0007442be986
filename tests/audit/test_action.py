"""The GitHub action: its steps are run as a runner would run them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
COUNTS = """
import numpy as np

def predict(past, state):
    counts = state.setdefault("counts", np.ones(1024))
    counts[past[-1]] += 1
    return counts / counts.sum() * {factor}
"""


def steps() -> dict[str, dict[str, Any]]:
    return {step["name"]: step for step in ACTION["runs"]["steps"] if "run" in step}


def run_audit(folder: Path, **inputs: str) -> tuple[int, dict[str, str], str]:
    """(exit code, outputs, what it printed) of the step that audits."""
    given = {name: one.get("default", "") for name, one in ACTION["inputs"].items()} | inputs
    step = steps()["audit"]
    expressions = {f"${{{{ inputs.{name} }}}}": value for name, value in given.items()}
    environment = {name: expressions[value] for name, value in step["env"].items()}
    files = {name: str(folder / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **environment, **files, "RUNNER_TEMP": str(folder), "PATH": path}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]  # as GitHub's `shell: bash`
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    lines = (folder / "GITHUB_OUTPUT").read_text().splitlines()
    return done.returncode, dict(line.split("=", 1) for line in lines), done.stdout + done.stderr


@pytest.mark.parametrize(("factor", "code", "verdict"), [(1, 0, "pass"), (1.01, 1, "refuted")])
def test_a_function_is_audited_on_the_packaged_text(factor: float, code: int, verdict: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(COUNTS.format(factor=factor))
    found, outputs, printed = run_audit(tmp_path, subject="mine.py:predict", arguments="--positions 300 --seed '7'")
    assert found == code, printed
    assert outputs["verdict"] == verdict
    assert f"**verdict: {'every' if code == 0 else 'refuted'}" in (tmp_path / "GITHUB_STEP_SUMMARY").read_text()
    assert ("::error file=mine.py,title=mine.py%3Apredict%3A sum to 1::" in printed) == (code == 1)
    assert json.loads((Path(outputs["folder"]) / "audit.json").read_text())["settings"]["seed"] == 7
    assert (Path(outputs["folder"]) / "audit.sarif").exists()


def test_bad_input_fails_without_a_verdict(tmp_path: Path) -> None:
    found, outputs, printed = run_audit(tmp_path, subject="nothing.py:predict")
    assert found == 2, printed
    assert "verdict" not in outputs


def test_what_it_takes_and_gives_is_described() -> None:
    assert [name for name, one in (ACTION["inputs"] | ACTION["outputs"]).items() if not one.get("description")] == []


def test_what_it_installs_is_this_package() -> None:
    assert steps()["install"]["run"] == 'python -m pip install "$GITHUB_ACTION_PATH"'
    assert (ROOT / "pyproject.toml").exists()
    assert all(one.get("shell") == "bash" for one in steps().values()), "a composite action must say so"
    assert "${{" not in "".join(one["run"] for one in steps().values()), "inputs come as variables, never as code"
