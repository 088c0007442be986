"""Files that change while they are scored: no result shows the sha256 of what is no longer there."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ngram_eval.cli import main as cli
from ngram_eval.evaluation.reader import Reader, Reading
from ngram_eval.models.saved_scores import save_scores
from tests.support.streams import Stream

RUN = "run --preset hashed --seq-len 64 --stride 64 --buckets 256 --quiet"
CHANGES: dict[str, Callable[[Path], None]] = {
    "cut": lambda path: os.truncate(path, 1024),
    "written to": lambda path: os.utime(path),
    "removed": lambda path: path.unlink(),
}


def made(role: str, stream: Stream, folder: Path) -> tuple[Path, list[str]]:
    """(the file to change, the flags of a run that reads it)."""
    shard, model = folder / "a.bin", folder / {"scores": "a.safetensors"}.get(role, "a.npy")
    shard.write_bytes(stream.shard.read_bytes())
    flags = ["--data", str(shard)]
    if role == "data":
        return shard, [*flags, "--uniform", "--vocab-size", "50"]
    if role == "scores":
        save_scores(model, stream.p_target, stream.entropy, 0)
    else:
        np.save(model, np.zeros((len(stream.tokens) - 1, 50), np.float32))
    return model, [*flags, f"--{role}", str(model)]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("role", ["data", "scores", "logits"])
@pytest.mark.parametrize("late", [False, True], ids=["before it is read", "after"])
def test_a_file_that_changes_is_named_and_nothing_is_written(
    role: str,
    change: str,
    late: bool,
    stream: Stream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, flags = made(role, stream, tmp_path)
    os.utime(path, ns=(0, 0))  # a clock may stand still between two writes
    read = Reader._read

    def changing(self: Reader, rows: range) -> Reading:
        if not late:
            CHANGES[change](path)
        found = read(self, rows)
        if late:
            CHANGES[change](path)
        return found

    arguments = [*RUN.split(), *flags, "--json", str(tmp_path / "r.json")]
    cli.main(arguments)
    (tmp_path / "r.json").unlink()
    monkeypatch.setattr(Reader, "_read", changing)
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"error: {path} ")
    assert "was changed while it was in use" in error or (change == "removed" and "can't be read" in error)
    assert not (tmp_path / "r.json").exists()
