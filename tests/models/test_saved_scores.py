"""Neural sources that run no model: saved scores, uniform, and the memory between presets."""

import math
import tracemalloc
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ngram_eval.config import WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.models.saved_logits import load_logits
from ngram_eval.models.saved_scores import RememberingSource, SavedScores, load_scores, save_scores
from ngram_eval.models.source import Asked, Stats, UniformSource, all_rows
from ngram_eval.text.stream import Stream
from ngram_eval.text.windows import Windows, batches, plan_windows

TOKENS = np.zeros(65, np.uint16)


def write(path: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {"p_target": np.linspace(0, 1, 64), "entropy": np.linspace(0, 9, 64, dtype=np.float32)}
    arrays.update(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_scores_are_indexed_by_position(tmp_path: Path) -> None:
    source = load_scores(write(tmp_path / "s.npz"), (64,))
    windows = plan_windows(64, WindowConfig(seq_len=32, stride=8, rescore_tail=True))
    stats = source.stats(TOKENS, windows)
    assert (stats.p_target == np.linspace(0, 1, 64)[windows.positions()]).all()
    assert (stats.entropy == np.linspace(0, 9, 64, dtype=np.float32)[windows.positions()]).all()
    assert source.train_seq_len == 0


def test_float32_scores_become_float64(tmp_path: Path) -> None:
    p_target = np.linspace(0, 1, 64, dtype=np.float32)
    source = load_scores(write(tmp_path / "s.npz", p_target=p_target), (64,))
    stats = source.stats(TOKENS, plan_windows(64, WindowConfig(seq_len=64)))
    assert stats.p_target.dtype == np.float64
    assert (stats.p_target == p_target).all()


def test_saved_scores_come_back(tmp_path: Path) -> None:
    p_target, entropy = np.random.default_rng(0).random(64), np.ones(64, np.float32)
    save_scores(tmp_path / "s.npz", p_target, entropy, 256)
    source = load_scores(tmp_path / "s.npz", (64,))
    assert (source.p_target[:] == p_target).all()
    assert (source.entropy[:] == entropy).all()
    assert source.train_seq_len == 256
    assert [path.name for path in tmp_path.iterdir()] == ["s.npz"]


def changed(index: int, value: float, dtype: Any = np.float64) -> Any:
    array = np.full(64, 0.5, dtype)
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p_target": None}, "no array p_target"),
        ({"entropy": None}, "no array entropy"),
        ({"p_target": np.full(63, 0.5)}, "p_target has 63 entries, the data needs 64"),
        ({"entropy": np.full(65, 0.5, np.float32)}, "entropy has 65 entries"),
        ({"p_target": changed(7, math.nan)}, r"p_target\[7\] is nan"),
        ({"p_target": changed(63, 1.5)}, r"p_target\[63\] is 1.5, outside \[0, 1\]"),
        ({"p_target": changed(0, -1e-9)}, r"p_target\[0\] is -1e-09"),
        ({"entropy": changed(3, math.inf, np.float32)}, r"entropy\[3\] is inf"),
        ({"entropy": changed(3, math.nan, np.float32)}, r"entropy\[3\] is nan"),
        ({"entropy": np.full(64, 0.5, np.float16)}, "entropy is float16"),
        ({"p_target": np.full(64, 1)}, "p_target is int64"),
        ({"p_target": np.full((64, 1), 0.5)}, "p_target is float64 of shape"),
    ],
)
def test_bad_scores(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_scores(write(tmp_path / "s.npz", **changes), (64,))
    assert "s.npz" in str(error.value)


def test_files_that_are_no_scores(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        load_scores(tmp_path / "missing.npz", (64,))
    for content in (b"", b"no archive", b"PK\x03\x04 cut short"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.npz"):
            load_scores(tmp_path / "bad.npz", (64,))
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"not an \.npz"):
        load_scores(tmp_path / "one.npy", (64,))
    np.savez(tmp_path / "objects.npz", p_target=np.array([object()]), entropy=np.zeros(64, np.float32))
    with pytest.raises(InputError, match=r"not an \.npz of plain arrays"):
        load_scores(tmp_path / "objects.npz", (64,))
    good = write(tmp_path / "s.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(good[: len(good) // 2])
    with pytest.raises(InputError, match=r"cut\.npz"):
        load_scores(tmp_path / "cut.npz", (64,))


@pytest.mark.parametrize("name", ["stored.npz", "compressed.npz", "mapped.safetensors"])
def test_scores_in_every_format(tmp_path: Path, name: str) -> None:
    p_target, entropy = np.random.default_rng(0).random(64), np.linspace(0, 5, 64, dtype=np.float32)
    if name == "compressed.npz":
        np.savez_compressed(tmp_path / name, p_target=p_target, entropy=entropy, train_seq_len=np.int64(7))
    else:
        save_scores(tmp_path / name, p_target, entropy, 7)
    source = load_scores(tmp_path / name, (64,))
    windows = plan_windows(64, WindowConfig(seq_len=8, stride=8))
    stats = source.stats(np.zeros(65, np.uint16), windows)
    assert (stats.p_target == p_target).all()
    assert (stats.entropy == entropy).all()
    assert (source.train_seq_len, source.p_target.__class__.__name__) == (7, "_Mapped" if "map" in name else "ndarray")


def test_a_damaged_safetensors_file_is_refused(tmp_path: Path) -> None:
    save_scores(tmp_path / "good.safetensors", np.full(64, 0.5), np.ones(64, np.float32), 0)
    content = (tmp_path / "good.safetensors").read_bytes()
    for name, damaged in (("cut", content[:200]), ("text", b"no tensors at all"), ("empty", b"")):
        (tmp_path / f"{name}.safetensors").write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{name}\.safetensors is not a safetensors file"):
            load_scores(tmp_path / f"{name}.safetensors", (64,))


def test_an_npz_is_compared_before_it_is_inflated(tmp_path: Path) -> None:
    """A file of some kilobytes that would fill the memory, and one whose array has items of no size."""
    np.savez_compressed(tmp_path / "bomb.npz", p_target=np.zeros(1 << 26), entropy=np.zeros(1 << 26, np.float32))
    tracemalloc.start()
    with pytest.raises(InputError, match="67,108,864 entries, the data needs 64"):
        load_scores(tmp_path / "bomb.npz", (64,))
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    header += b"{'descr': '|V0', 'fortran_order': False, 'shape': (64,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "nothing.npz", "w") as archive:
        archive.writestr("p_target.npy", header)
    with pytest.raises(InputError, match=r"not an \.npz of plain arrays"):
        load_scores(tmp_path / "nothing.npz", (64,))


def test_ranks_check_a_part_of_the_scores_each(tmp_path: Path) -> None:
    path = write(tmp_path / "s.npz", p_target=changed(40, 2.0))
    load_scores(path, (64,), (0, 2))
    with pytest.raises(InputError, match=r"p_target\[40\] is 2.0"):
        load_scores(path, (64,), (1, 2))
    np.savez(tmp_path / "long.npz", p_target=np.full(50_000, 0.5), entropy=np.ones(50_000))
    content = bytearray((tmp_path / "long.npz").read_bytes())
    content[len(content) // 4] ^= 1  # a value that stays in range
    (tmp_path / "flipped.npz").write_bytes(bytes(content))
    with pytest.raises(InputError, match="Bad CRC-32"):
        load_scores(tmp_path / "flipped.npz", (50_000,), (0, 2))


def test_uniform() -> None:
    stats = UniformSource(50).stats(TOKENS, plan_windows(64, WindowConfig(seq_len=32)))
    assert stats.p_target.tolist() == [1 / 50] * 64
    assert stats.entropy.dtype == np.float32
    assert stats.entropy[0] == pytest.approx(math.log(50))


def logits_file(path: Path, rows: int = 64, vocab: int = 50, dtype: str = "f4") -> tuple[Path, NDArray[np.float64]]:
    """An .npy of logits, and the distributions that they mean."""
    logits = np.random.default_rng(2).normal(0, 5, (rows, vocab)).astype(dtype)
    logits[3, :40] = -np.inf
    np.save(path, logits)
    p = np.exp(logits.astype(np.float64) - logits.astype(np.float64).max(axis=1, keepdims=True))
    return path, p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_logits(tmp_path: Path, dtype: str) -> None:
    path, p = logits_file(tmp_path / "l.npy", dtype=dtype)
    source = load_logits(path, (64,))
    windows = plan_windows(64, WindowConfig(seq_len=32))
    targets = TOKENS[1:65]
    np.testing.assert_allclose(source.probabilities(TOKENS, windows), p, rtol=1e-12)
    stats = source.stats(TOKENS, windows)
    assert (stats.p_target == source.probabilities(TOKENS, windows)[np.arange(64), targets]).all()
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(p * np.log(p), axis=1)
    np.testing.assert_allclose(stats.entropy, entropy, rtol=1e-6)
    assert stats.entropy.dtype == np.float32
    assert source.vocab_size == 50


def test_logits_refused(tmp_path: Path) -> None:
    path, _ = logits_file(tmp_path / "l.npy")
    with pytest.raises(InputError, match=r"l\.npy: 64 rows, the data needs 99"):
        load_logits(path, (99,))
    for name, array in (("i", np.zeros((64, 5), int)), ("one", np.zeros(64)), ("none", np.zeros((64, 0)))):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(InputError, match="give one array of floats"):
            load_logits(tmp_path / f"{name}.npy", (64,))
    np.savez(tmp_path / "z.npy", a=np.zeros(3))
    for bad in (tmp_path / "z.npy.npz", tmp_path / "missing.npy", tmp_path / "cut.npy"):
        (tmp_path / "cut.npy").write_bytes(path.read_bytes()[:100])
        with pytest.raises(InputError, match=bad.name):
            load_logits(bad, (64,))
    logits = np.load(path)
    logits[40, 7] = np.nan
    np.save(path, logits)
    with pytest.raises(InputError, match=r"l\.npy: the row of position 40 holds NaN"):
        load_logits(path, (64,)).stats(TOKENS, plan_windows(64, WindowConfig(seq_len=32)))


def test_whole_distributions_of_the_other_sources() -> None:
    windows = plan_windows(64, WindowConfig(seq_len=32))
    uniform = UniformSource(50)
    assert (uniform.probabilities(TOKENS, windows) == np.full((64, 50), 1 / 50)).all()
    assert (RememberingSource(uniform, 64, 32).probabilities(TOKENS, windows) == 1 / 50).all()
    with pytest.raises(InputError, match="scores holds only the probability of each target"):
        SavedScores(np.zeros(64), np.zeros(64)).probabilities(TOKENS, windows)


class CountingSource:
    """Every answer tells its window and position, and calls are counted."""

    name, batch_windows, train_seq_len, gives_all, vocab_size = "counting", 4, 0, True, 2

    def __init__(self) -> None:
        self.settings: dict[str, str] = {}
        self.asked = 0

    def stats(self, tokens: Stream, windows: Windows, whole: Asked | None = None) -> Stats:
        self.asked += windows.scored
        start = np.repeat(windows.start, windows.stop - windows.first)
        rows = np.stack([windows.positions(), start], axis=1).astype(np.float64)
        return Stats(rows[:, 0] + start / 1000, start.astype(np.float32), None if whole is None else rows[whole])

    def probabilities(self, tokens: Stream, windows: Windows) -> NDArray[np.float64]:
        return all_rows(self, tokens, windows)


def ask(source: Any, config: WindowConfig, samples: Sequence[int] = ()) -> Stats:
    parts = []
    for batch in batches(plan_windows(64, config), 4):
        whole = np.isin(batch.positions(), samples)
        parts.append(source.stats(TOKENS, batch, *([whole] if whole.any() else [])))
    rows = [part.rows for part in parts if part.rows is not None]
    p_target, entropy = (np.concatenate([getattr(part, name) for part in parts]) for name in ("p_target", "entropy"))
    return Stats(p_target, entropy, np.concatenate(rows) if rows else None)


def test_memory_answers_as_the_source_would() -> None:
    published, mended = WindowConfig(seq_len=32, stride=8, rescore_tail=True), WindowConfig(seq_len=32, stride=8)
    source = CountingSource()
    memory = RememberingSource(source, 64, seq_len=32)
    for config, newly_asked in ((published, 88), (mended, 0), (published, 24)):  # the tail is asked again
        before = source.asked
        found, expected = ask(memory, config), ask(CountingSource(), config)
        assert source.asked - before == newly_asked
        assert (found.p_target == expected.p_target).all()
        assert (found.entropy == expected.entropy).all()
    assert memory.reused == 64 + 64
    assert (memory.p_target == ask(CountingSource(), mended).p_target).all(), "the first window's answer is kept"


def test_memory_keeps_the_distributions_at_samples() -> None:
    """Others are computed again."""
    config = WindowConfig(seq_len=32, stride=8)
    source = CountingSource()
    memory = RememberingSource(source, 64, 32, samples=(5, 30, 50))
    for samples, newly_asked in (((30, 31), 64), ((5, 30, 50), 0), ((), 0), ((6, 50), 32)):
        before = source.asked
        found, expected = ask(memory, config, samples), ask(CountingSource(), config, samples)
        assert source.asked - before == newly_asked
        np.testing.assert_array_equal(found.p_target, expected.p_target)
        assert (found.rows is None) == (expected.rows is None)
        if found.rows is not None and expected.rows is not None:
            np.testing.assert_array_equal(found.rows, expected.rows)


def test_memory_does_not_mix_window_lengths() -> None:
    source = CountingSource()
    memory = RememberingSource(source, 64, seq_len=32)
    ask(memory, WindowConfig(seq_len=32, stride=8))
    ask(memory, WindowConfig(seq_len=16, stride=8))
    assert source.asked == 128
    assert memory.reused == 0
