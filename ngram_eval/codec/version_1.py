"""Reads payloads of format version 1, which constriction's range coder wrote."""

from collections.abc import Callable

import numpy as np
from constriction import stream
from numpy.typing import NDArray

from ngram_eval.codec.base import Base
from ngram_eval.errors import InputError
from ngram_eval.scorers.exact.model import ExactModel

_REPORT = 1 << 10
"""Tokens between two updates of the progress bar."""

Read = tuple[NDArray[np.uint32], bytes]
"""(tokens, bytes after the escapes)."""


def read_symbols(
    model: ExactModel, base: Base, count: int, escape: int | None, payload: bytes, advance: Callable[[int], None]
) -> Read:
    """Whole distributions; the byte of an escape follows it at once. Raises `InputError` as `Coder.decode` does."""
    decoder, any_byte = _decoder(payload), stream.model.Uniform(256)
    tokens, raw = np.empty(count, np.uint32), bytearray()
    try:
        for i in range(count):
            row, entropy = base.next()
            p = model.distribution(row[0], float(entropy[0]))
            tokens[i] = token = decoder.decode(stream.model.Categorical(p, lazy=True, perfect=False))
            model.score(tokens[i : i + 1], row, entropy, together=False)
            base.push(token)
            if token == escape:
                raw.append(decoder.decode(any_byte))
            if i % _REPORT == _REPORT - 1:
                advance(_REPORT)
    except AssertionError as error:
        raise _foreign(error) from error
    advance(count % _REPORT)
    return tokens, bytes(raw)


def _decoder(payload: bytes) -> "stream.queue.RangeDecoder":
    if len(payload) % 4:
        raise InputError("its payload is no whole number of words, which no release writes")
    return stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))


def _foreign(error: AssertionError) -> InputError:
    return InputError(f"its payload is not of this model ({error})")
