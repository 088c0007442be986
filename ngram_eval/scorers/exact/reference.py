"""The exact model in plain Python: the specification. Slow (a few hundred positions a second).

Every context of every length has its own table. Floats are Python's (IEEE doubles) and numpy float32, combined in the
order written here, so that a backend can equal this one bit for bit.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import ExactConfig
from ngram_eval.text.stream import Tokens

RUN_LIMIT = 8191
RECENT_BITS = 32

LEARNING_RATE = np.float32(0.5)
FIRST_RATE = np.float32(1.8257419)  # 1 / sqrt(0.3): AdaGrad's sum starts at 0.3
FIRST_VALUE = np.array((-1.0, 2.0, -2.0, -3.0), np.float32)
FEATURE_SIZES = (13 * 8, 9 * 5, 16, 1024, 14 * 8)
TILT_ORDERS, OCTAVES, MIDDLE, TILT_PRIOR, TILT_MEMORY = 8, 41, 20, 10.0, 512.0


@dataclass
class SuccessorCount:
    """Counts of one token after one context."""

    count: int = 0
    novel: int = 0
    """Number of times that it was new after the longer context (Kneser and Ney's continuation count)."""
    times: list[int] = field(default_factory=list)
    """Indices of the context's occurrences that it followed."""


@dataclass
class ContextCount:
    """Counts of one context and its successors."""

    total: int = 0
    novel_total: int = 0
    run: int = 0
    """Number of times in a row that the last successor came."""
    last: int = -1
    successors: dict[int, SuccessorCount] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The counts of one token after one context."""

    total: int
    novel_total: int
    distinct: int
    run: int
    count: int
    novel: int
    recent: int


class ExactCounts:
    """Counts of a stream so far, for contexts of 0 to `max_order` - 1 tokens."""

    def __init__(self, max_order: int) -> None:
        self.max_order = max_order
        self.stream: list[int] = []
        self._contexts: dict[tuple[int, ...], ContextCount] = defaultdict(ContextCount)

    def append(self, token: int) -> None:
        """Count the next token in every context that ends before it."""
        is_new = True
        for length in range(min(self.max_order - 1, len(self.stream)), -1, -1):
            context = self._contexts[tuple(self.stream[len(self.stream) - length :])]
            successor = context.successors.setdefault(token, SuccessorCount())
            if is_new:
                successor.novel += 1
                context.novel_total += 1
            is_new = successor.count == 0
            context.run = min(context.run + 1, RUN_LIMIT) if context.last == token else 1
            context.last = token
            successor.times.append(context.total)
            successor.count += 1
            context.total += 1
        self.stream.append(token)

    def known(self, following: list[int]) -> list[ContextCount]:
        """The known contexts of the next token, shortest first, if `following` came after the stream."""
        recent = (self.stream + following)[-(self.max_order - 1) :] if self.max_order > 1 else []
        found = []
        for length in range(len(recent) + 1):
            context = self._contexts.get(tuple(recent[len(recent) - length :]))
            if context is None or context.total == 0:
                break
            found.append(context)
        return found

    def evidence(self, following: list[int], token: int) -> list[Evidence]:
        """The counts of `token` after `following`, one entry per known context."""
        return [_evidence(c, token, length > 0) for length, c in enumerate(self.known(following))]


def _evidence(context: ContextCount, token: int, recency: bool) -> Evidence:
    successor = context.successors.get(token, SuccessorCount())
    ages = [context.total - 1 - time for time in successor.times[-RECENT_BITS:]] if recency else []
    recent = sum(1 << (RECENT_BITS - 1 - age) for age in ages if age < RECENT_BITS)
    run = context.run if recency else 0
    return Evidence(
        context.total, context.novel_total, len(context.successors), run, successor.count, successor.novel, recent
    )


def exponential(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """e^z for z from -87 to 87, with +, -, x and / on float32 only."""
    one = np.float32(1)
    t = z * np.float32(1.44269504)
    whole = np.rint(t)
    f = t - whole
    power = np.full_like(t, 0.0013334)
    for coefficient in (0.0096181, 0.0555041, 0.2402265, 0.6931472):
        power = np.float32(coefficient) + f * power
    result: NDArray[np.float32] = (one + f * power) * np.ldexp(one, whole.astype(np.int32))
    return result


def logistic(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + e^-z), with the same operations."""
    one = np.float32(1)
    result: NDArray[np.float32] = one / (one + exponential(-np.clip(z, np.float32(-14), np.float32(14))))
    return result


def size_class(total: int) -> int:
    """Class of a context's total, 0 to 12."""
    if total <= 4:
        return total - 1
    return 4 + sum(total > bound for bound in (6, 9, 14, 24, 48, 128, 512, 4096))


def variety_class(total: int, distinct: int) -> int:
    """Class of the share of distinct successors, 0 to 7."""
    if distinct == 1:
        return 0
    if distinct == total:
        return 7
    return 1 + sum(distinct * 100 >= total * percent for percent in (5, 10, 20, 35, 60))


def run_class(run: int) -> int:
    """Class of a run's length, 0 to 6."""
    return max(run, 1) - 1 if run <= 3 else 3 if run <= 5 else 4 if run <= 8 else 5 if run <= 16 else 6


def cost_class(recent_cost: float) -> int:
    """Class of the recent cost, 0 to 4."""
    return sum(recent_cost >= bound for bound in (0.15, 0.6, 1.3, 2.2))


class Weight:
    """The weights of one value of one feature: its part of the four logits, and four learning rates."""

    def __init__(self, first: bool) -> None:
        self.value = FIRST_VALUE.copy() if first else np.zeros(4, np.float32)
        self.rate = np.full(4, FIRST_RATE)


class Level:
    """One context at one position: its weights, and the terms that they give for any target."""

    def __init__(self, weights: list[Weight], seen: Evidence, longest: bool, varied: bool) -> None:
        self.weights, self.longest = weights, longest
        z = np.zeros(4, np.float32)
        for weight in weights:
            z += weight.value
        self.a = [float(a) for a in logistic(z)]
        if not varied:
            self.a[2] = self.a[3] = 0.0
        total = float(seen.total)
        n = total if longest else float(seen.novel_total)
        self.per_count, self.per_total = 1.0 / n, 1.0 / total
        self.per_recent = 1.0 / float((1 << RECENT_BITS) - (1 << (RECENT_BITS - min(seen.total, RECENT_BITS))))
        self.distinct = float(seen.distinct) * self.per_count
        self.repeats = (n - float(seen.distinct)) * self.per_count
        first, more, recent, raw = self.a
        rest = (1.0 - raw) * (1.0 - recent)
        self.raw = raw * self.per_total
        self.recent = (1.0 - raw) * recent * self.per_recent
        self.first = rest * first * self.per_count
        self.more = rest * more * self.per_count
        self.rest = rest * ((1.0 - first) * self.distinct + (1.0 - more) * self.repeats)

    def counted(self, seen: Evidence) -> int:
        """The successor's count if its context is the longest known one, else its continuation count."""
        return seen.count if self.longest else seen.novel

    def direct(self, seen: Evidence) -> float:
        """The target's probability from this level alone."""
        count = self.counted(seen)
        if count == 0:
            return 0.0
        return (
            self.first
            + self.more * (float(count) - 1.0)
            + self.recent * float(seen.recent)
            + self.raw * float(seen.count)
        )

    def slopes(self, seen: Evidence, below: float) -> list[float]:
        """The derivatives d (probability above this level) / d a, for the four weights."""
        count = float(self.counted(seen))
        first = self.per_count if count > 0 else 0.0
        more = (count - 1.0) * self.per_count if count > 0 else 0.0
        a = self.a
        interpolated = a[0] * first + a[1] * more + ((1.0 - a[0]) * self.distinct + (1.0 - a[1]) * self.repeats) * below
        recent, raw = float(seen.recent) * self.per_recent, float(seen.count) * self.per_total
        lower = (1.0 - a[3]) * (1.0 - a[2])
        return [
            lower * (first - self.distinct * below),
            lower * (more - self.repeats * below),
            (1.0 - a[3]) * (recent - interpolated),
            raw - (a[2] * recent + (1.0 - a[2]) * interpolated),
        ]


class Hint(NamedTuple):
    """The token whose odds the tilt raises."""

    token: int
    p: float
    tilted: float
    place: int
    between: float


class ReferenceModel:
    """The readable `ngram_eval.scorers.exact.model.ExactModel`."""

    def __init__(self, max_order: int, config: ExactConfig, threads: int = 1) -> None:
        self.config = config
        self.counts = ExactCounts(max_order)
        self._weights: dict[tuple[int, int, int], Weight] = {}
        self._base_weight = 0.5
        self._scored = 0
        self._surprises = 0
        self._recent_cost = 2.0
        self._factor = math.exp(config.tilt_beta)
        self._hits = [_first_hits(i % OCTAVES - MIDDLE) for i in range(TILT_ORDERS * OCTAVES)]
        self._tries = [TILT_PRIOR] * (TILT_ORDERS * OCTAVES)

    def append(self, tokens: Tokens) -> None:
        """Count only."""
        for token in tokens.tolist():
            self.counts.append(token)

    def _levels(self, seen: list[Evidence], newest: int, entropy: float) -> list[Level]:
        def weight(level: int, i: int, value: int) -> Weight:
            return self._weights.setdefault((level, i, value), Weight(first=i == 0))

        return self.levels(seen, newest, entropy, weight)

    def levels(
        self, seen: list[Evidence], newest: int, entropy: float, weight: Callable[[int, int, int], Weight]
    ) -> list[Level]:
        """Levels of the known contexts, shortest first; `weight` maps (level, feature, its value) to a weight."""
        uncertainty = min(max(int(np.float32(entropy) * np.float32(1.5)), 0), 7)
        levels = []
        for level, here in enumerate(seen):
            longest = level + 1 == len(seen)
            varied = level > 0 and here.distinct > 1
            longer = 0 if longest else 1 + size_class(seen[level + 1].total)
            surprise = 1 + (self._surprises & 7) if longest else 0
            features = (
                size_class(here.total) * 8 + variety_class(here.total, here.distinct),
                surprise * 5 + cost_class(self._recent_cost),
                1 + run_class(here.run) * 2 + longest if varied else 0,
                newest % 1024,
                longer * 8 + uncertainty,
            )
            weights = [weight(level, i, value) for i, value in enumerate(features)]
            levels.append(Level(weights, here, longest, varied))
        return levels

    def _chained(self, levels: list[Level], seen: list[Evidence], base: float) -> list[float]:
        """Probabilities of the target below each level and above the last."""
        below = [base]
        for level, here in zip(levels, seen, strict=True):
            below.append(level.direct(here) + level.rest * below[-1])
        return below

    def _blended(self, base: float, chained: float) -> float:
        return self._base_weight * base + (1.0 - self._base_weight) * chained

    def _charge(self, seen: list[Evidence], newest: int, base: float, entropy: float) -> float:
        """Return the target's probability, and learn everything except the tilt."""
        p = base
        if self.config.chain:
            levels = self._levels(seen, newest, entropy)
            below = self._chained(levels, seen, base)
            p = self._blended(base, below[-1])
            if below[-1] >= sys.float_info.min:  # of a smaller one, 1 / below may be infinite
                self._learn(levels, seen, below)
            if p > 0.0:
                share = 1.0 / (self._scored + 2)
                self._base_weight = self._base_weight * base / p * (1.0 - share) + 0.5 * share
        self._scored += 1
        self._recent_cost = 0.5 * self._recent_cost + 0.5 * (
            0.0 if p > 0.5 else 1.0 if p > 0.1 else 2.0 if p > 0.01 else 3.5
        )
        if seen:
            self._surprises = self._surprises << 1 | (seen[-1].count == 0)
        return p

    def _learn(self, levels: list[Level], seen: list[Evidence], below: list[float]) -> None:
        reach = 1.0 / below[-1]  # d ln p / d (probability above the level)
        for level, here, q in reversed(list(zip(levels, seen, below[:-1], strict=True))):
            slopes = level.slopes(here, q)
            gradient = np.array(
                [reach * slope * (a * (1.0 - a)) for slope, a in zip(slopes, level.a, strict=True)], np.float32
            )
            for weight in level.weights:
                step = weight.rate * gradient
                weight.value += LEARNING_RATE * step
                weight.rate -= weight.rate * (np.float32(0.5) * np.minimum(step * step, np.float32(1)))
            reach *= level.rest

    def _newest(self, following: list[int]) -> int:
        stream = following or self.counts.stream
        return stream[-1] if stream else 0

    def score(
        self, tokens: Tokens, base: NDArray[np.float64], entropy: NDArray[np.float32], *, together: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Charge, count, learn."""
        n = len(tokens)
        if base.shape not in ((n,), (n, *base.shape[1:]), (1, *base.shape[1:])) or base.ndim > 2:
            raise ValueError(f"base of shape {base.shape} for {n} tokens")
        if base.ndim == 1 and self.config.tilt != "off":
            raise ValueError("a tilt needs whole base distributions, not those of the targets alone")
        rows = np.broadcast_to(base, (n, base.shape[1])) if base.ndim == 2 else None
        p, order = np.empty(n), np.empty(n, np.uint8)
        window: list[int] = []
        if together:
            for i, token in enumerate(tokens.tolist()):
                below = float(base[i] if rows is None else rows[i, token])
                seen = self.counts.evidence(window, token)
                levels = self._levels(seen, self._newest(window), float(entropy[i]))
                p[i] = self._blended(below, self._chained(levels, seen, below)[-1])
                window.append(token)
            window = []
        for i, token in enumerate(tokens.tolist()):
            hint = self._hint(rows[i], float(entropy[i])) if rows is not None and self.config.tilt != "off" else None
            below = float(base[i] if rows is None else rows[i, token])
            seen = self.counts.evidence(window, token)
            charged = self._charge(seen, self._newest(window), below, float(entropy[i]))
            order[i] = len(seen)
            if hint is not None:
                charged = _tilted(charged, token == hint.token, hint)
                self._learn_tilt(hint, token == hint.token)
            if together:
                window.append(token)
            else:
                p[i] = charged
                self.counts.append(token)
        for token in window:
            self.counts.append(token)
        return p, order

    def distribution(self, base: NDArray[np.float64], entropy: float) -> NDArray[np.float64]:
        """The probability of each token as the target, (V,)."""
        p = self.distribution_after(np.empty(0, np.uint16), base, entropy)
        hint = self._hint(base, entropy) if self.config.tilt != "off" else None
        if hint is not None:
            p = np.array([_tilted(value, token == hint.token, hint) for token, value in enumerate(p.tolist())])
        return p

    def distribution_after(self, tokens: Tokens, base: NDArray[np.float64], entropy: float) -> NDArray[np.float64]:
        """The probability of each token after `tokens`, without the tilt, (V,)."""
        following = tokens.tolist()
        return np.array([self._probability(following, token, float(b), entropy) for token, b in enumerate(base)])

    def _probability(self, following: list[int], token: int, base: float, entropy: float) -> float:
        if not self.config.chain:
            return base
        seen = self.counts.evidence(following, token)
        levels = self._levels(seen, self._newest(following), entropy)
        return self._blended(base, self._chained(levels, seen, base)[-1])

    def distributions(
        self, tokens: Tokens, base: NDArray[np.float64], entropy: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """The distribution before each token, (n, V); each token is then scored."""
        if base.ndim != 2:
            raise ValueError("distributions need whole base distributions, (n, V) or (1, V)")
        rows = np.broadcast_to(base, (len(tokens), base.shape[1]))
        found = np.empty(rows.shape)
        for i in range(len(tokens)):
            found[i] = self.distribution(rows[i], float(entropy[i]))
            self.score(tokens[i : i + 1], rows[i : i + 1], entropy[i : i + 1], together=False)
        return found

    def _hint(self, base: NDArray[np.float64], entropy: float) -> Hint | None:
        contexts = self.counts.known([])
        if not contexts:
            return None
        context = contexts[-1]

        def merit(token: int) -> tuple[int, int]:
            seen = _evidence(context, token, len(contexts) > 1)
            return (seen.count << 32) // context.total + seen.recent, -token

        token = max(context.successors, key=merit)
        if float(context.successors[token].count) < self.config.tilt_confidence * float(context.total):
            return None
        p = self._probability([], token, float(base[token]), entropy)
        if not 0.0 < p < 1.0:
            return None
        if self.config.tilt == "fixed":
            return Hint(token, p, p * self._factor / (1.0 + p * (self._factor - 1.0)), 0, 0.0)
        odds = min(max(p / (1.0 - p), 2.0**-20), math.nextafter(2.0**20, 0.0))
        mantissa, exponent = math.frexp(odds)
        place = (min(len(contexts), TILT_ORDERS) - 1) * OCTAVES + exponent - 1 + MIDDLE
        between = 2.0 * mantissa - 1.0
        low, high = (self._hits[i] / self._tries[i] for i in (place, place + 1))
        return Hint(token, p, low + (high - low) * between, place, between)

    def _learn_tilt(self, hint: Hint, came_true: bool) -> None:
        if self.config.tilt != "learned":
            return
        for place, weight in ((hint.place, 1.0 - hint.between), (hint.place + 1, hint.between)):
            self._hits[place] += weight * came_true
            self._tries[place] += weight
            if self._tries[place] > TILT_MEMORY:
                self._hits[place] *= 0.5
                self._tries[place] *= 0.5

    def parts(self) -> tuple[float, list[tuple[int, float]]]:
        """The next position's chain: (the base's factor, (token, part) of every successor of every known context).

        A token's probability by the chain is the sum of its parts and the factor times its base probability; the base's
        entropy is taken to be 0.
        """
        contexts = self.counts.known([])
        levels = self._levels(self.counts.evidence([], 0), self._newest([]), 0.0)
        factor, found = 1.0, []
        for level, context in reversed(list(enumerate(contexts))):
            here = levels[level]
            for token in context.successors:
                found.append((token, factor * here.direct(_evidence(context, token, level > 0))))
            factor *= here.rest
        return factor, found

    def follow_parts(self, token: int, base: float) -> None:
        """Learn from and count the token of which `parts` has just told, with its base probability."""
        self._charge(self.counts.evidence([], token), self._newest([]), base, 0.0)
        self.counts.append(token)

    def evidence(self, token: int) -> NDArray[np.uint64]:
        """One row per known context, (rows, 7)."""
        return np.array([astuple(seen) for seen in self.counts.evidence([], token)], np.uint64).reshape(-1, 7)

    def learned(self) -> dict[str, NDArray[Any]]:
        """Weights as (level, feature value, value or rate, part)."""
        weights = np.empty((self.counts.max_order, sum(FEATURE_SIZES), 2, 4), np.float32)
        for level, i, value, row in self._places(weights):
            weight = self._weights.get((level, i, value)) or Weight(first=i == 0)
            row[0], row[1] = weight.value, weight.rate
        return {
            "weights": weights,
            "tilt": np.array([self._hits, self._tries]),
            "rates": np.array([self._base_weight, self._recent_cost]),
            "steps": np.array([self._scored, self._surprises & 0xFFFFFFFF], np.uint64),
        }

    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None:
        """Load what `learned` returned; raises `ValueError` for arrays of another form."""
        for name, array in self.learned().items():
            found = learned.get(name)
            if found is None or found.shape != array.shape or found.dtype != array.dtype:
                raise ValueError(f"{name} must be like {array.dtype} of shape {array.shape}")
        for level, i, value, row in self._places(learned["weights"]):
            weight = self._weights[level, i, value] = Weight(first=False)
            weight.value, weight.rate = row[0].copy(), row[1].copy()
        self.take_steps(learned)

    def take_steps(self, learned: dict[str, NDArray[Any]]) -> None:
        """Load everything learned except the weights."""
        self._hits, self._tries = learned["tilt"].tolist()
        self._base_weight, self._recent_cost = learned["rates"].tolist()
        self._scored, self._surprises = learned["steps"].tolist()

    def _places(self, weights: NDArray[np.float32]) -> Iterator[tuple[int, int, int, NDArray[np.float32]]]:
        """Yield (level, feature, the feature's value, its row of `weights`)."""
        for level in range(self.counts.max_order):
            rows = iter(weights[level])
            for i, size in enumerate(FEATURE_SIZES):
                yield from ((level, i, value, next(rows)) for value in range(size))

    def size(self) -> dict[str, int]:
        """Positions and n-grams; the memory of dictionaries is not counted."""
        nodes = sum(len(context.successors) for context in self.counts._contexts.values())
        return {"positions": len(self.counts.stream), "nodes": nodes, "bytes": 0}


def chain_shares(
    learned: dict[str, NDArray[Any]], evidence: NDArray[np.uint64], newest: int, entropy: float, config: ExactConfig
) -> list[tuple[Evidence, float]]:
    """(counts of a token, share of the blend) of each known context, shortest first; the rest is the base's.

    `learned` and `evidence` may come from any backend; `newest` is the last token of the context. A share is the mass
    that goes to the context's own counts, after the shares of longer contexts. Without the chain all shares are 0.
    """
    seen = [Evidence(*row) for row in evidence.tolist()]
    model = ReferenceModel(len(learned["weights"]), config)
    model.take_steps(learned)
    places = np.cumsum((0, *FEATURE_SIZES))

    def weight(level: int, i: int, value: int) -> Weight:
        found = Weight(first=False)
        found.value, found.rate = learned["weights"][level, places[i] + value]
        return found

    levels = model.levels(seen, newest, entropy, weight)
    shares, left = [], 1.0 - float(learned["rates"][0])
    for level in reversed(levels if config.chain else []):
        shares.append(left * (1.0 - level.rest))
        left *= level.rest
    return list(zip(seen, shares[::-1] or [0.0] * len(seen), strict=True))


def _first_hits(exponent: int) -> float:
    odds = 2.0**exponent
    return TILT_PRIOR * (odds / (1.0 + odds))


def _tilted(p: float, is_hint: bool, hint: Hint) -> float:
    """The tilted probability: `hint.tilted` for the hint; other tokens share the rest in proportion."""
    return hint.tilted if is_hint else p * ((1.0 - hint.tilted) / (1.0 - hint.p))
