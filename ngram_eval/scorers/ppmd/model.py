"""A language model mixed byte by byte with a byte-level PPM-D, one backend per file.

The method of the submissions of April 2026. A token is charged with the product over its bytes of
λ · (the model's share of the byte) + (1 - λ) · (PPM-D's value of the byte). With the published share, the root
p(token)^(1 / bytes), these products are no probability: the share depends on the token that came. `reference.py` is the
specification; every backend equals it bit for bit, on one machine.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import ByteRule, PpmdConfig
from ngram_eval.errors import InputError
from ngram_eval.scorers.backends import load_backend
from ngram_eval.text.stream import Tokens


class CountsOnly:
    """A model of an online scorer that learns nothing besides its counts."""

    def learned(self) -> dict[str, NDArray[Any]]:
        return {}

    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None:
        if learned:
            raise ValueError(f"a byte mixture learns nothing, but {', '.join(learned)} were given")


class Ppmd(Protocol):
    """The counts of a stream's bytes. Tokens come in stream order; all bytes of orders 1 to `max_order` are counted.

    An order n has a context of n - 1 bytes. Methods raise `ValueError` for arrays of another form and for tokens
    outside the vocabulary.
    """

    def append(self, tokens: Tokens) -> None:
        """Count the bytes of tokens without charging for them."""

    def score(
        self, tokens: Tokens, p: NDArray[np.float64], rows: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.float64]]:
        """Charge each byte, then count it. Returns (values (n,), orders (n,), weights (n,)).

        `p` (n,) are the model's probabilities of the tokens; `rows` (n, V), or (1, V) for all, its whole distributions,
        which the marginal share needs and the other must not get. An order is that of the longest context that had
        occurred before a token's first byte, 0 if none had; a weight is the mean of PPM-D's over a token's bytes.
        """

    def distribution(self, base: NDArray[np.float64], target: int | None = None) -> NDArray[np.float64]:
        """What `score` would charge each token with, bit for bit, (V,); `base` is (V,). Changes nothing.

        With a `target`, its bytes choose the weights of all tokens' bytes, place by place.
        """

    def evidence(
        self, token: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """The counts of each order for `token` as the next token. Changes nothing.

        Returns (times that the context before the first byte occurred, different bytes after it, times that the first
        byte came after it, (max_order,) each; mean weight over the token's bytes of the order that PPM-D took the byte
        from, first that of none, (max_order + 1,)).
        """

    def learned(self) -> dict[str, NDArray[Any]]:
        """Nothing."""

    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None:
        """Load what `learned` returned; raises `ValueError` for anything."""


class ByteSpelling(NamedTuple):
    """The bytes of each token; empty for a token that spells nothing, which is charged the model's probability."""

    surfaces: list[bytes]
    bare: list[bytes]
    """After a token that spells nothing."""


def byte_spelling(surfaces: Sequence[bytes | None] | None, rule: ByteRule) -> ByteSpelling:
    """The spelling of tokens with these surfaces under a byte rule.

    By the rule "piece", a token's leading space is no byte after a token that spells nothing. Raises `InputError`
    unless some token spells something.
    """
    spelt = [surface or b"" for surface in surfaces or ()]
    if not any(spelt):
        raise InputError(
            "a mixture of bytes needs the bytes of tokens, and there is no tokenizer that knows them: give "
            "--tokenizer, or another --preset"
        )
    bare = [surface.removeprefix(b" ") for surface in spelt] if rule == "piece" else spelt
    return ByteSpelling(spelt, bare)


def make_ppmd(backend: str, config: PpmdConfig, max_order: int, spelling: ByteSpelling) -> Ppmd:
    """An empty byte mixture of the named backend; raises `InputError` for a backend without one."""
    model: Ppmd = load_backend(backend, "ppmd")(config, max_order, spelling)
    return model
