"""The mixer's recurrent network in numpy: the specification (`csrc/mixer/recurrent.h` describes it in words).

All numbers are float32 unless stated otherwise. A sum of many is taken in the order of a loop that is written here.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ngram_eval.scorers.exact.reference import exponential, logistic

F = np.float32
LANES, STEPS = 8, 16
RATE, RATE_TOKENS, ROW_RATE = 0.004, 100000.0, F(8)
KEPT, LEAST_SQUARE, LEAST_LOGIT = F(0.9998), F(1e-12), F(-20)
FIRST, ROWS, AGAIN = F(0.3), 107, 108

Floats = NDArray[np.float32]


def tangent(z: Floats) -> Floats:
    """The hyperbolic tangent."""
    return F(2) * logistic(F(2) * z) - F(1)


def inverse_root(x: Floats) -> Floats:
    """1 / sqrt(x): Newton's method, from a first guess by halving the exponent."""
    root = (np.uint32(0x5F3759DF) - (x.view(np.uint32) >> np.uint32(1))).view(np.float32)
    for _ in range(2):
        root = root * (F(1.5) - F(0.5) * x * root * root)
    return root


def drawn(rows: int, width: int, kind: int, most: np.float32) -> Floats:
    """Numbers from -most to most that look random: hashes of their places."""
    a = np.arange(rows * width, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(kind)
    a = (a ^ a >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
    a ^= a >> np.uint64(32)
    return (((a >> np.uint64(40)).astype(F) * F(2.0**-23) - F(1)) * most).reshape(rows, width)


def products(matrix: Floats, vector: Floats) -> Floats:
    """Each row's product with a vector: first in eight columns, then over the columns."""
    s = np.zeros((len(matrix), LANES), F)
    for i in range(0, len(vector), LANES):
        s += matrix[:, i : i + LANES] * vector[i : i + LANES]
    sums: Floats = ((s[:, 0] + s[:, 4]) + (s[:, 1] + s[:, 5])) + ((s[:, 2] + s[:, 6]) + (s[:, 3] + s[:, 7]))
    return sums


class Weights:
    """A matrix of weights, and the running mean square of each one's gradient."""

    def __init__(self, first: Floats) -> None:
        self.now, self.squares = first, np.zeros_like(first)

    def move(self, rows: slice, gradient: Floats, rate: np.float32) -> None:
        """Move rows against their gradient, each weight by as much as its usual size allows."""
        self.squares[rows] = KEPT * self.squares[rows] + (F(1) - KEPT) * (gradient * gradient)
        self.now[rows] -= rate * gradient * inverse_root(self.squares[rows] + LEAST_SQUARE)


class Recurrent:
    """One layer of long short-term memory, from each token's row of gates to the softmax of the next; by ranks."""

    def __init__(self, vocab_size: int, cells: int) -> None:
        self.vocab_size, self.cells = vocab_size, cells
        self.into = Weights(drawn(vocab_size, 4 * cells, ROWS, FIRST))
        self.again = Weights(drawn(cells, 4 * cells, AGAIN, F(1.0 / math.sqrt(cells))))
        self.out = Weights(np.zeros((cells, -(-vocab_size // LANES) * LANES), F))
        self.tokens, self.remembered = 0.0, 1.0  # of a running mean's start; float64
        self._begin(0, np.zeros(cells, F), np.zeros(cells, F))
        self._predict()

    def _begin(self, rank: int, output: Floats, state: Floats) -> None:
        """Begin to note steps: (ranks that come in, gates, outputs, states, their tangents, errors)."""
        self.ranks, self.outputs, self.states = [rank], [output], [state]
        self.gates: list[tuple[Floats, Floats, Floats, Floats]] = []
        self.squashed: list[Floats] = []
        self.errors: list[Floats] = []

    def _predict(self) -> None:
        z = self.into.now[self.ranks[-1]].copy()
        for row, output in zip(self.again.now, self.outputs[-1], strict=True):
            z += row * output
        opened, forget, candidate, let = np.split(z, 4)
        gates = logistic(opened), logistic(forget), tangent(candidate), logistic(let)
        state = gates[1] * self.states[-1] + gates[0] * gates[2]
        squashed = tangent(state)
        logits = np.zeros_like(self.out.now[0])
        for row, output in zip(self.out.now, gates[3] * squashed, strict=True):
            logits += row * output
        p = exponential(np.maximum(LEAST_LOGIT, logits - logits[: self.vocab_size].max()))
        p[self.vocab_size :] = 0
        self.below = np.concatenate([[0.0], p[: self.vocab_size].cumsum(dtype=np.float64)])
        self.gates.append(gates)
        self.states.append(state)
        self.squashed.append(squashed)
        self.outputs.append(gates[3] * squashed)
        self.errors.append(p * F(1.0 / self.below[-1]))

    def one(self, low: int, mid: int, high: int) -> float:
        """The probability of a 1 at a node."""
        return float((self.below[high] - self.below[mid]) / (self.below[high] - self.below[low]))

    def learn(self, rank: int) -> None:
        """Learn that the token of this rank comes next."""
        self.errors[-1][rank] -= F(1)
        self.ranks.append(rank)
        self.tokens += 1.0
        if len(self.errors) == STEPS:
            self._update()
        self._predict()

    def _update(self) -> None:
        self.remembered *= float(KEPT)
        rate = F(RATE * math.sqrt((1.0 - self.remembered) / (1.0 + self.tokens / RATE_TOKENS)))
        blames = self._go_back()
        for weights, factors, blamed in ((self.out, self.outputs[1:], self.errors), (self.again, self.outputs, blames)):
            gradient = np.zeros_like(weights.now)
            for factor, blame in zip(factors, blamed, strict=False):
                gradient += blame * factor[:, None]
            weights.move(slice(None), gradient, rate)
        for rank in set(self.ranks[:STEPS]):
            gradient = np.zeros_like(blames[0])
            for step in range(STEPS):
                if self.ranks[step] == rank:
                    gradient += blames[step]
            self.into.move(slice(rank, rank + 1), gradient[None], ROW_RATE * rate)
        self._begin(self.ranks[-1], self.outputs[-1], self.states[-1])

    def _go_back(self) -> list[Floats]:
        """The derivatives of the cost by what goes into the gates, by step."""
        blames: list[Floats] = []
        by_output: Floats = np.zeros(self.cells, F)
        by_state: Floats = np.zeros(self.cells, F)
        for step in reversed(range(STEPS)):
            blame = by_output + products(self.out.now, self.errors[step])
            (opened, forget, candidate, let), squashed = self.gates[step], self.squashed[step]
            state = blame * let * (F(1) - squashed * squashed) + by_state
            into = (
                state * candidate * (opened * (F(1) - opened)),
                state * self.states[step] * (forget * (F(1) - forget)),
                state * opened * (F(1) - candidate * candidate),
                blame * squashed * (let * (F(1) - let)),
            )
            blames.insert(0, np.concatenate(into))
            by_output, by_state = products(self.again.now, blames[0]), state * forget
        return blames
