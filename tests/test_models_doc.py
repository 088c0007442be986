"""What docs/models.md shows is run, in its order: its Python in one session, its commands in the same folder."""

import re
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")

from hf_models import TEXT, save_llama
from test_convert import packed, zeros

from ngram_eval.model import ModelConfig
from ngram_eval.options import asset
from ngram_eval.tokens import read_shards, write_shard

DOCUMENT = Path(__file__).parents[1] / "docs/models.md"
INSTALLS = "    pip install -e '.[hf]'"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where everything that the page names is: a model, a text, a leaderboard's file, shards and their tokenizer."""
    save_llama(tmp_path / "model", vocab_size=500, positions=4096)
    (tmp_path / "novel.txt").write_text("".join(f"{n}. {TEXT}" for n in range(5)), encoding="utf-8", newline="")
    small = ModelConfig(width=64, heads=4, kv_heads=4, mlp_hidden=64)
    (tmp_path / "final_model.int6.ptz").write_bytes(packed(zeros(small)))
    write_shard(tmp_path / "fineweb_val_000000.bin", read_shards([str(asset("sample_000000.bin"))], 2100).tokens[:])
    shutil.copy(asset("tokenizer.model"), tmp_path / "fineweb_1024_bpe.model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def steps() -> list[tuple[str, str]]:
    """("python", a block) and ("command", a line), in order."""
    text = DOCUMENT.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.finditer(r"^```python\n(.*?)^```$|^(    (?:python|pip) [^\n]*)$", text, flags=re.MULTILINE | re.DOTALL)
    return [("python", one[1]) if one[1] else ("command", one[2]) for one in found]


def test_the_page_does_what_it_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session: dict[str, Any] = {"__name__": "session"}
    kinds = []
    for kind, content in steps():
        if content == INSTALLS:
            continue
        kinds.append(kind)
        if kind == "python":
            exec(compile(content, str(DOCUMENT), "exec"), session)
            continue
        _, _, module, *arguments = (word.strip("'") for word in content.split("#")[0].split())
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        import_module(module).main()
    assert kinds.count("python") == 5
    assert kinds.count("command") == 4
    printed = capsys.readouterr().out
    assert "bits per byte" in printed
    assert "nats a token, of" in printed
    assert "11 layers of width 64" in printed
    assert session["result"].normalised
    assert len(session["written"]) == 220
    assert session["done"].shape[0] == 1
    assert (folder / "model.ngev").exists()
