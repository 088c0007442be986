"""The log of a training run, cut short or damaged."""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ngram_eval.errors import InputError
from ngram_eval.logs import JsonLines
from ngram_eval.train import journal
from ngram_eval.train.journal import Entry

ENTRIES = [Entry(step=step, seconds=0.5, loss=2.0, lr=1.0, tokens_per_second=10.0) for step in (1, 2, 3)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    sink = JsonLines(tmp_path)
    for entry in ENTRIES:
        sink.write(entry)
    sink.close()
    return tmp_path / "log.jsonl"


def test_a_log_cut_at_any_byte_is_read_and_goes_on(log: Path) -> None:
    whole = log.read_bytes()
    ends = [at for at, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        log.write_bytes(whole[:size])
        kept = sum(end <= size for end in ends)  # an entry without its newline is whole
        assert journal.read(log.parent) == ENTRIES[:kept]
        journal.cut(log.parent, 2)
        sink = JsonLines(log.parent)
        sink.write(ENTRIES[2])
        sink.close()
        assert journal.read(log.parent) == [*ENTRIES[: min(kept, 2)], ENTRIES[2]]


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 7, "sec',
        "[1]",
        "7",
        "\xff",
        '{"step": 1}',
        json.dumps({**asdict(ENTRIES[0]), "loss": "a"}),
        "[" * 10**5,
    ],
)
def test_damage_anywhere_else_is_one_line(log: Path, line: str, capsys: Any) -> None:
    lines = log.read_text().splitlines()
    log.write_bytes("\n".join([lines[0], line, lines[1], ""]).encode("latin-1"))
    with pytest.raises(InputError, match=r"log\.jsonl:2 is no entry of a log") as raised:
        journal.read(log.parent)
    assert "\n" not in str(raised.value)


def test_cutting_is_whole_or_not_at_all(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = log.read_bytes()

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        journal.cut(log.parent, 1)
    assert log.read_bytes() == before


def test_a_full_disk_names_the_log(tmp_path: Path) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    sinks: dict[str, Any] = {"log.jsonl": JsonLines, "log.csv": journal.Csv}
    for name, sink in sinks.items():
        (tmp_path / "log.jsonl").write_text("")
        opened = sink(tmp_path)
        opened.close()
        opened._file = Full()
        if isinstance(opened, journal.Csv):
            opened._writer = csv.DictWriter(opened._file, list(asdict(ENTRIES[0])))
        with pytest.raises(OSError, match=f"No space left on device: .*{name}"):
            opened.write(ENTRIES[0])
