"""Every kind of tokenizer: the bytes of a text's tokens add up to the text, or there is a refusal."""

import functools
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")

from ngram_eval.errors import InputError
from ngram_eval.models.hf.tokenizer import HfTokenizer
from tests.support.hf_models import TEXT
from tests.support.hf_tokenizers import MADE, byte_level, metaspace, pieces, wrapped

FRAGMENTS = [
    *("the fox", "The ", "a", " ", "   ", "dog. ", "\n", "\r\n", "\t", "é", "e\u0301", "東京", "🦊", "👩\u200d🚒"),
    *(
        "\ufffd",
        "▁",
        "▁▁",
        "\u200b",
        "\ufeff",
        "\0",
        "<s>",
        "</s>",
        "<unk>",
        "<0x41>",
        "<x>",
        " <x> ",
        "Ġ",
        "ﬁ",
        "\u00a0",
    ),
]
texts = st.lists(
    st.sampled_from(FRAGMENTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6), min_size=1, max_size=8
).map("".join)
FEW = settings(max_examples=15, deadline=None)
ALL = settings(max_examples=50, deadline=None)
FAST = (
    "byte-level",
    "byte-level, prefix space",
    "BPE, Metaspace first, bytes",
    "Unigram, Metaspace never, own decoder",
)


@functools.cache
def tokenizer(kind: str) -> HfTokenizer:
    return HfTokenizer(wrapped(MADE[kind]()))


def led(own: HfTokenizer, tokens: Any) -> Any:
    assert own.start_id is not None
    return np.append(np.array([own.start_id], own.dtype), tokens)


def counted(own: HfTokenizer, stream: Any) -> int:
    """The bytes of a stream, which the library's decoder must confirm."""
    total = int(own.target_bytes(stream, 0, len(stream) - 1, "decoded").sum())
    assert own.text_bytes(stream) == total
    return total


def assert_adds_up(own: HfTokenizer, text: str) -> bool:
    """Whether the text is taken; if so, its bytes and those of two documents of it are right."""
    try:
        tokens = own.tokens_of(text)
    except InputError:
        return False
    stream = led(own, tokens)
    assert counted(own, stream) == len(text.encode())
    assert counted(own, np.append(stream, stream)) == 2 * len(text.encode())
    return True


@pytest.mark.parametrize("kind", FAST)
@FEW
@given(text=texts)
def test_bytes_of_tokens_add_up_to_the_text(kind: str, text: str) -> None:
    assert_adds_up(tokenizer(kind), text)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in MADE if kind not in FAST])
@ALL
@given(text=texts)
def test_bytes_of_tokens_add_up_to_the_text_whatever_the_kind(kind: str, text: str) -> None:
    assert_adds_up(tokenizer(kind), text)


@pytest.mark.parametrize("kind", MADE)
def test_ordinary_text_is_taken(kind: str) -> None:
    """What is refused is named: unknown characters, U+2581, a space before the text, names of special tokens."""
    own, keeps = tokenizer(kind), "byte-level" in kind or ("BPE" in kind and "bytes" in kind)
    assert assert_adds_up(own, "The quick brown fox jumps over the lazy dog.")
    assert assert_adds_up(own, TEXT) == keeps
    assert assert_adds_up(own, "the \ufffd fox\r\n🦊") == ("byte-level" in kind or "bytes" in kind)
    assert assert_adds_up(own, "the ▁ fox") == ("byte-level" in kind)
    assert assert_adds_up(own, "the <s> fox") == ("byte-level" in kind or "BPE" in kind)
    assert assert_adds_up(own, " the fox") == (kind == "byte-level" or "never" in kind)


@pytest.mark.parametrize("kind", FAST)
@FEW
@given(text=texts)
def test_tokens_alone_are_counted_as_the_library_decodes_them(kind: str, text: str) -> None:
    """Whoever cut the text, and whatever was lost: an unknown first character, an end within a character."""
    own = tokenizer(kind)
    tokens = np.array(own._spelling.cut(text), own.dtype)
    for stream in (led(own, tokens), tokens):
        for stop in range(1, len(stream) + 1):
            own.check(stream[:stop])
            counted(own, stream[:stop])


# Added tokens

BASES = {
    "byte-level": lambda: byte_level(False),
    "byte-level, prefix space": lambda: byte_level(True),
    "Metaspace first": lambda: metaspace("first"),
    "Metaspace always": lambda: metaspace("always"),
}
CASES = [(base, *flags) for base in BASES for flags in itertools.product((False, True), (False, True), (False, True))]
ADDED_TEXTS = ["the<x>fox", "the <x>fox", "the<x> fox", "the  <x>  fox", "<x>", "a <x> <x>b", "no such thing", "x é 東"]


@functools.cache
def with_added(base: str, lstrip: bool, rstrip: bool, normalized: bool, special: bool) -> HfTokenizer:
    from tokenizers import AddedToken

    made = BASES[base]()
    add = made.add_special_tokens if special else made.add_tokens
    flags = {"lstrip": lstrip, "rstrip": rstrip, "normalized": normalized}
    add([AddedToken(content, **flags) for content in ("<x>", "東", "é")])
    return HfTokenizer(wrapped(made))


def assert_right_or_refused(own: HfTokenizer, text: str) -> None:
    """The text, and its tokens as somebody else's data."""
    assert_adds_up(own, text)
    stream = led(own, np.array(own._spelling.cut(text), own.dtype))
    try:
        own.check(stream)
    except InputError:
        return
    if not own._spelling.prefixed or not text.startswith((" ", "▁")):
        assert counted(own, stream) == len(text.replace("▁", " ").encode() if own._spelling._mark else text.encode())


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(("base", "lstrip", "rstrip", "normalized"), CASES)
def test_added_tokens(base: str, lstrip: bool, rstrip: bool, normalized: bool, special: bool) -> None:
    own = with_added(base, lstrip, rstrip, normalized, special)
    for text in ADDED_TEXTS:
        assert_right_or_refused(own, text)
    assert assert_adds_up(own, "the fox")
    again = base in ("byte-level, prefix space", "Metaspace always")  # the encoder puts a space back, rightly by chance
    assert assert_adds_up(own, "the <x> fox") == (special or not (lstrip or (rstrip and not again)))


@pytest.mark.slow
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(("base", "lstrip", "rstrip", "normalized"), CASES)
@ALL
@given(text=texts)
def test_added_tokens_in_any_text(
    base: str, lstrip: bool, rstrip: bool, normalized: bool, special: bool, text: str
) -> None:
    assert_right_or_refused(with_added(base, lstrip, rstrip, normalized, special), text)


@pytest.mark.parametrize("model", ["WordPiece", "WordLevel", "BPE"])
def test_words_alone_are_refused(model: str) -> None:
    with pytest.raises(
        InputError, match=r"decodes by (WordPiece|nothing|BPEDecoder): the bytes of tokens are known only"
    ):
        HfTokenizer(wrapped(pieces(model)))


def test_words_with_a_mark_of_spaces_are_known() -> None:
    own = HfTokenizer(wrapped(metaspace("first", "WordLevel", fallback=False)))
    assert assert_adds_up(own, "The quick brown fox")
    with pytest.raises(InputError, match=r"unknown token replaces text .* \(1 times\)"):
        own.tokens_of("The quickest fox")
