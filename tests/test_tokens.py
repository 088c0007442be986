"""Shards, manifests, and bytes per token against SentencePiece's own decoder."""

import functools
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from ngram_eval.config import ByteRule
from ngram_eval.errors import InputError
from ngram_eval.files import file_sha256
from ngram_eval.text import shards as shards_module
from ngram_eval.text import tokenizer as tokens_module
from ngram_eval.text.manifest import MANIFEST_FORMAT, Manifest, ShardEntry, read_manifest
from ngram_eval.text.shards import MAGIC, read_shards, write_shard
from ngram_eval.text.stream import Tokens
from ngram_eval.text.tokenizer import Tokenizer, check_vocabulary

SAMPLE = (Path(__file__).parent / "data" / "sample.txt").read_text(encoding="utf-8")


def header(count: int, version: int = 1, magic: int = MAGIC) -> bytes:
    words = np.zeros(256, "<i4")
    words[:3] = magic, version, count
    return words.tobytes()


def u16(*values: int) -> Tokens:
    return np.array(values, np.uint16)


# Shards


def test_shard_layout_is_the_published_one(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_shard(path, u16(1, 258, 65535))
    assert path.read_bytes() == header(3) + bytes([1, 0, 2, 1, 255, 255])
    write_shard(path, np.array([1 << 31], np.uint32))
    assert path.read_bytes() == header(1, version=2) + bytes([0, 0, 0, 128])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_one_shard_is_mapped_without_a_copy(tmp_path: Path, dtype: type) -> None:
    expected: Tokens = np.arange(1000, dtype=dtype)
    write_shard(tmp_path / "a.bin", expected)
    for max_tokens in (None, 7, 5000):
        stream = read_shards([str(tmp_path / "a.bin")], max_tokens)
        np.testing.assert_array_equal(stream.tokens, expected[:max_tokens])
        assert isinstance(stream.tokens, np.ndarray)
        assert stream.tokens.dtype == dtype
        assert not stream.tokens.flags.owndata
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

    mapped: list[str] = []
    original = shards_module._Shard.map

    def spy(shard: Any) -> Tokens:
        mapped.append(shard.path.name)
        return original(shard)

    monkeypatch.setattr(shards_module._Shard, "map", spy)
    cut = read_shards([str(tmp_path / "*.bin")], max_tokens=4)
    assert cut.tokens[:].tolist() == [1, 2, 3, 4]
    assert (cut.total, len(cut.paths)) == (6, 3)
    assert mapped == ["a.bin", "b.bin"]


def test_a_file_name_with_brackets_is_a_file(tmp_path: Path) -> None:
    write_shard(tmp_path / "a[1].bin", u16(5))
    assert read_shards([str(tmp_path / "a[1].bin")]).tokens[:].tolist() == [5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x\.bin has 0 bytes, less than the 1024 of a shard header"),
        (header(1)[:1023], r"has 1023 bytes, less than the 1024"),
        (header(1, magic=7) + b"ab", rf"starts with 7 where a shard has {MAGIC}"),
        (header(1, version=3) + b"ab", r"format version 3: only 1 \(uint16\) and 2 \(uint32\)"),
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
    with pytest.raises(InputError, match="no shard is named"):
        read_shards([])
    (tmp_path / "dangling.bin").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"dangling\.bin can't be read \(No such file or directory\)"):
        read_shards([str(tmp_path / "dangling.bin")])
    write_shard(tmp_path / "a.bin", u16(1))
    with pytest.raises(InputError, match="--max-tokens is 0"):
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


def test_check_vocabulary_names_the_first_offender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "_CHUNK", 4)
    stream = u16(0, 1, 9, 9, 2, 10, 3, 11)
    check_vocabulary(stream, 12, "t.model")
    with pytest.raises(InputError, match=r"token 10 at position 5 is outside the vocabulary of t\.model \(10 tokens\)"):
        check_vocabulary(stream, 10, "t.model")


# Manifests


def make_manifest(folder: Path, names: list[str], **changes: Any) -> Manifest:
    entries = tuple(
        ShardEntry(file=name, tokens=len(read_shards([str(folder / name)]).tokens), sha256=file_sha256(folder / name))
        for name in names
    )
    fields: dict[str, Any] = {
        "format": MANIFEST_FORMAT,
        "name": "v",
        "shards": entries,
        "tokens": sum(entry.tokens for entry in entries),
        "documents": 1,
        "original_bytes": 10,
        "decoded_bytes": 9,
        "unknown_tokens": 0,
        "altered_documents": 1,
        "warnings": ("é",),
        "tokenizer_sha256": "0" * 64,
        "vocab_size": 300,
        "command": "c",
        "version": "0",
    }
    manifest = Manifest(**{**fields, **changes})
    (folder / "v_manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def test_a_manifest_is_found_for_exactly_its_shards(tmp_path: Path) -> None:
    paths = [tmp_path / f"v_{i:06}.bin" for i in range(2)]
    for path in paths:
        write_shard(path, u16(1, 2))
    assert read_manifest(paths) is None
    manifest = make_manifest(tmp_path, [path.name for path in paths])
    assert read_manifest(paths) == manifest
    assert read_manifest(paths[:1]) is None
    other = tmp_path / "w_000000.bin"
    write_shard(other, u16(1))
    assert read_manifest([other]) is None
    assert read_manifest([*paths, other]) is None
    assert read_manifest([tmp_path / "plain.bin"]) is None


def test_a_manifest_that_contradicts_its_shards_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v_000000.bin"
    write_shard(path, u16(1, 2))
    make_manifest(tmp_path, [path.name])
    write_shard(path, u16(1, 3))
    with pytest.raises(InputError, match=r"v_000000\.bin \(2 tokens\) is not the shard that .*v_manifest\.json desc"):
        read_manifest([path])
    make_manifest(tmp_path, [path.name], format="other")
    with pytest.raises(InputError, match="has the format 'other'"):
        read_manifest([path])
    make_manifest(tmp_path, [path.name], original_bytes="10")
    with pytest.raises(InputError, match=r"got `str` - at `\$\.original_bytes`"):
        read_manifest([path])
    for broken in ("{", "[]", json.dumps({"shards": []}), json.dumps({"shards": [{"file": "a"}]})):
        (tmp_path / "v_manifest.json").write_text(broken)
        with pytest.raises(InputError, match=r"v_manifest\.json is (no JSON|damaged)"):
            read_manifest([path])


# Tokenizer


def train(**options: Any) -> bytes:
    model = io.BytesIO()
    settings = {"vocab_size": 400, "character_coverage": 1.0, "hard_vocab_limit": False, "minloglevel": 2}
    lines = [*SAMPLE[:8000].split("\n"), "naïve café 東京 — “x”  two   spaces\tand a tab"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, **{**settings, **options}
    )
    return model.getvalue()


MODELS: dict[str, dict[str, Any]] = {
    f"{kind}-{rule}-{'prefix' if prefix else 'bare'}-{'squeeze' if squeeze else 'keep'}-{'bytes' if byte else 'unk'}": {
        "model_type": kind,
        "normalization_rule_name": rule,
        "add_dummy_prefix": prefix,
        "remove_extra_whitespaces": squeeze,
        "byte_fallback": byte,
        "allow_whitespace_only_pieces": not squeeze,
    }
    for (kind, rule), prefix, squeeze, byte in itertools.product(
        [("bpe", "identity"), ("unigram", "nmt_nfkc")], [True, False], [True, False], [True, False]
    )
} | {
    "nfkc": {"model_type": "bpe", "normalization_rule_name": "nfkc"},
    "char": {"model_type": "char"},
    "word": {"model_type": "word"},
    "suffix": {"model_type": "bpe", "treat_whitespace_as_suffix": True},
    "pieces with ▁ inside": {"model_type": "bpe", "split_by_whitespace": False, "byte_fallback": True},
    "no ▁ at the start of any piece": {
        "model_type": "unigram",
        "treat_whitespace_as_suffix": True,
        "split_by_whitespace": False,
        "byte_fallback": True,
    },
    "own symbols": {
        "model_type": "bpe",
        "user_defined_symbols": ["\n", "<url>", "▁▁▁▁", "e\u0301"],
        "control_symbols": ["<doc>"],
        "byte_fallback": True,
        "remove_extra_whitespaces": False,
        "normalization_rule_name": "identity",
    },
    "empty unknown": {"model_type": "bpe", "unk_surface": "", "remove_extra_whitespaces": True},
    "no ids but unk": {"model_type": "bpe", "bos_id": -1, "eos_id": -1},
}


@functools.cache
def model(name: str) -> bytes:
    return train(**MODELS[name])


@functools.cache
def tokenizer(name: str) -> Tokenizer:
    return Tokenizer(model(name))


@functools.cache
def processor(name: str) -> Any:
    return sentencepiece.SentencePieceProcessor(model_proto=model(name))


def decoded_target_bytes(name: str, ids: list[int]) -> int:
    decode = processor(name).decode
    return len(decode(ids).encode()) - len(decode(ids[:1]).encode())


fragments = st.sampled_from(
    ["the ", "The", " ", "   ", "a", "\n", "\t", "é", "e\u0301", "東京", "🙂", "▁", "ﬁ", "<url>", "Emma ", "\r\n", "\0"]
)
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
documents = st.lists(st.one_of(fragments, anything), max_size=8).map("".join)


def id_sequences(name: str) -> st.SearchStrategy[list[int]]:
    """Any tokens but unknown ones, with byte tokens in whole characters and never first."""
    model = processor(name)
    others = [i for i in range(model.vocab_size()) if not (model.is_byte(i) or model.is_unknown(i))]
    spaces = [i for i in others if "▁" in model.id_to_piece(i)]
    controls = [i for i in others if model.is_control(i)]
    single = st.one_of(*(st.sampled_from(ids) for ids in (others, spaces, controls) if ids))
    units = single.map(lambda i: [i])
    if model.piece_to_id("<0x00>") != model.unk_id():
        characters = st.characters(exclude_categories=["Cs"])
        units |= characters.map(lambda c: [model.piece_to_id(f"<0x{byte:02X}>") for byte in c.encode()])
    rest = st.lists(units, min_size=1, max_size=30).map(lambda parts: list(itertools.chain(*parts)))
    return st.tuples(single, rest).map(lambda pair: [pair[0], *pair[1]])


def assert_decoded_bytes(name: str, ids: list[int], data: st.DataObject) -> None:
    own = tokenizer(name)
    stream, last = np.array(ids, own.dtype), len(ids) - 1
    sizes = own.target_bytes(stream, 0, last, "decoded")
    assert sizes.dtype == np.int64
    assert sizes.sum() == decoded_target_bytes(name, ids)
    assert own.unknown_targets(stream, 0, last) == 0
    cut = data.draw(st.integers(0, last))
    pieces = [own.target_bytes(stream, lo, hi, "decoded") for lo, hi in ((0, cut), (cut, last))]
    np.testing.assert_array_equal(np.concatenate(pieces), sizes)
    assert own.stream_bytes(part for part in (stream[: cut + 1], stream[cut + 1 :]) if len(part)) == sizes.sum()
    assert own.stream_bytes(stream[i : i + 1] for i in range(len(ids))) == sizes.sum()


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_decoded_bytes_are_what_any_tokens_decode_to(name: str, data: st.DataObject) -> None:
    assert_decoded_bytes(name, data.draw(id_sequences(name)), data)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15, deadline=None)
@given(texts=st.lists(documents, min_size=1, max_size=4), bos=st.booleans(), data=st.data())
def test_decoded_bytes_are_what_encoded_text_decodes_to(
    name: str, texts: list[str], bos: bool, data: st.DataObject
) -> None:
    model = processor(name)
    lead = [model.bos_id()] if bos and model.bos_id() >= 0 else []
    ids = [i for text in texts for i in [*lead, *model.encode(text)] if not model.is_unknown(i)]
    # A first byte token of several would decode to U+FFFD on its own.
    if len(ids) >= 2 and not model.is_byte(ids[0]):
        assert_decoded_bytes(name, ids, data)


@pytest.mark.parametrize("name", ["bpe-identity-bare-keep-bytes", "unigram-nmt_nfkc-bare-keep-bytes"])
@settings(max_examples=15, deadline=None)
@given(text=documents)
def test_encode_and_decode_invert_each_other(name: str, text: str) -> None:
    own = tokenizer(name)
    (ids,) = own.encode([text])
    assert ids.dtype == np.uint16
    assert ids.tolist() == processor(name).encode(text)
    assert own.decode(ids) == processor(name).decode(ids.tolist())
    if "identity" in name:
        assert own.decode(ids) == text.replace("▁", " ")


def ids_of(name: str, *pieces: str) -> Tokens:
    model = processor(name)
    ids = [model.piece_to_id(piece) for piece in pieces]
    assert [model.id_to_piece(i) for i in ids] == list(pieces)
    return np.array(ids, np.uint16)


@pytest.mark.parametrize(
    ("model_name", "pieces", "piece_rule", "decoded_rule"),
    [
        # "decoded": the encoder's prefix is dropped once; "piece": a space after BOS never counts.
        (
            "bpe-identity-prefix-keep-bytes",
            ["<s>", "▁the", "▁", "▁the", "<s>", "▁the"],
            [3, 1, 4, 0, 3],
            [3, 1, 4, 0, 4],
        ),
        ("bpe-identity-prefix-keep-bytes", ["<s>", "</s>", "▁", "▁", "▁the"], [0, 0, 1, 4], [0, 0, 1, 4]),
        ("bpe-identity-prefix-squeeze-bytes", ["<s>", "▁", "▁", "<s>", "▁the", "▁"], [0, 1, 0, 3, 1], [0, 0, 0, 3, 1]),
        ("bpe-identity-bare-keep-bytes", ["<s>", "▁the", "a", "▁"], [3, 1, 1], [4, 1, 1]),
        ("bpe-identity-prefix-keep-bytes", ["▁the", "<0xE2>", "<0x82>", "<0xAC>", "▁the"], [1, 1, 1, 4], [1, 1, 1, 4]),
        ("bpe-identity-prefix-keep-bytes", ["<s>", "<0x41>", "▁the"], [1, 4], [1, 4]),
        ("bpe-identity-prefix-keep-bytes", ["a", "<0xFF>", "<unk>", "▁the"], [1, 0, 3], [1, 0, 4]),
        ("own symbols", ["a", "▁▁▁▁", "<url>", "<doc>", "\n"], [10, 5, 0, 1], [4, 5, 0, 1]),
    ],
)
def test_both_rules_on_worked_examples(
    model_name: str, pieces: list[str], piece_rule: list[int], decoded_rule: list[int]
) -> None:
    stream = ids_of(model_name, *pieces)
    own = tokenizer(model_name)
    assert own.target_bytes(stream, 0, len(stream) - 1, "piece").tolist() == piece_rule
    assert own.target_bytes(stream, 0, len(stream) - 1, "decoded").tolist() == decoded_rule


def piece_rule_bytes(model: Any, previous: int, target: int) -> int:
    """The published formula, one target at a time."""

    def boundary(i: int) -> bool:
        return bool(model.is_control(i) or model.is_unknown(i) or model.is_unused(i))

    piece = model.id_to_piece(target)
    if boundary(target):
        return 0
    if model.is_byte(target):
        return 1
    if not piece.startswith("▁"):
        return len(piece.encode())
    return len(piece[1:].encode()) + (not boundary(previous))


@pytest.mark.parametrize("name", MODELS)
def test_piece_rule_is_the_published_formula(name: str) -> None:
    model, own = processor(name), tokenizer(name)
    stream = np.random.default_rng(0).integers(0, own.vocab_size, 3000).astype(np.uint16)
    specials = [i for i in range(own.vocab_size) if model.is_control(i) or model.is_unknown(i)]
    stream[::5] = np.resize(specials, len(stream[::5]))
    expected = [piece_rule_bytes(model, *map(int, pair)) for pair in itertools.pairwise(stream)]
    assert own.target_bytes(stream, 0, 2999, "piece").tolist() == expected
    assert own.target_bytes(stream, 1000, 2000, "piece").tolist() == expected[1000:2000]
    unknown = np.array([model.is_unknown(int(i)) for i in stream])
    assert own.unknown_targets(stream, 10, 2999) == unknown[11:].sum() > 0


@pytest.mark.parametrize("rule", ["piece", "decoded"])
def test_long_spans_are_done_in_chunks(rule: ByteRule, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tokenizer("bpe-identity-prefix-squeeze-bytes")
    space, the = ids_of("bpe-identity-prefix-squeeze-bytes", "▁", "▁the")
    stream = np.array([own.bos_id] * 9 + [space] * 9 + [the] * 9, np.uint16)
    whole = own.target_bytes(stream, 0, 26, rule)
    monkeypatch.setattr(tokens_module, "_CHUNK", 4)
    np.testing.assert_array_equal(own.target_bytes(stream, 0, 26, rule), whole)
    np.testing.assert_array_equal(own.target_bytes(stream, 7, 23, rule), whole[7:23])
    assert own.stream_bytes([stream[:5], stream[5:]]) == own.target_bytes(stream, 0, 26, "decoded").sum()


def test_positions_outside_the_stream_are_refused() -> None:
    own = tokenizer("bpe-identity-prefix-keep-bytes")
    for start, stop in ((-1, 1), (0, 3), (2, 1)):
        with pytest.raises(ValueError, match="outside"):
            own.target_bytes(u16(1, 2, 3), start, stop, "decoded")
    assert own.target_bytes(u16(1, 2, 3), 2, 2, "decoded").tolist() == []


def with_unused(model: bytes, piece: str) -> bytes:
    """The model with one of its pieces marked unused (type 5 in its protocol buffer)."""
    text = piece.encode()
    start = model.index(b"\x0a" + bytes([len(text)]) + text + b"\x15")
    end = start + 2 + len(text) + 5
    assert model[start - 1] == end - start
    return model[: start - 1] + bytes([end - start + 2]) + model[start:end] + b"\x18\x05" + model[end:]


def test_unused_pieces_decode_to_text_but_count_nothing_under_the_published_rule() -> None:
    serialised = with_unused(model("bpe-identity-prefix-keep-bytes"), "▁the")
    raw = sentencepiece.SentencePieceProcessor(model_proto=serialised)
    own = Tokenizer(serialised)
    the, a, bos = raw.piece_to_id("▁the"), raw.piece_to_id("a"), raw.bos_id()
    assert raw.is_unused(the)
    for ids in ([bos, the, the, a], [a, the, a], [the, the]):
        total = len(raw.decode(ids).encode()) - len(raw.decode(ids[:1]).encode())
        assert own.target_bytes(np.array(ids, np.uint16), 0, len(ids) - 1, "decoded").sum() == total
    assert own.target_bytes(u16(bos, the, the, a), 0, 3, "piece").tolist() == [0, 0, 1]


def test_a_tokenizer_knows_itself(tmp_path: Path) -> None:
    path = tmp_path / "t.model"
    path.write_bytes(model("bpe-identity-bare-keep-bytes"))
    own = Tokenizer.load(path)
    assert own.vocab_size == processor("bpe-identity-bare-keep-bytes").vocab_size()
    assert own.bos_id == 1
    assert own.sha256 == file_sha256(path)
    assert tokenizer("no ids but unk").bos_id is None


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.model can't be read \(No such file or directory\)"):
        Tokenizer.load(tmp_path / "no.model")
    with pytest.raises(InputError, match=r"can't be read \(Is a directory\)"):
        Tokenizer.load(tmp_path)
    path = tmp_path / "t.model"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"t\.model is empty, no SentencePiece model"):
        Tokenizer.load(path)
    for content in (b"text", header(1), model("char")[:-1]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"t\.model is no SentencePiece model"):
            Tokenizer.load(path)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15, deadline=None)
@given(lines=st.lists(documents, max_size=5))
def test_documents_split_at_newlines_only_where_that_changes_nothing(name: str, lines: list[str]) -> None:
    own = tokenizer(name)
    parts = [line + "\n" for text in lines for line in text.split("\n")]
    if parts and own.splits_at_newlines:
        whole, *encoded = own.encode(["".join(parts), *parts])
        np.testing.assert_array_equal(np.concatenate(encoded), whole)


def test_which_tokenizers_split_at_newlines() -> None:
    assert {name for name in MODELS if tokenizer(name).splits_at_newlines} == {"bpe-identity-bare-keep-bytes"}
