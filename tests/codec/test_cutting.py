"""Bytes into tokens."""

from pathlib import Path

from ngram_eval.assets import asset
from ngram_eval.codec import alphabet, cutting
from ngram_eval.text.tokenizer import Tokenizer
from tests.support.codec import begin, compress, decompress, novel


def test_the_lossy_tokenizer_loses_text_by_itself_and_is_used_all_the_same(lossy_tokenizer: Path) -> None:
    text = "It Was  so; £5 "
    plain = Tokenizer.load(lossy_tokenizer)
    assert plain.decode(plain.encode([text])[0]) != text
    cut = cutting.cut_with(lossy_tokenizer.read_bytes(), "it", novel(5000).lower(), begin)
    assert len(cut.tokens) < 3500, "pieces, not characters"
    assert cut.alphabet.escape == plain.unknown_id


def test_tokens_are_those_of_prepare() -> None:
    text = novel(30_000)
    model = asset("tokenizer.model").read_bytes()
    cut = cutting.cut_with(model, "it", text, begin)
    assert cut.tokens.tolist() == Tokenizer(model).encode([text.decode()])[0].tolist()


def test_a_trained_tokenizer_is_small_and_holds_what_occurs() -> None:
    text = novel(80_000)
    packed = compress(text, "train", pieces=1024)
    table = alphabet.unpack(packed.container.table)
    assert 300 < table.size <= 1024
    assert packed.container.header.table_bytes < 2000
    assert None not in table.surfaces
    assert decompress(packed.container) == text
