"""Hugging Face tokenizers: every byte of a text counted once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")

from ngram_eval.errors import InputError
from ngram_eval.models.hf.tokenizer import HfTokenizer
from ngram_eval.text.reading import read_texts
from ngram_eval.text.spelling import byte_table
from tests.support.hf_models import KINDS, TEXT


def test_the_byte_table_is_that_of_the_tokenizers_library() -> None:
    from tokenizers import pre_tokenizers

    table = byte_table()
    assert sorted(table.values()) == list(range(256))
    assert set(table) == set(pre_tokenizers.ByteLevel.alphabet())
    ((written, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str("é\n 東")
    assert bytes(table[character] for character in written) == "é\n 東".encode()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.sampled_from([TEXT, "<s>a</s>", "a <0x41>"])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.sampled_from([TEXT, "<s>a</s>", "<0x41>"])
)
def test_every_byte_of_a_text_is_counted_once(tokenizers: dict[str, HfTokenizer], kind: str, text: str) -> None:
    """Whatever the text, special tokens' names in it included; or, never in silence, it is refused."""
    tokenizer = tokenizers[kind]
    if kind == "llama" and text.startswith(" "):  # its encoder takes such a space for the one that it adds
        with pytest.raises(InputError, match=r"lossy, it drops or rewrites text\. At byte 0"):
            tokenizer.tokens_of(text)
        return
    if kind == "llama" and "▁" in text:  # which is how it writes spaces
        with pytest.raises(InputError, match="lossy"):
            tokenizer.tokens_of(text)
        return
    tokens = tokenizer.tokens_of(text)
    assert tokenizer.start_id is not None
    stream = np.append(np.array([tokenizer.start_id], tokens.dtype), tokens)
    sizes = tokenizer.target_bytes(stream, 0, len(tokens), "decoded")
    assert sizes.sum() == len(text.encode())
    assert not (tokens == tokenizer.start_id).any()
    middle = len(tokens) // 2
    assert tokenizer.target_bytes(stream, middle, len(tokens), "decoded").tolist() == sizes[middle:].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_counts_what_the_tokenizer_itself_decodes(
    tokenizers: dict[str, HfTokenizer], kind: str, tmp_path: Path
) -> None:
    """Two documents, each led by a special token; the decoder is another way to the same number."""
    tokenizer = tokenizers[kind]
    for name, text in (("a.txt", TEXT), ("b.txt", "Again: " + TEXT)):
        (tmp_path / name).write_bytes(text.encode())
    stream = read_texts(tokenizer, [tmp_path / "a.txt", tmp_path / "b.txt"])
    tokens = stream.tokens[:]
    assert (tokens == tokenizer.start_id).sum() == 2
    sizes = tokenizer.target_bytes(tokens, 0, len(tokens) - 1, "decoded")
    assert sizes.sum() == 2 * len(TEXT.encode()) + 7 == tokenizer.text_bytes(tokens)
    for stop in range(2, 200):
        assert tokenizer.text_bytes(tokens[:stop]) == sizes[: stop - 1].sum(), stop
    assert tokenizer.unknown_targets(tokens, 0, len(tokens) - 1) == 0
    short = read_texts(tokenizer, [tmp_path / "a.txt"], 10)
    assert (len(short.tokens), short.total) == (10, len(tokenizer.tokens_of(TEXT)) + 1)


def changed(folder: Path, to: Path, **changes: Any) -> HfTokenizer:
    """The tokenizer of a folder with parts of its tokenizer.json replaced."""
    to.mkdir()
    definition = json.loads((folder / "tokenizer.json").read_text())
    (to / "tokenizer.json").write_text(json.dumps({**definition, **changes}))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (to / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}))
    return HfTokenizer.load(str(to))


@pytest.mark.parametrize(
    ("normalizer", "text", "at"),
    [
        (
            {"type": "Lowercase"},
            "well,\nwell, Éclair",
            r"At byte 12 \(line 2\) the text has 'Éclair', its tokens spell 'é",
        ),
        ({"type": "NFC"}, "a\u0301b", r"At byte 0 \(line 1\)"),
        (
            {"type": "Strip", "strip_left": True, "strip_right": True},
            "a b\n",
            r"At byte 3 \(line 1\) the text has '\\n'",
        ),
    ],
)
def test_a_tokenizer_that_loses_text_is_refused_and_says_where(
    models: dict[str, Path], tmp_path: Path, normalizer: dict[str, Any], text: str, at: str
) -> None:
    lossy = changed(models["gpt2"], tmp_path / "lossy", normalizer=normalizer)
    lossy.tokens_of("all is well")
    with pytest.raises(InputError, match=rf"novel\.txt: the tokenizer of hf .*lossy, it drops or rewrites.* {at}"):
        lossy.tokens_of(text, "novel.txt")


def test_unknown_tokens_are_refused_in_a_text_and_counted_in_shards(models: dict[str, Path], tmp_path: Path) -> None:
    definition = json.loads((models["llama"] / "tokenizer.json").read_text())
    no_bytes = {"byte_fallback": False, "unk_token": "<unk>"}
    without = changed(models["llama"], tmp_path / "unk", model={**definition["model"], **no_bytes})
    with pytest.raises(InputError, match=r"unknown token replaces text it has no token for \(1 times\).*At byte 4 "):
        without.tokens_of("the ☃ fox")
    assert without.unknown_id == 0
    tokens = np.array([1, 0, 5, 0, 9], np.uint16)
    assert without.unknown_targets(tokens, 0, 4) == 2
    assert without.target_bytes(tokens, 0, 4, "decoded")[[0, 2]].tolist() == [0, 0]


def test_a_tokenizer_of_unknown_kind_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="decodes by WordPiece: the bytes of tokens are known only for byte-level"):
        changed(models["gpt2"], tmp_path / "pieces", decoder={"type": "WordPiece", "prefix": "##", "cleanup": True})
    with pytest.raises(InputError, match="decodes by nothing"):
        changed(models["gpt2"], tmp_path / "none", decoder=None)
    definition = json.loads((models["gpt2"] / "tokenizer.json").read_text())
    odd = {**definition["model"], "vocab": {**definition["model"]["vocab"], " odd": 369}}
    with pytest.raises(InputError, match="the token 369, ' odd', holds ' ', which byte-level BPE does not write"):
        changed(models["gpt2"], tmp_path / "odd", model=odd)


def test_vocabularies_up_to_the_largest(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more than 65,536 tokens, too; but smaller than it really is, which takes seconds."""
    monkeypatch.setattr("ngram_eval.text.tokenizer_json.MAX_VOCABULARY", 66_000)
    definition = json.loads((models["gpt2"] / "tokenizer.json").read_text())

    def of(size: int) -> dict[str, Any]:
        vocabulary = definition["model"]["vocab"]
        more = {f"a{number}": number for number in range(len(vocabulary), size)}
        return {**definition["model"], "vocab": {**vocabulary, **more}}

    largest = changed(models["gpt2"], tmp_path / "largest", model=of(66_000))
    assert largest.vocab_size == 66_000
    assert largest.tokens_of("the fox").dtype == np.uint32
    tokens = np.array([5, 65_999, 300], np.uint32)
    assert largest.target_bytes(tokens, 0, 2, "decoded")[0] == len("a65999")
    with pytest.raises(InputError, match=r"a token of number 66,000: at most 66,000 tokens"):
        changed(models["gpt2"], tmp_path / "larger", model=of(66_001))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read"),
        (b"", "empty"),
        (b"abc\xff\xfe", r"\d+ is not UTF-8 \(invalid start byte at byte 3 of the line\)"),
    ],
)
def test_bad_texts(tokenizers: dict[str, HfTokenizer], tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"text\.txt:? ?{message}"):
        read_texts(tokenizers["gpt2"], [path])
