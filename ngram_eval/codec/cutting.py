"""Cuts text into tokens without loss: any tokens will do that spell the bytes.

SentencePiece cuts where its tokens spell the text; elsewhere the longest match does. Normalisation, the dummy prefix
and the removal of spaces would change the text, so they are switched off in a copy of the model.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from sentencepiece import sentencepiece_model_pb2

from ngram_eval.codec.alphabet import BYTES, MAX_TOKENS, Alphabet, in_use, of_surfaces
from ngram_eval.codec.blocks import span
from ngram_eval.errors import InputError
from ngram_eval.text.documents import Segment
from ngram_eval.text.prepare import train_tokenizer
from ngram_eval.text.stream import Tokens
from ngram_eval.text.tokenizer import Tokenizer

_SEGMENT = 1 << 12
"""Characters of a segment that ends in a newline, if a tokenizer splits at newlines."""
_LONG_SEGMENT = 1 << 20
"""Characters of a segment for other tokenizers, and of the longest segment without a newline."""
_BATCH = 1 << 22
"""Characters for one call of SentencePiece, which uses every core."""
_FOREIGN = re.compile("([\udc80-\udcff\u2581]+)")
"""Text that SentencePiece can't represent: bytes that are not UTF-8 (as Python escapes them), and its space sign."""
_TRAINING_CHARACTERS = 20_000_000
_FREQUENT = 1 / 8192
"""Least share of a text's characters that a character with a piece has: others are cut into bytes."""
_TRIALS = ((1, 1.0), (1, 0.98), (1, 0.9), (2, 1.0), (4, 1.0), (1, 0.5), (4, 0.5))
"""(divisor of the number of pieces, share of the frequent characters that get one); the first that works is used."""
_FEW_PIECES, _MANY_PIECES, _LONG = 512, 1024, 4_000_000
"""Pieces that give about the smallest file, for texts below `_LONG` bytes and for others."""
_LEAST_PIECES = 256 + 3 + 1


Begin = Callable[[], Callable[[int], None]]
"""Called when cutting begins; returns a function that is called with the number of bytes cut."""


class Cut(NamedTuple):
    """A text in tokens."""

    alphabet: Alphabet
    tokens: Tokens
    raw: bytes
    """The bytes after the escapes."""

    def block(self, block: int, blocks: int) -> "Cut":
        """One of as many parts, about equally many tokens each."""
        part = span(len(self.tokens), block, blocks)
        if self.alphabet.escape is None:
            return self._replace(tokens=self.tokens[part])
        first, last = (int((self.tokens[:end] == self.alphabet.escape).sum()) for end in (part.start, part.stop))
        return Cut(self.alphabet, self.tokens[part], self.raw[first:last])


def cut_bytes(data: bytes) -> Cut:
    """A token for each byte."""
    return Cut(BYTES, np.frombuffer(data, np.uint8).astype(np.uint16), b"")


def cut_with(model: bytes, source: str, data: bytes, begin: Begin) -> Cut:
    """The text cut by a SentencePiece model; raises `InputError` if `model` is not one or does not allow it."""
    tokenizer = lossless_tokenizer(model, source)
    alphabet = of_surfaces(tokenizer.surfaces(), tokenizer.unknown_id)
    if not 2 <= alphabet.size <= MAX_TOKENS:
        raise InputError(f"{source} has {alphabet.size} pieces: give one of 2 to {MAX_TOKENS}")
    parts: list[Tokens] = []
    raw = bytearray()
    advance = begin()
    for batch in _batches(data, _SEGMENT if tokenizer.splits_at_newlines else _LONG_SEGMENT):
        known = [text for text, foreign in batch if not foreign]
        found = iter(tokenizer.encode(known))
        for text, foreign in batch:
            spelt = text.encode(errors="surrogateescape")
            tokens = None if foreign else next(found)
            if tokens is None or alphabet.spell(tokens) != spelt:
                listed, after = alphabet.cut_greedily(spelt)
                tokens = np.array(listed, tokenizer.dtype)
                raw += after
            parts.append(tokens)
            advance(len(spelt))
    return Cut(alphabet, np.concatenate([np.zeros(0, tokenizer.dtype), *parts]), bytes(raw))


def cut_trained(data: bytes, pieces: int | None, begin: Begin) -> Cut | None:
    """The text cut by a tokenizer trained on it, in the alphabet of the pieces that occur.

    None if the text is too short to train one. The tokenizer has fewer than `pieces` pieces if the text allows no more;
    None chooses them by the text's length.
    """
    text = data.decode(errors="ignore")
    segments, frequent = [Segment(True, text)], _frequent(text[:_TRAINING_CHARACTERS])
    if pieces is None:
        pieces = _FEW_PIECES if len(data) < _LONG else _MANY_PIECES
    for divisor, share in _TRIALS:
        coverage = share * frequent
        wanted = max(pieces // divisor, _LEAST_PIECES)
        try:
            model = train_tokenizer(segments, wanted, _TRAINING_CHARACTERS, coverage)
        except InputError:
            continue
        cut = cut_with(model, "the trained tokenizer", data, begin)
        return Cut(*in_use(cut.alphabet, cut.tokens), cut.raw)
    return None


def _frequent(text: str) -> float:
    """The share of a text that its frequent characters make up."""
    counts = np.bincount(np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.int32))
    return float(counts[counts >= _FREQUENT * len(text)].sum()) / max(len(text), 1)


def _batches(data: bytes, size: int) -> Iterator[list[tuple[str, bool]]]:
    """(segment, whether SentencePiece can't represent it) of the whole text, in batches."""
    batch: list[tuple[str, bool]] = []
    length = 0
    for index, part in enumerate(_FOREIGN.split(data.decode(errors="surrogateescape"))):
        for segment in _segments(part, size):
            batch.append((segment, index % 2 == 1))
            length += len(segment)
            if length >= _BATCH:
                yield batch
                batch, length = [], 0
    yield batch


def _segments(text: str, size: int) -> Iterator[str]:
    """The text in segments that end in the first newline after `size` characters, as `prepare` cuts documents."""
    start = 0
    while start < len(text):
        newline = text.find("\n", start + size - 1, start + _LONG_SEGMENT)
        stop = newline + 1 if newline >= 0 else start + _LONG_SEGMENT
        yield text[start:stop]
        start = stop


def lossless_tokenizer(model: bytes, source: str) -> Tokenizer:
    """The tokenizer with the same pieces and the same choice among them, but without changes to the text."""
    Tokenizer(model, source)  # raises if it is not one
    proto: Any = sentencepiece_model_pb2  # comes without types
    given = proto.ModelProto.FromString(model)
    kept = proto.ModelProto(pieces=given.pieces, trainer_spec=given.trainer_spec)
    kept.normalizer_spec.name = "identity"
    kept.normalizer_spec.precompiled_charsmap = b""
    kept.normalizer_spec.add_dummy_prefix = kept.normalizer_spec.remove_extra_whitespaces = False
    kept.normalizer_spec.escape_whitespaces = given.normalizer_spec.escape_whitespaces
    return Tokenizer(kept.SerializeToString(), source)
