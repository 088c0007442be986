"""Text to shards: nothing lost, nothing half-written."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zstandard

from ngram_eval.errors import InputError
from ngram_eval.files import file_sha256, temporary_folder
from ngram_eval.text import documents as documents_module
from ngram_eval.text import prepare as prepare_module
from ngram_eval.text.manifest import read_manifest
from ngram_eval.text.shards import read_shards
from ngram_eval.text.tokenizer import Tokenizer
from tests.support.places import SAMPLE_PATH
from tests.support.prepared import AWKWARD, SAMPLE, contents, run


def set_stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))


# What is written


def test_text_comes_back_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_module, "_SEGMENT_CHARS", 1000)
    monkeypatch.setattr(prepare_module, "_BATCH_CHARS", 5000)
    text = SAMPLE + AWKWARD
    (tmp_path / "a.txt").write_bytes(text.encode())
    out = tmp_path / "new" / "out"
    manifest = run(out, tmp_path / "a.txt", train_tokenizer=500, shard_tokens=10_000, name="v")
    assert contents(out, out / "tokenizer.model", "v") == [text]
    names = [f"v_{i:06}.bin" for i in range(len(manifest.shards))]
    assert sorted(path.name for path in out.iterdir()) == ["tokenizer.model", *names, "v_manifest.json"]
    stream = read_shards([str(out / "v_*.bin")])
    assert stream.tokens[:].dtype == np.uint16
    assert [shard.tokens for shard in manifest.shards[:-1]] == [10_000] * (len(names) - 1)
    assert len(names) > 2
    assert [(shard.file, shard.sha256) for shard in manifest.shards] == [(n, file_sha256(out / n)) for n in names]
    assert (manifest.tokens, manifest.documents, manifest.vocab_size) == (stream.total, 1, 500)
    assert manifest.original_bytes == manifest.decoded_bytes == len(text.encode())
    assert (manifest.unknown_tokens, manifest.altered_documents, manifest.warnings) == (0, 0, ())
    assert manifest.tokenizer_sha256 == file_sha256(out / "tokenizer.model")
    assert manifest.command == "the command"
    assert read_manifest(stream.paths) == manifest
    assert json.loads((out / "v_manifest.json").read_text())["original_bytes"] == len(text.encode())
    tokenizer = Tokenizer.load(out / "tokenizer.model")
    assert tokenizer.target_bytes(stream.tokens[:], 0, stream.total - 1, "decoded").sum() == manifest.decoded_bytes
    # Segments and batches must not show.
    np.testing.assert_array_equal(stream.tokens[1:], tokenizer.encode([text])[0])


def test_training_depends_on_the_text_alone(tmp_path: Path, model_path: Path) -> None:
    (tmp_path / "copy.txt").write_text(SAMPLE)
    run(tmp_path / "out", tmp_path / "copy.txt", train_tokenizer=400)
    model = (tmp_path / "out" / "tokenizer.model").read_bytes()
    assert model == model_path.read_bytes()


def test_training_reads_no_more_than_asked(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(SAMPLE[:30000])
    (tmp_path / "b.txt").write_text("ЖЖЖЖ " * 1000)
    run(tmp_path / "out", tmp_path / "a.txt", tmp_path / "b.txt", train_tokenizer=400, train_characters=30000)
    tokenizer = Tokenizer.load(tmp_path / "out" / "tokenizer.model")
    assert len(tokenizer.encode(["ЖЖЖЖ"])[0]) == 8  # bytes only


def test_long_lines_are_trained_on(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcdefgh " * 20_000)
    run(tmp_path / "out", tmp_path / "a.txt", train_tokenizer=275)
    assert len(Tokenizer.load(tmp_path / "out" / "tokenizer.model").encode(["abcdefgh " * 10])[0]) < 30


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("file", ["one\n two\r\n\n \nthree\n", "four"]),
        ("line", ["one", " two", " ", "three", "four"]),
        ("blank-lines", ["one\n two\r\n", "three\n", "four"]),
    ],
)
def test_documents_of_text(tmp_path: Path, model_path: Path, mode: Any, expected: list[str]) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\n two\r\n\n \nthree\n")
    (tmp_path / "b.txt").write_bytes(b"")
    (tmp_path / "c.txt").write_bytes(b"four")
    inputs = [tmp_path / name for name in ("a.txt", "b.txt", "c.txt")]
    manifest = run(tmp_path / "out", *inputs, tokenizer=model_path, documents=mode)
    assert contents(tmp_path / "out", model_path) == expected
    assert manifest.documents == len(expected)
    assert manifest.original_bytes == sum(map(len, expected)) == manifest.decoded_bytes


def test_jsonl_zst_and_folders(tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_module, "_SEGMENT_CHARS", 10)
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    lines = [json.dumps({"body": text, "id": 1}) for text in ("one\n\nline\nof many lines", "", "zwei é \u2028")]
    jsonl = ("\n".join(lines) + "\n\n").encode()
    (data / "b.jsonl").write_bytes(jsonl)
    # Two frames, one after the other, as `cat` makes them.
    frames = [zstandard.ZstdCompressor().compress(part) for part in (jsonl[:20], jsonl[20:])]
    (data / "sub" / "c.jsonl.zst").write_bytes(b"".join(frames))
    (data / "a.txt.zst").write_bytes(zstandard.ZstdCompressor().compress(SAMPLE.encode()))
    (data / "page.html").write_text("not text")
    manifest = run(tmp_path / "out", data, tokenizer=model_path, text_field="body")
    documents = ["one\n\nline\nof many lines", "zwei é \u2028"]
    assert contents(tmp_path / "out", model_path) == [SAMPLE, *documents, *documents]
    assert (manifest.documents, manifest.altered_documents) == (5, 0)


def test_a_document_is_split_only_if_its_tokens_stay_the_same(
    tmp_path: Path, other_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents_module, "_SEGMENT_CHARS", 10)
    (tmp_path / "a.txt").write_text(SAMPLE[:2000])
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": SAMPLE[:2000]}))
    tokenizer = Tokenizer.load(other_models / "squeeze.model")
    run(tmp_path / "out", tmp_path / "a.txt", tmp_path / "a.jsonl", tokenizer=other_models / "squeeze.model")
    document = [tokenizer.start_id, *tokenizer.encode([SAMPLE[:2000]])[0]]
    assert read_shards([str(tmp_path / "out" / "*.bin")]).tokens[:].tolist() == document * 2


def test_stdin(tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_stdin(monkeypatch, AWKWARD.encode())
    run(tmp_path / "plain", "-", tokenizer=model_path)
    assert contents(tmp_path / "plain", model_path) == [AWKWARD]
    set_stdin(monkeypatch, b'{"text": "one"}\n{"text": "two"}')
    run(tmp_path / "jsonl", "-", tokenizer=model_path, stdin_format="jsonl")
    assert contents(tmp_path / "jsonl", model_path) == ["one", "two"]
    # Read twice: for the tokenizer, then for the tokens.
    set_stdin(monkeypatch, SAMPLE.encode())
    run(tmp_path / "train", "-", train_tokenizer=400)
    assert contents(tmp_path / "train", tmp_path / "train" / "tokenizer.model") == [SAMPLE]
    assert (tmp_path / "train" / "tokenizer.model").read_bytes() == model_path.read_bytes()


def test_a_big_vocabulary_gives_uint32(tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Tokenizer.load(model_path)
    wide.dtype = np.uint32  # as a vocabulary above 65,536 has it; see the next test
    monkeypatch.setattr(Tokenizer, "load", lambda path: wide)
    run(tmp_path / "out", SAMPLE_PATH, tokenizer=model_path)
    stream = read_shards([str(tmp_path / "out" / "tokens_*.bin")])
    assert stream.tokens[:].dtype == np.uint32
    assert wide.decode(stream.tokens[:]) == SAMPLE


@pytest.mark.slow
def test_the_vocabulary_decides_the_width() -> None:
    def model(vocab_size: int) -> bytes:
        """A hand-made protocol buffer: <unk>, <s>, then characters."""

        def field(number: int, data: bytes) -> bytes:
            return bytes([number << 3 | 2, len(data)]) + data

        pieces = [field(1, b"<unk>") + b"\x18\x02", field(1, b"<s>") + b"\x18\x03"]
        pieces += [field(1, chr(0x10000 + i).encode()) for i in range(vocab_size - 2)]
        return b"".join(field(1, piece) for piece in pieces)

    assert Tokenizer(model(1 << 16)).dtype == np.uint16
    assert Tokenizer(model((1 << 16) + 1)).dtype == np.uint32


def test_what_the_tokenizer_changed_is_said(tmp_path: Path, other_models: Path, model_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a b"}\n{"text": "a  b"}\n{"text": "a 東 b"}\n', encoding="utf-8")
    manifest = run(tmp_path / "out", tmp_path / "a.jsonl", tokenizer=other_models / "squeeze.model")
    assert (manifest.documents, manifest.unknown_tokens, manifest.altered_documents) == (3, 1, 2)
    # Three bytes; then two more, each with the dropped double space and the encoder's prefix; the unknown token is 0.
    assert (manifest.original_bytes, manifest.decoded_bytes) == (3 + 4 + 7, 3 + 4 + 5)
    unknown, altered, differ = manifest.warnings
    assert unknown.startswith("1 tokens are unknown")
    assert altered.startswith("2 of 3 documents do not decode to their text")
    assert differ.startswith("the tokens decode to 12 bytes, the documents have 14")

    # Text may vanish altogether: the document is then its BOS alone.
    (tmp_path / "blank.txt").write_text("   ")
    manifest = run(tmp_path / "blank", tmp_path / "blank.txt", tokenizer=other_models / "squeeze.model")
    assert (manifest.tokens, manifest.altered_documents, manifest.original_bytes, manifest.decoded_bytes) == (
        1,
        1,
        3,
        0,
    )

    # SentencePiece's own sign for a space is the one thing our tokenizers cannot keep.
    (tmp_path / "b.txt").write_text("a▁b", encoding="utf-8")
    manifest = run(tmp_path / "sign", tmp_path / "b.txt", tokenizer=model_path)
    assert (manifest.altered_documents, manifest.original_bytes, manifest.decoded_bytes) == (1, 5, 3)


# Overwriting and interruption


def test_nothing_is_overwritten_unless_asked(tmp_path: Path, model_path: Path) -> None:
    out = tmp_path / "out"
    run(out, SAMPLE_PATH, train_tokenizer=400, shard_tokens=20_000)
    assert len(list(out.glob("*.bin"))) == 2
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InputError, match=r"tokens_000000\.bin already exists: .* overwrite"):
        run(out, SAMPLE_PATH, tokenizer=model_path)
    with pytest.raises(InputError, match=r"tokenizer\.model already exists"):
        run(out, SAMPLE_PATH, train_tokenizer=300, name="other")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    # A shorter run must not leave a longer one's last shards behind, nor touch another name's.
    run(out, SAMPLE_PATH, tokenizer=model_path, name="tokens_000000")
    run(out, SAMPLE_PATH, tokenizer=model_path, overwrite=True)
    assert sorted(path.name for path in out.glob("*.bin")) == ["tokens_000000.bin", "tokens_000000_000000.bin"]
    assert read_manifest([out / "tokens_000000.bin"]) is not None


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError, OSError])
@pytest.mark.parametrize("existing", [True, False])
def test_an_interruption_leaves_nothing_behind(
    tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], existing: bool
) -> None:
    out = tmp_path / "out"
    if existing:
        run(out, SAMPLE_PATH, tokenizer=model_path)
    before = {path.name: path.read_bytes() for path in out.iterdir()} if existing else None
    written = []

    def interrupted(path: Path, tokens: object) -> None:
        written.append(path)
        path.write_bytes(b"half")
        if len(written) == 2:
            raise error("broken off")

    monkeypatch.setattr(prepare_module, "write_shard", interrupted)
    with pytest.raises(error):
        run(out, SAMPLE_PATH, tokenizer=model_path, shard_tokens=1000, overwrite=True)
    assert len(written) == 2
    assert ({path.name: path.read_bytes() for path in out.iterdir()} if out.exists() else None) == before


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("shards", [(3, 1), (1, 3), (2, 2)], ids=["fewer", "more", "as many"])
def test_a_publication_that_fails_anywhere_loses_nothing(
    tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch, shards: tuple[int, int]
) -> None:
    """Either the old files are all there, or the next run puts all of the new ones in place."""
    texts = [tmp_path / "old.txt", tmp_path / "new.txt"]
    for path in texts:
        path.write_text(f"some {path.stem} text " * 40)

    def prepared(out: Path, which: int) -> dict[str, bytes]:
        tokens = len(Tokenizer.load(model_path).encode([texts[which].read_text()])[0]) + 1
        run(out, texts[which], tokenizer=model_path, shard_tokens=-(-tokens // shards[which]), overwrite=True)
        return files(out)

    old, new = prepared(tmp_path / "a", 0), prepared(tmp_path / "b", 1)
    whole = failed = 0
    moves = {name: getattr(os, name) for name in ("rename", "replace", "mkdir", "unlink", "rmdir")}
    for step in range(100):
        out, left = tmp_path / str(step), [step]
        prepared(out, 0)

        def fail(name: str, left: list[int], out: Path) -> Any:
            def call(*arguments: Any, **named: Any) -> Any:
                if left[0] == 0:
                    raise OSError(5, "Input/output error")
                left[0] -= 1
                return moves[name](*arguments, **named)

            return call

        with monkeypatch.context() as patched:
            for name in moves:
                patched.setattr(os, name, fail(name, left, out))
            try:
                prepared(out, 1)
            except OSError:
                failed += 1
            else:
                break
        if files(out) == old and not list(out.glob(".*.ready")):
            whole += 1
            continue
        with pytest.raises(InputError, match="already exists"):
            run(out, texts[0], tokenizer=model_path)
        assert files(out) == new
        assert [path.name for path in out.iterdir() if path.is_dir()] == []
    assert files(out) == new
    assert whole >= 3, "before publication"
    assert failed - whole >= 3, "during it"


KILLED = """
import os, signal, sys
from ngram_eval.text import prepare
prepare.write_shard = lambda path, tokens: (path.write_bytes(b"half"), os.kill(os.getpid(), signal.SIGKILL))
paths = [prepare.Path(one) for one in sys.argv[2:]]
config = prepare.PrepareConfig(inputs=(sys.argv[1],), out=paths[0], tokenizer=paths[1])
prepare.prepare(config, "the command")
"""


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path, model_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text")
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "a.txt", out, model_path]) as process:
        assert process.wait() == -signal.SIGKILL
    assert [path.name[:8] for path in out.iterdir()] == [".tokens."]
    with temporary_folder(out / "tokens") as living:  # which is this process's
        assert list(out.iterdir()) == [living]
        run(out, tmp_path / "a.txt", tokenizer=model_path)
        assert sorted(out.iterdir()) == [living, out / "tokens_000000.bin", out / "tokens_manifest.json"]


def test_names_that_are_not_utf8_are_shown_with_escapes(tmp_path: Path, model_path: Path) -> None:
    name, out = os.fsdecode(b"t\xff.txt"), tmp_path / os.fsdecode(b"o\xfe")
    (tmp_path / name).write_text("some text")
    command = [sys.executable, "-m", "ngram_eval", "prepare", name, "--out", str(out), "--quiet"]
    command += ["--tokenizer", str(model_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert rb"prepare 't\udcff.txt' --out" in done.stdout
    assert done.stdout == (out / "tokens_manifest.json").read_bytes()
    manifest = read_manifest([out / "tokens_000000.bin"])
    assert manifest is not None
    assert name in manifest.command, "it is read back as it was"
