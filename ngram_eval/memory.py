"""An n-gram memory for any decoding loop: a model's distribution in, the blended one out.

    memory = NgramMemory()
    memory.observe(prompt)                      # counted
    for ...:
        p = softmax(model(...))                 # (V,)
        token = sample(memory.distribution(p))  # sums to 1, as p does
        memory.observe([token], p[None])        # counted, and learned from

It is the evaluator's own scorer, so what it gives a token is what the evaluator charges for it, bit for bit.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ngram_eval.config import EvalConfig, preset
from ngram_eval.counts import Tokens
from ngram_eval.errors import InputError
from ngram_eval.neural import Stats
from ngram_eval.samples import entropy_of
from ngram_eval.scorers import Vocabulary, make_scorer
from ngram_eval.windows import Windows

_ROOM = 1 << 10
"""Tokens there is room for at first."""
_SUM = 1e-3
"""Most that a distribution given may miss 1 by: half-precision softmaxes do."""


class NgramMemory:
    """What has been observed of one sequence, and a blend of it with a model's distribution.

    `config` is an `EvalConfig` or a preset's name, of a method that charges probabilities (exact, tilt, mixer): a
    hashed score is no distribution, so there is nothing to draw from. Its windows do not matter here. The mixer asks
    for the `vocabulary`.
    """

    def __init__(
        self, config: EvalConfig | str = "exact", *, vocabulary: Vocabulary | None = None, backend: str = "cpu"
    ) -> None:
        """Raises `InputError` for a method whose values do not sum to 1, or that lacks a vocabulary or the backend."""
        self.config = preset(config) if isinstance(config, str) else config
        if not self.config.normalised:
            raise InputError(
                "this method's values over the vocabulary sum to more than 1, so they are no distribution: give exact, "
                "tilt or mixer"
            )
        if self.config.scorer == "mixer" and vocabulary is None:
            raise InputError(
                "the mixer asks what tokens spell: give vocabulary=Vocabulary(size, surfaces, neural=True)"
            )
        self._vocabulary, self._backend = vocabulary, backend
        self._scorer = make_scorer(backend, self.config, vocabulary=vocabulary)
        self._room: Tokens = np.zeros(_ROOM, np.uint32)
        self._length = 0

    def __len__(self) -> int:
        """Tokens observed."""
        return self._length

    @property
    def tokens(self) -> Tokens:
        """(N,) uint32, all tokens observed; a view."""
        return self._room[: self._length]

    def observe(self, tokens: ArrayLike, probabilities: ArrayLike | None = None) -> None:
        """Count tokens (n,) that came next, and learn from them.

        `probabilities` (n, V) are the model's distributions before each; without them, tokens are only counted, and the
        weights of the blend stay as they are. The first token of all has no context and is only counted. Raises
        `InputError` for anything else.
        """
        found = np.asarray(tokens)
        if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
            raise InputError(f"tokens are {found.dtype} of shape {found.shape}: give one integer a token, (n,)")
        rows = None if probabilities is None else _rows(probabilities, len(found))
        limit = (1 << 18) if rows is None else rows.shape[1]
        if found.size and (found.min() < 0 or found.max() >= limit):
            raise InputError(f"tokens reach from {found.min()} to {found.max()}: they must lie in [0, {limit:,})")
        first, stop = max(self._length - 1, 0), self._length + len(found) - 1
        skipped = int(self._length == 0)  # the first token is nobody's target
        self._append(found)
        if stop <= first:
            return
        if rows is None:
            self._scorer.prefill(self.tokens, first, stop, lambda counted: None)
            return
        rows = rows[skipped:]
        targets = found[skipped:]
        entropy = np.array([entropy_of(row) for row in rows], np.float32)
        window = Windows(np.array([0]), np.array([first]), np.array([stop]), stop)
        stats = Stats(rows[np.arange(len(rows)), targets], entropy, rows if self._scorer.needs_rows else None)
        self._scorer.score(self.tokens, window, stats)

    def distribution(self, probabilities: ArrayLike) -> NDArray[np.float64]:
        """(V,): the blend of the memory with the model's distribution (V,) of the next token. Changes nothing.

        It sums to 1 as `probabilities` do, to rounding. Raises `InputError` for anything but a distribution.
        """
        row: NDArray[np.float64] = _rows(np.asarray(probabilities)[None], 1)[0]
        if self._length == 0:
            return row
        return self._scorer.distribution(self.tokens, self._length - 1, row, entropy_of(row))

    def copy(self) -> "NgramMemory":
        """A memory of its own that goes on as this one would; counts all tokens again, a million a second."""
        other = NgramMemory(self.config, vocabulary=self._vocabulary, backend=self._backend)
        other._append(self.tokens)
        if self._length > 1:
            other._scorer.prefill(other.tokens, 0, self._length - 1, lambda counted: None)
            other._scorer.load_learned(self._scorer.learned())
        return other

    def _append(self, tokens: NDArray[np.integer]) -> None:
        needed = self._length + len(tokens)
        if needed > len(self._room):
            grown: Tokens = np.zeros(max(needed, 2 * len(self._room)), np.uint32)
            grown[: self._length] = self.tokens
            self._room = grown
        self._room[self._length : needed] = tokens
        self._length = needed


def _rows(probabilities: ArrayLike, count: int) -> NDArray[np.float64]:
    """(count, V) float64, each a distribution."""
    rows = np.ascontiguousarray(probabilities, np.float64)
    if rows.ndim != 2 or len(rows) != count or rows.shape[1] == 0:
        raise InputError(f"probabilities have the shape {rows.shape}: give one distribution a token, ({count}, V)")
    sums = rows.sum(axis=1)
    if not (rows >= 0).all() or not (np.abs(sums - 1) <= _SUM).all():
        raise InputError(
            f"probabilities must not be negative and must sum to 1, and they reach from {rows.min()} to {rows.max()} "
            f"and sum to {sums[np.argmax(np.abs(sums - 1))]}: give softmax(logits), not the logits"
        )
    return rows
