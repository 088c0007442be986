"""The byte mixture in readable Python: the specification."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import PpmdConfig
from ngram_eval.scorers.ppmd.model import ByteSpelling, CountsOnly
from ngram_eval.text.stream import Tokens

FLOOR = 1e-20
"""Smallest value that PPM-D gives a byte."""


@dataclass(frozen=True, slots=True)
class Byte:
    """What is known of a byte before it is counted."""

    ppm: float
    """PPM-D's value."""
    weight: float
    """The model's weight, λ."""
    longest: int
    """Order of the longest context that had occurred; 0: none."""
    used: int
    """Order that had the byte; 0: none."""


class ReferencePpmd(CountsOnly):
    """`ngram_eval.scorers.ppmd.model.Ppmd` with dictionaries."""

    def __init__(self, config: PpmdConfig, max_order: int, spelling: ByteSpelling) -> None:
        self._config, self._max_order, self._spelling = config, max_order, spelling
        self._counts: list[dict[bytes, Counter[int]]] = [{} for _ in range(max_order)]
        self._past = b""  # as much as contexts need
        self._silent = False  # the last token spelled nothing

    def append(self, tokens: Tokens) -> None:
        self._check(tokens)
        for token in tokens.tolist():
            for byte in self._surfaces[token]:
                self._count(byte)
            self._silent = not self._spelling.surfaces[token]

    def score(
        self, tokens: Tokens, p: NDArray[np.float64], rows: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.float64]]:
        self._check(tokens)
        if (rows is None) == self._marginal:
            raise ValueError("rows are for marginal shares, which need them")
        values, orders, weights = np.empty(len(tokens)), np.zeros(len(tokens), np.uint8), np.zeros(len(tokens))
        for i, token in enumerate(tokens.tolist()):
            row = None if rows is None else rows[i if len(rows) > 1 else 0]
            surfaces = self._surfaces
            found = self._bytes(token, keep=True)
            values[i] = self._value(token, float(p[i]), row, found, surfaces)
            if found:
                orders[i] = found[0].longest
                weights[i] = _sum(1.0 - one.weight for one in found) / len(found)
            self._silent = not self._spelling.surfaces[token]
        return values, orders, weights

    def distribution(self, base: NDArray[np.float64], target: int | None = None) -> NDArray[np.float64]:
        chosen = [] if target is None else self._bytes(target)
        values = np.empty(len(base))
        for token, p in enumerate(base.tolist()):
            found = self._bytes(token)
            for i, (one, by) in enumerate(zip(found, chosen, strict=False)):  # the target may be shorter or longer
                found[i] = Byte(one.ppm, by.weight, one.longest, one.used)
            values[token] = self._value(token, p, base, found, self._surfaces)
        return values

    def evidence(
        self, token: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        counts, shares = np.zeros((3, self._max_order), np.int64), np.zeros(self._max_order + 1)
        found, surface = self._bytes(token), self._surfaces[token]
        for order in self._orders() if surface else ():
            followers = self._followers(order)
            counts[:, order - 1] = followers.total(), len(followers), followers[surface[0]]
        for one in found:
            shares[one.used] += (1.0 - one.weight) / len(found)
        occurred, distinct, followed = counts
        return occurred, distinct, followed, shares

    # PPM-D

    def _bytes(self, token: int, *, keep: bool = False) -> list[Byte]:
        """The token's bytes, each looked up and then counted; without `keep` all is as before afterwards."""
        before, found, counted = self._past, [], []
        for byte in self._surfaces[token]:
            found.append(self._look(byte))
            counted.append((self._count(byte), byte))
        if not keep:
            for contexts, byte in reversed(counted):
                for followers in contexts:
                    followers[byte] -= 1
                    if not followers[byte]:
                        del followers[byte]
            self._past = before
        return found

    def _look(self, byte: int) -> Byte:
        """From the longest context that has occurred, each escapes to the next shorter one until one has the byte."""
        escape, p, confidence, longest, used = 1.0, None, 0.0, 0, 0
        for order in reversed(self._orders()):
            followers = self._followers(order)
            total = followers.total()
            if total == 0:
                continue
            if longest == 0:
                longest, confidence = order, max(followers.values()) / total
            if (count := followers[byte]) > 0:
                p, used = escape * (2 * count - 1) / (2 * total), order
                break
            escape = escape * len(followers) / (2 * total)
        ppm = max(escape / 256 if p is None else p, FLOOR)
        config = self._config
        sure = (ppm if config.byte_gate == "target" else confidence) > config.sure_above
        return Byte(ppm, config.model_weight_sure if sure else config.model_weight, longest, used)

    def _count(self, byte: int) -> list[Counter[int]]:
        """Count a byte in all orders that have a context; returns what followed these contexts."""
        contexts = [self._counts[order - 1].setdefault(self._context(order), Counter()) for order in self._orders()]
        for followers in contexts:
            followers[byte] += 1
        self._past = (self._past + bytes([byte]))[-self._max_order :]
        return contexts

    def _orders(self) -> range:
        return range(1, min(len(self._past) + 1, self._max_order) + 1)

    def _context(self, order: int) -> bytes:
        return self._past[len(self._past) - (order - 1) :]

    def _followers(self, order: int) -> Counter[int]:
        return self._counts[order - 1].get(self._context(order), Counter())

    # The mixture

    @property
    def _marginal(self) -> bool:
        return self._config.byte_share == "marginal"

    @property
    def _surfaces(self) -> list[bytes]:
        return self._spelling.bare if self._silent else self._spelling.surfaces

    def _value(
        self, token: int, p: float, row: NDArray[np.float64] | None, found: list[Byte], surfaces: list[bytes]
    ) -> float:
        """What a token with the model's probability `p` is charged with; `row` (V,) is needed for marginal shares.

        The published share of each byte is the token's root: p(token)^(1 / bytes). The marginal share is what a
        distribution over tokens says of its next byte: of the tokens that begin with the bytes before and go on, how
        many, by probability, go on with this byte. That the token ends is the model's alone to say. Then tokens are
        charged no more than 1 together, and less where PPM-D expects bytes that no token goes on with.
        """
        if not found:
            return p
        if not self._marginal:
            share = math.nan if p < 0 and len(found) > 1 else math.pow(p, 1.0 / len(found))
            value = 1.0
            for one in found:
                value *= one.weight * share + (1.0 - one.weight) * one.ppm
            return value
        assert row is not None, "checked by the caller"
        if p == 0.0:
            return 0.0
        surface, value = surfaces[token], 1.0
        for depth, one in enumerate(found):
            before, longer = self._mass(row, surface[:depth], surfaces)
            if depth == 0:
                value = before
            share, _ = self._mass(row, surface[: depth + 1], surfaces)
            value *= (one.weight * share + (1.0 - one.weight) * one.ppm * longer) / before
        return value * p / self._mass(row, surface, surfaces)[0]

    def _mass(self, row: NDArray[np.float64], prefix: bytes, surfaces: list[bytes]) -> tuple[float, float]:
        """(probability of all tokens that begin with `prefix`, of those that are longer), added up in sorted order."""
        tokens = [token for token, surface in enumerate(surfaces) if surface.startswith(prefix)]
        tokens.sort(key=lambda token: (surfaces[token], token))
        longer = (token for token in tokens if len(surfaces[token]) > len(prefix))
        return _sum(float(row[token]) for token in tokens), _sum(float(row[token]) for token in longer)

    def _check(self, tokens: Tokens) -> None:
        if len(tokens) and int(tokens.max()) >= len(self._spelling.surfaces):
            raise ValueError(f"token {tokens.max()} is outside the vocabulary of {len(self._spelling.surfaces)}")


def _sum(values: Iterable[float]) -> float:
    """From left to right; `sum` compensates rounding from Python 3.12 on."""
    total = 0.0
    for value in values:
        total += value
    return total
