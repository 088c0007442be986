"""A range coder without carries: the specification of `csrc/codec/range_coder.h`, in integers of Python.

What has a share of 2^32 is written in about -log2(share / 2^32) bits (Martin, 1979, Range encoding; without carries
after Subbotin, 1999). What is left of the interval is [low, low + range), numbers of 64 bits. Its leading bytes are
written as soon as they are settled. Where it lies across a border of 2^56 and gets shorter than 2^40, it is cut at a
border of 2^40. That costs a few bits once in 2^16 bytes or so, and spares a carry.

Probabilities are doubles: sums from the left, one division, one product, truncation. These are IEEE operations, which
every machine rounds alike.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ngram_eval.scorers.exact.model import ExactModel
from ngram_eval.scorers.mixer.model import Mixer
from ngram_eval.text.stream import Tokens

WHOLE = 1 << 32
_ALL = (1 << 64) - 1
_TOP, _SHORTEST = 1 << 56, 1 << 40


class Share(NamedTuple):
    """A part of [0, 2^32)."""

    low: int
    size: int


def share_of(bit: int, one: float) -> Share:
    """That of a decision's outcome: 1 has the first `one` of the whole, at least 1 and not all."""
    border = min(max(int(one * WHOLE), 1), WHOLE - 1)
    return Share(0, border) if bit else Share(border, WHOLE - border)


def borders(p: NDArray[np.float64]) -> list[int]:
    """Where the share of each symbol begins, and the end (V + 1); each share is at least 1. `p` sums to about 1."""
    sums, spare = np.cumsum(p), float(WHOLE - len(p))
    scale = spare / sums[-1]
    inner = [i + int(min(total * scale, spare)) for i, total in enumerate(sums[:-1].tolist(), start=1)]
    return [0, *inner, WHOLE]


class _Interval:
    def __init__(self) -> None:
        self.low, self.range = 0, _ALL

    def narrow(self, share: Share) -> None:
        self.range >>= 32
        self.low = self.low + share.low * self.range & _ALL
        self.range *= share.size

    def next_byte(self) -> bool:
        """Whether the leading byte is settled, or made so."""
        if self.low ^ (self.low + self.range & _ALL) >= _TOP:
            if self.range >= _SHORTEST:
                return False
            self.range = -self.low & (_SHORTEST - 1)
        return True

    def shift(self) -> None:
        self.low, self.range = self.low << 8 & _ALL, self.range << 8 & _ALL


class RangeEncoder(_Interval):
    """Writes decisions and symbols."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = bytearray()

    def bits(self, bits: NDArray[np.uint8], ones: NDArray[np.float64]) -> None:
        """Write the outcomes of decisions, (m,), by the probabilities of a 1, (m,)."""
        for bit, one in zip(bits.tolist(), ones.tolist(), strict=True):
            self._code(share_of(bit, one))

    def symbols(self, tokens: Tokens, rows: NDArray[np.float64]) -> None:
        """Write tokens, (n,), by distributions, (n, V)."""
        for token, row in zip(tokens.tolist(), rows, strict=True):
            at = borders(row)
            self._code(Share(at[token], at[token + 1] - at[token]))

    def finish(self) -> bytes:
        """All bytes, and as few more as say, whatever follows them, that the end is within the interval."""
        for bits in range(56, -1, -8):
            rest = (1 << bits) - 1
            end = self.low + rest & ~rest
            if end + rest < self.low + self.range and end <= _ALL:
                break
        return bytes(self._bytes) + end.to_bytes(8, "big")[: 8 - bits // 8]

    def _code(self, share: Share) -> None:
        self.narrow(share)
        while self.next_byte():
            self._bytes.append(self.low >> 56)
            self.shift()


class RangeDecoder(_Interval):
    """Reads what `RangeEncoder` wrote, whatever follows it."""

    def __init__(self, written: bytes) -> None:
        super().__init__()
        self._bytes, self._at, self._code = written, 8, int.from_bytes(written[:8].ljust(8, b"\0"), "big")

    @property
    def beyond(self) -> int:
        """Bytes that were read beyond the end; more than 7 were never written."""
        return max(self._at - len(self._bytes), 0)

    def bit(self, one: float) -> int:
        """The outcome of a decision."""
        bit = int((self._code - self.low & _ALL) < share_of(1, one).size * (self.range >> 32))
        self._take(share_of(bit, one))
        return bit

    def symbol(self, row: NDArray[np.float64]) -> int:
        """The token that a distribution, (V,), was written of."""
        at = borders(row)
        place = min((self._code - self.low & _ALL) // (self.range >> 32), WHOLE - 1)
        token = int(np.searchsorted(at, place, side="right")) - 1
        self._take(Share(at[token], at[token + 1] - at[token]))
        return token

    def _take(self, share: Share) -> None:
        self.narrow(share)
        while self.next_byte():
            following = self._bytes[self._at] if self._at < len(self._bytes) else 0
            self._code = (self._code << 8 | following) & _ALL
            self._at += 1
            self.shift()


def read_decisions(mixer: Mixer, decoder: RangeDecoder, base: NDArray[np.float64], n: int) -> NDArray[np.uint32]:
    """Read `n` tokens as decisions of a mixer over one row, (V,); it learns from each."""
    tokens = np.empty(n, np.uint32)
    for i in range(n):
        one = mixer.begin(base)
        while not mixer.token_known:
            one = mixer.decide(decoder.bit(one))
        tokens[i] = mixer.token
    return tokens


def read_symbols(
    model: ExactModel, decoder: RangeDecoder, base: NDArray[np.float64], entropy: float, n: int
) -> NDArray[np.uint32]:
    """Read `n` tokens as symbols of a model's distributions over one row, (V,); it counts and learns from each."""
    tokens = np.empty(n, np.uint32)
    for i in range(n):
        tokens[i] = decoder.symbol(model.distribution(base, entropy))
        model.score(tokens[i : i + 1], base[None], np.array([entropy], np.float32), together=False)
    return tokens
