"""The benchmarks run at toy size, so that they do not rot."""

from pathlib import Path

import numpy as np

from benchmarks import hashed_counts
from ngram_eval.tokens import write_shard


def test_hashed_counts(tmp_path: Path) -> None:
    shard = tmp_path / "toy_000000.bin"
    write_shard(shard, (np.random.default_rng(0).zipf(1.3, 8_000) % 1024).astype(np.uint16))
    text = hashed_counts.measure(hashed_counts.Options(data=(str(shard),), toy=True))
    assert "| fused call to published numpy |" in text
    assert "## Which memory level binds" in text
