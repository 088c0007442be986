"""A subject, the data, and how thoroughly it is probed; results that several probes need are computed once."""

import secrets
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.claim import Claim
from ngram_eval.audit.finding import NotApplicable, Reach
from ngram_eval.audit.precision import Precision, precision_of
from ngram_eval.audit.subject import Glimpse, Subject, Trace
from ngram_eval.bpb import bits_per_byte
from ngram_eval.config import WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.text.samples import choose_samples
from ngram_eval.text.shards import TokenStream
from ngram_eval.text.stream import Stream, Tokens
from ngram_eval.text.tokenizer import TextTokenizer

AFTER = 64
"""Tokens after a cut that a subject scores which is given the past alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probing:
    """How much of the data is probed, and how thoroughly."""

    positions: int = 4096
    """Number of positions to audit, from the start of the data; 0 for all. Every probe scores them several times."""
    samples: int = 128
    """Number of positions at which whole distributions are checked, where checking all would need a pass for each."""
    cuts: int = 2
    """Number of places; all tokens after a place are replaced."""
    seed: int | None = None
    """Seed of the random choices. Default: a secret one, drawn anew and printed: nobody can behave where it looks."""

    def check(self) -> None:
        """Raise `InputError` for numbers out of range."""
        if self.samples < 1 or self.cuts < 1 or self.positions < 0:
            raise InputError("--samples and --cuts are at least 1, --positions is at least 0")
        if self.cuts > self.samples:
            raise InputError(f"--cuts is {self.cuts}: give no more than --samples ({self.samples})")
        if self.seed is not None and self.seed < 0:
            raise InputError(f"--seed is {self.seed}: give a number that an audit printed, or none")

    @property
    def seeded(self) -> "Probing":
        """With a seed."""
        return self if self.seed is not None else replace(self, seed=secrets.randbits(32))

    def tokens(self, stream: TokenStream, at_least: int) -> Tokens:
        """The tokens to audit: those of `positions` positions, but at least `at_least`, and the last target."""
        positions = max(self.positions, at_least) if self.positions else len(stream.tokens) - 1
        tokens: Tokens = stream.tokens[: positions + 1]
        return tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """What is audited, and what is known of it."""

    tokens: Tokens
    """The tokens that are audited."""
    tokenizer: TextTokenizer | None = None
    text: bytes | None = None
    """The text that they were cut from, from its start, if it is known."""
    whole: bool = True
    """Whether these are all tokens of the text."""
    total: int = 0
    """Tokens of the whole data."""
    files: tuple[Path, ...] = ()
    """The files that hold it."""
    artifact: Path | None = None
    """The model's file; a claim may state its size."""
    training: Stream | None = None
    """What the model was trained on, to be searched for the text."""
    kept: Tokens | None = None
    """The tokens that were counted before the text, if any."""
    precision: Precision | None = None
    """The precision of the values, if it is declared."""


class Told(Protocol):
    """What is told of any subject, to be compared with files."""

    @property
    def claim(self) -> Claim: ...
    @property
    def data(self) -> Data: ...
    @property
    def tokens(self) -> Tokens: ...


@dataclass(frozen=True, eq=False)
class Case:
    """A subject and the data of its probes."""

    subject: Subject
    data: Data
    probing: Probing = field(default_factory=lambda: Probing(seed=0))
    claims: Claim = field(default_factory=Claim)
    """The claims of --claim."""

    @property
    def tokens(self) -> Tokens:
        """The tokens that are audited."""
        return self.data.tokens

    @cached_property
    def expected(self) -> int:
        """Number of positions that should be charged for."""
        return self.subject.expected(self.tokens)

    @cached_property
    def samples(self) -> NDArray[np.int64]:
        """Positions charged for, ascending: one from each of equal parts, and the last; the same for all subjects."""
        found: NDArray[np.int64] = np.intersect1d([*self._drawn, self.trace.positions.max()], self.trace.positions)
        return found

    @cached_property
    def _drawn(self) -> NDArray[np.int64]:
        return choose_samples(self.expected, self.probing.samples, WindowConfig(rescore_tail=False), self.seed)

    @property
    def seed(self) -> int:
        """The seed of the random choices."""
        if self.probing.seed is None:
            raise ValueError("an audit has one seed for all cases: ask `Probing.seeded`")
        return self.probing.seed

    @property
    def reach(self) -> Reach:
        """How far a probe looks that asks at the samples."""
        return Reach(len(self.samples), self.expected)

    @cached_property
    def cuts(self) -> list[int]:
        """Samples after which all tokens are replaced; early ones where what follows does not matter."""
        chosen = self.samples[: max(len(self.samples) // 4, 1)] if self.subject.past_only else self.samples[:-1]
        chosen = chosen if len(chosen) else self.samples
        places = np.arange(1, self.probing.cuts + 1) * len(chosen) // (self.probing.cuts + 1)
        return sorted(set(chosen[places].tolist()))

    @cached_property
    def trace(self) -> Trace:
        """The unchanged stream, scored."""
        return self.subject.score(self.tokens, self._drawn)

    @property
    def repeated(self) -> Tokens:
        """The tokens that are scored again: of what is asked position by position, a first part must do."""
        return self.tokens[: max(len(self.tokens) // 4, self.subject.short)] if self.subject.past_only else self.tokens

    @property
    def claim(self) -> Claim:
        """The claim of --claim; missing fields are taken from the subject itself."""
        return self.claims | self.trace.claim

    @cached_property
    def vocab_size(self) -> int:
        """V."""
        return self.subject.vocab_size(self.tokens)

    @cached_property
    def vocabulary(self) -> NDArray[np.int64]:
        """The tokens that a text may hold: those with text, where a tokenizer tells.

        Without one, all but the last that have no probability anywhere: they fill a vocabulary up to a round size.
        """
        if self.data.tokenizer is None:
            possible = np.any([one.values > 0 for one in self.glimpses], axis=0)
            return np.arange(max(int(np.flatnonzero(possible).max(initial=0)), int(self.tokens.max())) + 1)
        surfaces = self.data.tokenizer.surfaces()[: self.vocab_size]
        return np.array([token for token, surface in enumerate(surfaces) if surface is not None])

    @cached_property
    def glimpses(self) -> list[Glimpse]:
        """The distributions at the samples, with everything after them withheld."""
        assert len(self.trace.values)  # neural statistics are computed once, in whole batches
        return list(self.subject.glimpses(self.tokens, self.samples))

    @cached_property
    def precision(self) -> Precision:
        """The precision of the values: declared, or seen in the first distributions."""
        return self.data.precision or precision_of(np.concatenate([one.values for one in self.glimpses[:8]]))

    @cached_property
    def short(self) -> Tokens:
        """The first tokens, for probes with many runs."""
        return self.tokens[: self.subject.short + 1]

    def replaced(self, tokens: Tokens, cut: int) -> Tokens:
        """The stream with all tokens after position `cut` replaced: half from the text, half from the vocabulary."""
        rng = np.random.default_rng((self.seed, cut))
        rest = len(tokens) - cut - 1
        drawn = np.where(rng.random(rest) < 0.5, rng.choice(tokens, rest), rng.choice(self.vocabulary, rest))
        others = self.vocabulary[self.vocabulary != tokens[cut + 1]]
        drawn[0] = rng.choice(others) if len(others) else tokens[cut + 1]
        replaced = np.append(tokens[: cut + 1], drawn.astype(tokens.dtype))
        return replaced[: cut + 2 + AFTER] if self.subject.past_only else replaced

    @cached_property
    def _altered(self) -> dict[int, tuple[Tokens, Trace]]:
        return {}

    def altered(self, cut: int) -> tuple[Tokens, Trace]:
        """(the stream with all tokens after position `cut` replaced, its trace)."""
        if cut not in self._altered:
            tokens = self.replaced(self.tokens, cut)
            self._altered[cut] = tokens, self.subject.score(tokens)
        return self._altered[cut]

    @cached_property
    def swapped(self) -> tuple[Tokens, Trace]:
        """(the stream with other targets at the samples, all tokens of the vocabulary in turn, its trace)."""
        tokens, rng = self.tokens.copy(), np.random.default_rng((self.seed, 4))
        tokens[self.samples + 1] = np.resize(rng.permutation(self.vocabulary), len(self.samples))
        return tokens, self.subject.score(tokens)

    @cached_property
    def charged(self) -> NDArray[np.float64]:
        """The charges of the samples; the first charge of each position counts."""
        return self.trace.values[[first_entry(self.trace, position) for position in self.samples.tolist()]]

    @cached_property
    def foretold(self) -> NDArray[np.float64]:
        """The values of the samples' targets in distributions made with the targets withheld."""
        targets = self.tokens[self.samples + 1].tolist()
        return np.array([one.values[target] for one, target in zip(self.glimpses, targets, strict=True)])

    def per_token(self, nats: float) -> tuple[float, str]:
        """(nats of the samples in bits per byte, or in nats a token if bytes are unknown; the unit)."""
        size = 0
        if self.data.tokenizer is not None:
            sizes = self.data.tokenizer.target_bytes(self.tokens, 0, int(self.samples[-1]) + 1, "decoded")
            size = int(sizes[self.samples].sum())
        bits = bits_per_byte(nats, size)
        return (nats / len(self.samples), "nats a token") if bits is None else (bits, "bits per byte")


def first_entry(trace: Trace, position: int) -> int:
    """Entry at which the position was first charged for; raises `NotApplicable` if it never was."""
    found = np.flatnonzero(trace.positions == position)
    if len(found) == 0:
        raise NotApplicable(f"position {position} was not charged for")
    return int(found[0])
