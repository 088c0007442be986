"""What the probes of an evaluator share: the text, what replaces parts of it, and one sweep of cuts over the text."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.alphabet import ByteTokenizer
from ngram_eval.audit.case import Data
from ngram_eval.audit.claim import Claim
from ngram_eval.audit.evaluator.ask import Answer, Evaluator
from ngram_eval.audit.evaluator.process import Question
from ngram_eval.audit.evaluator.streams import Ids, Source
from ngram_eval.audit.finding import NotApplicable
from ngram_eval.errors import InputError

Made = TypeVar("Made")

_AT_ONCE = 256
"""Questions that are put before the answers are looked at."""
_END = 32
"""Tokens before the end, each of which is a cut."""
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


@dataclass(frozen=True, slots=True)
class Change:
    """A charge that differs between two runs that have the same past there."""

    cut: int
    """The first token that was replaced."""
    token: int
    """The token whose charge differs."""
    was: float
    becomes: float

    @property
    def size(self) -> float:
        """Nats; infinity for NaN."""
        return difference(self.was, self.becomes)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What cuts have shown."""

    cuts: Ids
    """The cuts, ascending: at cut c the tokens from c on were replaced, c by another."""
    twos: NDArray[np.float64]
    """At each cut, the sum of what two tokens had there: the text's, and another."""
    worst: Change | None
    """The largest change before a cut."""
    changed: int
    """Cuts before which something changed by more than the tolerance."""


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
        self.as_bytes = isinstance(data.tokenizer, ByteTokenizer)
        self.tokens, self.text = data.tokens, data.tokens.astype(np.int64)
        self._made: dict[Any, Any] = {}
        self.source = Source(self.text, _PRINTED if self.as_bytes else np.arange(vocab_size))

    def once(self, make: Callable[["Case"], Made]) -> Made:
        """What `make` makes of the case, made once for all probes that need it."""
        if make not in self._made:
            self._made[make] = make(self)
        found: Made = self._made[make]
        return found

    def rng(self, purpose: int) -> np.random.Generator:
        """A generator of its own for each purpose: a probe asks the same whatever was asked before."""
        return np.random.default_rng((self.seed, purpose))

    def question(self, tokens: Ids) -> Question:
        """The stream as the evaluator gets it."""
        return tokens.astype(np.uint8).tobytes() if self.as_bytes else tokens

    def ask(self, streams: list[Ids]) -> list[Answer]:
        """The answers to streams of tokens."""
        return self.evaluator.ask([self.question(one) for one in streams])

    @cached_property
    def base(self) -> Answer:
        """The text, scored."""
        question = self.question(self.text)
        self.evaluator.learn_noise(question)
        return self.evaluator.ask([question])[0]

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

    def cost(self, streams: list[Ids]) -> NDArray[np.float64]:
        """What the last token of each stream is charged, NaN where it is not; of totals, what it adds to them."""
        answers = self.ask(streams)
        if answers[0].nats is not None and np.isnan(answers[0].nats[-1]):  # it may charge whole sequences only
            rest = [self.noise[: len(self.text) - len(one)] for one in streams]
            answers = self.ask([np.append(one, more) for one, more in zip(streams, rest, strict=True)])
        if answers[0].nats is not None:
            charges = [one.nats for one in answers if one.nats is not None]
            return np.array([one[len(stream) - 1] for one, stream in zip(charges, streams, strict=True)])
        before = self.ask([one[:-1] for one in streams])
        return np.array([one.total - other.total for one, other in zip(answers, before, strict=True)])

    @cached_property
    def least(self) -> int:
        """A number of tokens from which on it scores a stream: some refuse what is shorter than their windows."""
        lengths = [1 << power for power in range(1, len(self.text).bit_length()) if 1 << power < len(self.text)]
        answers = self.evaluator.try_to([self.question(self.text[:length]) for length in lengths])
        refused = [length for length, answer in zip(lengths, answers, strict=True) if answer is None]
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

    @cached_property
    def sweep(self) -> Sweep:
        """Cuts all over the text, one in each of equal parts, and at its last tokens and the starts of documents."""
        rng, last = self.rng(2), len(self.text) - 1
        parts = min(self.asking.endings, last)
        spread = 1 + ((np.arange(parts) + rng.random(parts)) * last / parts).astype(np.int64)
        starts = rng.permutation(self.starts)[: self.asking.scattered]
        near = np.concatenate([starts + step for step in (0, 1, 2, 3)])
        cuts = np.concatenate([spread, np.arange(max(last - _END, 1), last + 1), near])
        cuts = np.unique(cuts[(cuts >= 1) & (cuts <= last)])
        twos = np.full(len(cuts), np.nan)
        order = rng.permutation(len(cuts))  # a caller can't tell what comes next
        return self._totals(cuts, twos, order, rng) if self.base.nats is None else self._sweep(cuts, twos, order, rng)

    def _sweep(self, cuts: Ids, twos: NDArray[np.float64], order: Ids, rng: np.random.Generator) -> Sweep:
        base, tolerance = self.charges, self.evaluator.tolerance
        worst, changed = None, 0
        for which in batches(order):
            streams = [self.replaced(int(cuts[at]), rng) for at in which]
            for at, answer in zip(which.tolist(), self.ask(streams), strict=True):
                cut = int(cuts[at])
                assert answer.nats is not None
                twos[at] = np.exp(-base[cut]) + np.exp(-answer.nats[cut])
                off = differences(base[:cut], answer.nats[:cut])
                token = int(np.argmax(off))
                changed += bool(off[token] > tolerance)
                if worst is None or off[token] > worst.size:
                    worst = Change(cut, token, float(base[token]), float(answer.nats[token]))
        return Sweep(cuts, twos, worst, changed)

    def _totals(self, cuts: Ids, twos: NDArray[np.float64], order: Ids, rng: np.random.Generator) -> Sweep:
        order = order[cuts[order] > self.least]
        for which in batches(order):
            streams = [self.text[: cut + 1] for cut in cuts[which]]
            others = [np.append(self.text[:cut], self.replaced(int(cut), rng)[cut]) for cut in cuts[which]]
            twos[which] = np.exp(-self.cost(streams)) + np.exp(-self.cost(others))
        return Sweep(cuts, twos, None, 0)


def batches(order: Ids) -> Iterator[Ids]:
    """The entries in parts of so many as are asked at once."""
    for begin in range(0, len(order), _AT_ONCE):
        yield order[begin : begin + _AT_ONCE]


def differences(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nats between two charges of the same tokens; 0 where neither is charged or both are infinite, else infinity."""
    same = (np.isnan(a) & np.isnan(b)) | (a == b)
    with np.errstate(invalid="ignore"):
        return np.where(same, 0.0, np.nan_to_num(np.abs(a - b), nan=np.inf))


def difference(a: float, b: float) -> float:
    """`differences` of one charge."""
    return float(differences(np.array([a]), np.array([b]))[0])
