"""The benchmarks run at toy size, so that they do not rot."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import demo, hashed_counts, last_block
from benchmarks.machine import KEPT_FROM, publish
from ngram_eval.tokens import write_shard


def test_hashed_counts(tmp_path: Path) -> None:
    shard = tmp_path / "toy_000000.bin"
    write_shard(shard, (np.random.default_rng(0).zipf(1.3, 8_000) % 1024).astype(np.uint16))
    text = hashed_counts.measure(hashed_counts.Options(data=(str(shard),), toy=True))
    assert "| fused call to published numpy |" in text
    assert "## Which memory level binds" in text


def test_last_block_notices_logits_that_differ_or_are_nan() -> None:
    good = torch.zeros(2, 3)
    assert last_block.largest_difference([good, good, good + 1]) == 1
    for bad in ([good, good, good / 0], [good, good / 0, good], [good / 0, good, good]):
        assert not last_block.largest_difference(bad) <= 1


def test_last_block() -> None:
    text = last_block.measure(last_block.Options(toy=True, stride=8))
    assert text.count("| last block and head at scored positions |") == 2


@pytest.mark.slow
def test_demo() -> None:
    text = demo.measure(demo.Options(toy=True))
    assert text.count("| the evaluator's own time, ") == 2


def test_publishing_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    out = tmp_path / "result.md"
    publish("# Old figures\n", out)
    out.write_text(out.read_text() + KEPT_FROM + "By hand.\n")
    publish("# New figures\n", out)
    assert out.read_text() == "# New figures\n" + KEPT_FROM + "By hand.\n"
