"""Examples do what they say: each is run as its first lines tell a user to.

The notebook is plain Python: its cells are run in one namespace, for which a kernel and its twenty packages would be
much to install.
"""

import ast
import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.hf_models import TEXT, save_gpt2
from tests.support.places import ROOT

EXAMPLES = ROOT / "examples"
MODEL = '''
from dataclasses import dataclass

import torch


@dataclass
class GPTConfig:
    block_size: int
    vocab_size: int
    n_embd: int


class GPT(torch.nn.Module):
    """As in nanoGPT: the last position alone unless there are targets."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = torch.nn.Embedding(config.vocab_size, config.n_embd)
        self.lm_head = torch.nn.Linear(config.n_embd, config.vocab_size)

    def forward(self, idx, targets=None):
        assert idx.shape[1] <= self.config.block_size
        logits = self.lm_head(self.wte(idx if targets is not None else idx[:, [-1]]))
        return logits, None
'''
"""What stands for nanoGPT's `model.py`."""


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Runs an example in `tmp_path` and returns what it prints; torch and transformers are imported already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    yield run
    sys.modules.pop("model", None)


def test_every_example_is_tested() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    names = sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb"))
    assert len(names) == 4
    for name in names:
        assert f'"{name}"' in here


def test_a_nanogpt_checkpoint_is_evaluated(example: Any, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    torch.manual_seed(0)
    weights = {
        "wte.weight": torch.randn(400, 8),
        "lm_head.weight": torch.randn(400, 8),
        "lm_head.bias": torch.zeros(400),
    }
    compiled = {f"_orig_mod.{name}": tensor for name, tensor in weights.items()}
    torch.save(
        {"model": compiled, "model_args": {"block_size": 32, "vocab_size": 400, "n_embd": 8}}, tmp_path / "ckpt.pt"
    )
    save_gpt2(tmp_path / "tokenizer")
    tokens = np.random.default_rng(0).integers(1, 360, 500).astype("<u2")
    tokens.tofile(tmp_path / "val.bin")
    told = example(
        "nanogpt.py", "ckpt.pt", "val.bin", "--tokenizer", "tokenizer", "--max-tokens", 300, "--report", "out.html"
    )
    logits = weights["wte.weight"].double() @ weights["lm_head.weight"].double().T
    nats = -torch.log_softmax(logits, dim=-1)[tokens[:288].astype(int), tokens[1:289].astype(int)].sum()
    assert "positions: 288" in told
    (line,) = [part for part in told.split("; ") if part.startswith("model alone: bits per byte")]
    from transformers import AutoTokenizer

    read: Any = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    pieces = sum(
        len(read.convert_ids_to_tokens(int(token))) for token in tokens[1:289]
    )  # a character stands for a byte
    assert float(line.split(": ")[2]) == pytest.approx(float(nats) / np.log(2) / pieces, abs=1e-4)
    assert "<svg" in (tmp_path / "out.html").read_text(encoding="utf-8")


def test_a_memory_on_generate_repeats_what_it_has_seen(example: Any, tmp_path: Path) -> None:
    save_gpt2(tmp_path / "model", positions=256)
    seen = TEXT[:170]
    (tmp_path / "notes.txt").write_text(seen * 8, encoding="utf-8")
    (tmp_path / "prompt.txt").write_text(seen[:30], encoding="utf-8")
    told = example("memory_on_generate.py", "model", "prompt.txt", "--seen", "notes.txt", "--new-tokens", 12)
    without, with_it = told.split("--- with the memory\n")
    assert without.startswith("--- without the memory\n")
    assert seen[30:].startswith(with_it.rstrip("\n"))
    assert not seen[30:].startswith(without.splitlines()[1])


@pytest.mark.parametrize(("evaluator", "code"), [("honest", 0), ("backs_off", 1)])
def test_an_audit_tells_the_submission_that_is_no_probability(
    example: Any, evaluator: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        example("audit_a_submission.py", evaluator)
    assert exit_info.value.code == code
    assert f"{evaluator} 1: {'refuted' if code else 'pass'}" in capsys.readouterr().out


def test_the_notebook_runs_from_top_to_bottom() -> None:
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells), "kept without outputs"
    names: dict[str, Any] = {}
    shown = []
    for cell in cells:
        tree = ast.parse("".join(cell["source"]))
        last = tree.body[-1]
        if isinstance(last, ast.Expr):  # a kernel shows its value
            tree.body.pop()
        exec(compile(tree, "quickstart.ipynb", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "quickstart.ipynb", "eval"), names)
            shown += [value] if hasattr(value, "_repr_html_") else []
    (result,) = shown
    page = result._repr_html_()
    assert page.count("<svg") >= 4
    assert f"<td>{result.val_bpb:.4f}</td>" in page
    assert result.val_bpb < result.neural_bpb
    assert names["exact"].vocabulary_sum == pytest.approx(1)
    assert names["hashed"].vocabulary_sum > 1.01
    assert names["blended"].sum() == pytest.approx(1)
    assert names["blended"].argmax() == names["tokens"][1882] != names["alone"].argmax()
