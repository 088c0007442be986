"""Turns tokens into a payload and back, by a memory's probabilities and constriction's range coder.

Exact counts give whole distributions, and a token is written as one symbol. The mixer gives decisions, and a token is
written as about ten bits. The coder takes the doubles as they are: sums from the left, one division, one product and a
truncation to 24 bits turn them into integers of at least 1 that sum to 2^24. These are IEEE operations, which every
machine rounds alike.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from constriction import stream
from numpy.typing import NDArray

from ngram_eval.bpb import FRACTION_BITS, fixed_point, nats_of
from ngram_eval.codec.alphabet import Alphabet
from ngram_eval.codec.base import Base, UniformBase
from ngram_eval.codec.method import Method
from ngram_eval.errors import InputError
from ngram_eval.scorers.exact.model import ExactModel, make_model
from ngram_eval.scorers.mixer.model import Mixer, make_mixer, spelling_of
from ngram_eval.text.stream import Tokens

_AT_ONCE = 1 << 18
"""Most probabilities held at once (2 MiB)."""
_ANY_BYTE_NATS = round(np.log(256) * (1 << FRACTION_BITS))


_REPORT = 1 << 10
"""Tokens between two updates of the progress bar."""


Advance = Callable[[int], None]


class Coder(Protocol):
    """Writes or reads tokens, once: its memory learns from each."""

    def encode(self, tokens: Tokens, escape: int | None, raw: bytes, advance: Advance) -> tuple[bytes, int]:
        """(payload, charge in units of 2^-52 nats) of tokens and the bytes after their escapes."""

    def decode(
        self, count: int, escape: int | None, payload: bytes, advance: Advance
    ) -> tuple[NDArray[np.uint32], bytes]:
        """(tokens, bytes after the escapes) of a payload that `encode` wrote with the same memory and base.

        Raises `InputError` if the payload can't be of that memory. A wrong payload may still decode to wrong tokens;
        only a checksum detects this.
        """


def make_coder(method: Method, alphabet: Alphabet, base: Base, backend: str, known: Tokens | None = None) -> Coder:
    """The coder of a method, with an empty memory, or one that has read the tokens `known`.

    Over 1/V it has learned from them what it would have learned by coding them; over a model, it has only counted them.
    """
    config = method.config
    if config.scorer == "mixer":
        spelling, neural = spelling_of(alphabet.surfaces), method.window is not None
        mixer = make_mixer(backend, config.mixer, spelling, neural=neural)
        if known is not None and isinstance(base, UniformBase):
            mixer.score(known, base.next()[0])
        elif known is not None:
            mixer.append(known)
        return DecisionCoder(mixer, base)
    model = make_model(backend, config.ngram.max_order, config.exact)
    if known is not None and isinstance(base, UniformBase):
        model.score(known, *base.rows(known), together=False)
    elif known is not None:
        model.append(known)
    return SymbolCoder(model, base)


class SymbolCoder:
    """`Coder` of whole distributions; the byte of an escape follows it at once."""

    def __init__(self, model: ExactModel, base: Base) -> None:
        self._model, self._base = model, base

    def encode(self, tokens: Tokens, escape: int | None, raw: bytes, advance: Advance) -> tuple[bytes, int]:
        encoder = stream.queue.RangeEncoder()
        any_row, any_byte = stream.model.Categorical(lazy=True, perfect=False), stream.model.Uniform(256)
        after = iter(raw)
        nats = len(raw) * _ANY_BYTE_NATS
        at_once = max(1, _AT_ONCE // self._base.vocab_size)
        for start in range(0, len(tokens), at_once):
            part = tokens[start : start + at_once]
            rows = self._model.distributions(part, *self._base.rows(part))
            nats += fixed_point(nats_of(rows[np.arange(len(part)), part]))
            for first, stop in _pieces(part, escape):
                encoder.encode(part[first:stop].astype(np.int32), any_row, rows[first:stop])
                if part[stop - 1] == escape:
                    encoder.encode(next(after), any_byte)
            advance(len(part))
        return encoder.get_compressed().astype("<u4").tobytes(), nats

    def decode(
        self, count: int, escape: int | None, payload: bytes, advance: Advance
    ) -> tuple[NDArray[np.uint32], bytes]:
        decoder = _decoder(payload)
        categorical, any_byte = stream.model.Categorical, stream.model.Uniform(256)
        tokens = np.empty(count, np.uint32)
        raw = bytearray()
        try:
            for i in range(count):
                row, entropy = self._base.next()
                p = self._model.distribution(row[0], float(entropy[0]))
                token = decoder.decode(categorical(p, lazy=True, perfect=False))
                tokens[i] = token
                self._model.score(tokens[i : i + 1], row, entropy, together=False)
                self._base.push(token)
                if token == escape:
                    raw.append(decoder.decode(any_byte))
                if i % _REPORT == _REPORT - 1:
                    advance(_REPORT)
        except AssertionError as error:
            raise _foreign(error) from error
        advance(count % _REPORT)
        return tokens, bytes(raw)


class DecisionCoder:
    """`Coder` of binary decisions; the bytes of escapes follow after all tokens."""

    def __init__(self, mixer: Mixer, base: Base) -> None:
        self._mixer, self._base = mixer, base

    def encode(self, tokens: Tokens, escape: int | None, raw: bytes, advance: Advance) -> tuple[bytes, int]:
        encoder = stream.queue.RangeEncoder()
        either = stream.model.Bernoulli(perfect=False)
        nats = len(raw) * _ANY_BYTE_NATS
        at_once = _AT_ONCE // 16 if isinstance(self._base, UniformBase) else max(1, _AT_ONCE // self._base.vocab_size)
        for start in range(0, len(tokens), at_once):
            part = tokens[start : start + at_once]
            rows, _ = self._base.rows(part)
            p, bits, ones = self._mixer.decisions(part, rows)
            nats += fixed_point(nats_of(p))
            encoder.encode(bits.astype(np.int32), either, ones)
            advance(len(part))
        if raw:
            encoder.encode(np.frombuffer(raw, np.uint8).astype(np.int32), stream.model.Uniform(256))
        return encoder.get_compressed().astype("<u4").tobytes(), nats

    def decode(
        self, count: int, escape: int | None, payload: bytes, advance: Advance
    ) -> tuple[NDArray[np.uint32], bytes]:
        decoder, either, mixer = _decoder(payload), stream.model.Bernoulli, self._mixer
        tokens = np.empty(count, np.uint32)
        try:
            for i in range(count):
                row, _ = self._base.next()
                one = mixer.begin(row[0])
                while not mixer.token_known:
                    one = mixer.decide(decoder.decode(either(one, perfect=False)))
                tokens[i] = mixer.token
                self._base.push(mixer.token)
                if i % _REPORT == _REPORT - 1:
                    advance(_REPORT)
            escapes = 0 if escape is None else int((tokens == escape).sum())
            raw = decoder.decode(stream.model.Uniform(256), escapes) if escapes else np.zeros(0)
        except AssertionError as error:
            raise _foreign(error) from error
        advance(count % _REPORT)
        return tokens, raw.astype(np.uint8).tobytes()


def _decoder(payload: bytes) -> "stream.queue.RangeDecoder":
    if len(payload) % 4:
        raise InputError("its payload is no whole number of words, which no release writes")
    return stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))


def _foreign(error: AssertionError) -> InputError:
    return InputError(f"its payload is not of this model ({error})")


def _pieces(tokens: Tokens, escape: int | None) -> Iterator[tuple[int, int]]:
    """Spans of tokens that each end in an escape, and the rest."""
    first = 0
    if escape is not None:
        for at in np.flatnonzero(tokens == escape).tolist():
            yield first, at + 1
            first = at + 1
    if first < len(tokens):
        yield first, len(tokens)
