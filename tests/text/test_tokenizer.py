"""Bytes per token, against SentencePiece's own decoder."""

import functools
import io
import itertools
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
from ngram_eval.text import tokenizer as tokens_module
from ngram_eval.text.stream import Tokens
from ngram_eval.text.tokenizer import Tokenizer, check_vocabulary, stream_bytes
from tests.support.places import SAMPLE_PATH
from tests.support.shards import header, u16

SAMPLE = SAMPLE_PATH.read_text(encoding="utf-8")


def test_check_vocabulary_names_the_first_offender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "_CHUNK", 4)
    stream = u16(0, 1, 9, 9, 2, 10, 3, 11)
    check_vocabulary(stream, 12, "t.model")
    with pytest.raises(InputError, match=r"token 10 at position 5 is outside the vocabulary of t\.model \(10 tokens\)"):
        check_vocabulary(stream, 10, "t.model")


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


NAMED = {"bpe-identity-prefix-keep-bytes", "unigram-nmt_nfkc-bare-keep-bytes"}
"""Those that examples below are of."""


def is_fast(name: str) -> bool:
    """Half of all combinations of the four choices: any three of them meet in every way. The rest are slow."""
    turned = sum(word in name.split("-") for word in ("unigram", "bare", "squeeze", "unk"))
    return turned % 2 == 1 or name in NAMED or name.count("-") < 4


every_model = pytest.mark.parametrize(
    "name", [name if is_fast(name) else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)


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
    assert stream_bytes(own, stream) == sizes.sum()


@every_model
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_decoded_bytes_are_what_any_tokens_decode_to(name: str, data: st.DataObject) -> None:
    assert_decoded_bytes(name, data.draw(id_sequences(name)), data)


@every_model
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


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_decoder_confirms_the_bytes_of_any_tokens(name: str, data: st.DataObject) -> None:
    """Unknown ones and stray bytes included, wherever they are."""
    own = tokenizer(name)
    odd = np.flatnonzero(own._byte | own._boundary | own._spaced).tolist()
    tokens = st.sampled_from(odd) | st.integers(0, own.vocab_size - 1)
    stream = np.array(data.draw(st.lists(tokens, min_size=2, max_size=20)), own.dtype)
    own.check(stream)
    assert own.text_bytes(stream) == own.target_bytes(stream, 0, len(stream) - 1, "decoded").sum()


def test_a_replacement_character_of_the_text_has_three_bytes() -> None:
    own = tokenizer("bpe-identity-bare-keep-bytes")
    text = "a \ufffd\ufffd fox"
    (tokens,) = own.encode(["\n" + text])
    assert own.text_bytes(tokens) == own.target_bytes(tokens, 0, len(tokens) - 1, "decoded").sum() == len(text.encode())


def test_an_unknown_first_character_leaves_the_space_after_it() -> None:
    own = tokenizer("bpe-identity-bare-keep-unk")
    (tokens,) = own.encode(["🙂 the fox"])
    assert tokens[0] == own.unknown_id
    assert own.text_bytes(tokens) == own.target_bytes(tokens, 0, len(tokens) - 1, "decoded").sum() == len(" the fox")


def test_bytes_that_the_decoder_contradicts_are_refused() -> None:
    own = Tokenizer(model("bpe-identity-bare-keep-bytes"), "t.model")
    (tokens,) = own.encode(["the fox and the fox"])
    own.check(tokens)
    at = int(np.flatnonzero(own._spaced[tokens])[0])
    own._later_bytes[tokens[at]] += 2
    with pytest.raises(InputError, match=rf"t\.model contradicts itself: .* They part at position {at - 1}: tokens"):
        own.check(tokens)


def test_a_model_that_can_t_write_a_space_is_refused() -> None:
    """Its encoder writes "▁" as three byte tokens, which its decoder leaves as they are: 3 bytes for one."""
    whole = model("bpe-identity-bare-keep-bytes")
    without = whole.replace(b"\x0a\x03" + "▁".encode() + b"\x15", b"\x0a\x03" + "☃".encode() + b"\x15")
    raw = sentencepiece.SentencePieceProcessor(model_proto=without)
    assert raw.decode(raw.encode("a  b")) == "a▁ b"
    own = Tokenizer(without, "t.model")
    own.check(np.array(raw.encode("abba"), np.uint16))
    tokens = np.array(raw.encode("ab" * 20 + "  b"), np.uint16)
    at = len(raw.encode("ab" * 20))
    with pytest.raises(
        InputError, match=rf"three byte tokens \(from token {at} on\).* give a model that has that piece"
    ):
        own.check(tokens)


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


@every_model
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
    stream = np.array([own.start_id] * 9 + [space] * 9 + [the] * 9, np.uint16)
    whole = own.target_bytes(stream, 0, 26, rule)
    monkeypatch.setattr(tokens_module, "_CHUNK", 4)
    np.testing.assert_array_equal(own.target_bytes(stream, 0, 26, rule), whole)
    np.testing.assert_array_equal(own.target_bytes(stream, 7, 23, rule), whole[7:23])
    assert stream_bytes(own, stream) == own.target_bytes(stream, 0, 26, "decoded").sum()


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
    assert own.start_id == 1
    assert own.sha256 == file_sha256(path)
    assert tokenizer("no ids but unk").start_id is None


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.model can't be read \(No such file or directory\)"):
        Tokenizer.load(tmp_path / "no.model")
    with pytest.raises(InputError, match=r"can't be read \(Is a directory\)"):
        Tokenizer.load(tmp_path)
    path = tmp_path / "t.model"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"t\.model is empty, not a SentencePiece model"):
        Tokenizer.load(path)
    for content in (b"text", header(1), model("char")[:-1]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"t\.model is not a SentencePiece model"):
            Tokenizer.load(path)


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(documents, max_size=5))
def test_documents_split_at_newlines_where_that_changes_nothing(lines: list[str]) -> None:
    own = tokenizer("bpe-identity-bare-keep-bytes")
    assert own.splits_at_newlines
    parts = [line + "\n" for text in lines for line in text.split("\n")]
    if parts:
        whole, *encoded = own.encode(["".join(parts), *parts])
        np.testing.assert_array_equal(np.concatenate(encoded), whole)


@every_model
def test_which_tokenizers_split_at_newlines(name: str) -> None:
    assert tokenizer(name).splits_at_newlines == (name == "bpe-identity-bare-keep-bytes")
