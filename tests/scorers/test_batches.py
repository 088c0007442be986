"""Batches: as many windows as memory holds, whatever the stride."""

from dataclasses import replace

import pytest

from ngram_eval.config import WindowConfig, preset
from ngram_eval.models.source import UniformSource
from ngram_eval.scorers.make import windows_at_once


@pytest.mark.parametrize("name", ["hashed", "exact", "mixer"])
def test_a_batch_of_a_light_source_does_not_grow_with_the_stride(name: str) -> None:
    positions = []
    for stride in (32, 64, 2048, 1 << 21):
        config = replace(preset(name), window=WindowConfig(seq_len=stride, stride=stride))
        windows = windows_at_once(config, UniformSource(1024))
        assert windows >= 1
        positions.append(windows * stride)
    assert positions[1] == positions[2] == positions[0]
    assert positions[3] == 1 << 21, "a window is never cut"
