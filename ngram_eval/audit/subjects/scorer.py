"""A scorer over a neural source: our presets, the model alone, and what tests plant."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.claim import Claim
from ngram_eval.audit.finding import NotApplicable
from ngram_eval.audit.precision import SAME
from ngram_eval.audit.subject import Change, Drawn, Glimpse, Subject, Trace
from ngram_eval.bpb import Tally, as_nats
from ngram_eval.config import EvalConfig, GateConfig
from ngram_eval.distributed.prefill import prefill_stop
from ngram_eval.evaluation.engine import count_bytes
from ngram_eval.models.saved_scores import RememberingSource
from ngram_eval.models.source import Asked, NeuralSource, NeuralStats, Stats, statistics
from ngram_eval.scorers.base import Scorer
from ngram_eval.scorers.make import windows_at_once
from ngram_eval.text.samples import cut, entropy_of
from ngram_eval.text.stream import Stream, Tokens
from ngram_eval.text.tokenizer import TextTokenizer
from ngram_eval.text.windows import Plan, Windows, batches, plan_windows, share, target_count


class SharedSource:
    """A neural source that computes its statistics once per stream, for all subjects of an audit."""

    def __init__(self, source: NeuralSource, batch_windows: int | None = None) -> None:
        self._source = source
        self.name, self.settings, self.train_seq_len = source.name, source.settings, source.train_seq_len
        self.gives_all, self.vocab_size = source.gives_all, source.vocab_size
        self.batch_windows = batch_windows or source.batch_windows
        self._stats: dict[object, RememberingSource] = {}
        self._probabilities: dict[object, NDArray[np.float64]] = {}
        self._last: tuple[Stream | None, bytes] = None, b""

    @property
    def forgetful(self) -> NeuralSource:
        """The source itself, which keeps nothing: for streams that grow token by token."""
        return self._source

    def stats(self, tokens: Stream, windows: Windows, whole: Asked | None = None) -> NeuralStats:
        key = (self._digest(tokens), windows.seq_len)
        if key not in self._stats:
            self._stats[key] = RememberingSource(self._source, len(tokens) - 1, windows.seq_len)
        return self._stats[key].stats(tokens, windows, whole)

    def probabilities(self, tokens: Stream, windows: Windows) -> NDArray[np.float64]:
        if windows.scored > 1:  # too large to keep
            return self._source.probabilities(tokens, windows)
        key = (self._digest(tokens), int(windows.start[0]), int(windows.first[0]))
        if key not in self._probabilities:
            self._probabilities[key] = self._source.probabilities(tokens, windows)
        return self._probabilities[key]

    def _digest(self, tokens: Stream) -> bytes:
        if tokens is not self._last[0]:  # all batches ask for the same stream, which may be long
            self._last = tokens, hashlib.sha256(tokens[:].tobytes()).digest()
        return self._last[1]


MakeScorer = Callable[[str, EvalConfig, NeuralSource], Scorer]
"""(backend, configuration, neural source) -> a new scorer."""


_ROUNDING, _BATCHES = 1e-9, 1e-4
"""Nats a position by which another backend, or batches of other shapes, may differ."""
_OTHER_BATCH = 7
_DRAWN = 64
"""Tokens that are drawn: each is a forward of its own."""


@dataclass(frozen=True, kw_only=True)
class ScorerSubject(Subject):
    """Any `Scorer`, with its neural source."""

    name: str
    make: MakeScorer
    config: EvalConfig
    source: SharedSource
    tokenizer: TextTokenizer | None = None
    backend: str = "cpu"
    world: int = 1
    others: dict[str, tuple[SharedSource, float]] = field(default_factory=dict)
    """Copies of the source that keep no statistics, made by `other_sources`."""
    remembers: bool = True
    """Whether it has an n-gram memory, described by the configuration and the backend."""

    @property
    def source_is_given(self) -> bool:
        return self.source.name in ("scores", "logits")

    @property
    def short(self) -> int:
        return 2 * max(self.config.window.seq_len, self.source.train_seq_len)

    def vocab_size(self, tokens: Tokens) -> int:
        return self.source.vocab_size or super().vocab_size(tokens)

    def expected(self, tokens: Tokens) -> int:
        return target_count(len(tokens), max(self.config.window.seq_len, self.source.train_seq_len))

    def _windows(self, tokens: Tokens) -> Windows:
        return plan_windows(self.expected(tokens), self.config.window)

    def score(self, tokens: Tokens, wanted: NDArray[np.int64] | None = None) -> Trace:
        config, windows, plan = self.config, self._windows(tokens), Plan(self.expected(tokens), self.config.window)
        positions, values, neural = [], [], []
        tally, spelt = Tally(), self.tokenizer
        if spelt is not None and tokens.max() >= spelt.vocab_size:  # a model's vocabulary may be larger: drawn from it
            spelt = None
        for rank in range(self.world):
            rows = share(plan, rank, self.world, self.source.batch_windows)
            scorer = self.make(self.backend, config, self.source)
            scorer.prefill(tokens, 0, prefill_stop(plan, rows, config.ngram), lambda counted: None)
            for batch in batches(windows[rows.start : rows.stop], windows_at_once(config, self.source)):
                stats = statistics(self.source, tokens, batch, rows=self.config.needs_rows)
                charged = scorer.score(tokens, batch, stats).values
                if len(charged) != batch.scored:
                    raise ValueError(f"{self.name} gave {len(charged)} values for {batch.scored} positions")
                values.append(charged)
                neural.append(stats.p_target)
                positions.append(batch.positions())
                if spelt is not None:
                    count_bytes(tally, tokens, spelt, batch, config.byte_rule)
            tally += scorer.tally()
        claim = Claim(
            positions=tally.positions, nats=as_nats(tally.nats), bytes=tally.bytes if spelt is not None else None
        )
        return Trace(np.concatenate(positions), np.concatenate(values), np.concatenate(neural), claim)

    def glimpses(self, tokens: Tokens, samples: NDArray[np.int64]) -> Iterator[Glimpse]:
        if not self.source.gives_all:
            raise NotApplicable("only the target's probability is known: give --artifact, --logits or --uniform")
        windows = self._windows(tokens)
        for batch in batches(windows, self.source.batch_windows):
            self.source.stats(tokens, batch)  # kept, so that parts of any shape can be read below
        scorer = self.make(self.backend, self.config, self.source)
        for looks, part in cut(windows, samples, scorer.window_wise):
            for position in looks:
                yield self._glimpse(scorer, tokens, windows, position)
            if samples[-1] in looks:
                return
            for batch in batches(part, windows_at_once(self.config, self.source)):
                past = tokens[: int(batch.stop.max()) + 1].copy()
                scorer.score(past, batch, statistics(self.source, tokens, batch, rows=self.config.needs_rows))

    def _glimpse(self, scorer: Scorer, tokens: Tokens, windows: Windows, position: int) -> Glimpse:
        blind = np.append(tokens[: position + 1], tokens[position])  # a repeated token in the target's place
        (neural,) = self.source.probabilities(blind, windows.scoring(position))
        entropy = entropy_of(neural)
        values = scorer.distribution(blind, position, neural, entropy)
        given = {}
        raised = values / np.maximum(neural, np.finfo(np.float64).tiny)
        for target in (int(np.argmin(raised)), int(np.argmax(raised)), int(np.argmax(values))):
            blind[-1] = target
            given[target] = scorer.given_target(blind, position, neural, entropy)
        return Glimpse(position, values, neural, _largest_change(given))

    def draw(self, tokens: Tokens, rng: np.random.Generator) -> Drawn:
        if self.source_is_given or not self.source.gives_all:
            raise NotApplicable("its model can't be asked about another text")
        source, scorer = self.source.forgetful, self.make(self.backend, self.config, self.source)
        text = tokens[: self.short + 1].copy()
        windows, targets = self._windows(text), self.expected(text)
        starts = windows.first[(windows.first >= targets - _DRAWN) & (windows.first < targets)]
        begin = int(starts[0]) if len(starts) else max(targets - _DRAWN, 1)
        text[begin + 1 :] = text[begin]  # a repeated token in the place of what will be drawn
        shown: list[float] = []
        scored = 0
        for row in range(len(windows)):
            window = replace(windows[row : row + 1], first=np.maximum(windows.first[row : row + 1], scored))
            for part in _parts(window, begin, scorer.window_wise):
                stop = int(part.stop[0])
                if part.first[0] < begin:
                    stats: NeuralStats = statistics(source, text, part, rows=self.config.needs_rows)
                else:
                    stats = self._continue(scorer, text, part, rng, shown)
                scorer.score(text[: stop + 1], part, stats)
            scored = int(window.stop[0])
        return Drawn(text, begin, np.array(shown))

    def _continue(
        self, scorer: Scorer, text: Tokens, part: Windows, rng: np.random.Generator, shown: list[float]
    ) -> Stats:
        """Draw the targets of a part's positions into the text; returns their neural statistics."""
        rows, entropies, targets = [], [], []
        for position in range(int(part.first[0]), int(part.stop[0])):
            blind, here = text[: position + 2], np.array([position])
            (neural,) = self.source.forgetful.probabilities(blind, replace(part, first=here, stop=here + 1))
            entropy = entropy_of(neural)
            values = scorer.distribution(blind, position, neural, entropy)
            share = values / values.sum()
            text[position + 1] = rng.choice(len(share), p=share)
            rows.append(neural)
            entropies.append(entropy)
            targets.append(neural[text[position + 1]])
            shown.append(float(share[text[position + 1]]))
        return Stats(np.array(targets), np.array(entropies, np.float32), np.stack(rows))

    def without_memory(self) -> Subject:
        config = self.config
        if not self.remembers:
            raise NotApplicable("it has no memory")
        if config.scorer == "hashed":
            gate = GateConfig(alpha_base=0, alpha_range=0, alpha_fixed=0)
            return replace(self, config=replace(config, gate=gate))
        if config.scorer == "ppmd":
            raise NotApplicable("its bytes' shares multiply to the model's probability only up to rounding")
        if config.scorer == "mixer" or config.exact.chain:
            raise NotApplicable("its weights are learned and can't be set from outside")
        return replace(self, config=replace(config, exact=replace(config.exact, tilt="fixed", tilt_beta=0.0)))

    @property
    def buckets(self) -> int:
        if self.remembers and self.config.scorer == "hashed":
            return self.config.ngram.buckets
        return self.config.mixer.groups if self.remembers and self.config.scorer == "mixer" else super().buckets

    def with_buckets(self, buckets: int) -> "ScorerSubject":
        if self.config.scorer == "mixer":
            return replace(self, config=replace(self.config, mixer=replace(self.config.mixer, groups=buckets)))
        return replace(self, config=replace(self.config, ngram=replace(self.config.ngram, buckets=buckets)))

    def variants(self) -> dict[str, tuple[Subject, float]]:
        found: dict[str, tuple[Subject, float]] = {
            name: (replace(self, source=source), tolerance) for name, (source, tolerance) in self.others.items()
        }
        if self.remembers and self.backend != "reference":
            found["the reference"] = (replace(self, backend="reference"), _ROUNDING)
        if not self.config.learns_online:  # a scorer that does is never split over ranks
            for world in (2, 3):
                found[f"{world} ranks"] = (replace(self, world=world), _ROUNDING)
        return found


def other_sources(source: NeuralSource) -> dict[str, tuple[SharedSource, float]]:
    """Variants of the source that must give the same number: name -> (source, nats a position it may differ by)."""
    return {
        "the same again": (SharedSource(source), SAME),
        f"batches of {_OTHER_BATCH} windows": (SharedSource(source, _OTHER_BATCH), _BATCHES),
    }


def _parts(window: Windows, begin: int, window_wise: bool) -> Iterator[Windows]:
    """The window's scored positions before `begin`, then the rest: whole, or each alone if the scorer counts each."""
    first, stop = int(window.first[0]), int(window.stop[0])
    middle = min(max(first, begin), stop)
    edges = [first, middle, *([stop] if window_wise else range(middle + 1, stop + 1))]
    for a, b in pairwise(edges):
        if a < b:
            yield replace(window, first=np.array([a]), stop=np.array([b]))


def _largest_change(given: dict[int, NDArray[np.float64]]) -> Change:
    """The largest difference between the values that two targets give to a third token."""
    (base, first), *rest = given.items()
    largest = Change(base, (base, base), (float(first[base]),) * 2)
    for target, values in rest:
        difference = np.abs(values - first)
        difference[[base, target]] = 0
        token = int(np.argmax(difference))
        if difference[token] > abs(largest.values[1] - largest.values[0]):
            largest = Change(token, (base, target), (float(first[token]), float(values[token])))
    return largest
