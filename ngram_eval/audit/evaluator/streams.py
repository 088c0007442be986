"""Streams to ask with: what is replaced in a text is drawn so that it looks like it, with a known probability."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class Source:
    """Draws tokens: half of them successors of the token before in a text, most others of its tokens, some of any."""

    def __init__(self, text: Ids, alphabet: Ids) -> None:
        self._text, self.alphabet = text, alphabet
        self._counts: dict[int, int] = {}
        self._after: dict[int, list[int]] = {}
        self._pairs: dict[tuple[int, int], int] = {}
        tokens = text.tolist()
        for token in tokens:
            self._counts[token] = self._counts.get(token, 0) + 1
        for before, token in pairwise(tokens):
            self._after.setdefault(before, []).append(token)
            self._pairs[before, token] = self._pairs.get((before, token), 0) + 1
        self._any = set(alphabet.tolist())

    def p(self, before: int, token: int) -> float:
        """The probability that `token` is drawn after `before`."""
        after = self._after.get(before)
        follows = self._pairs.get((before, token), 0) / len(after) if after else 0.0
        occurs = self._counts.get(token, 0) / len(self._text)
        rest = (0.4 if after else 0.9) * occurs + (0.1 / len(self.alphabet) if token in self._any else 0.0)
        return (0.5 * follows if after else 0.0) + rest

    def token(self, before: int, rng: np.random.Generator) -> int:
        """A token to follow `before`."""
        after, kind = self._after.get(before), rng.random()
        if after and kind < 0.5:
            return after[int(rng.integers(len(after)))]
        source = self._text if kind < 0.9 else self.alphabet
        return int(source[int(rng.integers(len(source)))])

    def draw(self, length: int, rng: np.random.Generator, keep: Ids | None = None) -> tuple[Ids, NDArray[np.float64]]:
        """(tokens, nats of each under the law that drew it). With `keep`, half of its tokens stay where they are."""
        tokens, nats = [int(self._text[int(rng.integers(len(self._text)))])], [0.0]
        for place in range(1, length):
            before = tokens[-1]
            kept = None if keep is None else int(keep[place])
            token = kept if kept is not None and rng.random() < 0.5 else self.token(before, rng)
            p = self.p(before, token)
            p = p if kept is None else 0.5 * p + 0.5 * (token == kept)
            tokens.append(token)
            nats.append(-float(np.log(p)))
        return np.array(tokens, np.int64), np.array(nats)

    def other(self, before: int, unlike: int, rng: np.random.Generator) -> int:
        """A token to follow `before` that is not `unlike`."""
        for _ in range(8):
            if (token := self.token(before, rng)) != unlike:
                return token
        others = self.alphabet[self.alphabet != unlike]
        return int(others[int(rng.integers(len(others)))])
