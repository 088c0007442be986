"""Text that can't be used is refused, and it is said where."""

import bz2
import gzip
import io
import json
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from ngram_eval.errors import InputError
from ngram_eval.text import documents as documents_module
from ngram_eval.text.unpacking import Unpacked
from tests.support.places import SAMPLE_PATH
from tests.support.prepared import contents, run

COMPRESSED = zstandard.ZstdCompressor().compress(b"text " * 1000)
BAD_TEXTS = [
    ("a.txt", b"fine\nnot \xff", r"a\.txt:2 is not UTF-8 \(invalid start byte at byte 4 of the line\)"),
    ("a.txt", b"", r"a\.txt: the input holds no text, so there is nothing to write"),
    ("a.jsonl", b'\n{"text": ""}\n', r"a\.jsonl: the input holds no text"),
    ("a.jsonl", b'{"text": "a"}\n{"text": ', r"a\.jsonl:2 is not JSON \(.*\): fix the line"),
    ("a.jsonl", b"[" * 100_000, r"a\.jsonl:1 is not JSON"),
    ("a.jsonl", b'{"body": "a"}', r"a\.jsonl:1 has no field 'text': name .* text_field"),
    ("a.jsonl", b"[]", r"a\.jsonl:1 has no field 'text'"),
    ("a.jsonl", b'{"text": 5}', r"a\.jsonl:1 has int, not text, in its field 'text'"),
    ("a.jsonl", b'{"text": "\\ud800"}', r"a\.jsonl:1 holds half a surrogate pair"),
    (
        "a.html",
        b"text",
        r"a\.html is not of a known kind: its name must end in \.txt, \.md, \.jsonl, .*\.gz.*\.parquet",
    ),
    ("a.txt", b"\xff\xfet\0e\0", r"a\.txt:1 is not UTF-8 \(its byte order mark is UTF-16's\): convert it"),
    ("a.txt.zst", b"text", r"a\.txt\.zst is not zst, or damaged"),
    ("a.txt.zst", COMPRESSED[:-3], r"a\.txt\.zst is cut short"),
    ("a.txt.zst", COMPRESSED + COMPRESSED[:-3], r"a\.txt\.zst is cut short"),
    ("a.txt.zst", COMPRESSED + b"more", r"a\.txt\.zst is not zst, or damaged"),
    *(
        (f"a.txt.{kind}", content, rf"a\.txt\.{kind} is {message}")
        for kind, whole in {"gz": gzip, "bz2": bz2, "xz": lzma}.items()
        for content, message in (
            (b"text" * 9, rf"not {kind}, or damaged"),
            (whole.compress(b"text " * 1000)[:-3], "cut short"),
            (whole.compress(b"text " * 1000) * 2 + b"more" * 9, rf"not {kind}, or damaged"),
        )
    ),
]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [  # the contents would make unreadable test names
        pytest.param(*case, id=f"{number}-{case[0]}") for number, case in enumerate(BAD_TEXTS)
    ],
)
def test_bad_text_is_refused(tmp_path: Path, model_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        run(tmp_path / "out", tmp_path / name, tokenizer=model_path)
    assert not (tmp_path / "out").exists()


def test_bad_text_is_refused_while_training_too(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"fine\nnot \xff")
    with pytest.raises(InputError, match=r"a\.txt:2 is not UTF-8"):
        run(tmp_path / "out", tmp_path / "a.txt", train_tokenizer=300)
    for vocabulary in (5, 100_000):
        with pytest.raises(InputError, match=rf"train_tokenizer {vocabulary}: this text allows no such vocabulary"):
            run(tmp_path / "out", SAMPLE_PATH, train_tokenizer=vocabulary)
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"text": null}\n')
    with pytest.raises(InputError) as raised:
        run(tmp_path / "out", tmp_path / "a.jsonl", train_tokenizer=300)
    assert str(raised.value) == f"{tmp_path}/a.jsonl:2 has NoneType, not text, in its field 'text': fix the line"
    (tmp_path / "empty.txt").write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        run(tmp_path / "out", tmp_path / "empty.txt", train_tokenizer=300)
    assert not (tmp_path / "out").exists()


def test_zst_of_a_long_window_is_read(tmp_path: Path) -> None:
    """As `zstd --long=28` writes it."""
    settings = zstandard.ZstdCompressionParameters(window_log=28, hash_log=6, chain_log=6)
    frame = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    packed = frame.compress(b"text " * 1000) + frame.flush()
    assert zstandard.get_frame_parameters(packed).window_size == 1 << 28
    unpacked = Unpacked(io.BytesIO(packed), ".zst", "a.txt.zst")
    assert io.BufferedReader(unpacked).read() == b"text " * 1000


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.zst"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, model_path: Path, name: str) -> None:
    text = b"a text" if name == "a.txt" else b'{"text": "a text"}\n'
    content = b"\xef\xbb\xbf" + text
    (tmp_path / name).write_bytes(zstandard.ZstdCompressor().compress(content) if name.endswith("zst") else content)
    assert run(tmp_path / "out", tmp_path / name, tokenizer=model_path).original_bytes == 6
    assert contents(tmp_path / "out", model_path) == ["a text"]


def test_ctrl_c_stops_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(documents_module, "_segments", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", SAMPLE_PATH, train_tokenizer=300)
    assert not (tmp_path / "out").exists()


def test_bad_tokenizers_and_folders_are_refused(tmp_path: Path, other_models: Path, model_path: Path) -> None:
    with pytest.raises(InputError, match=r"nobos\.model has no BOS token"):
        run(tmp_path / "out", SAMPLE_PATH, tokenizer=other_models / "nobos.model")
    with pytest.raises(InputError, match=r"no\.model can't be read"):
        run(tmp_path / "out", SAMPLE_PATH, tokenizer=tmp_path / "no.model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no text"):
        run(tmp_path / "out", tmp_path / "empty", tokenizer=model_path)
    assert not (tmp_path / "out").exists()


def packed(content: bytes, packing: str) -> bytes:
    """As a suffix says."""
    tools: dict[str, Callable[[bytes], bytes]] = {
        **{".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress},
        ".zst": zstandard.ZstdCompressor().compress,
    }
    return tools[packing](content) if packing else content


@pytest.mark.parametrize("kind", [".txt", ".md", ".jsonl"])
@pytest.mark.parametrize("packing", ["", ".zst", ".gz", ".bz2", ".xz"])
def test_every_kind_is_read_packed_as_well(tmp_path: Path, model_path: Path, kind: str, packing: str) -> None:
    """In two frames, one after the other."""
    text = SAMPLE_PATH.read_text(encoding="utf-8")[:20_000]
    content = (json.dumps({"text": text}) if kind == ".jsonl" else text).encode()
    frames = packed(content[:5000], packing) + packed(content[5000:], packing)
    (tmp_path / f"a{kind}{packing}").write_bytes(frames)
    run(tmp_path / "out", tmp_path / f"a{kind}{packing}", tokenizer=model_path)
    assert contents(tmp_path / "out", model_path) == [text]


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz"])
def test_a_bomb_is_unpacked_a_little_at_a_time(packing: str) -> None:
    """64 MB of zeros in some kilobytes."""
    bomb = packed(bytes(64 << 20), packing)
    assert len(bomb) < 1 << 16
    unpacked = Unpacked(io.BytesIO(bomb), packing, "a")
    tracemalloc.start()
    size, buffer = 0, memoryview(bytearray(1 << 16))
    while read := unpacked.readinto(buffer):
        size += read
    assert size == 64 << 20
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
