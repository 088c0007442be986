"""Streams and backends for the exact model."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ngram_eval.scorers import backends as registry

TWO = np.array([1, 2], np.uint16)
ENTROPY = np.ones(2, np.float32)
BACKENDS = [name for name, backend in registry.BACKENDS.items() if backend.exact]
backends = pytest.mark.parametrize("backend", BACKENDS)
compiled = pytest.mark.parametrize("backend", ["cpu", "cuda"])


def repetitive(vocab: int, length: int, seed: int = 0) -> NDArray[np.uint16]:
    """Random tokens, parts of which come back."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, vocab, length).astype(np.uint16)
    for size in (60, 25, 60, 9):
        source, target = rng.integers(0, max(length - size, 1), 2)
        tokens[target : target + size] = tokens[source : source + size][: len(tokens[target : target + size])]
    return tokens


def bases(vocab: int, length: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """(length, vocab) distributions without zeros, and entropies that need not be theirs."""
    rng = np.random.default_rng(seed)
    rows = np.maximum(rng.dirichlet(np.full(vocab, 0.3), length), 1e-12)
    return rows / rows.sum(axis=1, keepdims=True), rng.uniform(0, 5, length).astype(np.float32)


def uniform(vocab: int, length: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    return np.full(length, 1 / vocab), np.full(length, math.log(vocab), np.float32)
