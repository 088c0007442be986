"""A kept memory: the tokens of a text, and whose tokens they are. Counts are a function of them, and are not kept."""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ngram_eval.errors import InputError
from ngram_eval.text.stream import MAX_VOCABULARY, Tokens
from ngram_eval.text.tokenizer import TextTokenizer

MOST_TOKENS = 1 << 30
_LENGTH = struct.Struct("<i")


def dtype_of(vocab_size: int) -> DTypeLike:
    """The type of tokens of a vocabulary."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


@dataclass(frozen=True, kw_only=True)
class KeptMemory:
    """The tokens of a text, in order, and the tokenizer that made them, as far as it is known."""

    tokens: Tokens
    vocab_size: int
    text_bytes: int = 0
    """Bytes that the tokens spell; 0 without a tokenizer."""
    tokenizer_sha256: str = ""
    """Of the tokenizer's file; empty without one."""
    surfaces_sha256: str = ""
    """Of the bytes that each token spells: files of one tokenizer differ, what its tokens spell does not."""
    surfaces: tuple[bytes | None, ...] | None = None
    """The bytes of each token that occurs, where they are at hand; None for one that spells nothing."""
    learned: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    """What scorers learned as they scored it, if they did: a key of method and model -> `Scorer.learned`."""

    @cached_property
    def sha256(self) -> str:
        """Of the tokens as little-endian uint32: the same for every coding."""
        return hashlib.sha256(self.tokens.astype("<u4").tobytes()).hexdigest()

    def check(self, tokenizer: TextTokenizer | None, vocab_size: int, source: str) -> None:
        """Raise `InputError`, naming `source`, unless its tokens are those of this tokenizer and vocabulary.

        A `vocab_size` of 0 is not known.
        """
        if tokenizer is not None and self.tokenizer_sha256 and self.tokenizer_sha256 != tokenizer.sha256:
            if surfaces_sha256(tokenizer.surfaces()) != self.surfaces_sha256:
                raise InputError(
                    f"{source} is a memory of another tokenizer (sha256 {self.tokenizer_sha256[:12]}..., and here is "
                    f"{tokenizer.sha256[:12]}...): build it again with `ngram-eval memory build` and this tokenizer"
                )
        elif vocab_size and int(self.tokens.max(initial=0)) >= vocab_size:
            raise InputError(
                f"{source} is a memory of a vocabulary of {self.vocab_size:,} tokens, and here are {vocab_size:,}: "
                "build it again with the tokenizer of this data"
            )


def kept_of(tokens: Tokens, tokenizer: TextTokenizer | None, vocab_size: int | None = None) -> KeptMemory:
    """The memory of tokens; raises `InputError` for too many, and for a vocabulary that is unknown or too large."""
    surfaces = None if tokenizer is None else tuple(tokenizer.surfaces())
    size = vocab_size if tokenizer is None else tokenizer.vocab_size
    if size is None:
        raise InputError("a memory needs the size of its vocabulary: give the tokenizer, or --vocab-size V")
    if not 0 < len(tokens) <= MOST_TOKENS or not 2 <= size <= MAX_VOCABULARY:
        raise InputError(
            f"{len(tokens):,} tokens of a vocabulary of {size:,}: a memory holds 1 to {MOST_TOKENS:,}, of a vocabulary "
            f"of 2 to {MAX_VOCABULARY:,}"
        )
    if int(tokens.max()) >= size:
        raise InputError(f"token {int(tokens.max())} is outside the vocabulary of {size:,}: give the data's own")
    lengths = None if surfaces is None else np.array([len(one or b"") for one in surfaces], np.int64)
    return KeptMemory(
        tokens=tokens.astype(dtype_of(size)),
        vocab_size=size,
        text_bytes=0 if lengths is None else int(lengths[tokens].sum()),
        tokenizer_sha256="" if tokenizer is None else tokenizer.sha256,
        surfaces_sha256="" if surfaces is None else surfaces_sha256(surfaces),
        surfaces=surfaces,
    )


def surfaces_sha256(surfaces: Sequence[bytes | None]) -> str:
    """The sha256 of what tokens spell."""
    digest = hashlib.sha256()
    for one in surfaces:
        digest.update(_LENGTH.pack(-1 if one is None else len(one)) + (one or b""))
    return digest.hexdigest()


def joined(memories: Sequence[KeptMemory], sources: Sequence[str]) -> KeptMemory:
    """The texts one after another, without what was learned on each.

    Raises `InputError`, naming sources, for memories of different tokenizers.
    """
    first = memories[0]
    if len(memories) == 1:
        return first
    for one, source in zip(memories[1:], sources[1:], strict=True):
        if (one.vocab_size, one.surfaces_sha256) != (first.vocab_size, first.surfaces_sha256):
            raise InputError(
                f"{source} is a memory of another tokenizer than {sources[0]} (vocabularies of {one.vocab_size:,} and "
                f"{first.vocab_size:,} tokens): build both with the same"
            )
    if sum(len(one.tokens) for one in memories) > MOST_TOKENS:
        raise InputError(f"{', '.join(sources)} together have more than {MOST_TOKENS:,} tokens: leave some out")
    known = [one.surfaces for one in memories if one.surfaces is not None]
    spelt = [next(filter(None, ways), None) for ways in zip(*known, strict=True)]
    return KeptMemory(
        tokens=np.concatenate([one.tokens for one in memories]),
        vocab_size=first.vocab_size,
        text_bytes=sum(one.text_bytes for one in memories),
        tokenizer_sha256=first.tokenizer_sha256,
        surfaces_sha256=first.surfaces_sha256,
        surfaces=tuple(spelt) if len(known) == len(memories) else None,
    )
