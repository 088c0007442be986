"""Windows, their batches, and their split over ranks."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngram_eval.config import WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.windows import Windows, batches, plan_windows, share, target_count

shapes = st.tuples(st.integers(1, 400), st.integers(1, 64), st.integers(1, 64)).map(
    lambda t: (t[0], max(t[1:]), min(t[1:]))
)  # (targets, sequence length, stride)


@pytest.mark.parametrize(("tokens", "targets"), [(2049, 2048), (4096, 2048), (4097, 4096), (62_021_633, 62_021_632)])
def test_target_count(tokens: int, targets: int) -> None:
    assert target_count(tokens, 2048) == targets


def test_a_stream_shorter_than_one_sequence() -> None:
    with pytest.raises(InputError, match="2048 tokens, shorter than one sequence of 2048"):
        target_count(2048, 2048)


def test_published_windows_score_the_tail_again() -> None:
    windows = plan_windows(3 * 2048, WindowConfig(rescore_tail=True))
    assert len(windows) == 3 * 2048 // 32
    assert windows.scored == 3 * 2048 + 2016
    assert int((windows.stop == 3 * 2048).sum()) == 64
    assert (windows.start[5], windows.first[5], windows.stop[5]) == (160, 160 + 2048 - 32, 160 + 2048)


@given(shapes)
def test_mended_windows_score_each_position_once_with_all_the_context_that_fits(shape: tuple[int, int, int]) -> None:
    targets, seq_len, stride = shape
    windows = plan_windows(targets, WindowConfig(seq_len=seq_len, stride=stride))
    assert windows.positions().tolist() == list(range(targets))
    assert windows.spans() == [(0, targets)]
    assert (windows.start == np.maximum(windows.stop - seq_len, 0)).all()
    assert ((windows.stop - windows.first)[1:] <= stride).all()


@given(shapes)
def test_both_plans_agree_up_to_the_tail(shape: tuple[int, int, int]) -> None:
    targets, seq_len, stride = shape
    targets = (
        max(targets // seq_len, 1) * seq_len // stride * stride + seq_len % stride
    )  # whole strides after the first
    targets = max(targets, seq_len)
    mended = plan_windows(targets, WindowConfig(seq_len=seq_len, stride=stride))
    published = plan_windows(targets, WindowConfig(seq_len=seq_len, stride=stride, rescore_tail=True))
    whole = int(((mended.stop - mended.start == seq_len) & (mended.stop - mended.first >= stride)).sum())
    for field in ("start", "first", "stop"):
        assert (getattr(mended, field)[:whole] == getattr(published, field)[:whole]).all()
    assert sorted(set(published.positions().tolist())) == list(range(targets))


@given(shapes, st.booleans(), st.integers(1, 9), st.integers(1, 12))
def test_shares_and_batches(shape: tuple[int, int, int], rescore: bool, world: int, batch_windows: int) -> None:
    targets, seq_len, stride = shape
    config = WindowConfig(seq_len=seq_len, stride=stride, rescore_tail=rescore)
    windows = plan_windows(targets, config)
    shares = [share(windows, rank, world, config, batch_windows) for rank in range(world)]
    assert np.concatenate([one.start for one in shares]).tolist() == windows.start.tolist()
    if rescore:
        bounds = [len(windows) * rank // world for rank in range(world + 1)]
        assert [len(one) for one in shares] == [b - a for a, b in itertools.pairwise(bounds)]

    def as_lists(parts: list[Windows]) -> list[list[int]]:
        return [part.start.tolist() for part in parts]

    grid = list(batches(windows, batch_windows))
    for batch in grid:
        assert 1 <= len(batch) <= batch_windows
        assert len({(b - a, f - a) for a, f, b in zip(batch.start, batch.first, batch.stop, strict=True)}) == 1
    dealt = [batch for one in shares for batch in batches(one, batch_windows)]
    if not rescore:  # no forward sees another composition on more ranks
        assert as_lists(dealt) == as_lists(grid)


def test_spans_of_repeated_positions_stay_apart() -> None:
    windows = plan_windows(64, WindowConfig(seq_len=32, stride=16, rescore_tail=True))
    assert windows.spans() == [(0, 64), (48, 64)]
    assert windows.positions().tolist() == [*range(64), *range(48, 64)]
    assert windows[:0].spans() == []
    assert windows[:0].positions().tolist() == []
