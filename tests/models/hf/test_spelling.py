"""What a tokenizer says of itself is held against what it does: the right bytes, or a refusal that shows it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")

import ngram_eval
from ngram_eval.config import EvalConfig, WindowConfig
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.errors import InputError
from ngram_eval.evaluation.job import load_stream
from ngram_eval.evaluation.settings import DataSettings, ModelSettings, Settings
from ngram_eval.models.hf.loading import load_tokenizer
from ngram_eval.models.hf.tokenizer import HfTokenizer
from ngram_eval.text.reading import read_texts
from ngram_eval.text.shards import write_shard
from tests.support.hf_models import TEXT
from tests.support.hf_tokenizers import byte_level, metaspace, wrapped


def counted(own: HfTokenizer, tokens: list[int]) -> int:
    """Bytes of the targets of a stream, confirmed by the decoder."""
    stream = np.array(tokens, own.dtype)
    own.check(stream)
    total = int(own.target_bytes(stream, 0, len(stream) - 1, "decoded").sum())
    assert own.text_bytes(stream) == total
    return total


def labelled(made: Any, folder: Path, kind: str) -> str:
    """The folder of a tokenizer whose tokenizer_config.json calls it a `kind`."""
    wrapped(made).save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": kind}))
    return str(folder)


def rebuilt(made: Any, **parts: Any) -> HfTokenizer:
    """The tokenizer with parts of its definition replaced."""
    from tokenizers import Tokenizer

    return HfTokenizer(wrapped(Tokenizer.from_str(json.dumps({**json.loads(made.to_str()), **parts}))))


def test_byte_level_bpe_under_the_label_of_llama_is_refused(tmp_path: Path) -> None:
    """Transformers makes a tokenizer of it that knows no spaces."""
    name = labelled(byte_level(False), tmp_path / "llama", "LlamaTokenizerFast")
    loaded = load_tokenizer(name)
    assert loaded.decode(loaded("the quick fox", add_special_tokens=False)["input_ids"]) == "thequickfox"
    with pytest.raises(InputError, match=r"llama contradicts itself: its decoder takes '▁' for a space, and no token"):
        HfTokenizer.load(name)
    plain = HfTokenizer.load(labelled(byte_level(False), tmp_path / "plain", "PreTrainedTokenizerFast"))
    assert counted(plain, [0, *plain.tokens_of(TEXT).tolist()]) == len(TEXT.encode())


def test_a_text_that_is_cut_otherwise_than_the_definition_says_is_refused(tmp_path: Path) -> None:
    """Transformers knows one way only in which GPT-2 splits words."""
    made = byte_level(False, words=False)
    HfTokenizer.load(labelled(made, tmp_path / "plain", "PreTrainedTokenizerFast"))
    with pytest.raises(InputError, match=r"gpt2 contradicts itself: as a GPT2Tokenizer it cuts .* by its tokenizer\."):
        HfTokenizer.load(labelled(made, tmp_path / "gpt2", "GPT2Tokenizer"))


@pytest.mark.parametrize("prefix", [True, False])
def test_llama_is_known_by_its_older_definition_too(models: dict[str, Path], tmp_path: Path, prefix: bool) -> None:
    """Spaces by a normaliser; transformers puts one before a text whether the definition does or not."""
    definition = json.loads((models["llama"] / "tokenizer.json").read_text())
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepended = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
    definition |= {"pre_tokenizer": None, "normalizer": {"type": "Sequence", "normalizers": [*prepended, spaces]}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    config = json.loads((models["llama"] / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "LlamaTokenizer"}))
    own = HfTokenizer.load(str(tmp_path))
    assert counted(own, [1, *own.tokens_of(TEXT).tolist()]) == len(TEXT.encode())


@pytest.mark.parametrize("word", [".", "Ġdog", "é"])
def test_a_pad_token_that_is_a_word_is_a_word(word: str) -> None:
    """The third is the byte 0xE9, which is a part of other characters."""
    own = HfTokenizer(wrapped(byte_level(False), pad_token=word))
    assert own.surfaces()[own._tokenizer.pad_token_id] == {".": b".", "Ġdog": b" dog", "é": b"\xe9"}[word]
    text = TEXT + "鰻 and 退"
    assert counted(own, [0, *own.tokens_of(text).tolist()]) == len(text.encode())


def test_a_unigram_pad_token_that_may_be_a_word_is_refused_in_data() -> None:
    """No merges tell it from a name, and it would count for nothing."""
    own = HfTokenizer(wrapped(metaspace("never", "Unigram"), pad_token="e"))
    pad = own._tokenizer.pad_token_id
    with pytest.raises(
        InputError, match=rf"token {pad} at position 2 are unknown: 'e' is called special, and may be a"
    ):
        own.check(np.array([1, 5, pad, 5], own.dtype))
    assert counted(own, [1, *own.tokens_of("a").tolist()]) == 1


def test_a_word_that_documents_start_with_is_refused() -> None:
    own = HfTokenizer(wrapped(byte_level(False), eos_token="."))
    with pytest.raises(InputError, match=r"lossy, it cuts text into the special token \d+\. At byte 3 "):
        own.tokens_of("dog.")
    with pytest.raises(InputError, match=r"token \d+ at position 1 are unknown: documents start with '\.', and"):
        own.check(np.array(own._spelling.cut("a.b"), own.dtype))


@pytest.mark.parametrize(
    ("scheme", "text", "size"),
    [
        ("first", "the fox<|end|> the dog<|end|>the end", len("the fox the dogthe end")),
        ("always", "the fox<|end|>the dog<|end|>the end", len("the foxthe dogthe end")),
        ("never", "the fox<|end|> the dog<|end|>the end", len("the fox the dogthe end")),
    ],
)
def test_a_space_after_a_special_token_is_of_the_text_unless_the_encoder_put_it_there(
    scheme: str, text: str, size: int
) -> None:
    made = metaspace(scheme)
    made.add_special_tokens(["<|end|>"])
    own = HfTokenizer(wrapped(made))
    bos = own.start_id
    assert bos is not None
    tokens = own._spelling.cut(text, names=True)
    assert counted(own, [bos, *tokens]) == size
    assert counted(own, [bos, *tokens, bos, *tokens]) == 2 * size


def test_a_space_after_an_unknown_character_is_of_the_text() -> None:
    own = HfTokenizer(wrapped(metaspace("always", fallback=False)))
    for text in ("the ☃ fox", "☃ fox"):
        tokens = own._spelling.cut(text)
        assert own.unknown_id in tokens
        assert counted(own, [1, *tokens]) == len(text.encode()) - len("☃".encode())


def test_a_tokenizer_that_writes_a_space_in_three_bytes_is_refused() -> None:
    made = metaspace("never")
    definition = json.loads(made.to_str())
    model = definition["model"]
    vocabulary = {("☃" if piece == "▁" else piece): token for piece, token in model["vocab"].items()}
    merges = [pair for pair in model["merges"] if "▁" not in pair]
    with pytest.raises(InputError, match="has no token '▁' for a space and writes one as three byte tokens"):
        rebuilt(made, model={**model, "vocab": vocabulary, "merges": merges})


def test_a_decoder_that_writes_something_else_is_refused() -> None:
    made = metaspace("never")
    replaced = {"type": "Replace", "pattern": {"String": "q"}, "content": "QU"}
    decoder = json.loads(made.to_str())["decoder"]
    with pytest.raises(InputError, match=r"contradicts itself: by its definition the tokens \[.*spell 'q.*writes 'QU"):
        rebuilt(made, decoder={**decoder, "decoders": [*decoder["decoders"], replaced]})


@pytest.mark.parametrize("text", ["The lazy dog", "The lazy \ufffd dog"])
def test_tokens_that_are_not_what_they_decode_to_are_refused_on_use(text: str) -> None:
    own = HfTokenizer(wrapped(byte_level(False)))
    tokens = own.tokens_of(text)
    own.check(tokens)
    own._spelling.surfaces[tokens[1]] = b" diligent"
    own._sizes[tokens[1]] = len(b" diligent")
    with pytest.raises(InputError, match=rf"by its definition the tokens \[{tokens[1]}, .* spell b'.*diligent"):
        own.check(tokens)


def test_data_that_the_tokenizer_would_not_give_are_refused() -> None:
    """It writes no capitals: whoever wrote some had another."""
    own = rebuilt(byte_level(False), normalizer={"type": "Lowercase"})
    other = HfTokenizer(wrapped(byte_level(False)))
    own.check(other.tokens_of("the lazy dog"))
    with pytest.raises(InputError, match=r"the text of the data: .* lossy, .* has 'The lazy', its tokens spell"):
        own.check(other.tokens_of("so: The lazy"))


def test_a_text_whose_bytes_are_counted_otherwise_is_refused(tmp_path: Path) -> None:
    own = HfTokenizer(wrapped(byte_level(False)))
    (tmp_path / "text.txt").write_text("The lazy dog")
    read_texts(own, [tmp_path / "text.txt"])
    own._sizes[own.tokens_of("The lazy dog")[1]] += 1
    with pytest.raises(InputError, match=r"text\.txt: the tokenizer counts 13 bytes, the text has 12"):
        read_texts(own, [tmp_path / "text.txt"])


# Tokens of which only a text shows what they stand for


@pytest.fixture
def stripping() -> Any:
    from tokenizers import AddedToken

    made = byte_level(False)
    made.add_tokens([AddedToken("<x>", lstrip=True, normalized=False)])
    return made


REFUSAL = r"token 360 at position 1 are unknown: 'A <x> A' is cut into .*, which spell 'A<x> A'\. Give the text itself"


def test_added_tokens_that_swallow_spaces_are_refused_in_data(stripping: Any, tmp_path: Path) -> None:
    name = labelled(stripping, tmp_path / "model", "PreTrainedTokenizerFast")
    own = HfTokenizer.load(name)
    (tmp_path / "text.txt").write_text("a<x>b and so on")
    stream = read_texts(own, [tmp_path / "text.txt"])
    tokens = stream.tokens[1:]
    assert own.target_bytes(stream.tokens, 0, len(tokens), "decoded").sum() == len("a<x>b and so on")
    write_shard(tmp_path / "data.bin", tokens)
    settings = Settings(data=DataSettings(data=(str(tmp_path / "data.bin"),)), model=ModelSettings(hf=name))
    with pytest.raises(InputError, match=REFUSAL):
        load_stream(settings, ALONE)
    write_shard(tmp_path / "data.bin", own.tokens_of("nothing of the kind"))
    load_stream(settings, ALONE)


def test_added_tokens_that_swallow_spaces_are_refused_from_python(stripping: Any) -> None:
    tokenizer = wrapped(stripping)
    config = EvalConfig(scorer="exact", window=WindowConfig(seq_len=4, stride=4))
    for text, refused in (("a <x> b and so on", True), ("nothing of the kind", False)):
        tokens = tokenizer(text)["input_ids"]
        logits = np.zeros((len(tokens) - 1, len(tokenizer)))
        if refused:
            with pytest.raises(InputError, match=REFUSAL):
                ngram_eval.evaluate(logits, tokens, config, tokenizer=tokenizer)
        else:
            assert ngram_eval.evaluate(logits, tokens, config, tokenizer=tokenizer).bytes
