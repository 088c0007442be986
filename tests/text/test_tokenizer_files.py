"""Tokenizers without a model: the same bytes for the same tokens, from whatever file they come."""

import base64
import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install ngram_eval[hf]")

from ngram_eval.errors import InputError
from ngram_eval.text.byte_tokens import bytes_tokenizer
from ngram_eval.text.tokenizer import Encoder, Tokenizer, stream_bytes
from ngram_eval.text.tokenizer_files import check_tokens, is_sentencepiece, load_tokenizer
from tests.support.hf_models import TEXT
from tests.support.hf_tokenizers import byte_level, metaspace
from tests.support.prepared import AWKWARD


def saved(made: Any, folder: Path, **config: Any) -> Path:
    """The folder of its tokenizer.json, with what a tokenizer_config.json says of it."""
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def counted(own: Encoder, tokens: list[int]) -> int:
    """The bytes of a stream's targets, which the decoder confirms."""
    stream = np.array(tokens, own.dtype)
    own.check(stream)
    assert own.text_bytes(stream) == stream_bytes(own, stream)
    return stream_bytes(own, stream)


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.json of byte-level BPE: 358 tokens and, as its last, the one that ends a text."""
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Made

    definition = json.loads(byte_level(False).to_str())
    vocabulary = {piece: token - 2 for piece, token in definition["model"]["vocab"].items() if token > 1}
    definition["model"]["vocab"], definition["added_tokens"] = vocabulary, []
    made = Made.from_str(json.dumps(definition))
    made.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    return saved(made, tmp_path_factory.mktemp("gpt2")) / "tokenizer.json"


@pytest.fixture(scope="session")
def spelt(gpt2: Path) -> list[bytes]:
    """The bytes of its tokens but the last."""
    return [one for one in load_tokenizer(gpt2).surfaces() if one is not None]


def ranks(path: Path, spelt: list[bytes]) -> Path:
    lines = [base64.b64encode(one) + b" %d\n" % token for token, one in enumerate(spelt)]
    path.write_bytes(b"".join(lines))
    return path


def llm_c(path: Path, tokens: list[bytes], version: int = 2, magic: int = 20240328, **words: int) -> Path:
    """As llm.c's scripts write it: the last token is the one that ends a text."""
    header = struct.pack("<256I", magic, version, words.get("size", len(tokens)), len(tokens) - 1, *[0] * 252)
    path.write_bytes(header + b"".join(bytes([len(one)]) + one for one in tokens))
    return path


@pytest.mark.parametrize("make", [lambda: byte_level(False), lambda: byte_level(True), lambda: metaspace("first")])
def test_a_tokenizer_json_counts_every_byte_once_and_needs_no_transformers(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    own = load_tokenizer(saved(make(), tmp_path, bos_token="<s>", eos_token={"content": "</s>"}))
    assert own.start_id is not None
    for text in (TEXT, AWKWARD.strip()):
        document = [own.start_id, *own.tokens_of(text).tolist()]
        assert counted(own, document) == len(text.encode())
        assert counted(own, document * 2) == 2 * len(text.encode())


def test_a_document_starts_with_the_token_that_the_files_name(tmp_path: Path) -> None:
    from tokenizers import processors

    made = byte_level(False)  # <s> is 0, </s> is 1
    assert load_tokenizer(saved(made, tmp_path / "none")).start_id is None
    assert load_tokenizer(saved(made, tmp_path / "bos", bos_token="<s>", eos_token="</s>")).start_id == 0
    assert load_tokenizer(saved(made, tmp_path / "eos", bos_token=None, eos_token="</s>")).start_id == 1
    made.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 1)])
    assert load_tokenizer(saved(made, tmp_path / "put")).start_id == 1
    plain = byte_level(False)
    definition = json.loads(plain.to_str())
    definition["added_tokens"] = definition["added_tokens"][:1]
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "tokenizer.json").write_text(json.dumps(definition))
    assert load_tokenizer(tmp_path / "only").start_id == 0


def test_all_files_of_one_encoding_count_the_same_bytes(gpt2: Path, spelt: list[bytes], tmp_path: Path) -> None:
    whole = load_tokenizer(gpt2)
    end = whole.start_id
    assert end == len(spelt) == whole.vocab_size - 1
    stream = [end, *whole.tokens_of(TEXT).tolist()] * 2
    others = [
        load_tokenizer(ranks(tmp_path / "a.tiktoken", spelt), end + 1),
        load_tokenizer(llm_c(tmp_path / "gpt2_tokenizer.bin", [*spelt, b"<|endoftext|>"])),
        load_tokenizer(llm_c(tmp_path / "old.bin", [*spelt, b"<|endoftext|>"], version=1)),
    ]
    assert counted(whole, stream) == 2 * len(TEXT.encode())
    for other in others:
        assert counted(other, stream) == 2 * len(TEXT.encode())
        assert other.surfaces() == whole.surfaces()
        assert other.sha256 == whole.sha256
        with pytest.raises(InputError, match=r"holds the bytes of tokens, not how a text is cut into them: give the"):
            other.tokens_of("the fox")


def test_special_tokens_that_a_tiktoken_file_leaves_out_are_asked_for(spelt: list[bytes], tmp_path: Path) -> None:
    path = ranks(tmp_path / "a.tiktoken", spelt)
    own, end = load_tokenizer(path), len(spelt)
    assert own.vocab_size == end
    with pytest.raises(InputError, match=rf"token {end} at position 1 is outside .* leaves out special .*vocab_size"):
        check_tokens(np.array([5, end], np.uint16), own, str(path))
    check_tokens(np.array([5, end], np.uint16), load_tokenizer(path, end + 1), str(path))
    with pytest.raises(InputError, match=rf"a\.tiktoken has tokens up to {end - 1}: give vocab_size more"):
        load_tokenizer(path, end - 1)


def test_an_encoding_that_tiktoken_knows_by_name(
    gpt2: Path, spelt: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiktoken: Any = pytest.importorskip("tiktoken")
    encoding = tiktoken.Encoding(
        "small",
        pat_str=r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s",
        mergeable_ranks={one: token for token, one in enumerate(spelt)},
        special_tokens={"<|endoftext|>": len(spelt) + 2},
    )
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "small", encoding)
    own = load_tokenizer("tiktoken:small")
    assert own.start_id == len(spelt) + 2 == own.vocab_size - 1
    assert own.surfaces() == [*spelt, None, None, None]
    tokens = own.tokens_of(TEXT)
    assert tokens.tolist() == encoding.encode_ordinary(TEXT)
    assert counted(own, [own.start_id, *tokens.tolist()]) == len(TEXT.encode())
    with pytest.raises(InputError, match=r"tokenizer tiktoken:none is no encoding that tiktoken can load .*none"):
        load_tokenizer("tiktoken:none")


def test_bytes_are_tokens() -> None:
    own = bytes_tokenizer()
    tokens = own.tokens_of(AWKWARD)
    assert bytes(tokens.tolist()) == AWKWARD.encode()
    assert own.splits_at_newlines
    assert counted(own, [256, *tokens.tolist()] * 2) == 2 * len(AWKWARD.encode())


def test_a_sentencepiece_model_is_one_whatever_its_name(model_path: Path, gpt2: Path, tmp_path: Path) -> None:
    (tmp_path / "spiece").write_bytes(model_path.read_bytes())
    own = load_tokenizer(tmp_path / "spiece")
    assert isinstance(own, Tokenizer)
    assert own.tokens_of("a text").tolist() == own.encode(["a text"])[0].tolist()
    assert is_sentencepiece(tmp_path / "spiece")
    assert not any(map(is_sentencepiece, (gpt2, gpt2.parent, Path("a.tiktoken"), Path("tiktoken:gpt2"))))


def test_a_text_that_sentencepiece_changes_is_refused_and_it_says_where(other_models: Path) -> None:
    own = load_tokenizer(other_models / "squeeze.model")
    with pytest.raises(InputError, match=r"a\.txt: .*squeeze\.model is lossy, .* At byte 12 \(line 1\) .* has ' b'"):
        own.tokens_of("well well a  b", "a.txt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", b"{", r"is not JSON"),
        ("tokenizer.json", b"{}", r"is not a tokenizer of the tokenizers library"),
        ("a.tiktoken", b"", r"has tokens up to -1"),
        ("a.tiktoken", b"YQ== 0\nYg==\n", r"a\.tiktoken:2 is no token"),
        ("a.tiktoken", b"YQ== 0\n!!!! 1\n", r"a\.tiktoken:2 is no token"),
        ("a.tiktoken", b"YQ== 0\nYg== 0\n", r"a\.tiktoken:2 has no bytes, or a number that is taken or too large"),
        ("a.tiktoken", b"YQ== 524287\n", r"a\.tiktoken:1 has no bytes, or a number that is taken or too large"),
        ("a.tiktoken", b"YQ== -1\n", r"a\.tiktoken:1 has no bytes, or a number"),
        ("a.bin", bytes(1000), r"a\.bin has 1000 bytes, less than a header of 1024"),
        ("a.bin", bytes(1024), r"a\.bin begins with 0 version 0 and 0 tokens: give the gpt2_tokenizer\.bin"),
        ("no.tiktoken", None, r"no\.tiktoken can't be read"),
        ("no/tokenizer.json", None, r"tokenizer\.json can't be read"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_tokenizer(tmp_path / name)


@pytest.mark.parametrize("size", [2, 4])
def test_a_list_of_another_length_than_it_says_is_refused(tmp_path: Path, size: int) -> None:
    path = llm_c(tmp_path / "a.bin", [b"a", b"bc", b"<|endoftext|>"], size=size)
    with pytest.raises(InputError, match=rf"a\.bin has 1,043 bytes, its {size} tokens have another length"):
        load_tokenizer(path)


def test_a_config_that_names_no_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tokenizer_config\.json names '<bos>' as bos_token, which is no token"):
        load_tokenizer(saved(byte_level(False), tmp_path, bos_token="<bos>"))


@pytest.mark.parametrize(
    ("name", "library", "extra"), [("tokenizer.json", "tokenizers", "hf"), ("tiktoken:gpt2", "tiktoken", "tiktoken")]
)
def test_what_is_not_installed_is_named(
    name: str, library: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=rf"needs (the )?{library}.* pip install ngram_eval\[{extra}\]"):
        load_tokenizer(name if ":" in name else tmp_path / name)
