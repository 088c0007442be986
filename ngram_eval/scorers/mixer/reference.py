"""The mixer in plain Python: the specification (`csrc/mixer/mixer.h` describes the method in words).

Integers are exact; 64-bit hashes wrap. Floats are float32 unless stated otherwise, and are added, multiplied and
divided in the order written here. Slow: a few hundred tokens a second.
"""

import math
from collections import deque
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import ExactConfig, MixerConfig
from ngram_eval.scorers.exact.reference import ReferenceModel, logistic
from ngram_eval.scorers.mixer.model import Spelling
from ngram_eval.scorers.mixer.recurrent import Recurrent
from ngram_eval.text.stream import Tokens

F = np.float32
MASK = (1 << 64) - 1

LANES = 8
LEVELS = 4
LOGIT_LIMIT = F(11.99)
LEAST_MIXED = F(1 / 65536)
LEAST = 1 / (1 << 22)
CELLS = 33
CONSTANT, EXACT, REPETITION, DIRECT, HASHED = 1, 2, 3, 6, 10  # first input of each kind; input 0 is the neural model's
RATE, FIRST_RATE, RATE_TOKENS, RATE_OF_ALL = F(0.006), F(0.02), F(20000), F(0.2)
RECURRENT_WEIGHT = F(5)  # times an n-gram input's
LAST_RATE, MAP_RATE = F(0.001), F(0.02)
STATE_LIMIT, DIRECT_LIMIT, REPETITION_LIMIT = 255, 250, 1000
SET_BITS, MAP_BITS = 14, 16
COLUMNS, MOST_DECISIONS = 128, 19
MATCHES, LONGEST, REMEMBERED, PLACE_BITS, AFTER_BITS = (4, 7, 14), 32, 1 << 22, 20, 18
MOST_MISSED, TRUSTED = 8, 16
RUN_LENGTHS, RUN_DEPTHS, LONGEST_RUN = 16, 4, 31
TEXT_KEPT = 1 << 12
EXACT_ONE = 1 << 50
MOST_BESIDES = (40, 30, 16, 9, 6, 5)
SETS = (
    *("weights_node", "weights_word", "weights_token", "weights_counts", "weights_neural"),
    *("weights_column", "weights_before", "weights_last"),
)


def mix(a: int, b: int) -> int:
    """A 64-bit hash of two integers."""
    a ^= b * 0x9E3779B97F4A7C15 & MASK
    a ^= a >> 29
    a = a * 0xBF58476D1CE4E5B9 & MASK
    return a ^ a >> 32


def logit(p: float) -> float:
    """ln(p / (1 - p)) in float64, with +, -, x and / only, clipped to the limit."""
    odds = p / (1.0 - p) if p < 1.0 else math.inf
    if not odds > 6.2e-6:
        return -float(LOGIT_LIMIT)
    if odds > 1.6e5:
        return float(LOGIT_LIMIT)
    m, exponent = math.frexp(odds)
    if m < 0.70710678118654752:
        m, exponent = m * 2.0, exponent - 1
    s = (m - 1.0) / (m + 1.0)
    square = s * s
    series = 1.0 / 13.0
    for divisor in (11.0, 9.0, 7.0, 5.0, 3.0, 1.0):
        series = 1.0 / divisor + square * series
    return exponent * 0.69314718055994531 + 2.0 * s * series


LOGITS = [F(logit((i + 0.5) / 4096)) for i in range(4096)]
SHARE = [int(65536 / (n + 1.6)) for n in range(1024)]


class Estimate:
    """An adaptive probability of 22 bits, and the number of its updates."""

    __slots__ = ("count", "p")

    def __init__(self, p: float | None = None) -> None:
        self.p = 1 << 21 if p is None else int(p * ((1 << 22) - 1))
        self.count = 0

    @property
    def logit(self) -> np.float32:
        """Logit of its first 12 bits."""
        return LOGITS[self.p >> 10]

    def update(self, bit: int, limit: int) -> None:
        """Move it towards the outcome, by a smaller step each time."""
        self.p += ((((1 << 22) - 1) * bit - self.p) * SHARE[self.count]) >> 16
        self.count += self.count < limit


@dataclass(frozen=True)
class BitHistory:
    """Counts of a decision's outcomes in a context, and the last outcome if both have occurred."""

    zeros: int
    ones: int
    last: int

    @property
    def total(self) -> int:
        """Number of outcomes remembered."""
        return self.zeros + self.ones

    def after(self, bit: int) -> "BitHistory":
        """The history with one more outcome; the other outcome's count shrinks, and both stay within the limits."""
        counts = [self.zeros, self.ones]
        counts[bit] += 1
        other = counts[1 - bit]
        counts[1 - bit] = next((to for above, to in ((25, 6), (12, 5), (5, 4), (3, 3)) if other > above), min(other, 2))
        while min(counts) >= len(MOST_BESIDES) or max(counts) > MOST_BESIDES[min(counts)]:
            larger = 0 if counts[0] > counts[1] or (counts[0] == counts[1] and bit == 0) else 1
            counts[larger] -= 1
        return BitHistory(counts[0], counts[1], bit if min(counts) > 0 else 0)


NOTHING = BitHistory(0, 0, 0)


@dataclass
class Node:
    """A node on the path to a token: ranks [low, high) are below it, those from `mid` on to its right."""

    low: int
    high: int
    depth: int = 0
    place: int = 1
    """Place in its group of four levels, 1 to 15."""
    base: float = 1.0
    """The neural model's probability of its tokens."""

    @property
    def mid(self) -> int:
        """The first rank to the right."""
        return (self.low + self.high + 1) // 2

    @property
    def is_leaf(self) -> bool:
        """Whether only one token is left."""
        return self.high - self.low == 1

    def child(self, bit: int, one: float = 0.5) -> "Node":
        """The node below, after the outcome `bit`; `one`: the neural model's probability of a 1."""
        place = 1 if (self.depth + 1) % LEVELS == 0 else 2 * self.place + bit
        low, high = (self.mid, self.high) if bit else (self.low, self.mid)
        return Node(low, high, self.depth + 1, place, self.base * (one if bit else 1.0 - one))


@dataclass
class Match:
    """A place where the last tokens came before, followed for as long as it predicts well."""

    place: int
    """Of the token that it says comes next."""
    length: int
    """Tokens that were alike without a break."""
    missed: int = 0
    """Predictions that failed."""


class Text:
    """What tokens have spelt: the last bytes, words, lines."""

    def __init__(self) -> None:
        self.bytes = 0
        self.word = self.last_word = self.word_before = self.two_before = 0
        self.capital = self.between = self.indent = self.first = 0
        self.first_word = self.first_word_above = 0
        self.is_capital = False
        self.letters = self.long_word = 0
        self.kinds = (0, 0, 0)
        self.kept = deque[int](maxlen=TEXT_KEPT)
        self.column = self.length_above = 0

    def add(self, byte: int) -> None:
        """Add the next byte."""
        self.bytes = (self.bytes << 8 | byte) & MASK
        self.kept.append(byte)
        self.column += 1
        if byte >= 128 or chr(byte).isalnum() or byte == 39:
            if not self.word:
                self.is_capital, self.letters = 65 <= byte <= 90, 0
            self.word = mix(self.word + 1 & MASK, byte | 32)
            self.letters += 1
        else:
            self.between = byte if self.word else (self.between << 8 | byte) & MASK
            if self.word:
                self.first_word = self.first_word or self.word
                self.capital = self.word if self.is_capital else self.capital
                ending = self.bytes >> 8 & 0x1F1F
                kind = self.word if self.letters <= 4 else mix(int(self.letters > 6), ending)
                self.kinds = (kind, *self.kinds[:2])
                self.long_word = self.word if self.letters > 4 else self.long_word
                self.two_before, self.word_before, self.last_word = self.word_before, self.last_word, self.word
                self.word = 0
        if byte == 10:
            self.length_above, self.column = self.column - 1, 0
            self.first_word_above = self.first_word
            self.first_word = self.indent = self.first = 0
        elif not self.first:
            if byte in b" \t":
                self.indent += 1
            else:
                self.first = byte

    def above(self, k: int) -> int:
        """The byte of the line above that is `k` to the right of the next one; 256 if there is none."""
        if self.column + k > self.length_above or self.length_above >= TEXT_KEPT // 2:
            return 256
        back = self.length_above + 1 - k
        return self.kept[-back] if back <= len(self.kept) else 0

    def last(self, n: int) -> int:
        """The last bytes as a number."""
        return self.bytes & ((1 << 8 * n) - 1)


class Past:
    """The stream so far, and its contexts."""

    def __init__(self, surfaces: list[bytes], matches: int) -> None:
        self.surfaces = surfaces
        self.tokens: deque[int] = deque(maxlen=REMEMBERED)
        self.size = 0
        self.text = Text()
        self.after: list[dict[int, int]] = [{}, {}, {}]
        self.places: list[dict[int, int]] = [{} for _ in range(matches)]
        self.matches: list[Match | None] = [None] * matches

    def at(self, position: int) -> int:
        """The token at a remembered position."""
        return self.tokens[position - (self.size - len(self.tokens))]

    def back(self, k: int) -> int:
        """The k-th last token plus one, 0 before the first."""
        return self.tokens[-k] + 1 if k <= self.size else 0

    def _after_keys(self) -> tuple[int, int, int]:
        """Where it is kept what followed: the last token, the last two, the last word and the one under way."""
        one = mix(1, self.back(1))
        keys = one, mix(one, self.back(2)), mix(self.text.word, self.text.last_word)
        first, second, third = (key >> (64 - AFTER_BITS) for key in keys)
        return first, second, third

    def push(self, token: int) -> None:
        """Add the next token."""
        for followed, key in zip(self.after, self._after_keys(), strict=True):
            followed[key] = (followed.get(key, 0) << 16 | token & 0xFFFF) & 0xFFFFFFFF
        for m, match in enumerate(self.matches):
            if match is not None:
                right = self.at(match.place) == token
                match.place += 1
                match.length = match.length + 1 if right else 0
                match.missed = 0 if match.length >= TRUSTED else match.missed + (not right)
                if match.missed > MOST_MISSED:
                    self.matches[m] = None
        self.tokens.append(token)
        self.size += 1
        for m in range(len(self.matches)):
            self._match(m)
        for byte in self.surfaces[token]:
            self.text.add(byte)

    def _match(self, m: int) -> None:
        """Look for a match where none is under way, or one that has just failed."""
        if self.size < MATCHES[m]:
            return
        key = 0
        for k in range(1, MATCHES[m] + 1):
            key = mix(key, self.back(k))
        key >>= 64 - PLACE_BITS
        place = self.places[m].get(key, 0)
        match = self.matches[m]
        sought = match is None or match.length < MATCHES[m]
        if sought and place > 0 and self.size - place < REMEMBERED - LONGEST:
            same = 0
            while same < min(LONGEST, place) and self.at(place - 1 - same) == self.at(self.size - 1 - same):
                same += 1
            if same >= MATCHES[m]:
                self.matches[m] = Match(place, same)
        self.places[m][key] = self.size

    def _expectation(self, m: int) -> int:
        """What a match says comes next, and how long it is; 0 without one."""
        match = self.matches[m] if m < len(self.matches) else None
        return 0 if match is None else self.at(match.place) + 1 << 8 | min(match.length, 24)

    def hashed(self) -> list[int]:
        """One hash for each table of bit histories."""
        t1, t2, t3, t4 = (self.back(k) for k in range(1, 5))
        one = mix(1, t1)
        two = mix(one, t2)
        three = mix(two, t3)
        four = mix(three, t4)
        text, last = self.text, self.text.last
        words = mix(text.word, text.last_word)
        above, above_two = text.above(0), text.above(0) << 9 | text.above(1)
        after_one, after_two, after_words = (
            followed.get(key, 0) for followed, key in zip(self.after, self._after_keys(), strict=True)
        )
        contexts = (
            two,
            words,
            three,
            text.word,
            last(5),
            mix(mix(four, self.back(5)), self.back(6)),
            mix(after_one, t1),
            mix(text.indent, text.first),
            mix(above, text.column),
            mix(after_two, t1),
            last(2),
            mix(text.indent, last(1)),
            0,
            t2,
            last(3),
            mix(above_two, last(1)),
            mix(text.word, text.between),
            mix(text.word, text.capital),
            mix(t3, t4),
            mix(text.last_word, text.word_before),
            self._expectation(0),
            mix(self._expectation(1), last(1)),
            mix(text.word, text.word_before),
            mix(text.first, text.word),
            mix(text.last_word, t1),
            mix(after_words, t1),
            mix(mix(text.first_word_above, min(text.column, 30)), t1),
            mix(text.column, last(1)),
            mix(text.length_above, text.column),
            text.bytes >> 8 & 0xFFFF,
            text.bytes >> 16 & 0xFFFF,
            mix(text.word, text.two_before),
            mix(text.word, text.indent),
            mix(t2, t3),
            mix(t1, t3),
            mix(text.word, text.long_word),
            mix(mix(text.word, text.kinds[1]), text.kinds[2]),
        )
        return [mix(k + 1, context) for k, context in enumerate(contexts)]

    def direct(self) -> list[int]:
        """One hash for each table of adaptive probabilities."""
        t1 = self.back(1)
        return [mix(101, 0), mix(102, t1), mix(103, mix(mix(1, t1), self.back(2))), mix(104, self.text.word)]


class Run(NamedTuple):
    """What came last after a context, and how often in a row."""

    check: int
    rank: int
    length: int


class Group:
    """The bit histories of up to 15 nodes in one context."""

    def __init__(self, check: int) -> None:
        self.check = check
        self.histories = [NOTHING] * 16


@dataclass
class Seen:
    """What the contexts hold for a decision."""

    keys: list[int]
    place: int
    histories: list[BitHistory]
    direct: list[Estimate]
    repetitions: list[Estimate | None]
    runs: list[Estimate | None]


@dataclass
class Mixed:
    """The prediction of a decision from `Seen` and the neural model."""

    inputs: NDArray[np.float32]
    logits: NDArray[np.float32]
    p: NDArray[np.float32]
    weights: list[NDArray[np.float32]]
    last_weights: NDArray[np.float32]
    cells: list[NDArray[np.float32]]
    right: np.float32
    neural: float
    """The neural model's probability of a 1."""
    exact: float
    """That of exact counts; 0 without them."""
    mixed: np.float32
    """The probability of a 1 before the last maps."""
    mended: np.float32
    """The probability of a 1 after the last maps."""

    def charge(self, weight: "Believed") -> float:
        """The final probability of a 1, given these weights."""
        rest = 1.0 - weight.neural - weight.exact
        one = weight.neural * self.neural + weight.exact * self.exact + rest * float(self.mended)
        return min(1.0 - LEAST, max(LEAST, one))

    def told(self, weight: "Believed", one: float, bit: int) -> "Believed":
        """The weights after the outcome."""
        charged = one if bit else 1.0 - one
        neural = min(1.0, weight.neural * (self.neural if bit else 1.0 - self.neural) / charged)
        exact = min(1.0 - neural, weight.exact * (self.exact if bit else 1.0 - self.exact) / charged)
        return Believed(neural, exact)


class Believed(NamedTuple):
    """The switch's weights of the neural model and of exact counts; the rest is the mixture's."""

    neural: float
    exact: float


class ExactPaths:
    """What exact counts say of decisions: the sums of their chain over the tokens on both sides."""

    def __init__(self, max_order: int, rank: NDArray[np.int64]) -> None:
        self.model, self.rank = ReferenceModel(max_order, ExactConfig()), rank
        self.below = [0] * (len(rank) + 1)
        self.rest = 1.0

    def begin(self) -> None:
        """Sum up the next token's parts, in units of 2^-50, so that no order of adding matters."""
        self.rest, parts = self.model.parts()
        by_rank = [0] * len(self.rank)
        for token, part in parts:
            by_rank[self.rank[token]] += int(part * EXACT_ONE)
        self.below = [0, *accumulate(by_rank)]

    def one(self, node: Node, neural: float) -> float:
        """The probability of a 1; `neural`: the neural model's."""
        left = float(self.below[node.mid] - self.below[node.low]) * (1.0 / EXACT_ONE)
        right = float(self.below[node.high] - self.below[node.mid]) * (1.0 / EXACT_ONE)
        left += self.rest * (node.base * (1.0 - neural))
        right += self.rest * (node.base * neural)
        return right / (left + right) if left + right > 0.0 else 0.5


def dot(a: NDArray[np.float32], b: NDArray[np.float32]) -> np.float32:
    """The sum of products: first in eight columns, then over the columns."""
    s = np.zeros(LANES, F)
    for i in range(0, len(a), LANES):
        s = s + a[i : i + LANES] * b[i : i + LANES]
    result: np.float32 = ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]))
    return result


def clipped(z: np.float32) -> np.float32:
    """The logit, clipped to the limit."""
    return min(LOGIT_LIMIT, max(-LOGIT_LIMIT, z))


class ReferenceMixer:
    """The readable `ngram_eval.scorers.mixer.model.Mixer`."""

    def __init__(self, config: MixerConfig, spelling: Spelling, *, weight: float) -> None:
        self.config, self.rank = config, spelling.rank.astype(np.int64)
        self.by_rank = np.argsort(self.rank)
        self.vocab_size = len(self.rank)
        self.past = Past(spelling.surfaces, config.matches)
        self.used = HASHED + config.contexts + config.runs + (config.cells > 0)
        width = -(-self.used // LANES) * LANES
        self.recurrent_input = HASHED + config.contexts + config.runs

        self.lines = config.groups // 4
        self.groups: dict[int, list[Group | None]] = {}
        self.direct_lines = max(config.groups // 16, 1)
        self.direct: dict[tuple[int, int], Estimate] = {}
        self.maps: list[dict[BitHistory, Estimate]] = [{} for _ in range(config.contexts)]
        self.repetitions: dict[tuple[int, int, int, bool, int], Estimate] = {}
        self.runs: dict[int, Run] = {}
        self.run_maps: dict[tuple[int, int, int, int], Estimate] = {}

        rows = (
            *(self.vocab_size, 1 << SET_BITS, 1 << SET_BITS, 768, 16 * 5 * 4),
            *(COLUMNS * MOST_DECISIONS, 256 * 16, 256 * 16),
        )[: config.weight_sets]
        start = np.zeros(width, F)
        start[CONSTANT : HASHED + config.contexts] = weight
        start[0], start[EXACT] = (0.5, 0.5) if config.exact_order else (1, 0)
        if config.cells:
            start[self.recurrent_input] = RECURRENT_WEIGHT * F(weight)
        self.weights = [np.tile(start, (n, 1)) for n in rows]
        self.last_weights = np.zeros((self.vocab_size, LANES), F)
        self.last_weights[:, : len(rows)] = F(1) / F(len(rows))
        untouched = logistic((np.arange(CELLS, dtype=F) - F(CELLS // 2)) * F(0.5))
        self.last_maps = [np.tile(untouched, (n, 1)) for n in (self.vocab_size, 1 << MAP_BITS)]

        self.exact = ExactPaths(config.exact_order, self.rank) if config.exact_order else None
        self.recurrent = Recurrent(self.vocab_size, config.cells) if config.cells else None
        self.believed, self.charged = Believed(*((1 / 3, 1 / 3) if self.exact else (0.5, 0.0))), 0.0  # the switch
        self.weight, self.one = self.believed, 0.5  # the switch's weights within the token; the probability of a 1
        self.below = np.zeros(self.vocab_size + 1)
        self.branches: NDArray[np.float64] | None = None
        """The neural model's probabilities of a 1 on the token's path, where these are given instead of a row."""
        self.node = Node(0, 1)
        self.contexts: list[int] = []
        self.keys: list[int] = []
        self.groups_here: list[Group] = []
        self.direct_here: list[int] = []
        self.seen: list[tuple[Seen, int]] = []
        self.mixed: list[tuple[Mixed, int]] = []

    # Contexts

    def _line(self, key: int) -> list[Group | None]:
        return self.groups.setdefault((key >> 8) % self.lines, [None] * 4)

    def _find(self, key: int) -> Group:
        """The group of a hash, or an empty group."""
        check = max(key & 255, 1)
        found = [group for group in self._line(key) if group is not None and group.check == check]
        return found[0] if found else Group(check)

    def _take(self, key: int) -> Group:
        """The group of a hash, to write to; a new group replaces the least used one (at its first node) of its line."""
        line, found = self._line(key), self._find(key)
        if not any(group is found for group in line):
            used = [-1 if group is None else group.histories[1].total for group in line]
            line[used.index(min(used))] = found
        return found

    def _open(self, node: Node) -> None:
        """Find the contexts' groups below a node at which groups begin."""
        if node.depth % LEVELS == 0:
            self.contexts = self.past.hashed()[: self.config.contexts]
            self.keys = [mix(context, node.mid) for context in self.contexts]
            self.groups_here = [self._find(key) for key in self.keys]
            self.direct_here = [(mix(context, node.mid) >> 8) % self.direct_lines for context in self.past.direct()]

    def _direct(self, line: int, place: int) -> Estimate:
        return self.direct.setdefault((line, place), Estimate())

    def _map(self, k: int, history: BitHistory) -> Estimate:
        return self.maps[k].setdefault(history, Estimate((history.ones + 0.4) / (history.total + 0.8)))

    def _look(self, node: Node) -> Seen:
        """What the contexts and the current repetitions hold for a node."""
        histories = [group.histories[node.place] for group in self.groups_here]
        direct = [self._direct(line, node.place) for line in self.direct_here]
        repetitions = [self._repetition(node, m) for m in range(self.config.matches)]
        runs = [self._run(node, k, context) for k, context in enumerate(self.contexts[: self.config.runs])]
        return Seen(self.keys, node.place, histories, direct, repetitions, runs)

    def _run(self, node: Node, k: int, context: int) -> Estimate | None:
        run = self.runs.get((context >> 8) % self.config.groups)
        if run is None or run.check != context & 255 or not node.low <= run.rank < node.high:
            return None  # or it has already failed
        bit = int(run.rank >= node.mid)
        key = k, min(run.length, RUN_LENGTHS - 1), min(node.depth, RUN_DEPTHS - 1), bit
        return self.run_maps.setdefault(key, Estimate((0.2, 0.8)[bit]))

    def _repetition(self, node: Node, m: int) -> Estimate | None:
        match = self.past.matches[m]
        if match is None:
            return None
        expected = self.rank[self.past.at(match.place)]
        if not node.low <= expected < node.high:
            return None  # it has already failed
        known = match.length if match.length < 16 else min(31, 16 + (match.length - 16) // 4)
        bit = int(expected >= node.mid)
        key = m, known, min(match.missed, 3), node.depth > 0, bit
        return self.repetitions.setdefault(key, Estimate((0.1, 0.9)[bit]))

    # One decision

    def _predict(self, node: Node, seen: Seen) -> Mixed:
        past, mid = self.past, node.mid
        inputs = np.zeros_like(self.weights[0][0])
        whole = self.below[node.high] - self.below[node.low]
        q = float((self.below[node.high] - self.below[mid]) / whole) if whole > 0 else 0.5
        if self.branches is not None:
            q = float(self.branches[node.depth])
        inputs[0] = F(logit(q))
        exact = 0.0
        if self.exact:
            exact = self.exact.one(node, q)
            inputs[EXACT] = F(logit(exact))
        inputs[CONSTANT] = F(0.3)
        for m, repetition in enumerate(seen.repetitions):
            if repetition is not None:
                inputs[REPETITION + m] = repetition.logit
        for k, estimate in enumerate(seen.direct):
            inputs[DIRECT + k] = estimate.logit
        for k, history in enumerate(seen.histories):
            if history != NOTHING:
                inputs[HASHED + k] = self._map(k, history).logit
        for k, run in enumerate(seen.runs):
            if run is not None:
                inputs[HASHED + self.config.contexts + k] = run.logit
        if self.recurrent:
            one = self.recurrent.one(node.low, mid, node.high)
            inputs[self.recurrent_input] = F(logit(one))

        repeats = 0
        if seen.repetitions and seen.repetitions[0] is not None:
            length = past.matches[0].length if past.matches[0] else 0
            repeats = 1 if length < 8 else 2 if length < 20 else 3
        used = [seen.histories[k].total if k < len(seen.histories) else 0 for k in range(8)]
        sure = min(3, used[0] // 2) * 16 + min(3, used[1] // 2) * 4 + min(3, used[4] // 2)
        known = sum(used[k] > 0 for k in (5, 6, 2, 0))
        neural = min(15, max(0, int(inputs[0] + F(8))))
        token = mix(105, past.back(1))
        selected = (
            mid,
            mix(mix(106, past.text.word), node.depth // 3) >> (64 - SET_BITS),
            mix(token, node.depth) >> (64 - SET_BITS),
            (sure * 3 + min(2, used[3])) * 4 + repeats,
            (neural * 5 + known) * 4 + repeats,
            min(past.text.column, COLUMNS - 1) * MOST_DECISIONS + node.depth,
            (past.text.bytes >> 8 & 255) * 16 + min(node.depth, 15),
            (past.text.bytes & 255) * 16 + min(node.depth, 15),
        )
        weights = [table[row] for table, row in zip(self.weights, selected, strict=False)]
        logits = np.zeros(LANES, F)
        for m, chosen in enumerate(weights):
            logits[m] = clipped(dot(chosen, inputs))
        last_weights = self.last_weights[mid]
        z = clipped(dot(last_weights, logits))
        mixed = logistic(np.array([z]))[0]
        at = (min(F(7.999), max(F(-7.999), z)) + F(8)) * F(2)
        cell = int(at)
        right = at - F(cell)
        rows = (mid, mix(token, mid) >> (64 - MAP_BITS))
        cells = [table[row, cell : cell + 2] for table, row in zip(self.last_maps, rows, strict=True)]
        maps = F(0)
        for c in cells:
            maps = maps + (c[0] * (F(1) - right) + c[1] * right)
        mended = min(F(1) - LEAST_MIXED, max(LEAST_MIXED, F(0.5) * mixed + F(0.25) * maps))
        return Mixed(inputs, logits, logistic(logits), weights, last_weights, cells, right, q, exact, mixed, mended)

    # One token: all its decisions, then learning from them

    def _learn(self, decisions: list[tuple[Mixed, int]]) -> None:
        """Update everything that depends on the neural model."""
        share = 1.0 / (self.charged + 2.0)
        even = 1.0 / 3.0 if self.exact else 0.5
        neural = (1.0 - share) * self.weight.neural + even * share
        exact = (1.0 - share) * self.weight.exact + even * share if self.exact else 0.0
        self.believed, self.charged = Believed(neural, exact), self.charged + 1.0
        last = min(RATE, RATE_OF_ALL / F(self.used))
        rate = last + (FIRST_RATE - last) / (F(1) + F(self.past.size) / RATE_TOKENS)
        for mixed, bit in decisions:
            outcome = F(bit)
            for c in mixed.cells:
                c[0] += (outcome - c[0]) * MAP_RATE * (F(1) - mixed.right)
                c[1] += (outcome - c[1]) * MAP_RATE * mixed.right
            for m, chosen in enumerate(mixed.weights):
                chosen += (outcome - mixed.p[m]) * rate * mixed.inputs
            mixed.last_weights += (outcome - mixed.mixed) * LAST_RATE * mixed.logits

    def _count(self, decisions: list[tuple[Seen, int]], token: int) -> None:
        """Update everything that does not depend on the neural model, and add the token."""
        for depth, (seen, bit) in enumerate(decisions):
            if depth % LEVELS == 0:
                taken = [self._take(key) for key in seen.keys]
            for k, history in enumerate(seen.histories):
                self._map(k, history).update(bit, STATE_LIMIT)
                taken[k].histories[seen.place] = history.after(bit)
            for estimate in seen.direct:
                estimate.update(bit, DIRECT_LIMIT)
            for repetition in seen.repetitions:
                if repetition is not None:
                    repetition.update(bit, REPETITION_LIMIT)
            for run_map in seen.runs:
                if run_map is not None:
                    run_map.update(bit, STATE_LIMIT)
        rank = int(self.rank[token])
        for context in self.contexts[: self.config.runs]:
            place, check = (context >> 8) % self.config.groups, context & 255
            run = self.runs.get(place)
            goes_on = run is not None and run[:2] == (check, rank)
            self.runs[place] = Run(check, rank, min(run.length + 1, LONGEST_RUN) if run and goes_on else 1)
        if self.recurrent:
            self.recurrent.learn(int(self.rank[token]))
        self.past.push(token)

    def _order(self, first: Seen) -> int:
        if self.past.size == 0:
            return 0
        for k, order in ((5, 7), (2, 4), (0, 3)):
            if k < len(first.histories) and first.histories[k] != NOTHING:
                return order
        return 2 if first.direct[1].count else 1

    def _sum_up(self, row: NDArray[np.float64]) -> None:
        self.branches = None
        total = 0.0
        for rank, token in enumerate(self.by_rank):
            total += float(row[token])
            self.below[rank + 1] = total

    def append(self, tokens: Tokens) -> None:
        if self.exact:
            self.exact.model.append(tokens)
        for token in tokens.tolist():
            node, leaf = Node(0, self.vocab_size), self.rank[token]
            decisions = []
            while not node.is_leaf:
                self._open(node)
                bit = int(leaf >= node.mid)
                decisions.append((self._look(node), bit))
                node = node.child(bit)
            self._count(decisions, token)

    def score(self, tokens: Tokens, base: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        p, order, _, _ = self._charge(tokens, base)
        return p, order

    def score_paths(
        self, tokens: Tokens, branches: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        p, order, _, _ = self._charge(tokens, branches, paths=True)
        return p, order

    def decisions(
        self, tokens: Tokens, base: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.float64]]:
        p, _, bits, ones = self._charge(tokens, base)
        return p, np.array(bits, np.uint8), np.array(ones)

    def _charge(
        self, tokens: Tokens, base: NDArray[np.float64], *, paths: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8], list[int], list[float]]:
        p, order = np.ones(len(tokens)), np.zeros(len(tokens), np.uint8)
        bits, ones = [], []
        for i, token in enumerate(tokens.tolist()):
            leaf = self.rank[token]
            if paths:
                self.branches = base[i]
            else:
                self._sum_up(base[i % len(base)])
            one = self._begin()
            order[i] = self._order(self.seen[0][0])
            while not self.token_known:
                bit = int(leaf >= self.node.mid)
                p[i] *= one if bit else 1.0 - one
                bits.append(bit)
                ones.append(one)
                one = self.decide(bit)
        return p, order, bits, ones

    def distribution(self, base: NDArray[np.float64]) -> NDArray[np.float64]:
        self._sum_up(base)
        if self.exact:
            self.exact.begin()
        p = np.ones(self.vocab_size)

        def descend(node: Node, weight: Believed, charged: float) -> None:
            if node.is_leaf:
                p[self.by_rank[node.low]] = charged
                return
            self._open(node)
            here = self.keys, self.groups_here, self.direct_here
            mixed = self._predict(node, self._look(node))
            one = mixed.charge(weight)
            for bit in range(2):
                self.keys, self.groups_here, self.direct_here = here
                below = node.child(bit, mixed.neural)
                descend(below, mixed.told(weight, one, bit), charged * (one if bit else 1.0 - one))

        descend(Node(0, self.vocab_size), self.believed, 1.0)
        return p

    def evidence(
        self, token: int, base: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        self._sum_up(base)
        if self.exact:
            self.exact.begin()
        n = self.config.contexts
        occurred, followed = np.zeros(n, np.int64), np.zeros(n, np.int64)
        sizes = np.zeros(len(self.weights[0][0]))
        node, leaf = Node(0, self.vocab_size), self.rank[token]
        while not node.is_leaf:
            self._open(node)
            seen = self._look(node)
            mixed = self._predict(node, seen)
            bit = int(leaf >= node.mid)
            for k, history in enumerate(seen.histories):
                if node.depth == 0:
                    occurred[k] = history.total
                followed[k] = history.ones if bit else history.zeros
            for m, chosen in enumerate(mixed.weights):
                sizes += np.abs(float(mixed.last_weights[m]) * chosen.astype(np.float64) * mixed.inputs)
            node = node.child(bit, mixed.neural)
        total = sizes.sum()
        shares = np.append(sizes[HASHED : HASHED + n], sizes[0])
        return occurred, followed, shares / total if total > 0 else np.zeros(n + 1)

    def begin(self, base: NDArray[np.float64]) -> float:
        self._sum_up(base)
        return self._begin()

    def _begin(self) -> float:
        if self.exact:
            self.exact.begin()
        self.node = Node(0, self.vocab_size)
        self.seen, self.mixed = [], []
        self.weight = self.believed
        return self._next()

    def _next(self) -> float:
        self._open(self.node)
        seen = self._look(self.node)
        mixed = self._predict(self.node, seen)
        self.seen.append((seen, -1))
        self.mixed.append((mixed, -1))
        self.one = mixed.charge(self.weight)
        return self.one

    def decide(self, bit: int) -> float:
        if self.node.is_leaf:
            raise ValueError("no decision is under way: begin with a distribution")
        if bit not in (0, 1):
            raise ValueError(f"bit is {bit}: give 0 or 1")
        self.seen[-1] = self.seen[-1][0], bit
        self.mixed[-1] = self.mixed[-1][0], bit
        self.weight = self.mixed[-1][0].told(self.weight, self.one, bit)
        self.node = self.node.child(bit, self.mixed[-1][0].neural)
        if not self.token_known:
            return self._next()
        if self.exact:
            self.exact.model.follow_parts(self.token, self.node.base)
        self._learn(self.mixed)
        self._count(self.seen, self.token)
        return 0.0

    @property
    def token_known(self) -> bool:
        return self.node.is_leaf

    @property
    def token(self) -> int:
        return int(self.by_rank[self.node.low])

    # Weights as arrays

    def _arrays(self) -> dict[str, NDArray[np.float32]]:
        arrays = dict(zip(SETS, self.weights, strict=False))
        return {
            **arrays,
            "last_weights": self.last_weights,
            "last_map_node": self.last_maps[0],
            "last_map_token": self.last_maps[1],
        }

    def learned(self) -> dict[str, NDArray[Any]]:
        arrays = {name: array.ravel().copy() for name, array in self._arrays().items()}
        if self.exact:
            exact = self.exact.model.learned()
            arrays["exact_weights"] = exact["weights"].ravel()
            arrays["exact_state"] = np.concatenate([exact["rates"], exact["steps"].astype(np.float64)])
        return {**arrays, "switch": np.array([*self.believed, self.charged])}

    @property
    def neural_weight(self) -> float:
        """The switch's weight of the neural model."""
        return self.believed.neural

    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None:
        arrays, expected = self._arrays(), self.learned()
        if learned.keys() != expected.keys():
            raise ValueError(f"arrays are {', '.join(expected)}, not {', '.join(learned)}")
        for name, array in arrays.items():
            array[:] = learned[name].reshape(array.shape)
        if self.exact:
            model = self.exact.model
            like = model.learned()
            rates, steps = np.split(learned["exact_state"], 2)
            weights = learned["exact_weights"].reshape(like["weights"].shape)
            model.load_learned({**like, "weights": weights, "rates": rates, "steps": steps.astype(np.uint64)})
        neural, counted, self.charged = learned["switch"].tolist()
        self.believed = Believed(neural, counted)
