"""Looking at whole distributions on the way, without changing what is scored."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngram_eval.config import WindowConfig
from ngram_eval.text.samples import choose_samples, cut
from ngram_eval.text.windows import batches, plan_windows
from tests.support.evaluator import Evaluate
from tests.support.streams import Stream


@given(
    targets=st.integers(1, 500),
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    count=st.integers(0, 80),
    rescore_tail=st.booleans(),
    window_wise=st.booleans(),
    batch_windows=st.integers(1, 9),
)
def test_parts_are_the_windows_and_each_sample_is_looked_at_before_its_own(
    targets: int, shape: tuple[int, int], count: int, rescore_tail: bool, window_wise: bool, batch_windows: int
) -> None:
    config = WindowConfig(seq_len=max(shape), stride=min(shape), rescore_tail=rescore_tail)
    windows = plan_windows(targets, config)
    samples = choose_samples(targets, count, config)
    assert len(samples) <= count
    assert len(samples) > 0 or count == 0
    parts = [part for batch in batches(windows, batch_windows) for part in cut(batch, samples, window_wise)]
    positions = np.concatenate([part.positions() for _, part in parts])
    assert (positions == windows.positions()).all()
    assert [position for looks, _ in parts for position in looks] == samples.tolist()
    for looks, part in parts:
        for position in looks:
            assert part.first[0] <= position < part.stop[0]
            assert window_wise or part.first[0] == position
        assert part.seq_len == windows.seq_len
    if window_wise:
        assert sum(len(part) for _, part in parts) == len(windows)


def test_scoring_one_position() -> None:
    windows = plan_windows(100, WindowConfig(seq_len=40, stride=7))
    for position in range(100):
        one = windows.scoring(position)
        assert one.positions().tolist() == [position]
        assert one.start[0] <= position
        assert (windows.start == one.start[0]).any()
    assert len(windows.scoring(100)) == 0
    assert len(windows[3:].scoring(5)) == 0


def test_a_result_tells_the_sum_over_the_vocabulary(stream: Stream, evaluate: Evaluate, capsys: Any) -> None:
    data = ["--data", stream.shard, "--seq-len", 256, "--uniform", "--vocab-size", 50]
    few, many = (evaluate(*data, "--buckets", buckets) for buckets in (1 << 8, 1 << 20))
    assert few["hashed"]["vocabulary_sum"] > many["hashed"]["vocabulary_sum"] > 1.01
    assert "sum over the vocabulary" in capsys.readouterr().out
    plain = evaluate(*data, "--buckets", 1 << 20, "--no-target-backoff", "--preset", "hashed")["hashed"]
    assert plain["vocabulary_sum"] == pytest.approx(1, abs=0.01)  # a few collisions
    nothing = evaluate(*data, "--alpha-base", 0, "--alpha-range", 0, "--alpha-fixed", 0, "--preset", "pr890")["pr890"]
    assert nothing["vocabulary_sum"] == pytest.approx(1, abs=1e-9)
