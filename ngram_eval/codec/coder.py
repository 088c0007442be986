"""Turns tokens into a payload and back, by a memory's probabilities and a range coder.

Exact counts give whole distributions, and a token is written as one symbol. The mixer gives decisions, and a token is
written as about ten bits. The bytes after escapes follow the coded tokens as they are. C++ and the reference write the
same bytes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ngram_eval.bpb import FRACTION_BITS, fixed_point, nats_of
from ngram_eval.codec import range_coder, version_1
from ngram_eval.codec.alphabet import Alphabet
from ngram_eval.codec.base import Base, UniformBase
from ngram_eval.codec.container import FORMAT_VERSION
from ngram_eval.codec.method import Method
from ngram_eval.errors import InputError
from ngram_eval.scorers.exact.model import ExactModel, make_model
from ngram_eval.scorers.mixer.model import Mixer, make_mixer, spelling_of
from ngram_eval.text.stream import Tokens

_AT_ONCE = 1 << 18
"""Most probabilities held at once (2 MiB)."""
_REPORT = 1 << 10
"""Tokens between two updates of the progress bar."""
_MOST_BEYOND = 7
"""Bytes that a reader looks beyond the end of a payload."""
_ANY_BYTE_NATS = round(np.log(256) * (1 << FRACTION_BITS))

Advance = Callable[[int], None]


class Coder(Protocol):
    """Writes or reads tokens, once: its memory learns from each."""

    def encode(self, tokens: Tokens, raw: bytes, advance: Advance) -> tuple[bytes, int]:
        """(payload, charge in units of 2^-52 nats) of tokens and the bytes after their escapes."""

    def decode(
        self, count: int, escape: int | None, payload: bytes, advance: Advance
    ) -> tuple[NDArray[np.uint32], bytes]:
        """(tokens, bytes after the escapes) of a payload that `encode` wrote with the same memory and base.

        Raises `InputError` if the payload can't be of that memory. A wrong payload may still decode to wrong tokens;
        only a checksum detects this.
        """


def make_coder(
    method: Method,
    alphabet: Alphabet,
    base: Base,
    backend: str,
    known: Tokens | None = None,
    version: int = FORMAT_VERSION,
) -> Coder:
    """The coder of a method, with an empty memory, or one that has read the tokens `known`.

    Over 1/V it has learned from them what it would have learned by coding them; over a model, it has only counted them.
    `version` is that of the payloads that it reads; it writes the newest. No file of version 1's mixer gets here,
    whose contexts were others.
    """
    config = method.config
    if config.scorer == "mixer":
        spelling, neural = spelling_of(alphabet.surfaces), method.window is not None
        mixer = make_mixer(backend, config.mixer, spelling, neural=neural)
        if known is not None and isinstance(base, UniformBase):
            mixer.score(known, base.next()[0])
        elif known is not None:
            mixer.append(known)
        return DecisionCoder(mixer, base, _functions(backend))
    model = make_model(backend, config.ngram.max_order, config.exact)
    if known is not None and isinstance(base, UniformBase):
        model.score(known, *base.rows(known), together=False)
    elif known is not None:
        model.append(known)
    return SymbolCoder(model, base, _functions(backend), version)


def _functions(backend: str) -> Any:
    """The range coder: what `range_coder` has, or the same names in C++."""
    if backend == "reference":
        return range_coder
    from ngram_eval import _core

    return _core


class _Reader(ABC):
    """Reads tokens one after another, as many at a time as one distribution of the base serves."""

    def __init__(self, base: Base, functions: Any) -> None:
        self._base, self._functions = base, functions

    def decode(
        self, count: int, escape: int | None, payload: bytes, advance: Advance
    ) -> tuple[NDArray[np.uint32], bytes]:
        decoder, tokens = self._functions.RangeDecoder(payload), np.empty(count, np.uint32)
        at_once = _REPORT if isinstance(self._base, UniformBase) else 1
        for start in range(0, count, at_once):
            part = tokens[start : start + at_once]
            row, entropy = self._base.next()
            part[:] = self._read(decoder, row[0], float(entropy[0]), len(part))
            for token in part.tolist():
                self._base.push(token)
            if decoder.beyond > _MOST_BEYOND:
                raise InputError("its payload ends before its tokens, so it is not of this model")
            advance(len(part))
        escapes = 0 if escape is None else int((tokens == escape).sum())
        if escapes > len(payload):
            raise InputError("its payload ends before the bytes after its escapes, so it is not of this model")
        return tokens, payload[len(payload) - escapes :]

    @abstractmethod
    def _read(self, decoder: Any, row: NDArray[np.float64], entropy: float, n: int) -> NDArray[np.uint32]:
        """The next `n` tokens, all of which have this distribution for a base."""


class SymbolCoder(_Reader):
    """`Coder` of whole distributions."""

    def __init__(self, model: ExactModel, base: Base, functions: Any, version: int) -> None:
        super().__init__(base, functions)
        self._model, self._version = model, version

    def encode(self, tokens: Tokens, raw: bytes, advance: Advance) -> tuple[bytes, int]:
        encoder, nats = self._functions.RangeEncoder(), len(raw) * _ANY_BYTE_NATS
        at_once = max(1, _AT_ONCE // self._base.vocab_size)
        for start in range(0, len(tokens), at_once):
            part = tokens[start : start + at_once]
            rows = self._model.distributions(part, *self._base.rows(part))
            nats += fixed_point(nats_of(rows[np.arange(len(part)), part]))
            encoder.symbols(part, rows)
            advance(len(part))
        return encoder.finish() + raw, nats

    def _read(self, decoder: Any, row: NDArray[np.float64], entropy: float, n: int) -> NDArray[np.uint32]:
        return self._functions.read_symbols(self._model, decoder, row, entropy, n)  # type: ignore[no-any-return]

    def decode(
        self, count: int, escape: int | None, payload: bytes, advance: Advance
    ) -> tuple[NDArray[np.uint32], bytes]:
        if self._version == 1:
            return version_1.read_symbols(self._model, self._base, count, escape, payload, advance)
        return super().decode(count, escape, payload, advance)


class DecisionCoder(_Reader):
    """`Coder` of binary decisions."""

    def __init__(self, mixer: Mixer, base: Base, functions: Any) -> None:
        super().__init__(base, functions)
        self._mixer = mixer

    def encode(self, tokens: Tokens, raw: bytes, advance: Advance) -> tuple[bytes, int]:
        encoder, nats = self._functions.RangeEncoder(), len(raw) * _ANY_BYTE_NATS
        at_once = _AT_ONCE // 16 if isinstance(self._base, UniformBase) else max(1, _AT_ONCE // self._base.vocab_size)
        for start in range(0, len(tokens), at_once):
            part = tokens[start : start + at_once]
            rows, _ = self._base.rows(part)
            p, bits, ones = self._mixer.decisions(part, rows)
            nats += fixed_point(nats_of(p))
            encoder.bits(bits, ones)
            advance(len(part))
        return encoder.finish() + raw, nats

    def _read(self, decoder: Any, row: NDArray[np.float64], entropy: float, n: int) -> NDArray[np.uint32]:
        return self._functions.read_decisions(self._mixer, decoder, row, n)  # type: ignore[no-any-return]
