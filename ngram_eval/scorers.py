"""Scorers: neural statistics and n-gram counts into what the text costs, one class a family.

A scorer owns its counts and its blend and hands back one tally, so that it may keep both wherever they are fastest.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ngram_eval.blend import GatedBackoff
from ngram_eval.bpb import Tally
from ngram_eval.config import EvalConfig
from ngram_eval.counts import ON_DEVICE, Best, Counts, Matches, Stream, around, make_counts
from ngram_eval.counts.reference import best_match
from ngram_eval.errors import InputError
from ngram_eval.exact import ExactModel, make_model
from ngram_eval.exact.reference import chain_shares
from ngram_eval.mixer import TOKEN_CONTEXTS, Mixer, make_mixer, spelling_of, unspelt
from ngram_eval.neural import NeuralSource, NeuralStats, Stats
from ngram_eval.prefill import scan
from ngram_eval.ranks import Ranks
from ngram_eval.windows import Windows

_BLEND_AT_ONCE = 1 << 16
_COUNT_AT_ONCE = 1 << 22
_ROWS_AT_ONCE = 1 << 11
_ENTRIES_AT_ONCE = 1 << 27
"""Most probabilities of such rows (1 GiB)."""


class Charged(Protocol):
    """What scored positions were charged with, wherever it is kept."""

    @property
    def values(self) -> NDArray[np.float64]:
        """(positions,), window after window, before the floor; probabilities if the scorer is `normalised`."""

    @property
    def order(self) -> NDArray[np.uint8] | None:
        """(positions,): the matched order, 0 where nothing matched; None where the host does not know."""

    @property
    def weight(self) -> NDArray[np.float64] | None:
        """(positions,): the weight of the n-gram estimate in the blend, 0 to 1; None where it is not known for each."""


class Values(NamedTuple):
    """`Charged` in this process's memory."""

    values: NDArray[np.float64]
    order: NDArray[np.uint8] | None = None
    weight: NDArray[np.float64] | None = None


class OrderEvidence(NamedTuple):
    """What one order's context knows of a target, and what it has to say in the blend."""

    order: int
    """Its context has order - 1 tokens."""
    context: int
    """Times that the context has occurred."""
    distinct: int | None
    """Different tokens that have followed it; None where that is not known."""
    target: int
    """Times that the target has followed it."""
    weight: float
    """Share of the blend that rests on this order, 0 to 1."""


class Explanation(NamedTuple):
    """How a scorer comes to what it charges a target with, before the target is counted."""

    order: int
    """The matched order, 0 if nothing matched."""
    weight: float
    """Share of the blend that rests on n-grams, 0 to 1; the rest is the neural model's."""
    orders: tuple[OrderEvidence, ...]
    """Every order looked at, lowest first."""


class Scorer(Protocol):
    """Scores windows in stream order, each before it is counted."""

    normalised: bool
    """Whether the values it charges sum to 1 over the vocabulary."""
    window_wise: bool
    """Whether positions are counted when their whole window has been scored, or else each before the next is scored.

    In the second case windows may be cut anywhere between their scored positions, and nothing changes.
    """
    on_device: bool = False
    """Whether calls return before the work is done, so that a thread of its own would gain nothing."""
    needs_rows: bool = False
    """Whether `score` needs the whole neural distributions (`NeuralStats.rows`)."""

    def prefill(self, tokens: Stream, start: int, stop: int, advance: Callable[[int], None]) -> None:
        """Count positions [start, stop) without scoring them; `advance` hears of positions counted."""

    def scan(self, ranks: Ranks) -> None:
        """Replace what was counted by what all ranks before this one have counted (`ngram_eval.prefill.scan`)."""

    def learned(self) -> dict[str, NDArray[Any]]:
        """What is learned besides the counts, for a checkpoint; empty for a scorer that only counts."""
        return {}

    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None:
        """Go on as the scorer that `learned` is from, once the same positions have been counted."""
        if learned:
            raise ValueError(f"this scorer learns nothing, but {', '.join(learned)} were given")

    def score(self, tokens: Stream, windows: Windows, stats: NeuralStats) -> Charged:
        """Charge for the scored positions of `windows`, whose neural statistics are `stats`, and count them."""

    def distribution(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        """(V,): what each token would be charged with at `position`, were it the target, as the counts stand.

        `probabilities` (V,) and `entropy` are the neural model's there. Changes nothing that was counted, and does not
        depend on tokens[position + 1] or any later token.
        """

    def given_target(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        """(V,): the values of all tokens as the target, tokens[position + 1], makes them.

        Where the target takes part in choosing an order, a weight or a denominator: with what it chose. Otherwise
        `distribution`, whatever the target.
        """
        return self.distribution(tokens, position, probabilities, entropy)

    def explain(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float, target: int
    ) -> Explanation | None:
        """How the charge of `target` at `position` comes about; `probabilities` and `entropy` as for `distribution`.

        As `distribution`, changes nothing and reads no token behind `position`. None for a scorer that can't tell.
        """
        return None

    def tally(self) -> Tally:
        """What has been charged so far."""


class NeuralScorer(Scorer):
    """The neural model alone."""

    normalised = True
    window_wise = False

    def __init__(self) -> None:
        self._tally = Tally()

    def prefill(self, tokens: Stream, start: int, stop: int, advance: Callable[[int], None]) -> None:
        advance(stop - start)

    def scan(self, ranks: Ranks) -> None:
        pass

    def score(self, tokens: Stream, windows: Windows, stats: NeuralStats) -> Values:
        p = stats.p_target
        order = np.zeros(len(p), np.uint8)
        self._tally.add(p, p, order)
        return Values(p, order)

    def distribution(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        return probabilities

    def tally(self) -> Tally:
        return self._tally


class HashedScorer(Scorer):
    """PR #890's family: hashed counts and a gate on the neural entropy (`ngram_eval.blend.GatedBackoff`)."""

    normalised = GatedBackoff.normalised
    window_wise = True

    def __init__(self, counts: Counts, blend: GatedBackoff) -> None:
        self._counts, self._blend, self._tally = counts, blend, Tally()

    def prefill(self, tokens: Stream, start: int, stop: int, advance: Callable[[int], None]) -> None:
        count_positions(self._counts, tokens, start, stop, advance)

    def scan(self, ranks: Ranks) -> None:
        import torch  # here and not above: one rank needs no torch

        scan(torch.from_numpy(self._counts.state().view(np.int32)), ranks)

    def score(self, tokens: Stream, windows: Windows, stats: NeuralStats) -> Values:
        if len(windows) == 0:
            return Values(np.zeros(0))
        read, base = around(tokens, int(windows.first.min()), int(windows.stop.max()), self._counts.config)
        best = self._counts.score_windows(read, windows.first - base, windows.stop - base)
        p_target, entropy = stats.p_target, stats.entropy
        values, weight = np.empty(len(best.order)), np.empty(len(best.order))
        for start in range(0, len(best.order), _BLEND_AT_ONCE):  # a part at a time: temporaries stay in the cache
            part = slice(start, start + _BLEND_AT_ONCE)
            p_neural, order = p_target[part], best.order[part]
            stats_here = Stats(p_neural, entropy[part])
            p, weight[part] = self._blend.weighed(stats_here, Best(order, best.context[part], best.full[part]))
            self._tally.add(p, p_neural, order)
            values[part] = p
        return Values(values, best.order, weight)

    def distribution(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        return self._blend.distribution(self._counts, tokens, position, probabilities, entropy)

    def given_target(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        return self._blend.given_target(self._counts, tokens, position, probabilities, entropy)

    def explain(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float, target: int
    ) -> Explanation:
        return explain_hashed(self._counts, self._blend, tokens, position, entropy, target)

    def tally(self) -> Tally:
        return self._tally


class OnlineScorer(Scorer):
    """A memory that learns from each position for the next, in stream order, under a normalised blend."""

    normalised = True
    what = "a memory"
    """Its name in messages."""

    def __init__(self, model: ExactModel | Mixer, min_order: int) -> None:
        self._memory, self._min_order, self._tally = model, min_order, Tally()
        self._counted = 0  # positions
        self._started = False

    def prefill(self, tokens: Stream, start: int, stop: int, advance: Callable[[int], None]) -> None:
        """Count only: what is learned on the way comes from `load_learned`."""
        for low in range(start, stop, _COUNT_AT_ONCE):
            high = min(low + _COUNT_AT_ONCE, stop)
            self._memory.append(self._targets(tokens, low, high))
            self._counted = high
            advance(high - low)

    def scan(self, ranks: Ranks) -> None:
        raise InputError(f"{self.what} is never split over ranks: its weights are learned in stream order")

    def learned(self) -> dict[str, NDArray[Any]]:
        return self._memory.learned()

    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None:
        self._memory.load_learned(learned)

    def _targets(self, tokens: Stream, first: int, stop: int) -> NDArray[Any]:
        """Targets of [first, stop), which must be the next positions."""
        if first != self._counted:
            raise ValueError(f"positions are scored in stream order: {self._counted} is next, not {first}")
        self._start(tokens)
        return tokens[first + 1 : stop + 1]

    def _start(self, tokens: Stream) -> None:
        if not self._started:
            self._memory.append(tokens[:1])  # nobody's target
            self._started = True

    def _charged(self, p: NDArray[np.float64], neural: NDArray[np.float64], order: NDArray[np.uint8]) -> Values:
        matched = np.where(order >= self._min_order, order, 0).astype(np.uint8)
        self._tally.add(p, neural, matched)
        return Values(p, matched)

    def tally(self) -> Tally:
        return self._tally


class ExactScorer(OnlineScorer):
    """Exact counts and their normalised blend (`ngram_eval.exact`)."""

    what = "an exact memory"

    def __init__(self, model: ExactModel, config: EvalConfig) -> None:
        super().__init__(model, config.ngram.min_order)
        self.window_wise = config.exact.by_window
        self.needs_rows = config.exact.tilt != "off"
        self._model, self._exact = model, config.exact

    def score(self, tokens: Stream, windows: Windows, stats: NeuralStats) -> Values:
        p_target, entropy, rows = stats.p_target, stats.entropy, stats.rows
        p, order = np.empty(len(p_target)), np.empty(len(p_target), np.uint8)
        entry = 0
        for part in self._parts(windows):
            here = slice(entry, entry + part.scored)
            base = p_target[here] if rows is None else distinct_rows(rows[here])
            targets = self._targets(tokens, int(part.first[0]), int(part.stop[-1]))
            p[here], order[here] = self._model.score(targets, base, entropy[here], together=self.window_wise)
            self._counted, entry = int(part.stop[-1]), here.stop
        return self._charged(p, p_target, order)

    def _parts(self, windows: Windows) -> Iterator[Windows]:
        """The windows: one by one where each is counted as a whole."""
        step = 1 if self.window_wise else max(len(windows), 1)
        for row in range(0, len(windows), step):
            yield windows[row : row + step]

    def distribution(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        self._start(tokens)
        between = tokens[self._counted + 1 : position + 1]
        if self.window_wise:
            return self._model.distribution_after(between, probabilities, entropy)
        if len(between):
            raise ValueError(f"position {self._counted} is next, not {position}")
        return self._model.distribution(probabilities, entropy)

    def explain(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float, target: int
    ) -> Explanation | None:
        self._start(tokens)
        if self._counted != position:
            return None  # within a window that is counted as a whole
        newest = int(tokens[position : position + 1][0])
        shares = chain_shares(self._model.learned(), self._model.evidence(target), newest, entropy, self._exact)
        orders = tuple(
            OrderEvidence(level + 1, seen.total, seen.distinct, seen.count, weight)
            for level, (seen, weight) in enumerate(shares)
        )
        longest = len(orders) if len(orders) >= self._min_order else 0
        return Explanation(longest, sum(one.weight for one in orders), orders)


class MixerScorer(OnlineScorer):
    """Hashed contexts mixed over binary decisions (`ngram_eval.mixer`)."""

    what = "a mixer"
    window_wise = False
    needs_rows = True

    def __init__(self, mixer: Mixer, config: EvalConfig) -> None:
        super().__init__(mixer, config.ngram.min_order)
        self._mixer = mixer

    def score(self, tokens: Stream, windows: Windows, stats: NeuralStats) -> Values:
        assert stats.rows is not None, "it needs rows"
        if len(windows) == 0:
            return Values(np.zeros(0), np.zeros(0, np.uint8))
        first, stop = int(windows.first[0]), int(windows.stop[-1])
        targets = self._targets(tokens, first, stop)
        p, order = self._mixer.score(targets, distinct_rows(stats.rows))
        self._counted = stop
        return self._charged(p, stats.p_target, order)

    def distribution(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        self._start(tokens)
        if position != self._counted:
            raise ValueError(f"position {self._counted} is next, not {position}")
        return self._mixer.distribution(probabilities)

    def explain(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float, target: int
    ) -> Explanation | None:
        """Of the token contexts; their weight is the share of the logits, words and bytes have the rest."""
        if position != self._counted:
            raise ValueError(f"position {self._counted} is next, not {position}")
        occurred, followed, shares = self._mixer.evidence(target, probabilities)
        mixed = 1.0 - self._mixer.neural_weight  # what the switch leaves
        orders = tuple(
            OrderEvidence(order, int(occurred[k]), None, int(followed[k]), mixed * float(shares[k]))
            for order, k in TOKEN_CONTEXTS.items()
            if k < len(occurred)
        )
        known = [one.order for one in orders if one.context]
        return Explanation(max(known, default=0), mixed * (1.0 - float(shares[-1])), orders)


def distinct_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, V) as it is, or (1, V) where all rows are one and the same memory."""
    return rows[:1] if len(rows) and rows.strides[0] == 0 else rows


def explain_hashed(
    counts: Counts, blend: GatedBackoff, tokens: Stream, position: int, entropy: float, target: int
) -> Explanation:
    """`Scorer.explain` of PR #890's family."""
    matches = blend.matches(counts, tokens, position, target + 1)
    context, full = matches.context[:, -1], matches.full[:, -1]
    best = best_match(Matches(context[:, None], full[:, None]), counts.config)
    matched = int(best.order[0])
    weight = float(blend.alpha(np.array([entropy], np.float32), best.order)[0]) if matched else 0.0
    orders = tuple(
        OrderEvidence(order, int(context[row]), None, int(full[row]), weight if order == matched else 0.0)
        for row, order in enumerate(counts.config.orders)
    )
    return Explanation(matched, weight, orders)


def count_positions(counts: Counts, tokens: Stream, start: int, stop: int, advance: Callable[[int], None]) -> None:
    """Count positions [start, stop) of a stream of any length; `advance` hears of positions counted."""
    for low in range(start, stop, _COUNT_AT_ONCE):
        high = min(low + _COUNT_AT_ONCE, stop)
        part, base = around(tokens, low, high, counts.config)
        counts.update(part, low - base, high - base)
        advance(high - low)


def check_source(config: EvalConfig, source: NeuralSource) -> None:
    """Raise `InputError` unless the source gives what the scorer of `config` needs."""
    if config.needs_rows and not source.gives_all:
        what = "the mixer" if config.scorer == "mixer" else "a tilt"
        raise InputError(
            f"{what} needs the neural distribution of every token, and only "
            "the target's probability is known: give --artifact, --logits, --hf or --uniform, or another --preset"
        )


def windows_at_once(config: EvalConfig, source: NeuralSource) -> int:
    """Windows of one batch: the source's, or as many whole distributions as memory should hold."""
    if config.needs_rows:
        rows = min(_ROWS_AT_ONCE, _ENTRIES_AT_ONCE // source.vocab_size)
        return min(source.batch_windows, max(1, rows // config.window.stride))
    return source.batch_windows


class Vocabulary(NamedTuple):
    """What a scorer may know of tokens besides their numbers, and of the model beside it."""

    size: int
    surfaces: Sequence[bytes | None] | None
    """What each token spells; None without a tokenizer."""
    neural: bool
    """Whether the neural distributions come from a model that knows something."""


def make_scorer(backend: str, config: EvalConfig, threads: int = 1, vocabulary: Vocabulary | None = None) -> Scorer:
    """The scorer that `config` asks for, with an empty memory of the named backend; the mixer needs a `vocabulary`."""
    if config.scorer == "exact":
        return ExactScorer(make_model(backend, config.ngram.max_order, config.exact), config)
    if config.scorer == "mixer":
        if vocabulary is None:
            raise ValueError("the mixer needs a vocabulary")
        known = vocabulary.surfaces
        spelling = unspelt(vocabulary.size) if known is None else spelling_of(known)
        return MixerScorer(make_mixer(backend, config.mixer, spelling, neural=vocabulary.neural), config)
    if backend in ON_DEVICE:
        from ngram_eval.device import CudaScorer, TritonScorer

        return TritonScorer(config) if backend == "triton" else CudaScorer(config)
    return HashedScorer(make_counts(backend, config.ngram, threads), GatedBackoff(config.gate))
