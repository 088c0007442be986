"""How many bytes of the original text tokens stand for, which bits per byte are over."""

import re

from ngram_eval.audit.finding import Finding, finding
from ngram_eval.text.stream import Tokens
from ngram_eval.text.tokenizer import SHOWN, TextTokenizer, first_difference

_STRAY = "\ufffd".encode()
"""What a decoder writes for a byte that is not part of a character."""
_MARKS = re.compile("[\ue000-\uf8ff]")
"""Characters for private use, three bytes each: some tokenizers write a capital as one of them and a small letter."""

_STEPS = 8


def original_bytes(tokenizer: TextTokenizer, tokens: Tokens, text: bytes | None) -> int | Finding:
    """Bytes of all tokens but the first; or what refutes that the tokens are a code of the text.

    Where the text is not at hand, they are what the decoder writes. Marks of capitals are no bytes of the text.
    """
    written = _written(tokenizer, tokens)
    if text is None or text.startswith(written):
        return tokenizer.text_bytes(tokens)
    covered = _covered(written, text) if _MARKS.search(written.decode(errors="replace")) else None
    if covered is not None:
        return covered - (_covered(_written(tokenizer, tokens[:1]), text) or 0)
    at = first_difference(text, written)
    said = f"the text has {text[at : at + SHOWN]!r} at byte {at:,}, the decoder writes {written[at : at + SHOWN]!r}"
    return finding(False, float(len(written) - at), f"{said}: its tokens are not a code of the text")


def _written(tokenizer: TextTokenizer, tokens: Tokens) -> bytes:
    """What the decoder writes, without the bytes of a character that the tokens end within."""
    written = tokenizer.written(tokens)
    while written.endswith(_STRAY):
        written = written.removesuffix(_STRAY)
    return written


def _covered(written: bytes, text: bytes) -> int | None:
    """Bytes of the text's beginning that was written, but for the case of letters and marks; None if it is another."""
    small = _small(written.decode(errors="replace"))
    original = text[: 2 * len(written) + 8].decode(errors="replace")
    stop = len(small)
    for _ in range(_STEPS):  # a letter may become two small ones, a mark of the text none
        stop += len(small) - len(_small(original[:stop]))
    return len(original[:stop].encode()) if _small(original[:stop]) == small else None


def _small(text: str) -> str:
    return _MARKS.sub("", text).casefold()
