"""The benchmarks of kept memories run, small."""

from pathlib import Path

import pytest

from benchmarks import kept_bytes, kept_memory
from ngram_eval.assets import asset
from tests.support.places import SAMPLE_PATH


def test_kept_memory(tmp_path: Path) -> None:
    """Loading alone: the other figures are of the same functions as the tests of kept memories."""
    text = tmp_path / "text"
    text.write_text(SAMPLE_PATH.read_text(encoding="utf-8")[:3000], encoding="utf-8")
    rows = list(kept_memory.loading(text, None))
    assert [row.split("|")[1].strip() for row in rows if row.startswith("| `")] == [
        *("`mixer`", "`exact`", "`zstd`", "`none`"),
        *("`exact`", "`mixer`", "`mixer-fast`"),
    ]


def test_kept_bytes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    novels, plot = tmp_path / "text", tmp_path / "plot.svg"
    novels.write_text(SAMPLE_PATH.read_text(encoding="utf-8")[:3000], encoding="utf-8")
    options = kept_bytes.Options(novels=novels, model=(), parts=2, max_tokens=600, plot=plot)
    rows = [line.split("|")[1:-1] for line in kept_bytes.measure(options) if line.startswith("| ")][1:]
    models = [int(row[0].replace(",", "")) for row in rows]
    assert models == [0, 0, *[asset("model.ngev").stat().st_size] * 3], "two memories alone, then none and both"
    for row in rows:
        model_bytes, memory_bytes, together = (int(cell.strip(" *").replace(",", "")) for cell in row[:3])
        assert together == model_bytes + memory_bytes
    assert float(rows[1][-1]) < float(rows[0][-1]), "more of the text is worth more"
    drawn = plot.read_bytes()
    list(kept_bytes.measure(options))
    assert plot.read_bytes() == drawn


def test_kept_project(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")
    from benchmarks import kept_project
    from tests.support import hf_models

    hf_models.save_llama(tmp_path / "model", positions=2100)
    (tmp_path / "project").mkdir()
    for name, text in {"a.md": hf_models.TEXT * 5, "b.py": hf_models.TEXT * 5, "c.txt": "no source"}.items():
        (tmp_path / "project" / name).write_bytes(text.encode())
    scored, project = tmp_path / "project" / "a.md", tmp_path / "project"
    options = kept_project.Options(hf=str(tmp_path / "model"), project=(project,), scored=(scored,), tokens=2048)
    rows = [line.split("|")[1:-1] for line in kept_project.measure(options) if line.startswith("| ")]
    known, *found = rows[1:]
    assert int(known[1].replace(",", "")) == len(hf_models.TEXT.encode()) * 5, "b.py alone"
    assert len(found) == len(kept_project.WINDOWS) * len(kept_memory.PRESETS)
    for *_, empty, after in found:
        assert float(after) < float(empty)
