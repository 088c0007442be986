"""A column of Parquet is text, row by row."""

import sys
from pathlib import Path
from typing import Any

import pytest

from ngram_eval.errors import InputError
from ngram_eval.text.parquet import read_parquet
from tests.support.prepared import AWKWARD, contents, run

pyarrow: Any = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ngram_eval[parquet]")


def write(path: Path, rows_in_group: int = 3, **columns: Any) -> Path:
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path, row_group_size=rows_in_group)
    return path


def test_every_row_is_a_document(tmp_path: Path, model_path: Path) -> None:
    texts = ["one\n\nline\nof many", "", AWKWARD, *(f"row {number}" for number in range(1000))]
    write(tmp_path / "a.parquet", text=texts, id=range(len(texts)))
    write(tmp_path / "b.parquet", text=pyarrow.array(["large"], pyarrow.large_string()))
    manifest = run(tmp_path / "out", tmp_path, tokenizer=model_path)
    assert contents(tmp_path / "out", model_path) == [*filter(None, texts), "large"]
    assert manifest.documents == len(texts)  # without the empty one


def test_progress_adds_up_to_the_size_of_the_file(tmp_path: Path) -> None:
    path, advanced = write(tmp_path / "a.parquet", text=["text"] * 1000), list[int]()
    assert len(list(read_parquet(path, "text", advanced.append))) == 1000
    assert sum(advanced) == path.stat().st_size
    assert len(advanced) > 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"body": ["a"]}, r"has no column 'text': name the one that holds the text with text_field"),
        ({"text": [1]}, r"has int64, not text, in its column 'text'"),
        ({"text": ["a", None]}, r"has no text in row 2"),
    ],
)
def test_other_columns_are_refused(tmp_path: Path, model_path: Path, columns: Any, message: str) -> None:
    path = write(tmp_path / "a.parquet", **columns)
    with pytest.raises(InputError, match=rf"a\.parquet {message}"):
        run(tmp_path / "out", path, tokenizer=model_path)


def test_damage_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", text=["text"] * 1000)
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:-4], whole[: len(whole) // 2], b"x" * 300):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.parquet is not Parquet, or damaged .*: fetch it again"):
            list(read_parquet(path, "text", lambda size: None))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", text=["text"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"a\.parquet needs pyarrow.*pip install ngram_eval\[parquet\]"):
        list(read_parquet(path, "text", lambda size: None))
