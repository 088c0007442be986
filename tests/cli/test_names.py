"""Names of files that are not UTF-8: read, shown with escapes, and in a result read back as they were."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ngram_eval.cli import main as cli
from ngram_eval.files import write_text
from tests.support.streams import Stream

NAME = os.fsdecode(b"\xff")
ESCAPE = r"\udcff"


def test_what_is_written_is_json_and_text_all_the_same(tmp_path: Path) -> None:
    write_text(tmp_path / "a", f'"{NAME}ü"')
    assert (tmp_path / "a").read_text(encoding="utf-8") == f'"{ESCAPE}ü"'


def test_a_run_and_a_run_of_its_result(stream: Stream, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named: dict[str, Any] = {one: tmp_path / f"{NAME}.{one}" for one in ("bin", "npz", "json", "html", "out")}
    shutil.copy(stream.shard, named["bin"])
    shutil.copy(stream.scores, named["npz"])
    flags = ["--preset", "hashed", "--seq-len", "64", "--stride", "64", "--buckets", "256", "--json"]
    outputs = [named["json"], "--report", named["html"], "--save-scores", named["out"]]
    cli.main(["run", "--data", str(named["bin"]), "--scores", str(named["npz"]), *map(str, [*flags, *outputs])])
    assert f"{ESCAPE}.bin" in named["html"].read_text(encoding="utf-8")
    assert f"{ESCAPE}.bin" in named["json"].read_text(encoding="utf-8")
    assert named["out"].exists()
    cli.main(["run", "--from-result", str(named["json"])])
    cli.main(["compare", str(named["json"])])
    shown = capsys.readouterr().out
    assert f"{ESCAPE}.json, bit for bit" in shown
    with pytest.raises(SystemExit, match="2"):
        cli.main(["run", "--data", f"none{NAME}", "--uniform", "--vocab-size", "3"])
    assert capsys.readouterr().err.startswith(f"error: none{ESCAPE}: no such shard")
