"""Shards: the published layout, and what is refused."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ngram_eval.errors import InputError
from ngram_eval.text import shards as shards_module
from ngram_eval.text.shards import MAGIC, Raw, read_shards, write_shard
from ngram_eval.text.stream import Tokens
from tests.support.shards import header, u16


def test_shard_layout_is_the_published_one(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_shard(path, u16(1, 258, 65535))
    assert path.read_bytes() == header(3) + bytes([1, 0, 2, 1, 255, 255])
    write_shard(path, np.array([1 << 31], np.uint32))
    assert path.read_bytes() == header(1, version=2) + bytes([0, 0, 0, 128])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_a_stream_may_be_cut(tmp_path: Path, dtype: type) -> None:
    expected: Tokens = np.arange(1000, dtype=dtype)
    write_shard(tmp_path / "a.bin", expected)
    for max_tokens in (None, 7, 5000):
        stream = read_shards([str(tmp_path / "a.bin")], max_tokens)
        np.testing.assert_array_equal(stream.tokens[:], expected[:max_tokens])
        assert len(stream.tokens) == len(expected[:max_tokens])
        assert stream.tokens[:].dtype == stream.tokens[3:3].dtype == dtype
        assert stream.total == 1000


def test_shards_are_sorted_and_read_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("v_000001", 1), ("v_000000", 0), ("v_000010", 10), ("other", 99)):
        write_shard(tmp_path / f"{name}.bin", u16(*[value] * 3))
    monkeypatch.chdir(tmp_path)
    stream = read_shards(["v_000010.bin", "./v_*.bin", str(tmp_path / "v_000000.bin")])
    assert stream.tokens[:].tolist() == [0] * 3 + [1] * 3 + [10] * 3
    assert [path.name for path in stream.paths] == ["v_000000.bin", "v_000001.bin", "v_000010.bin"]
    assert stream.total == 9


def test_mixed_versions_give_uint32_and_only_what_is_needed_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "a.bin", u16(1, 2, 3))
    write_shard(tmp_path / "b.bin", np.array([4, 70000], np.uint32))
    write_shard(tmp_path / "c.bin", u16(6))
    stream = read_shards([str(tmp_path / "*.bin")])
    assert stream.tokens[:].dtype == np.uint32
    assert stream.tokens[:].tolist() == [1, 2, 3, 4, 70000, 6]

    read: list[str] = []
    original = shards_module._Shard.read

    def spy(shard: Any, start: int, stop: int) -> Tokens:
        read.append(shard.path.name)
        return original(shard, start, stop)

    monkeypatch.setattr(shards_module._Shard, "read", spy)
    cut = read_shards([str(tmp_path / "*.bin")], max_tokens=4)
    assert cut.tokens[:].tolist() == [1, 2, 3, 4]
    assert (cut.total, len(cut.paths)) == (6, 3)
    assert read == ["a.bin", "b.bin"]


def test_a_file_name_with_brackets_is_a_file(tmp_path: Path) -> None:
    write_shard(tmp_path / "a[1].bin", u16(5))
    assert read_shards([str(tmp_path / "a[1].bin")]).tokens[:].tolist() == [5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x\.bin has 0 bytes, less than the 1024 of a shard header"),
        (header(1)[:1023], r"has 1023 bytes, less than the 1024"),
        (
            header(1, magic=7) + b"ab",
            rf"begins with 7 version 1, .* {MAGIC} version 1 \(uint16\), .*raw_dtype",
        ),
        (header(1, version=3) + b"ab", r"begins with 20240520 version 3, .* 20240801 version 7 \(uint32\)"),
        (header(-1), r"token count of -1"),
        (header(2) + b"ab", r"too short: its header promises 2 tokens \(1028 bytes\), it has 1026 bytes \(1 tokens\)"),
        (header(1) + b"abc", r"too long: its header promises 1 tokens \(1026 bytes\), it has 1027 bytes \(1\.5 tokens"),
        (header(1, version=2) + b"ab", r"too short: its header promises 1 tokens \(1028 bytes\)"),
        (header(0), r"is empty \(0 tokens\)"),
    ],
)
def test_bad_shards_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    write_shard(tmp_path / "a.bin", u16(1))
    with pytest.raises(InputError, match=message):
        read_shards([str(tmp_path / "*.bin")], max_tokens=1)


def test_missing_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\*\.bin: no such shard"):
        read_shards([str(tmp_path / "no*.bin")])
    with pytest.raises(InputError, match=r"no\.bin: no such shard"):
        read_shards([str(tmp_path / "no.bin")])
    with pytest.raises(InputError, match=r"is a directory: name the shards in it"):
        read_shards([str(tmp_path)])
    with pytest.raises(InputError, match="no shard is given"):
        read_shards([])
    (tmp_path / "dangling.bin").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"dangling\.bin can't be read \(No such file or directory\)"):
        read_shards([str(tmp_path / "dangling.bin")])
    write_shard(tmp_path / "a.bin", u16(1))
    with pytest.raises(InputError, match="max_tokens is 0"):
        read_shards([str(tmp_path / "a.bin")], max_tokens=0)


def test_write_shard_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    write_shard(path, u16(1))

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_shard(path, u16(2, 3))
    assert list(tmp_path.iterdir()) == [path]
    assert read_shards([str(path)]).tokens[:].tolist() == [1]


@pytest.mark.parametrize("bad", [np.zeros(3, np.int64), np.zeros((2, 2), np.uint16), np.zeros(0, np.uint16)])
def test_write_shard_refuses_other_arrays(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"tokens"):
        write_shard(tmp_path / "a.bin", bad)
    assert not list(tmp_path.iterdir())


def test_every_slice_is_that_of_the_whole(tmp_path: Path) -> None:
    lengths, whole = (3, 1, 4), np.arange(8, dtype=np.uint16)
    for index, part in enumerate(np.split(whole, np.cumsum(lengths)[:-1])):
        write_shard(tmp_path / f"{index}.bin", part)
    for most in (1, 3, 7, 8):
        tokens = read_shards([str(tmp_path / "*.bin")], most).tokens
        for start in range(-9, 10):
            for stop in (*range(-9, 10), None):
                np.testing.assert_array_equal(tokens[start:stop], whole[:most][start:stop])


@pytest.mark.parametrize("how", ["cut", "rewritten", "replaced", "removed"])
def test_a_shard_that_changes_is_not_read_on(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.bin"
    write_shard(path, u16(*range(1000)))
    os.utime(path, ns=(0, 0))  # a clock may stand still between two writes
    tokens = read_shards([str(path)]).tokens
    assert tokens[5:6].tolist() == [5]
    if how == "cut":
        os.truncate(path, 1024)
    elif how == "rewritten":
        path.write_bytes(path.read_bytes())
    elif how == "replaced":
        write_shard(path, u16(*range(1000)))
    else:
        path.unlink()
    with pytest.raises(InputError, match=r"a\.bin (was changed while it was in use|can't be read)"):
        tokens[5:6]


def test_a_shard_that_is_cut_as_it_is_read_is_not_half_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    write_shard(path, u16(1, 2, 3))
    tokens = read_shards([str(path)]).tokens
    monkeypatch.setattr(shards_module, "require_unchanged", lambda path, *stamps: os.truncate(path, 1026))
    with pytest.raises(InputError, match=r"a\.bin was cut short while it was read"):
        tokens[:]


def test_shards_of_llm_c_for_llama_3(tmp_path: Path) -> None:
    path = tmp_path / "tinyshakespeare_val.bin"
    path.write_bytes(header(3, version=7, magic=20240801) + np.array([128_000, 5, 1], "<u4").tobytes())
    tokens = read_shards([str(path)]).tokens
    assert tokens[:].tolist() == [128_000, 5, 1]


@pytest.mark.parametrize("raw", ["uint16", "uint32"])
def test_tokens_without_a_header_are_read_as_the_type_that_is_named(tmp_path: Path, raw: Raw) -> None:
    expected = np.arange(1000, dtype=raw)
    (tmp_path / "val.bin").write_bytes(expected.tobytes())
    stream = read_shards([str(tmp_path / "val.bin")], 900, raw)
    assert (len(stream.tokens), stream.total) == (900, 1000)
    np.testing.assert_array_equal(stream.tokens[450:], expected[450:900])
    assert stream.tokens[:].dtype == raw
    with pytest.raises(InputError, match=r"begins with \d+ version \d+, which is no shard's: .*raw_dtype uint16"):
        read_shards([str(tmp_path / "val.bin")])


def test_a_type_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.bin").write_bytes(bytes(1001))
    with pytest.raises(InputError, match=r"tokens of uint16 would be 501 \(1002 bytes\), it has 1001 bytes"):
        read_shards([str(tmp_path / "odd.bin")], raw="uint16")
    write_shard(tmp_path / "shard.bin", u16(1, 2, 3))
    np.save(tmp_path / "tokens.npy", u16(1, 2, 3))
    for name in ("shard.bin", "tokens.npy"):
        with pytest.raises(InputError, match=r"has a header, which says .* leave out raw_dtype uint16"):
            read_shards([str(tmp_path / name)], raw="uint16")
    (tmp_path / "nothing.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"nothing\.bin is empty"):
        read_shards([str(tmp_path / "nothing.bin")], raw="uint32")


@pytest.mark.parametrize("dtype", ["<u1", "<u2", ">u2", "<i4", "<u4", ">i8", "<u8"])
def test_an_npy_of_tokens_is_a_shard(tmp_path: Path, dtype: str) -> None:
    largest = 255 if dtype == "<u1" else 50_256
    np.save(tmp_path / "a.npy", np.array([1, largest, 0], dtype))
    write_shard(tmp_path / "b.bin", u16(7))
    tokens = read_shards([str(tmp_path / "*")]).tokens
    assert tokens[:].tolist() == [1, largest, 0, 7]
    assert tokens[2:].tolist() == [0, 7]
    assert tokens[:].dtype == (np.uint16 if dtype[1] in "u" and dtype[2] in "12" else np.uint32)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3), np.uint16), r"holds uint16 of shape \(2, 3\): tokens are integers of one dimension"),
        (np.zeros(3), r"holds float64 of shape \(3,\): tokens are integers"),
        (np.zeros(0, np.uint16), r"is empty \(0 tokens\)"),
        (np.array([5, 6, -1]), r"holds -1 at 2, which is no token"),
        (np.array([5, 1 << 40]), r"holds 1099511627776 at 1, which is no token"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, array: NDArray[Any], message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=rf"a\.npy {message}"):
        read_shards([str(tmp_path / "a.npy")]).tokens[:]


def test_an_npy_whose_size_is_not_its_headers_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", u16(1, 2, 3))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-2])
    with pytest.raises(InputError, match=r"a\.npy is too short: its header promises 3 tokens"):
        read_shards([str(tmp_path / "a.npy")])
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:20])
    with pytest.raises(InputError, match=r"a\.npy is not an \.npy of plain numbers"):
        read_shards([str(tmp_path / "a.npy")])


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1048576\n"
    (tmp_path / "val.bin").write_text(pointer)
    with pytest.raises(InputError, match=r"val\.bin is a Git LFS pointer, .*: fetch that with `git lfs pull`"):
        read_shards([str(tmp_path / "val.bin")])
