"""Exact n-gram counts and a normalised blend of them with any base distribution, one backend a file.

Counts are those of the whole stream so far, for contexts of 0 to max_order - 1 tokens; no collision ever changes one.
A token's probability is a chain over the contexts, from the base distribution up, whose weights depend on the contexts
alone and are learned online; `csrc/exact/model.h` has the formulas, `reference.py` the readable form.
Every backend equals `reference` bit for bit.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import ExactConfig
from ngram_eval.scorers.backends import load_backend
from ngram_eval.text.stream import Tokens


class ExactModel(Protocol):
    """A stream's counts and the weights learned on it. Tokens are taken in stream order, below 2^18.

    Base distributions come as (n,) probabilities of the targets, float64, or as rows, (n, V) or (1, V) for all. Methods
    raise `ValueError` for arrays of another form, or where rows are needed and only the targets' are given.
    """

    def append(self, tokens: Tokens) -> None:
        """Count tokens without charging for them or learning from them."""

    def score(
        self, tokens: Tokens, base: NDArray[np.float64], entropy: NDArray[np.float32], *, together: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Charge each token, count it, learn from it; then the next. Or, `together`, all from what was known before.

        `entropy` (n,) is the base's, nats. Returns (n,) probabilities and the orders: the longest context that had
        occurred, its tokens plus one; 1 where only the empty one had, 0 at the start of the stream.
        """

    def distribution(self, base: NDArray[np.float64], entropy: float) -> NDArray[np.float64]:
        """(V,): what `score` would charge each token with, bit for bit; `base` (V,). Changes nothing."""

    def distribution_after(self, tokens: Tokens, base: NDArray[np.float64], entropy: float) -> NDArray[np.float64]:
        """(V,): what `score` would charge each token with that follows `tokens`, scored together with them."""

    def distributions(
        self, tokens: Tokens, base: NDArray[np.float64], entropy: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """(n, V): the distribution before each token, each token then scored; `base` in rows."""

    def evidence(self, token: int) -> NDArray[np.uint64]:
        """What is known of `token` as the next one: a row for each context that has occurred, shortest first.

        Columns: the context's total, novel_total, distinct, run; the successor's count, novel, recent.
        """

    def learned(self) -> dict[str, NDArray[Any]]:
        """What is learned besides the counts, as arrays of fixed shapes: with the same tokens appended, a model that
        loads them goes on as this one would. About 42 kB a level.
        """

    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None:
        """Take over what `learned` gave, of any backend; `ValueError` for arrays of another form."""

    def size(self) -> dict[str, int]:
        """`positions` counted, `nodes` (n-grams kept) and their `bytes` of memory, the stream's and the index's too."""


def make_model(backend: str, max_order: int, config: ExactConfig) -> ExactModel:
    """An empty model of the named backend, contexts up to max_order - 1 tokens (at most 32 orders).

    Raises `InputError` for a backend that has none.
    """
    model: ExactModel = load_backend(backend, "exact")(max_order, config)
    return model
