"""Bytes as tokens (`--alphabet bytes`): for scorers that charge each byte, given the bytes before."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import ByteRule
from ngram_eval.errors import InputError
from ngram_eval.files import read_input
from ngram_eval.text.shards import TokenStream
from ngram_eval.text.stream import Stream, Tokens, check_span
from ngram_eval.text.tokenizer import TextTokenizer

MOST_TEXT = 1 << 31
"""Bytes of a text at most."""


class ByteTokenizer(TextTokenizer):
    """Every byte is a token; token 65 is the byte 65."""

    vocab_size = 256

    @property
    def sha256(self) -> str:
        return hashlib.sha256(bytes(range(256))).hexdigest()

    def surfaces(self) -> list[bytes | None]:
        return [bytes([byte]) for byte in range(256)]

    def target_bytes(self, tokens: Stream, start: int, stop: int, rule: ByteRule) -> NDArray[np.int64]:
        check_span(tokens, start, stop)
        return np.ones(stop - start, np.int64)

    def unknown_targets(self, tokens: Stream, start: int, stop: int) -> int:
        return 0

    def text_bytes(self, tokens: Tokens) -> int:
        return len(tokens) - 1

    def written(self, tokens: Tokens) -> bytes:
        return tokens.astype(np.uint8).tobytes()

    def check(self, tokens: Stream, part: tuple[int, int] = (0, 1)) -> None:
        pass


def read_text(paths: tuple[Path, ...]) -> bytes:
    """The bytes of text files, one after another; raises `InputError` for one that can't be read."""
    return b"".join(read_input(path, "give --text a file", MOST_TEXT) for path in paths)


def byte_stream(text: bytes, paths: tuple[Path, ...]) -> TokenStream:
    """A text as a stream of bytes. Raises `InputError` if there is nothing to predict."""
    if len(text) < 2:
        raise InputError(f"the text has {len(text)} bytes: give --text or --data with more to score")
    tokens = np.frombuffer(text, np.uint8).astype(np.uint16)
    return TokenStream(tokens, paths, len(tokens), text)
