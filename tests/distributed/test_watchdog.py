"""What ends one rank ends all of them, soon, with one message and no result."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ngram_eval.text.shards import write_shard
from tests.support.processes import destroy, finish, launch, rank_processes, wait_for

WORLD = 2

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


SCRIPT = """
import os, time
from ngram_eval.cli import run
from ngram_eval.evaluation import engine
from ngram_eval.models import source

source.UniformSource.batch_windows = 8
original = engine.Engine.score

def score(self, reading):
    time.sleep(0.1)
    if os.environ["RANK"] == "1" and reading.rows.start >= self.plan.targets // 64 * 2 // 5:
        {fault}
    original(self, reading)

engine.Engine.score = score
run.main()
"""
"""The evaluator with a pause at each batch, which meets a fault on rank 1 after some of them."""


@pytest.fixture
def arguments(tmp_path: Path) -> list[object]:
    """An evaluation that takes about 20 seconds, and says in checkpoints that it is under way."""
    write_shard(tmp_path / "data.bin", (np.random.default_rng(0).zipf(1.3, 300_000) % 50).astype(np.uint16))
    data = ["--data", tmp_path / "data.bin", "--uniform", "--vocab-size", 50, "--preset", "hashed"]
    flags = ["--seq-len", 64, "--stride", 64, "--buckets", 1024, "--prefill", "local", "--batch-windows", 8]
    return [*data, *flags, "--checkpoint", tmp_path / "state", "--every", 512, "--json", tmp_path / "result.json"]


def script(folder: Path, fault: str = "pass") -> tuple[str, ...]:
    (folder / "script.py").write_text(SCRIPT.format(fault=fault))
    return (str(folder / "script.py"),)


def errors(stderr: str) -> list[str]:
    """Our messages; torchrun prints a report of its own."""
    return re.findall(r"^error: .*", stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("fault", "message", "seconds"),
    [
        (signal.SIGKILL, r"error: rank 1 was killed \(its process \d+ is gone\)", 10),
        pytest.param(
            *(signal.SIGSTOP, r"error: rank 1 has given no sign of life for \d+ seconds; its process is stopped", 15),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_rank_that_is_killed_or_stopped(
    tmp_path: Path, arguments: list[object], fault: signal.Signals, message: str, seconds: float
) -> None:
    """In the middle of an evaluation, in which ranks exchange nothing."""
    process = launch(WORLD, *arguments, "--rank-timeout", 4, module=script(tmp_path))
    try:
        wait_for(tmp_path / "state" / "hashed", "rank-0000-00001.ckpt")
        ranks = rank_processes(process)
        assert sorted(ranks) == list(range(WORLD))
        os.kill(ranks[1], fault)
        since = time.monotonic()
        while any(rank != 1 for rank in rank_processes(process)):
            assert time.monotonic() < since + seconds, "the other ranks end"
            time.sleep(0.05)
        if fault == signal.SIGSTOP:
            os.kill(ranks[1], signal.SIGKILL)  # torchrun would wait half a minute for it to obey
        code, out, err = finish(process)
    finally:
        destroy(process)
    assert code != 0
    assert len(errors(err)) == 1, err
    assert re.fullmatch(message, errors(err)[0])
    assert not (tmp_path / "result.json").exists()
    assert "nats per token" not in out


def test_the_launcher_is_killed(tmp_path: Path, arguments: list[object]) -> None:
    """Torchrun holds the store by which ranks know of each other: without it they end too, each by itself."""
    process = launch(WORLD, *arguments, "--rank-timeout", 4, module=script(tmp_path))
    try:
        wait_for(tmp_path / "state" / "hashed", "rank-0000-00001.ckpt")
        ranks = rank_processes(process)
        process.kill()
        until = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in ranks.values()):
            assert time.monotonic() < until, "ranks end without their launcher"
            time.sleep(0.05)
        _, err = process.communicate(timeout=10)
    finally:
        destroy(process)
        for pid in ranks.values():
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)
    assert 1 <= len(errors(err)) <= WORLD, err
    assert all("the process that holds the ranks together is gone" in error for error in errors(err))
    assert not (tmp_path / "result.json").exists()


def test_bad_input_that_one_rank_alone_meets(tmp_path: Path) -> None:
    tokens = np.arange(9000, dtype=np.uint16) % 50
    tokens[8000] = 77
    write_shard(tmp_path / "data.bin", tokens)
    data = ["--data", tmp_path / "data.bin", "--uniform", "--vocab-size", 50, "--preset", "exact", "--seq-len", 64]
    code, _, err = finish(launch(WORLD, *data, "--json", tmp_path / "result.json"))
    assert code != 0
    assert errors(err) == [
        "error: rank 1: token 77 at position 8000 is outside the vocabulary of --vocab-size (50 tokens): the shards "
        "were made with another tokenizer; give the one that made them"
    ]
    assert "InputError" not in err, "no traceback"
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "bytearray(1 << 60)",
            r"error: rank 1: out of memory \(.*\): use fewer --buckets, --threads or --batch-windows",
        ),
        pytest.param("raise RuntimeError('a bug')", r"error: rank 1: RuntimeError: a bug", marks=pytest.mark.slow),
    ],
)
def test_a_rank_out_of_memory_or_with_a_bug(tmp_path: Path, arguments: list[object], fault: str, message: str) -> None:
    """Others are in the middle of their work, or wait in an exchange."""
    code, _, err = finish(launch(WORLD, *arguments, module=script(tmp_path, fault)))
    assert code != 0
    assert len(errors(err)) == 1, err
    assert re.fullmatch(message, errors(err)[0])
    assert err.count("RuntimeError: a bug") == (2 if "bug" in fault else 0)  # a bug keeps its traceback
    assert not (tmp_path / "result.json").exists()


def test_a_flag_that_is_wrong_for_all_is_reported_once() -> None:
    code, _, err = finish(launch(WORLD, "--buckets", 1000))
    assert code != 0
    assert err.count("--buckets is 1000") == 1
