"""Exact n-gram counts and their normalised blend with any base distribution, one backend per file.

Counts are of the whole stream so far, for contexts of 0 to max_order - 1 tokens, without collisions. A token's
probability is a chain over the contexts, from the base distribution up. The chain's weights depend only on the contexts
and are learned online. `csrc/exact/model.h` has the formulas, `reference.py` the readable form; every backend equals
`reference` bit for bit.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import ExactConfig
from ngram_eval.scorers.backends import load_backend
from ngram_eval.text.stream import Tokens


class ExactModel(Protocol):
    """A stream's counts and the weights learned on it. Tokens are below 2^18 and come in stream order.

    Base distributions are float64: probabilities of the targets, (n,), or rows, (n, V), or (1, V) for all tokens.
    Methods raise `ValueError` for arrays of another form, and for (n,) where rows are needed.
    """

    def append(self, tokens: Tokens) -> None:
        """Count tokens without charging for them or learning from them."""

    def score(
        self, tokens: Tokens, base: NDArray[np.float64], entropy: NDArray[np.float32], *, together: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Charge, count and learn from each token before the next. With `together`, charge all of them first.

        `entropy` (n,) is the base's, in nats. Returns (probabilities (n,), orders (n,)). An order is the length of the
        longest context that had occurred, plus one: 1 if only the empty context had, 0 at the start of the stream.
        """

    def distribution(self, base: NDArray[np.float64], entropy: float) -> NDArray[np.float64]:
        """What `score` would charge each token with, bit for bit, (V,); `base` is (V,). Changes nothing."""

    def distribution_after(self, tokens: Tokens, base: NDArray[np.float64], entropy: float) -> NDArray[np.float64]:
        """What `score` would charge each token with after `tokens`, if scored together with them, (V,)."""

    def distributions(
        self, tokens: Tokens, base: NDArray[np.float64], entropy: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """The distribution before each token, (n, V); each token is then scored. `base` must be rows."""

    def evidence(self, token: int) -> NDArray[np.uint64]:
        """The counts of `token` as the next token: one row per context that has occurred, shortest first, (rows, 7).

        Columns: total, novel_total, distinct and run of the context; count, novel and recent of the successor.
        """

    def learned(self) -> dict[str, NDArray[Any]]:
        """All that is learned besides the counts, as arrays of fixed shapes, about 42 kB per level.

        A model that has appended the same tokens and loads these arrays continues as this one would.
        """

    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None:
        """Load what `learned` of any backend returned; raises `ValueError` for arrays of another form."""

    def size(self) -> dict[str, int]:
        """`positions` counted, `nodes` (n-grams kept) and `bytes` of memory, with those of the stream and the index."""


def make_model(backend: str, max_order: int, config: ExactConfig, threads: int = 1) -> ExactModel:
    """An empty model of the named backend, with contexts of up to max_order - 1 tokens (at most 32 orders).

    `threads` is the most threads a call may use; only `cpu` uses more than one, and never more than two. Raises
    `InputError` for a backend without an exact model.
    """
    model: ExactModel = load_backend(backend, "exact")(max_order, config, threads)
    return model
