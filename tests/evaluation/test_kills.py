"""Evaluations killed at random moments and resumed, again and again: nothing is lost, nothing counted twice."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ngram_eval.text.shards import write_shard
from tests.support.processes import destroy, finish, launch, rank_processes

SCRIPT = """
import time
from ngram_eval.cli import run
from ngram_eval.evaluation import engine
from ngram_eval.models import source

source.UniformSource.batch_windows = 8
original = engine.Engine.score

def score(self, reading):
    time.sleep(0.02)
    original(self, reading)

engine.Engine.score = score
run.main()
"""
"""The evaluator with a pause at each batch: it takes three to six seconds."""

KILLS = 100
SUMS = ("nats", "neural_nats", "positions", "hits_by_order", "vocabulary_sum")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def kill(process: Any, rng: random.Random) -> str:
    """One rank, or all of them together with torchrun, as when the machine goes down; what was killed."""
    ranks = rank_processes(process)
    if ranks and rng.random() < 0.5:
        victim = rng.choice(sorted(ranks))
        os.kill(ranks[victim], signal.SIGKILL)
        return f"rank {victim}"
    destroy(process)
    return "all"


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    rng = random.Random(KILLS)
    write_shard(tmp_path / "data.bin", (np.random.default_rng(0).zipf(1.3, 80_000) % 50).astype(np.uint16))
    (tmp_path / "script.py").write_text(SCRIPT)
    script, result = (str(tmp_path / "script.py"),), tmp_path / "result.json"
    common = ["--data", tmp_path / "data.bin", "--uniform", "--vocab-size", 50, "--seq-len", 64, "--stride", 32]
    common += ["--buckets", 1024, "--batch-windows", 8, "--json", result]
    expected: dict[tuple[str, int], dict[str, Any]] = {}
    log, done, run = [], 0, 0

    def finished() -> dict[str, Any]:
        (found,) = json.loads(result.read_text())["runs"]
        result.unlink()
        return {name: found[name] for name in SUMS}

    def killed_or_finished(world: int, arguments: list[object]) -> bool:
        """Whether it came to a result: one that is written before the kill is whole."""
        process = launch(world, *arguments, module=script)
        until = time.monotonic() + rng.uniform(0.3, 9.0)
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.02)
        victim = kill(process, rng) if process.poll() is None else None
        code, _, err = finish(process)
        log.append((run, world, victim, code, [line for line in err.splitlines() if line.startswith("error:")]))
        assert victim is not None or (code == 0 and result.exists()), err
        return result.exists()

    while done < KILLS:
        run += 1
        preset = rng.choice(["hashed", "exact", "pr890"])
        fixed = rng.choice([1, 2, 3])
        key = (preset, fixed if preset == "pr890" else 1)
        if key not in expected:
            code, _, err = finish(launch(key[1], *common, "--preset", preset))
            assert code == 0, err
            expected[key] = finished()
        flags = [*common, "--preset", preset, "--checkpoint", tmp_path / f"run{run}", "--every", 300, "--resume"]
        while True:
            complete = killed_or_finished(fixed if preset == "pr890" else rng.choice([1, 2, 3]), flags)
            if complete:
                break
            done += 1
            if done >= KILLS:
                code, _, err = finish(launch(fixed, *flags, module=script))
                assert code == 0, err
                break
        assert finished() == expected[key], log
