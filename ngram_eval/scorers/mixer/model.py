"""Hashed n-gram memory that is a probability by construction, one backend a file.

A token is a path of binary decisions down a tree over the vocabulary; every context predicts each decision, and their
logits are mixed, with the neural model's among them, by weights learned online. A hash collision costs accuracy, and
never more: the two outcomes of a decision sum to 1. `csrc/mixer/mixer.h` has the method, `reference.py` its readable
form; every backend equals it bit for bit.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import MixerConfig
from ngram_eval.errors import InputError
from ngram_eval.scorers.backends import load_backend
from ngram_eval.text.stream import Tokens

MAX_VOCAB = 1 << 18


class Mixer(Protocol):
    """A stream's contexts and the weights learned on it. Tokens are taken in stream order.

    Neural distributions come as rows, float64, (n, V), or (1, V) for all. Methods raise `ValueError` for arrays of
    another form or tokens outside the vocabulary.
    """

    def append(self, tokens: Tokens) -> None:
        """Learn from tokens what does not depend on the neural model, without charging for them."""

    def score(self, tokens: Tokens, base: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Charge each token, learn from it; then the next. Returns (n,) probabilities and (n,) orders.

        An order is that of the longest of the contexts of 1, 2, 3, 4 and 6 tokens that had occurred, its tokens plus
        one; 1 where none had, 0 at the start of the stream. Hashed, so it may err where contexts collide.
        """

    def decisions(
        self, tokens: Tokens, base: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.float64]]:
        """`score`, for a coder of bits: ((n,) probabilities, (m,) outcomes of all decisions, (m,) of a 1 at each)."""

    def distribution(self, base: NDArray[np.float64]) -> NDArray[np.float64]:
        """(V,): what `score` would charge each token with, bit for bit; `base` (V,). Changes nothing."""

    def evidence(
        self, token: int, base: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """What each context has to say of `token` as the next one; `base` (V,). Changes nothing.

        (contexts,) times it occurred, as far as its bit history at the first decision remembers (up to 45); (contexts,)
        times that the last decision on the token's path went its way there; (contexts + 1,) shares of the mixed logits,
        by size, over the path's decisions, the last one the neural model's. What is left of 1 is the other inputs'.
        """

    def begin(self, base: NDArray[np.float64]) -> float:
        """The probability of a 1 at the next token's first decision; `base` (V,)."""

    def decide(self, bit: int) -> float:
        """Take in the outcome; the probability of a 1 at the next decision, unless `token_known` now.

        Raises `ValueError` unless a decision is under way, begun by `begin` and not ended by any other method.
        """

    @property
    def neural_weight(self) -> float:
        """The switch's weight of the neural model alone, 0 to 1."""

    @property
    def token_known(self) -> bool:
        """Whether the decisions since `begin` have come to a token, which has then been learned from."""

    @property
    def token(self) -> int:
        """That token."""

    def learned(self) -> dict[str, NDArray[Any]]:
        """The weights, as arrays of fixed shapes: with the same tokens appended, a mixer that loads them goes on."""

    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None:
        """Go on as the mixer that `learned` is from; the same tokens have been appended."""


TOKEN_CONTEXTS = {2: 19, 3: 0, 4: 2, 5: 14, 7: 5}
"""Order -> its context, among those of a mixer; fewer contexts hold fewer orders."""


class Spelling(NamedTuple):
    """What the tokens of a vocabulary spell, and their order by it: the leaves of the tree."""

    surfaces: list[bytes]
    """By token; empty where it spells nothing."""
    rank: NDArray[np.uint32]
    """(V,): place of each token among all, in the order of surfaces, then of tokens."""


def spelling_of(surfaces: Sequence[bytes | None]) -> Spelling:
    """The spelling of tokens with these surfaces; raises `InputError` unless they are 2 to 262,144."""
    if not 2 <= len(surfaces) <= MAX_VOCAB:
        raise InputError(f"the mixer takes a vocabulary of 2 to {MAX_VOCAB} tokens, not {len(surfaces)}")
    spelt = [surface or b"" for surface in surfaces]
    rank = np.empty(len(spelt), np.uint32)
    rank[sorted(range(len(spelt)), key=lambda token: (spelt[token], token))] = np.arange(len(spelt))
    return Spelling(spelt, rank)


def unspelt(vocab_size: int) -> Spelling:
    """Without a tokenizer a token spells its number, in four bytes."""
    return spelling_of([token.to_bytes(4, "big") for token in range(vocab_size)])


def make_mixer(backend: str, config: MixerConfig, spelling: Spelling, *, neural: bool) -> Mixer:
    """An empty mixer of the named backend; `neural` says whether its distributions come from a model that knows things.

    Raises `InputError` for a backend that has none.
    """
    weight = config.start_weight / 4 if neural else config.start_weight
    mixer: Mixer = load_backend(backend, "mixer")(config, spelling, weight=weight)
    return mixer
