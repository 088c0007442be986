"""Every setting of an evaluation, and the presets.

Settings are frozen dataclasses that check their values; a bad value raises `InputError`, naming the flag. The command
line is generated from the fields below, so a new field is a new flag. Field defaults are the fixed behaviour; each
quirk of the published code (PR #890) is an option, and the preset `pr890` turns all of them on.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ngram_eval.errors import InputError

SIZE_LIMIT = 16_000_000
"""Decimal bytes of model, memory and code together that the challenge allows."""
MAX_HASHED_ORDER = 9
"""Highest order of the hashed counts: the hash has nine primes (`ngram_eval.scorers.hashed.hashing`)."""
MAX_EXACT_ORDER = 32
"""Highest order of the exact counts (kMaxLevels of csrc/exact/evidence.h)."""
MAX_BYTE_ORDER = 7
"""Highest order of the byte mixture (kMostByteOrder of csrc/ppmd/ppmd.h)."""


def _require(condition: bool, name: str, value: object, remedy: str) -> None:
    if not condition:
        raise InputError(f"--{name.replace('_', '-')} is {value!r}: {remedy}")


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowConfig:
    """How the token stream is cut into windows."""

    seq_len: int = 2048
    """Longest window, in positions (PR #890: 2048)."""

    stride: int = 32
    """Positions between window starts; also the positions that each window after the first one scores."""

    rescore_tail: bool = False
    """Quirk 3 of PR #890: windows that run past the end score the last `stride` positions again, and count them."""

    def of_length(self, seq_len: int) -> "WindowConfig":
        """These windows with another length, and a stride that is no longer."""
        return replace(self, seq_len=seq_len, stride=min(self.stride, seq_len))

    def __post_init__(self) -> None:
        _require(1 <= self.seq_len < 1 << 31, "seq_len", self.seq_len, "give 1 to 2147483647 positions")
        _require(self.stride >= 1, "stride", self.stride, "give at least 1 position")
        remedy = f"it may not exceed --seq-len ({self.seq_len}), or positions would be skipped"
        _require(self.stride <= self.seq_len, "stride", self.stride, remedy)


@dataclass(frozen=True, kw_only=True, slots=True)
class NgramConfig:
    """The hashed n-gram tables: per order one of context counts and one of full (context + target) counts."""

    min_order: int = 2
    """Lowest order n; its context has n - 1 tokens. With exact counts: the lowest order that counts as a hit."""

    max_order: int = 9
    """Highest order n, tried first: at most 9 with hashed counts (nine hash primes), 32 with exact counts, 7
    with the byte mixture, whose orders count bytes."""

    buckets: int = 1 << 22
    """Buckets per table, a power of two; memory is orders x 2 x buckets x 4 bytes."""

    min_count: int = 2
    """Smallest context count with which an order may match."""

    context_gap: bool = False
    """Quirk 1 of PR #890: the context of position p ends at x[p-1]; the newest known token x[p] is left out."""

    prefill_hole: bool = False
    """Quirk 2 of PR #890: a rank prefills up to its first window's start instead of its first scored position."""

    target_backoff: bool = False
    """Quirk 4 of PR #890: an order matches only if the target itself was counted, so the target picks the order."""

    def __post_init__(self) -> None:
        _require(self.min_order >= 1, "min_order", self.min_order, "the lowest order is 1 (no context)")
        _require(self.max_order <= MAX_EXACT_ORDER, "max_order", self.max_order, f"give at most {MAX_EXACT_ORDER}")
        _require(
            self.min_order <= self.max_order,
            "min_order",
            self.min_order,
            f"it may not exceed --max-order ({self.max_order})",
        )
        _require(
            1 <= self.buckets <= 1 << 32 and self.buckets & (self.buckets - 1) == 0,
            "buckets",
            self.buckets,
            "give a power of two from 1 to 4294967296",
        )
        _require(1 <= self.min_count < 1 << 32, "min_count", self.min_count, "give a count from 1 to 4294967295")

    @property
    def orders(self) -> range:
        """The orders in use, lowest first."""
        return range(self.min_order, self.max_order + 1)

    @property
    def context_lag(self) -> int:
        """Tokens between the end of a context and its target: 1 with the gap of PR #890, else 0."""
        return int(self.context_gap)


@dataclass(frozen=True, kw_only=True, slots=True)
class GateConfig:
    """The weight of the n-gram estimate: alpha = base + range * sigmoid(slope * (H - centre of the matched order))."""

    alpha_base: float = 0.05
    """Weight at zero entropy (PR #890)."""

    alpha_range: float = 0.55
    """Weight added as the neural entropy H (nats) grows (PR #890); 0 selects `alpha_fixed`."""

    alpha_slope: float = 2.0
    """Slope of the sigmoid, per nat (PR #890)."""

    alpha_fixed: float = 0.2
    """Weight used everywhere when `alpha_range` is 0 (PR #890's fixed-alpha variant)."""

    centres: tuple[float, ...] = (4.0, 4.5, 4.2, 3.8, 3.5, 3.2, 3.0, 2.8, 2.6)
    """Entropy (nats) at half of the range, for orders 1, 2, ... 9 (PR #890; 4.0 for orders that it does not name)."""

    def __post_init__(self) -> None:
        for name in ("alpha_base", "alpha_fixed"):
            value = getattr(self, name)
            _require(0.0 <= value <= 1.0, name, value, "give a weight in [0, 1]")
        _require(
            0.0 <= self.alpha_range <= 1.0 - self.alpha_base,
            "alpha_range",
            self.alpha_range,
            "it may not be negative, and --alpha-base + --alpha-range may not exceed 1",
        )
        _require(0.0 <= self.alpha_slope < float("inf"), "alpha_slope", self.alpha_slope, "give a finite slope >= 0")
        _require(
            len(self.centres) == MAX_HASHED_ORDER and all(abs(c) < float("inf") for c in self.centres),
            "centres",
            self.centres,
            f"give {MAX_HASHED_ORDER} finite entropies in nats, one for each order from 1",
        )


Tilt = Literal["off", "fixed", "learned"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactConfig:
    """The normalised blend of exact counts (`ngram_eval.scorers.exact.model`)."""

    chain: bool = True
    """Blend all contexts, from the neural distribution up; without the chain only the tilt is left."""

    tilt: Tilt = "off"
    """Multiply the odds of one hint by e^beta: never, by a fixed beta, or by one learned from how hints came true."""

    tilt_beta: float = 2.0
    """Natural logarithm of the odds' factor, for a fixed tilt."""

    tilt_confidence: float = 0.0
    """Smallest share of the hint among the successors of the longest known context; below it there is no tilt."""

    by_window: bool = False
    """Count and learn after each whole window, as PR #890 does, instead of after each position."""

    def __post_init__(self) -> None:
        _require(abs(self.tilt_beta) <= 50.0, "tilt_beta", self.tilt_beta, "give -50 to 50")
        _require(0.0 <= self.tilt_confidence <= 1.0, "tilt_confidence", self.tilt_confidence, "give a share in [0, 1]")
        _require(self.chain or self.tilt != "off", "chain", self.chain, "give --tilt learned or fixed, or the chain")
        _require(
            not (self.by_window and self.tilt != "off"), "by_window", self.by_window, "a tilt goes position by position"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MixerConfig:
    """The mixing of hashed contexts over binary decisions (`ngram_eval.scorers.mixer.model`)."""

    contexts: int = 20
    """Number of contexts with a table of their own, the most useful first, up to 37."""

    weight_sets: int = 5
    """Sets of weights whose sums are mixed again: 8, 5 without those by column and bytes, 4 without the model's."""

    matches: int = 1
    """Repetitions that are followed: of 4 tokens or more, of 7, of 14."""

    exact_order: int = 0
    """Highest order of exact counts, whose chain is one more input; 0: without them."""

    runs: int = 0
    """Contexts whose last token is one more input each, the first ones: what came last, and how often in a row."""

    cells: int = 0
    """Cells of a recurrent network that learns online, one more input; a multiple of 8; 0: without it."""

    groups: int = 1 << 24
    """Groups of 15 nodes' bit histories, a power of two, for all contexts; memory is groups x 20 bytes, or 24."""

    start_weight: float = 0.12
    """Initial weight of an n-gram input without a neural model (--uniform); with one, a quarter of it is used."""

    def __post_init__(self) -> None:
        limits = {"contexts": (0, 37), "weight_sets": (1, 8), "matches": (0, 3), "exact_order": (0, MAX_EXACT_ORDER)}
        limits["runs"] = (0, self.contexts)
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            _require(least <= value <= most, name, value, f"give {least} to {most}")
        _require(self.cells in range(0, 513, 8), "cells", self.cells, "give a multiple of 8 from 0 to 512")
        power = 4 <= self.groups <= 1 << 32 and self.groups & (self.groups - 1) == 0
        _require(power, "groups", self.groups, "give a power of two from 4 to 4294967296")
        _require(0.0 <= self.start_weight <= 1.0, "start_weight", self.start_weight, "give 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class PpmdConfig:
    """The mixture with a byte-level PPM-D (`ngram_eval.scorers.ppmd.model`); its orders count bytes."""

    byte_gate: Literal["blind", "target"] = "blind"
    """What makes PPM-D sure. blind: the likeliest byte's share of the counts of the longest known context (#1795);
    target: PPM-D's value of the byte that came (#1785, withdrawn)."""

    byte_share: Literal["spread", "marginal"] = "spread"
    """The model's share of a byte. spread: the root p(token)^(1 / bytes), as published; marginal: the sum over the
    tokens that go on with the byte, which needs whole distributions."""

    sure_above: float = 0.9
    """Confidence above which PPM-D is sure (#1795: 0.9; #1991: 0.8; #2098: 0.7)."""

    model_weight: float = 0.9
    """Weight of the model where PPM-D is not sure (#1795: 0.9; #1991 and #2098: 0.99)."""

    model_weight_sure: float = 0.05
    """Weight of the model where PPM-D is sure (#1795: 0.05; #1991: 0.2; #2098: 0.3)."""

    def __post_init__(self) -> None:
        _require(0.0 <= self.sure_above <= 1.0, "sure_above", self.sure_above, "give a share in [0, 1]")
        for name in ("model_weight", "model_weight_sure"):
            value = getattr(self, name)
            _require(0.0 <= value <= 1.0, name, value, "give a weight in [0, 1]")


ByteRule = Literal["decoded", "piece"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """One preset: everything that decides a result, given the tokens and the neural statistics."""

    scorer: Literal["hashed", "exact", "mixer", "ppmd"] = "hashed"
    """Family: hashed counts and a gate, or a mixture with byte counts (both pseudo-probabilities); exact counts and a
    normalised blend, or hashed contexts of binary decisions (both probabilities)."""

    window: WindowConfig = field(default_factory=WindowConfig)
    """The windows."""

    ngram: NgramConfig = field(default_factory=NgramConfig)
    """The orders, and the hashed count tables."""

    gate: GateConfig = field(default_factory=GateConfig)
    """The weight of the n-gram estimate of hashed counts."""

    exact: ExactConfig = field(default_factory=ExactConfig)
    """The blend of exact counts."""

    mixer: MixerConfig = field(default_factory=MixerConfig)
    """The mixing of binary decisions."""

    ppmd: PpmdConfig = field(default_factory=PpmdConfig)
    """The mixture of bytes."""

    byte_rule: ByteRule = "decoded"
    """Bytes of a target. decoded: the bytes that it decodes to; piece: the published formula on its piece."""

    def __post_init__(self) -> None:
        hashed = self.scorer == "hashed"
        _require(
            not hashed or self.ngram.max_order <= MAX_HASHED_ORDER,
            "max_order",
            self.ngram.max_order,
            f"the hash has primes up to order {MAX_HASHED_ORDER}; --preset exact goes to {MAX_EXACT_ORDER}",
        )
        _require(
            self.scorer != "ppmd" or self.ngram.max_order <= MAX_BYTE_ORDER,
            "max_order",
            self.ngram.max_order,
            f"an order of the byte mixture counts bytes; give 1 to {MAX_BYTE_ORDER}",
        )
        for name, value in (
            ("rescore_tail", self.window.rescore_tail),
            ("context_gap", self.ngram.context_gap),
            ("target_backoff", self.ngram.target_backoff),
        ):
            _require(hashed or not value, name, value, f"{self.scorer} scores each position once, without the target")

    @property
    def normalised(self) -> bool:
        """Whether the values charged are probabilities, which sum to 1 over the vocabulary."""
        return self.scorer not in ("hashed", "ppmd")

    @property
    def learns_online(self) -> bool:
        """Whether the scorer learns from each position for the next: it can't begin in the middle of a stream."""
        return self.scorer != "hashed"

    @property
    def needs_rows(self) -> bool:
        """Whether the scorer needs the whole neural distributions."""
        if self.scorer == "ppmd":
            return self.ppmd.byte_share == "marginal"
        return self.scorer == "mixer" or (self.scorer == "exact" and self.exact.tilt != "off")

    @property
    def depends_on_ranks(self) -> bool:
        """Whether the result depends on how the windows are split over ranks, as PR #890's does."""
        return self.window.rescore_tail or self.ngram.prefill_hole

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON; `ngram_eval.structured.build` reads it."""
        found = asdict(self)
        if self.scorer != "ppmd":  # files of version 0.1 have no such fields, and must go on to fit
            del found["ppmd"]
        if self.scorer != "mixer":
            for name in ("matches", "exact_order", "runs", "cells"):
                del found["mixer"][name]
        return found


def hashed() -> EvalConfig:
    """PR #890's method with quirks 1 to 3 fixed. Hash collisions still make it a pseudo-probability."""
    return EvalConfig(ngram=NgramConfig(target_backoff=True))


def pr890() -> EvalConfig:
    """The published evaluator of PR #890, with all four quirks."""
    base = hashed()
    return replace(
        base,
        window=replace(base.window, rescore_tail=True),
        ngram=replace(base.ngram, context_gap=True, prefill_hole=True),
        byte_rule="piece",
    )


def exact() -> EvalConfig:
    """Exact counts after each position, blended by a chain of learned weights: a probability."""
    return EvalConfig(scorer="exact", ngram=NgramConfig(max_order=24))


def tilt() -> EvalConfig:
    """The model with one hint's odds multiplied by a learned factor: a probability. Needs whole distributions."""
    return replace(exact(), exact=ExactConfig(chain=False, tilt="learned"))


def mixer() -> EvalConfig:
    """Hashed contexts of binary decisions, mixed online: a probability. Needs whole distributions."""
    return EvalConfig(scorer="mixer", mixer=MixerConfig(contexts=18, matches=2))


def mixer_fast() -> EvalConfig:
    """The mixer with fewer contexts."""
    return EvalConfig(scorer="mixer", mixer=MixerConfig(contexts=9, weight_sets=4))


def mixer_max() -> EvalConfig:
    """The mixer with all that it has, exact counts and a recurrent network beside: some ten times slower."""
    most = MixerConfig(contexts=37, weight_sets=8, matches=3, exact_order=24, runs=37, cells=64, start_weight=0.06)
    return replace(mixer(), mixer=most)


def ppmd() -> EvalConfig:
    """The model mixed with a byte-level PPM-D of April 2026, by bytes that are not charged as tokens are.

    A pseudo-probability. Needs a tokenizer.
    """
    return EvalConfig(scorer="ppmd", ngram=NgramConfig(max_order=6), byte_rule="piece")


PRESETS: dict[str, Callable[[], EvalConfig]] = {
    "pr890": pr890,
    "hashed": hashed,
    "exact": exact,
    "tilt": tilt,
    "mixer": mixer,
    "mixer-fast": mixer_fast,
    "mixer-max": mixer_max,
    "ppmd": ppmd,
}
"""Preset name -> configuration: the only list of presets."""

DEFAULT_PRESETS = ("pr890", "hashed", "exact")
"""Presets that are evaluated by default."""


def preset(name: str) -> EvalConfig:
    """The configuration of a preset; raises `InputError`, naming the valid ones, for an unknown name."""
    if name not in PRESETS:
        raise InputError(f"--preset is {name!r}: choose from {', '.join(PRESETS)}")
    return PRESETS[name]()
