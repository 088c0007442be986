"""Text to shards: nothing lost, nothing half-written, every complaint in one line."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sentencepiece
import zstandard

from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.files import file_sha256
from ngram_eval.text import documents as documents_module
from ngram_eval.text import prepare as prepare_module
from ngram_eval.text.manifest import Manifest, read_manifest
from ngram_eval.text.prepare import PrepareConfig, prepare
from ngram_eval.text.shards import read_shards
from ngram_eval.text.tokenizer import Tokenizer

SAMPLE_PATH = Path(__file__).parent / "data" / "sample.txt"
SAMPLE = SAMPLE_PATH.read_text(encoding="utf-8")
AWKWARD = "  two  spaces\r\n\ttab \n\n\n東京 🙂 e\u0301 é\u00a0ﬁ <s> <unk> \0\u2028 no end "


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer as `prepare` trains it."""
    folder = tmp_path_factory.mktemp("trained")
    prepare(PrepareConfig(inputs=(str(SAMPLE_PATH),), out=folder, train_tokenizer=400), "test")
    return folder / "tokenizer.model"


@pytest.fixture(scope="session")
def other_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `squeeze.model` (SentencePiece's defaults, no byte fallback) and `nobos.model`."""
    folder = tmp_path_factory.mktemp("other")
    for name, bos_id in {"squeeze": 1, "nobos": -1}.items():
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SAMPLE.split("\n")),
            model_prefix=str(folder / name),
            vocab_size=300,
            model_type="bpe",
            minloglevel=2,
            bos_id=bos_id,
        )
    return folder


def run(out: Path, *inputs: object, **options: Any) -> Manifest:
    return prepare(PrepareConfig(inputs=tuple(map(str, inputs)), out=out, **options), "the command")


def contents(out: Path, model: Path, name: str = "tokens") -> list[str]:
    """The documents in the shards, decoded."""
    tokenizer = Tokenizer.load(model)
    tokens = read_shards([str(out / f"{name}_*.bin")]).tokens[:]
    starts = np.flatnonzero(tokens == tokenizer.bos_id)
    assert starts[0] == 0
    return [tokenizer.decode(part.tolist()) for part in np.split(tokens, starts[1:])]


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
    (data / "readme.md").write_text("not text")
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
    document = [tokenizer.bos_id, *tokenizer.encode([SAMPLE[:2000]])[0]]
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
    with pytest.raises(InputError, match=r"tokens_000000\.bin already exists: .* --overwrite"):
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
            raise error

    monkeypatch.setattr(prepare_module, "write_shard", interrupted)
    with pytest.raises(error):
        run(out, SAMPLE_PATH, tokenizer=model_path, shard_tokens=1000, overwrite=True)
    assert len(written) == 2
    assert ({path.name: path.read_bytes() for path in out.iterdir()} if out.exists() else None) == before


def command(*arguments: object, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    argv = [sys.executable, "-m", "ngram_eval", "prepare", *map(str, arguments)]
    return subprocess.run(argv, input=stdin, capture_output=True, timeout=60, check=False)


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, model_path: Path) -> None:
    argv = [
        sys.executable,
        "-m",
        "ngram_eval",
        "prepare",
        "-",
        "--out",
        str(tmp_path / "out"),
        "--tokenizer",
        str(model_path),
    ]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(SAMPLE.encode())
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while not (tmp_path / "out").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"interrupted" in stderr
    assert b"Traceback" not in stderr
    assert not (tmp_path / "out").exists()


# The command line


def test_the_command_prints_what_it_stores(tmp_path: Path, model_path: Path) -> None:
    result = command("-", "--out", tmp_path, "--tokenizer", model_path, stdin="a▁b".encode())
    assert result.returncode == 0, result.stderr
    assert result.stdout == (tmp_path / "tokens_manifest.json").read_bytes()
    assert b"warning: 1 of 1 documents do not decode" in result.stderr
    assert json.loads(result.stdout)["command"].startswith("ngram-eval prepare - --out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.txt", "--tokenizer", "MODEL"], "error: no.txt: no such file or folder"),
        (["BAD", "--train-tokenizer", "300"], "bad.txt:2 is not UTF-8"),
        (["BAD"], "give either --tokenizer T.model or"),
    ],
)
def test_bad_input_exits_with_2_and_no_traceback(
    tmp_path: Path, model_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "bad.txt").write_bytes(b"fine\nnot \xff")
    names = {"MODEL": str(model_path), "BAD": str(tmp_path / "bad.txt")}
    result = command(*(names.get(argument, argument) for argument in arguments), "--out", tmp_path / "out")
    assert result.returncode == 2
    assert message.encode() in result.stderr
    assert b"Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_which_errors_a_command_line_catches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def exit_code(error: BaseException) -> object:
        with pytest.raises(SystemExit) as caught, exit_on_input_error():
            raise error
        assert caught.value.__suppress_context__
        return caught.value.code

    assert exit_code(InputError("say what")) == 2
    assert capsys.readouterr().err == "error: say what\n"
    assert exit_code(OSError(28, os.strerror(28), "disk")) == 2
    assert "No space left on device: 'disk'" in capsys.readouterr().err
    assert exit_code(KeyboardInterrupt()) == 130
    for bug in (ValueError("bug"), BrokenPipeError(32, "pipe"), OSError("bug")):
        with pytest.raises(type(bug)), exit_on_input_error():
            raise bug


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": ()}, "no input is given"),
        ({"inputs": ("-", "-")}, "- is given twice"),
        ({"tokenizer": None}, "give either --tokenizer T.model or --train-tokenizer VOCABULARY"),
        ({"train_tokenizer": 300}, "give either --tokenizer"),
        ({"name": "a/b"}, "--name is 'a/b'"),
        ({"train_characters": 0}, "--train-characters is 0"),
        ({"shard_tokens": 0}, "--shard-tokens is 0"),
        ({"shard_tokens": 2**31}, "--shard-tokens is 2147483648: give 1 to 2147483647"),
    ],
)
def test_bad_flags_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PrepareConfig(**{"inputs": ("a.txt",), "out": tmp_path, "tokenizer": Path("t.model"), **options})


COMPRESSED = zstandard.ZstdCompressor().compress(b"text " * 1000)
BAD_TEXTS = [
    ("a.txt", b"fine\nnot \xff", r"a\.txt:2 is not UTF-8 \(invalid start byte at byte 4 of the line\)"),
    ("a.txt", b"", r"a\.txt: the input holds no text, so there is nothing to write"),
    ("a.jsonl", b'\n{"text": ""}\n', r"a\.jsonl: the input holds no text"),
    ("a.jsonl", b'{"text": "a"}\n{"text": ', r"a\.jsonl:2 is not JSON \(.*\): fix the line"),
    ("a.jsonl", b"[" * 100_000, r"a\.jsonl:1 is not JSON"),
    ("a.jsonl", b'{"body": "a"}', r"a\.jsonl:1 has no field 'text': name .* --text-field"),
    ("a.jsonl", b"[]", r"a\.jsonl:1 has no field 'text'"),
    ("a.jsonl", b'{"text": 5}', r"a\.jsonl:1 has int, not text, in its field 'text'"),
    ("a.jsonl", b'{"text": "\\ud800"}', r"a\.jsonl:1 holds half a surrogate pair"),
    ("a.md", b"text", r"a\.md is not of a known kind: its name must end in \.txt, \.jsonl, \.txt\.zst"),
    ("a.txt.zst", b"text", r"a\.txt\.zst is not zstd, or damaged"),
    ("a.txt.zst", COMPRESSED[:-3], r"a\.txt\.zst is cut short"),
    ("a.txt.zst", COMPRESSED + COMPRESSED[:-3], r"a\.txt\.zst is cut short"),
    ("a.txt.zst", COMPRESSED + b"more", r"a\.txt\.zst is not zstd, or damaged"),
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
        with pytest.raises(InputError, match=rf"--train-tokenizer {vocabulary}: this text allows no such vocabulary"):
            run(tmp_path / "out", SAMPLE_PATH, train_tokenizer=vocabulary)
    (tmp_path / "empty.txt").write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        run(tmp_path / "out", tmp_path / "empty.txt", train_tokenizer=300)
    assert not (tmp_path / "out").exists()


def test_ctrl_c_stops_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(documents_module, "_segments", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", SAMPLE_PATH, train_tokenizer=300)
    assert not (tmp_path / "out").exists()


def test_an_out_that_is_a_file_is_refused(tmp_path: Path, model_path: Path) -> None:
    (tmp_path / "file").write_text("here first")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SystemExit, match="2"), exit_on_input_error():
            run(out, SAMPLE_PATH, tokenizer=model_path)
    assert (tmp_path / "file").read_text() == "here first"


def test_bad_tokenizers_and_folders_are_refused(tmp_path: Path, other_models: Path, model_path: Path) -> None:
    with pytest.raises(InputError, match=r"nobos\.model has no BOS token"):
        run(tmp_path / "out", SAMPLE_PATH, tokenizer=other_models / "nobos.model")
    with pytest.raises(InputError, match=r"no\.model can't be read"):
        run(tmp_path / "out", SAMPLE_PATH, tokenizer=tmp_path / "no.model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no text"):
        run(tmp_path / "out", tmp_path / "empty", tokenizer=model_path)
    assert not (tmp_path / "out").exists()
