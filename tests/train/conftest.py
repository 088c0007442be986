"""What the tests of training share."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ngram_eval.models import artifact
from ngram_eval.text.shards import write_shard
from ngram_eval.train import __main__ as command


@pytest.fixture(scope="session")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,000 tokens that mostly count upwards: easy to learn."""
    rng = np.random.default_rng(0)
    steps = np.where(rng.random(4000) < 0.9, 1, rng.integers(0, 20, 4000))
    path = tmp_path_factory.mktemp("train") / "train_000000.bin"
    write_shard(path, (np.cumsum(steps) % 20).astype(np.uint16))
    return path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The command line in this process."""

    def main(*arguments: object, of: Any = command) -> None:
        monkeypatch.setattr(artifact, "code_bytes", lambda: 1)  # takes seconds; tests of artifacts cover it
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
        of.main()

    return main
