"""The codec's command line."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ngram_eval.cli import codec as command_line
from ngram_eval.codec import container
from tests.support.codec import compress, decompress, novel


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command line in this process; returns its exit code."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["codec", *map(str, arguments)])
        try:
            command_line.main()
        except SystemExit as error:
            return int(error.code or 0)
        return 0

    return run


def test_the_three_commands(call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, packed, out = (tmp_path / name for name in ("text", "packed", "out"))
    source.write_bytes(novel(5000))
    assert (
        call("compress", "--preset", "exact", "--uniform", "--max-order", 5, "--tokenizer", "train", source, packed)
        == 0
    )
    shown = capsys.readouterr().out
    for row in ("bytes in", "bytes out", "ratio", "bits per byte of the file", "bits per byte of the scorer", "gap"):
        assert row in shown
    assert str(f"{packed.stat().st_size:,}") in shown
    assert container.read(packed).settings == b'{"max_order":5,"preset":"exact"}'
    assert call("verify", packed) == 0
    assert call("verify", packed, source) == 0
    assert call("decompress", packed, out) == 0
    assert out.read_bytes() == source.read_bytes()

    source.write_bytes(novel(5000)[:-1] + b"#")
    capsys.readouterr()
    assert call("verify", packed, source) == 2
    assert "the first difference at byte 4999" in capsys.readouterr().err


def test_nothing_is_written_where_something_is_wrong(call: Callable[..., int], tmp_path: Path) -> None:
    packed, out = tmp_path / "packed", tmp_path / "out"
    found = compress(b"to be or not to be").container
    wrong = replace(found, header=replace(found.header, content_sha256=bytes(32)))
    packed.write_bytes(wrong.to_bytes())
    out.write_bytes(b"kept")
    assert call("decompress", packed, out) == 2
    assert out.read_bytes() == b"kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "packed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compress", "IN", "OUT"], "give one base distribution"),
        (["compress", "--uniform", "--artifact", "packaged", "IN", "OUT"], "give one base distribution"),
        (["compress", "--uniform", "--preset", "pr890", "IN", "OUT"], "sum to 1; choose from exact, tilt"),
        (["compress", "--uniform", "--preset", "none", "IN", "OUT"], "choose from exact, tilt"),
        (["compress", "--uniform", "--pieces", "7", "IN", "OUT"], "--pieces is 7"),
        (["compress", "--uniform", "--by-window", "IN", "OUT"], "--by-window"),
        (["compress", "--uniform", "--rescore-tail", "IN", "OUT"], "--rescore-tail"),
        (["compress", "--uniform", "--max-order", "99", "IN", "OUT"], "--max-order is 99"),
        (["compress", "--artifact", "packaged", "--tokenizer", "train", "IN", "OUT"], "--tokenizer train"),
        (["compress", "--uniform", "--tokenizer", "none.model", "IN", "OUT"], "none.model can't be read"),
        (["compress", "--uniform", "--tokenizer", "IN", "IN", "OUT"], "not a SentencePiece model"),
        (["compress", "--uniform", "none", "OUT"], "none can't be read"),
        (["compress", "--uniform", "IN", "no/OUT"], "existing, writable folder"),
        (["compress", "--uniform", "IN", "IN"], "which is also the input"),
        (["compress", "--uniform", "IN", "/"], "existing, writable folder"),
        (["decompress", "IN", "OUT"], "was not written by"),
        (["verify", "none"], "none can't be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    call: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("IN").write_text("to be")
    assert call(*arguments) == 2
    assert not Path("OUT").exists()
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_progress_covers_the_whole_text() -> None:
    bars: dict[str, list[int]] = {}

    def track(title: str, total: int | None) -> Callable[[int], None]:
        assert total is not None
        done = bars[title] = [total, 0]

        def advance(amount: int) -> None:
            done[1] += amount

        return advance

    packed = compress(novel(20_000) + b"\xff\xfe", "packaged", track=track).container
    decompress(packed, track=track)
    assert set(bars) == {"cutting into tokens", "compressing", "decompressing"}
    assert all(total == done for total, done in bars.values())
