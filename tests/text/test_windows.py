"""Windows, their batches, and their split over ranks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngram_eval.config import WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.text.windows import Grid, Plan, batches, plan_windows, share, target_count

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


def every_window(targets: int, config: WindowConfig) -> list[tuple[int, int, int]]:
    """(start, first, stop) of each window, one after another, as `Plan` says in words."""
    found, length, stride = [], config.seq_len, config.stride
    if config.rescore_tail:
        for start in range(0, targets, stride):
            stop = min(start + length, targets)
            found.append((start, max(stop - stride, start) if start else 0, stop))
        return found
    first, stop = 0, min(length, targets)
    while True:
        found.append((max(stop - length, 0), first, stop))
        if stop == targets:
            return found
        first, stop = stop, min(stop + stride, targets)


@given(shapes, st.booleans(), st.integers(1, 12), st.data())
def test_a_plan_knows_its_windows_without_making_them(
    shape: tuple[int, int, int], rescore: bool, batch_windows: int, data: st.DataObject
) -> None:
    targets, seq_len, stride = shape
    config = WindowConfig(seq_len=seq_len, stride=stride, rescore_tail=rescore)
    plan, expected = Plan(targets, config), every_window(targets, config)
    assert len(plan) == len(expected)
    a, b = sorted(data.draw(st.tuples(*[st.integers(0, len(plan))] * 2)))
    some = plan[a:b]
    assert list(zip(some.start.tolist(), some.first.tolist(), some.stop.tolist(), strict=True)) == expected[a:b]
    assert plan.scored(range(a, b)) == some.scored
    assert plan.first_scored(a) == (expected[a][1] if a < len(plan) else targets)

    grid = Grid(plan, batch_windows)
    rows = [grid.rows(i) for i in range(len(grid))]
    assert [plan[run.start : run.stop].start.tolist() for run in rows] == [
        batch.start.tolist() for batch in batches(plan[:], batch_windows)
    ]
    for batch in range(len(grid)):
        assert {grid.batch_of(row) for row in grid.rows(batch)} == {batch}
    assert grid.batch_of(len(plan)) == len(grid)
    pieces = list(grid.cut(range(a, b)))
    assert [row for piece in pieces for row in piece] == list(range(a, b))
    assert len(pieces) == len({grid.batch_of(row) for row in range(a, b)})


@given(shapes, st.booleans(), st.integers(1, 9), st.integers(1, 12))
def test_ranks_share_all_windows_and_differ_by_one_batch(
    shape: tuple[int, int, int], rescore: bool, world: int, batch_windows: int
) -> None:
    targets, seq_len, stride = shape
    config = WindowConfig(seq_len=seq_len, stride=stride, rescore_tail=rescore)
    plan = Plan(targets, config)
    grid = Grid(plan, batch_windows)
    shares = [share(plan, rank, world, batch_windows) for rank in range(world)]
    assert [row for rows in shares for row in rows] == list(range(len(plan)))
    if rescore:
        units = [len(rows) for rows in shares]
        assert units == [len(plan) * (r + 1) // world - len(plan) * r // world for r in range(world)]
    else:  # no forward sees another composition on more ranks
        pieces = [list(grid.cut(rows)) for rows in shares]
        units = [len(piece) for piece in pieces]
        assert [rows for piece in pieces for rows in piece] == [grid.rows(i) for i in range(len(grid))]
    assert max(units) - min(units) <= 1
    for batch in batches(plan[:], batch_windows):
        assert 1 <= len(batch) <= batch_windows
        assert len({(b - a, f - a) for a, f, b in zip(batch.start, batch.first, batch.stop, strict=True)}) == 1


def test_a_plan_of_a_long_stream_is_small() -> None:
    plan = Plan(10**12, WindowConfig())
    assert len(plan) == (10**12 - 2048) // 32 + 1
    assert len(plan.runs()) == 2
    grid = Grid(plan, 32)
    assert grid.rows(len(grid) - 1).stop == len(plan)
    assert plan[len(plan) - 1 :].stop.tolist() == [10**12]
    assert plan.scored(range(len(plan))) == 10**12


def test_spans_of_repeated_positions_stay_apart() -> None:
    windows = plan_windows(64, WindowConfig(seq_len=32, stride=16, rescore_tail=True))
    assert windows.spans() == [(0, 64), (48, 64)]
    assert windows.positions().tolist() == [*range(64), *range(48, 64)]
    assert windows[:0].spans() == []
    assert windows[:0].positions().tolist() == []
