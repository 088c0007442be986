"""`ngram-eval doctor` finds what is there, says what is not, and what to do about it."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ngram_eval import _core
from ngram_eval.cli import doctor
from ngram_eval.cli import main as cli


def run(*flags: str) -> int:
    """Its exit code."""
    try:
        cli.main(["doctor", *flags])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_it_says_that_evaluations_run_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json", str(tmp_path / "found.json")) == 0
    shown = capsys.readouterr().out
    found = {one["name"]: one for one in json.loads((tmp_path / "found.json").read_text())["findings"]}
    assert shown.rstrip().endswith("Evaluations run here.")
    assert f"numpy {version('numpy')}" in found["packages"]["found"]
    assert _core.simd in found["C++ extension"]["found"]
    assert {"extra hf", "extra plot", "threads", "huge pages", "GPU", "nvcc", "CUDA extension"} <= set(found)
    assert all(one["remedy"] for one in found.values() if one["name"].startswith("extra") and one["state"] != "ok")
    assert run("--json", "-", "--quiet") == 0
    assert json.loads(capsys.readouterr().out)["findings"][0]["name"] == "ngram_eval"


def test_an_extension_that_is_not_built_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ngram_eval._core", None)
    assert run() == 1
    shown = capsys.readouterr().out
    assert "✗   C++ extension" in shown
    assert "pip install -e . in the checkout" in shown
    assert shown.rstrip().endswith("Evaluations need: C++ extension.")


def test_packages_are_those_of_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"numpy": "1.26.4", "torch": "2.13.0+cpu", "gguf": "0.9", "mkdocs": "1.6.1"}
    monkeypatch.setattr(doctor, "_version", here.get)
    asked = ["numpy>=1.26", "torch>=2.6", "rich>=13", "triton>=3.4; platform_system == 'Windows'"]
    needed, *extras = doctor.packages(
        [*asked, 'gguf>=0.10; extra == "hf"', "mkdocs==1.6.1; python_full_version >= '3.11.5' and extra == 'lm-eval'"]
    )
    assert (needed.state, needed.remedy) == ("broken", "pip install 'rich>=13'")
    assert needed.found == "numpy 1.26.4, torch 2.13.0+cpu, rich missing"
    assert [(one.name, one.state, one.remedy) for one in extras] == [
        ("extra hf", "absent", "pip install 'ngram_eval[hf]'"),
        ("extra lm-eval", "ok", ""),
    ]


@pytest.mark.parametrize(("line", "limit"), [("max 100000\n", None), ("150000 100000\n", 1.5)])
def test_more_threads_than_a_container_may_use(
    line: str, limit: float | None, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    (tmp_path / "cpu.max").write_text(line)
    assert doctor.cpu_limit(tmp_path / "cpu.max") == limit
    assert doctor.cpu_limit(tmp_path / "none") is None
    assert doctor.threads(limit).remedy == ("" if limit is None else "OMP_NUM_THREADS=1")


def test_huge_pages(tmp_path: Path) -> None:
    enabled = tmp_path / "enabled"
    enabled.write_text("always [madvise] never\n")
    assert doctor.huge_pages(enabled) == doctor.Finding("huge pages", "ok", "madvise")
    enabled.write_text("always madvise [never]\n")
    assert doctor.huge_pages(enabled).remedy == f"echo madvise | sudo tee {enabled}"
    assert doctor.huge_pages(tmp_path / "none").state == "absent"


def test_a_gpu_that_torch_does_not_find(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    assert (doctor.gpu().remedy, doctor.nvcc().state) == ("", "absent")
    monkeypatch.setattr("shutil.which", lambda name, path=None: f"/bin/{name}")
    assert doctor.gpu().remedy.startswith("install a CUDA build of torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    card = SimpleNamespace(name="NVIDIA H200", total_memory=139 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    assert doctor.gpu().state == "ok"
    assert doctor.gpu().found.startswith("NVIDIA H200 (139 GiB)")


def test_the_cuda_compiler_and_its_extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    nvcc = tmp_path / "bin/nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert doctor.nvcc() == doctor.Finding("nvcc", "ok", f"13.0, {nvcc}")
    built = SimpleNamespace(on_host=False, problem=lambda: "no driver")
    monkeypatch.setattr(doctor, "import_module", lambda name: built)
    assert doctor.cuda_extension().found == "built, but it finds no GPU: no driver"
    built.problem = lambda: ""
    assert doctor.cuda_extension() == doctor.Finding("CUDA extension", "ok", "built")
