"""The codec's base distributions, one token at a time, equal for writer and reader."""

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ngram_eval.text.stream import Tokens


class Base(Protocol):
    """A model of the next token that knows only the tokens before it."""

    vocab_size: int

    def next(self) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """(probabilities of the next token (1, V), their entropy in nats (1,))."""

    def push(self, token: int) -> None:
        """Make `token` the newest one known."""

    def rows(self, tokens: Tokens) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Push all tokens; returns what `next` gives before each: ((n, V), or (1, V) for all; (n,))."""


class UniformBase:
    """1 / V for every token."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._row = np.full((1, vocab_size), 1 / vocab_size)
        self._entropy = np.full(1, math.log(vocab_size), np.float32)

    def next(self) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        return self._row, self._entropy

    def push(self, token: int) -> None:
        pass

    def rows(self, tokens: Tokens) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        return self._row, self._entropy.repeat(len(tokens))
