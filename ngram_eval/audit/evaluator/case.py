"""What the probes of an evaluator share: the text, what replaces parts of it, and askers, which put questions."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.case import Data
from ngram_eval.audit.claim import Claim
from ngram_eval.audit.evaluator.ask import Answer, Evaluator, answered
from ngram_eval.audit.evaluator.process import Refused
from ngram_eval.audit.evaluator.streams import Ids, Source
from ngram_eval.audit.finding import NotApplicable
from ngram_eval.errors import InputError

Made = TypeVar("Made")
Questions = Generator[list[Ids], list[Answer | Refused], Made]
"""Yields streams, is sent what the evaluator said to each, and returns what was found out."""

AT_ONCE = 256
"""Questions that are put before the answers are looked at."""
_ENDING = 32
"""Fewer tokens than this follow the one that a question is about."""
_PRINTED = np.array([9, 10, *range(32, 127)])
"""Bytes that a text may be of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """How much an evaluator is asked."""

    endings: int = 2048
    """Other endings of the text: so many runs, each with everything after another position replaced."""
    sums: int = 8192
    """Runs for sums over the vocabulary: with V tokens they reach for so many / V positions."""
    scattered: int = 32
    """Streams of other lengths; and so many document starts at which the text is cut."""

    def check(self) -> None:
        """Raise `InputError` for numbers out of range."""
        if min(self.endings, self.sums, self.scattered) < 1:
            raise InputError("--endings, --sums and --scattered are at least 1")


class Case:
    """An evaluator, a text, and what is asked with them."""

    def __init__(
        self,
        evaluator: Evaluator,
        data: Data,
        vocab_size: int,
        *,
        claim: Claim,
        asking: Asking,
        seed: int,
    ) -> None:
        self.evaluator, self.data, self.vocab_size, self.claim = evaluator, data, vocab_size, claim
        self.asking, self.seed = asking, seed
        self.tokens, self.text = data.tokens, data.tokens.astype(np.int64)
        self.source = Source(self.text, _PRINTED if evaluator.place.of_bytes else np.arange(vocab_size))
        self.consulted = 0
        """Questions of the askers whose findings were used so far."""
        self._made: dict[Any, Any] = {}
        self._put: dict[Any, int] = {}

    def once(self, asker: "Asker[Made]") -> Made:
        """What an asker has found out: it asks once, for all probes that need it."""
        self.together(asker)
        self.consulted += self._put[asker]
        if isinstance(self._made[asker], NotApplicable):
            raise self._made[asker]
        found: Made = self._made[asker]
        return found

    def together(self, *askers: "Asker[Any]", advance: Callable[[int], None] = lambda done: None) -> None:
        """Let askers ask side by side, all questions in one random order: a caller can't tell which is whose."""
        running = {asker: asker(self) for asker in askers if asker not in self._made}
        answers: dict[Any, Any] = dict.fromkeys(running)
        self._put |= dict.fromkeys(running, 0)
        rng = self.rng(12)
        while running:
            put: list[tuple[Any, int, Ids]] = []
            for asker, questions in list(running.items()):
                try:
                    streams = questions.send(answers[asker])
                except (StopIteration, NotApplicable) as end:
                    self._made[asker] = end.value if isinstance(end, StopIteration) else end
                    del running[asker]
                else:
                    answers[asker] = [None] * len(streams)
                    put += [(asker, at, one) for at, one in enumerate(streams)]
                    self._put[asker] += len(streams)
            put = [put[which] for which in rng.permutation(len(put))]
            said = self.evaluator.try_to([stream for _, _, stream in put])
            for (asker, at, _), answer in zip(put, said, strict=True):
                answers[asker][at] = answer
            advance(len(put))

    def rng(self, purpose: int) -> np.random.Generator:
        """A generator of its own for each purpose: a probe asks the same whatever was asked before."""
        return np.random.default_rng((self.seed, purpose))

    @cached_property
    def base(self) -> Answer:
        """The text, scored."""
        self.evaluator.learn_noise(self.text)
        return self.evaluator.ask([self.text])[0]

    @property
    def charges(self) -> NDArray[np.float64]:
        """What each token of the text is charged, (N,); raises `NotApplicable` if only the total is known."""
        if self.base.nats is None:
            raise NotApplicable("it gives totals: what one position is charged can't be seen in a longer stream")
        return self.base.nats

    @cached_property
    def noise(self) -> Ids:
        """Drawn tokens, to replace what follows a cut by parts of them."""
        return self.source.draw(2 * len(self.text), self.rng(0))[0]

    def replaced(self, cut: int, rng: np.random.Generator) -> Ids:
        """The text with the tokens from `cut` on replaced, the first by another than it was."""
        rest = len(self.text) - cut
        begin = int(rng.integers(len(self.noise) - rest))
        stream = np.concatenate([self.text[:cut], self.noise[begin : begin + rest]])
        stream[cut] = self.source.other(int(self.text[cut - 1]), int(self.text[cut]), rng)
        return stream

    def values(self, prefix: Ids, tokens: Ids, rng: np.random.Generator) -> Questions[NDArray[np.float64]]:
        """The value of each token as the next after a prefix; raises `NotApplicable` if it is not charged.

        A few others follow it, as in any text; of totals, its cost is what it adds to that of the prefix.
        """
        if self.base.nats is None:
            before, *all_ = yield from asked([prefix, *(np.append(prefix, token) for token in tokens)])
            return np.exp([before.total - one.total for one in all_])
        ends = rng.integers(_ENDING, size=len(tokens))
        if self.whole_sequences:
            ends[:] = len(self.text)
        begin = int(rng.integers(len(self.text)))
        rest = [self.noise[begin : begin + end] for end in ends]
        streams = [np.concatenate([prefix, [token], more]) for token, more in zip(tokens, rest, strict=True)]
        answers = yield from asked(streams)
        costs = np.array([one.nats[len(prefix)] for one in answers if one.nats is not None])
        if np.isnan(costs).any():
            raise NotApplicable(f"the token after the first {len(prefix):,} is not charged")
        values: NDArray[np.float64] = np.exp(-costs)
        return values

    @cached_property
    def whole_sequences(self) -> bool:
        """Whether it leaves out the last tokens of some streams, as who charges whole sequences only."""
        (answer,) = self.evaluator.ask([self.text[:-1]])
        return any(one.nats is not None and bool(np.isnan(one.nats[-1])) for one in (answer, self.base))

    @cached_property
    def least(self) -> int:
        """A number of tokens from which on it scores a stream: some refuse what is shorter than their windows.

        Or they charge nothing of it, and divide by that.
        """
        lengths = [1 << power for power in range(1, len(self.text).bit_length()) if 1 << power < len(self.text)]
        answers = self.evaluator.try_to([self.text[:length] for length in lengths])
        refused = [
            length
            for length, one in zip(lengths, answers, strict=True)
            if isinstance(one, Refused) or (one.nats is None and np.isnan(one.total))
        ]
        return 2 * max(refused, default=1)

    @cached_property
    def starts(self) -> Ids:
        """Where documents start: with the token that the claim says; else with tokens that have no text."""
        if self.claim.document_start is not None:
            tokens = [self.claim.document_start]
        else:
            surfaces = self.data.tokenizer.surfaces() if self.data.tokenizer is not None else []
            tokens = [token for token, surface in enumerate(surfaces) if surface is None]
        starts = np.flatnonzero(np.isin(self.text, tokens))
        return starts[starts > 0]


Asker = Callable[[Case], Questions[Made]]
"""What asks, in one or more rounds, and makes something of the answers; raises `NotApplicable` if it can't."""


def asked(streams: list[Ids]) -> Questions[list[Answer]]:
    """Put questions that must be answered; raises `Refused` if the evaluator raised on one."""
    return answered((yield streams))


def batches(order: Ids) -> Iterator[Ids]:
    """The entries in parts of so many as are asked at once."""
    for begin in range(0, len(order), AT_ONCE):
        yield order[begin : begin + AT_ONCE]
