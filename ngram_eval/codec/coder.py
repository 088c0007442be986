"""Tokens into a payload and back: `ngram_eval.exact` says what is likely, constriction's range coder writes it.

The coder takes the doubles as they are: sums from the left, one division, one product and a truncation to 24 bits make
them integers that sum to 2^24, and no token gets less than 1. All of these are IEEE operations that every machine
rounds alike.
"""

from collections.abc import Callable, Iterator

import numpy as np
from constriction import stream
from numpy.typing import NDArray

from ngram_eval.bpb import FRACTION_BITS, fixed_point, nats_of
from ngram_eval.codec.base import Base
from ngram_eval.counts import Tokens
from ngram_eval.errors import InputError
from ngram_eval.exact import ExactModel

_AT_ONCE = 1 << 18
"""Probabilities held at a time (2 MiB)."""
_ANY_BYTE_NATS = round(np.log(256) * (1 << FRACTION_BITS))


def encode(
    model: ExactModel, base: Base, tokens: Tokens, escape: int | None, raw: bytes, advance: Callable[[int], None]
) -> tuple[bytes, int]:
    """(payload, what the model charges in units of 2^-52 nats) of tokens and the bytes behind their escapes."""
    encoder = stream.queue.RangeEncoder()
    any_row, any_byte = stream.model.Categorical(lazy=True, perfect=False), stream.model.Uniform(256)
    behind = iter(raw)
    nats = len(raw) * _ANY_BYTE_NATS
    at_once = max(1, _AT_ONCE // base.vocab_size)
    for start in range(0, len(tokens), at_once):
        part = tokens[start : start + at_once]
        rows = model.distributions(part, *base.rows(part))
        nats += fixed_point(nats_of(rows[np.arange(len(part)), part]))
        for first, stop in _pieces(part, escape):
            encoder.encode(part[first:stop].astype(np.int32), any_row, rows[first:stop])
            if part[stop - 1] == escape:
                encoder.encode(next(behind), any_byte)
        advance(len(part))
    return encoder.get_compressed().astype("<u4").tobytes(), nats


def _pieces(tokens: Tokens, escape: int | None) -> Iterator[tuple[int, int]]:
    """Spans of tokens that each end in an escape, and the rest."""
    first = 0
    if escape is not None:
        for at in np.flatnonzero(tokens == escape).tolist():
            yield first, at + 1
            first = at + 1
    if first < len(tokens):
        yield first, len(tokens)


def decode(
    model: ExactModel,
    base: Base,
    count: int,
    escape: int | None,
    payload: bytes,
    advance: Callable[[int], None],
) -> tuple[NDArray[np.uint32], bytes]:
    """(tokens, bytes behind the escapes) of what `encode` made of `count` tokens with the same model and base.

    Raises `InputError` if the payload can't be of that model; where it happens to look like one, the tokens are wrong,
    which only a checksum can tell.
    """
    decoder = stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))
    categorical, any_byte = stream.model.Categorical, stream.model.Uniform(256)
    tokens = np.empty(count, np.uint32)
    raw = bytearray()
    try:
        for i in range(count):
            row, entropy = base.next()
            p = model.distribution(row[0], float(entropy[0]))
            token = decoder.decode(categorical(p, lazy=True, perfect=False))
            tokens[i] = token
            model.score(tokens[i : i + 1], row, entropy, together=False)
            base.push(token)
            if token == escape:
                raw.append(decoder.decode(any_byte))
            if i % _REPORT == _REPORT - 1:
                advance(_REPORT)
        advance(count % _REPORT)
    except AssertionError as error:
        raise InputError(f"its payload is not of this model ({error})") from error
    return tokens, bytes(raw)


_REPORT = 1 << 10
"""Tokens between two movements of the progress bar."""
