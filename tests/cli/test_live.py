"""What is seen of a run while it goes on: `--live`, `--log-folder` and `--log`."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ngram_eval.cli import live
from ngram_eval.evaluation.result import Result
from ngram_eval.evaluation.watch import Snapshot, Watch
from ngram_eval.results.page import write_page
from tests.support.evaluator import Evaluate, fails, small
from tests.support.streams import Stream

PRESETS = ["--preset", "hashed", "--preset", "exact"]
OFTEN = ["--live-every", 1e-9]


def test_the_page_is_kept_fresh(stream: Stream, evaluate: Evaluate, tmp_path: Path, monkeypatch: Any) -> None:
    seen: list[Snapshot] = []
    pages: list[str] = []

    class Kept(Watch):
        def __init__(self, every: float, show: Any) -> None:
            super().__init__(every, lambda snapshot: (seen.append(snapshot), show(snapshot)))  # type: ignore[func-returns-value, arg-type]

    def kept(path: Path, *arguments: Any) -> None:
        write_page(path, *arguments)
        pages.append(path.read_text(encoding="utf-8"))

    monkeypatch.setattr(live, "Watch", Kept)
    monkeypatch.setattr(live, "write_page", kept)
    flags = [*small(stream), *PRESETS, *OFTEN, "--report", tmp_path / "page.html"]
    results = evaluate(*flags, "--live")
    assert len(pages) == len(seen) == 4  # the first window and the others, twice
    for text, snapshot in zip(pages, seen, strict=True):
        assert "http-equiv" in text
        assert f"{snapshot.done:,} of 2,816 positions" in text
    assert "; then exact" in pages[0]
    assert "<h2>hashed" in pages[-1]
    for preset in ("hashed", "exact"):
        mine = [one for one in seen if one.result.preset == preset]
        assert [one.done for one in mine] == sorted({one.result.positions for one in mine})
        assert mine[-1].done == mine[-1].total == 2816
        assert mine[-1].seconds_left == 0
        assert mine[0].result.complete is False
        assert (mine[-1].result.nats, mine[-1].result.hits) == (results[preset]["nats"], results[preset]["hits"])
    final = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "http-equiv" not in final
    assert "Running" not in final
    assert results == {name: run | changing(results[name]) for name, run in evaluate(*flags).items()}


def changing(run: dict[str, Any]) -> dict[str, Any]:
    """What no two runs have in common."""
    return {name: run[name] for name in ("seconds", "finished", "arguments")}


def test_the_numbers_so_far_are_logged(
    stream: Stream, evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Weights & Biases is stood in for."""
    seen: list[Any] = []

    def init(dir: str, name: str) -> SimpleNamespace:
        return SimpleNamespace(log=lambda values, step: seen.append((name, step, values)), finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    flags = [*small(stream), *PRESETS, *OFTEN, "--log-folder", tmp_path / "log", "--log", "wandb"]
    results = evaluate(*flags)
    for preset, run in results.items():
        lines = (tmp_path / "log" / preset / "log.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        assert len(entries) == 3
        assert [one["step"] for one in entries] == sorted(one["step"] for one in entries)
        assert entries[-1]["step"] == run["positions"]
        assert entries[-1]["nats_per_token"] == run["val_loss"]
        assert entries[0]["positions_per_second"] > 0
        assert entries[-1]["positions_per_second"] is None
    assert {name for name, _, _ in seen} == {"hashed", "exact"}
    assert "bits_per_byte" not in seen[0][2]  # no tokenizer
    assert "is the log of an earlier run" in fails(capsys, evaluate, *flags)


def test_a_score_is_not_logged_as_bits_per_byte(stream: Stream, evaluate: Evaluate) -> None:
    run = evaluate(*small(stream), "--preset", "hashed")["hashed"] | {"val_bpb": 1.5}
    entry = live.entry_of(Result(**run), 10, 2.0)
    assert (entry.bits_per_byte, entry.score, entry.positions_per_second) == (None, 1.5, 5.0)
    entry = live.entry_of(Result(**run | {"normalised": True}), 0, 0.0)
    assert (entry.bits_per_byte, entry.score) == (1.5, None)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--live"], "give --report FILE"),
        (["--live", "--report", "-"], "give --report FILE"),
        (["--live-every", 0], "--live-every is 0.0"),
        (["--log", "tensorboard"], "--log tensorboard needs a folder"),
        (["--log", "csv", "--log-folder", "log"], "--log is 'csv': choose from tensorboard, wandb"),
    ],
)
def test_what_does_not_go_together_is_refused(
    stream: Stream, evaluate: Evaluate, capsys: Any, flags: list[object], told: str
) -> None:
    assert told in fails(capsys, evaluate, *small(stream), *flags)


def test_snapshots_keep_their_distance(stream: Stream, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    now, seen = [100.0], list[Snapshot]()
    monkeypatch.setattr("ngram_eval.evaluation.watch.time.monotonic", lambda: now[0])
    result = Result(**evaluate(*small(stream), "--preset", "exact")["exact"])
    watch = Watch(60.0, seen.append)
    assert watch.due("exact")
    now[0] = 110.0
    watch.show(result, 100, 1000)
    assert seen[-1].seconds_left == 90.0  # 100 positions in 10 s, and 900 to come
    now[0] = 169.0
    assert not watch.due("exact")
    assert watch.due("mixer")
    now[0] = 170.0
    assert watch.due("exact")
    watch.show(result, 700, 1000)
    assert seen[-1].seconds_left == 30.0
