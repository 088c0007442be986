"""Hashed n-gram memory that gives a probability by construction, one backend per file.

A token is a path of binary decisions down a tree over the vocabulary. Every context predicts each decision; weights
learned online mix their logits and the neural model's. A hash collision costs only accuracy: the two outcomes of a
decision always sum to 1. `csrc/mixer/mixer.h` describes the method, `reference.py` is its readable form; every backend
equals it bit for bit.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import MixerConfig
from ngram_eval.errors import InputError
from ngram_eval.scorers.backends import load_backend
from ngram_eval.text.stream import MAX_VOCABULARY, Tokens


class Mixer(Protocol):
    """A stream's contexts and the weights learned on it. Tokens come in stream order.

    Neural distributions are float64 rows, (n, V), or (1, V) for all tokens. Methods raise `ValueError` for arrays of
    another form and for tokens outside the vocabulary.
    """

    def append(self, tokens: Tokens) -> None:
        """Learn from tokens all that does not depend on the neural model, without charging for them."""

    def score(self, tokens: Tokens, base: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Charge and learn from each token before the next. Returns (probabilities (n,), orders (n,)).

        An order is the length of the longest context, of 1, 2, 3 or 6 tokens, that had occurred, plus one: 1 if none
        had, 0 at the start of the stream. Contexts are hashed, so a collision may give a wrong order.
        """

    def score_paths(
        self, tokens: Tokens, branches: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """`score` from the branches of `Tree(spelling.rank)` on each token's path, (n, D), in place of distributions.

        Raises `ValueError` for what is not from 0 to 1, too.
        """

    def decisions(
        self, tokens: Tokens, base: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.float64]]:
        """`score` for a coder of bits: (probabilities (n,), outcomes of decisions (m,), probabilities of a 1 (m,))."""

    def distribution(self, base: NDArray[np.float64]) -> NDArray[np.float64]:
        """What `score` would charge each token with, bit for bit, (V,); `base` is (V,). Changes nothing."""

    def evidence(
        self, token: int, base: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """The counts and shares of each context for `token` as the next token; `base` is (V,). Changes nothing.

        Returns (occurrences of each context, as far as its bit history at the first decision remembers them, up to 45
        (contexts,); number of times that the last decision on the token's path had the token's outcome (contexts,);
        shares of the mixed logits by size, over the path's decisions, the neural model's last (contexts + 1,)). The
        rest of the shares, to 1, belongs to the other inputs.
        """

    def begin(self, base: NDArray[np.float64]) -> float:
        """The probability of a 1 at the next token's first decision; `base` is (V,)."""

    def decide(self, bit: int) -> float:
        """Learn the outcome of a decision; returns the probability of a 1 at the next, unless `token_known`.

        Raises `ValueError` unless `begin` has started a decision that no other method has ended.
        """

    @property
    def neural_weight(self) -> float:
        """The switch's weight of the neural model alone, 0 to 1."""

    @property
    def token_known(self) -> bool:
        """Whether the decisions since `begin` have reached a token; the mixer has then learned from it."""

    @property
    def token(self) -> int:
        """The token that the decisions have reached."""

    def learned(self) -> dict[str, NDArray[Any]]:
        """The weights, as arrays of fixed shapes.

        A mixer that has appended the same tokens and loads these arrays continues as this one would.
        """

    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None:
        """Load what `learned` returned; the same tokens must have been appended before."""


MAX_RECURRENT = 4096
"""The largest vocabulary of the recurrent network, by which its cost grows (kMostTokens, csrc/mixer/recurrent.h)."""

TOKEN_CONTEXTS = {3: 0, 4: 2, 7: 5}
"""Order -> index of its context in a mixer; a mixer with fewer contexts has fewer orders."""


class Spelling(NamedTuple):
    """The bytes that tokens spell, and the tokens sorted by them: the leaves of the tree."""

    surfaces: list[bytes]
    """Bytes of each token; empty for a token that spells nothing."""
    rank: NDArray[np.uint32]
    """Place of each token, (V,), sorted by surface, then by token."""


def spelling_of(surfaces: Sequence[bytes | None]) -> Spelling:
    """The spelling of tokens with these surfaces; raises `InputError` unless there are 2 to `MAX_VOCABULARY`."""
    if not 2 <= len(surfaces) <= MAX_VOCABULARY:
        raise InputError(f"the mixer takes a vocabulary of 2 to {MAX_VOCABULARY:,} tokens, not {len(surfaces):,}")
    spelt = [surface or b"" for surface in surfaces]
    rank = np.empty(len(spelt), np.uint32)
    rank[sorted(range(len(spelt)), key=lambda token: (spelt[token], token))] = np.arange(len(spelt))
    return Spelling(spelt, rank)


def unspelt(vocab_size: int) -> Spelling:
    """The spelling without a tokenizer: a token spells its number, in four bytes."""
    return spelling_of([token.to_bytes(4, "big") for token in range(vocab_size)])


def make_mixer(backend: str, config: MixerConfig, spelling: Spelling, *, neural: bool) -> Mixer:
    """An empty mixer of the named backend; `neural`: whether its distributions come from a trained model.

    Raises `InputError` for a backend without a mixer, and for cells beside a vocabulary above `MAX_RECURRENT`.
    """
    if config.cells and len(spelling.rank) > MAX_RECURRENT:
        raise InputError(
            f"--cells is {config.cells} beside a vocabulary of {len(spelling.rank):,}: the network takes up to "
            f"{MAX_RECURRENT:,} tokens; give --cells 0"
        )
    weight = config.start_weight / 4 if neural else config.start_weight
    mixer: Mixer = load_backend(backend, "mixer")(config, spelling, weight=weight)
    return mixer
