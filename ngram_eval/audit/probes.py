"""The probes: each tests one property of a subject and returns its finding. `PROBES` lists them.

Values are compared in three ways. Numbers computed again from the same past must agree to `SAME`. Numbers from inputs
of different shapes, for which a forward rounds differently, must agree to `CLOSE`. A sum over the vocabulary must be 1
to `UNIT`, plus the error of the neural softmax itself.
"""

from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.claim import Claim
from ngram_eval.audit.finding import Finding, NotApplicable, Probe, finding
from ngram_eval.audit.subject import Glimpse, Subject, Trace
from ngram_eval.bpb import bits_per_byte, nats_of
from ngram_eval.config import WindowConfig
from ngram_eval.text.samples import choose_samples
from ngram_eval.text.stream import Tokens
from ngram_eval.text.tokenizer import TextTokenizer, first_difference

SAME, CLOSE, UNIT = 1e-6, 1e-4, 1e-6
"""Tolerances: nats, nats, and distance from 1 (see above)."""
SOFTMAX = 1e-5
"""Largest accepted error of the sum of a neural softmax in float32."""
GAIN = 0.005
"""Fraction of the score by which smaller tables may be better: noise."""


def apart(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Difference of two charges in nats; infinity where one is NaN."""
    return np.nan_to_num(np.abs(nats_of(a) - nats_of(b)), nan=np.inf)


class Case:
    """A subject and the data of its probes. Results that several probes need are computed once."""

    def __init__(
        self,
        subject: Subject,
        tokens: Tokens,
        tokenizer: TextTokenizer | None,
        *,
        samples: int = 128,
        cuts: int = 2,
        seed: int = 0,
        stride: int = 32,
        claim: Claim | None = None,
        artifact: Path | None = None,
        text: bytes | None = None,
    ) -> None:
        self.subject, self.tokens, self.tokenizer, self.artifact = subject, tokens, tokenizer, artifact
        self.text = text
        self.expected = subject.expected(tokens)
        self._claim, self._seed = claim or Claim(), seed
        # The same samples for every subject of an audit, also for those that score the last stride repeatedly.
        self.samples = choose_samples(self.expected, samples, WindowConfig(stride=stride, rescore_tail=True), seed)
        self.cuts = self.samples[np.arange(1, cuts + 1) * len(self.samples) // (cuts + 1)].tolist()
        self._altered: dict[int, tuple[Tokens, Trace]] = {}

    @cached_property
    def trace(self) -> Trace:
        """The unchanged stream, scored."""
        return self.subject.score(self.tokens)

    @property
    def claim(self) -> Claim:
        """The claim of --claim; missing fields are taken from the subject itself."""
        return self._claim | self.trace.claim

    @cached_property
    def glimpses(self) -> list[Glimpse]:
        """The distributions at the samples, with everything after them withheld."""
        assert len(self.trace.values)  # neural statistics are computed once, in whole batches
        return list(self.subject.glimpses(self.tokens, self.samples))

    def altered(self, cut: int) -> tuple[Tokens, Trace]:
        """(the stream with all tokens after position `cut` replaced, its trace)."""
        if cut not in self._altered:
            rng = np.random.default_rng((self._seed, cut))
            tokens = np.append(self.tokens[: cut + 1], rng.choice(self.tokens, len(self.tokens) - cut - 1))
            others = self.tokens[self.tokens != self.tokens[cut + 1]]
            tokens[cut + 1] = rng.choice(others) if len(others) else tokens[cut + 1]
            self._altered[cut] = tokens, self.subject.score(tokens)
        return self._altered[cut]

    @cached_property
    def charged(self) -> NDArray[np.float64]:
        """The charges of the samples; the first charge of each position counts."""
        return self.trace.values[[self.first_entry(self.trace, position) for position in self.samples.tolist()]]

    @cached_property
    def foretold(self) -> NDArray[np.float64]:
        """The values of the samples' targets in distributions made with the targets withheld."""
        targets = self.tokens[self.samples + 1].tolist()
        return np.array([one.values[target] for one, target in zip(self.glimpses, targets, strict=True)])

    def first_entry(self, trace: Trace, position: int) -> int:
        """Entry at which the position was first charged for; raises `NotApplicable` if it never was."""
        found = np.flatnonzero(trace.positions == position)
        if len(found) == 0:
            raise NotApplicable(f"position {position} was not charged for")
        return int(found[0])

    def per_token(self, nats: float) -> tuple[float, str]:
        """(nats of the samples in bits per byte, or in nats a token if bytes are unknown; the unit)."""
        size = 0
        if self.tokenizer is not None:
            sizes = self.tokenizer.target_bytes(self.tokens, 0, int(self.samples[-1]) + 1, "decoded")
            size = int(sizes[self.samples].sum())
        bits = bits_per_byte(nats, size)
        return (nats / len(self.samples), "nats a token") if bits is None else (bits, "bits per byte")


def sums_to_one(case: Case) -> Finding:
    """The values of all tokens at a position are probabilities: none is negative, and they sum to 1."""
    most = int(np.argmax(case.trace.values))
    if case.trace.values[most] > 1 + UNIT:
        value = float(case.trace.values[most])
        return finding(False, value, f"position {case.trace.positions[most]} is charged {value:.6g}, more than 1")
    sums = np.array([one.values.sum() for one in case.glimpses])
    lowest = min(float(one.values.min()) for one in case.glimpses)
    missed = np.array([0.0 if one.neural is None else abs(one.neural.sum() - 1) for one in case.glimpses])
    off = np.abs(sums - 1)
    worst = int(np.nanargmax(np.where(np.isnan(off), np.inf, off)))
    holds = bool((off <= UNIT + np.minimum(missed, SOFTMAX)).all()) and lowest >= 0
    text = f"|Σ - 1| ≤ {off[worst]:.2g} at {len(sums)} positions, the most at position {case.samples[worst]}; "
    text += f"mean {sums.mean():.7g}"
    text += f"; a token has {lowest:g}" if lowest < 0 else ""
    return finding(
        holds, float(off.mean()), text, mean=float(sums.mean()), least=float(sums.min()), most=float(sums.max())
    )


def future_is_unseen(case: Case) -> Finding:
    """If tokens are replaced from some position on, the charges before it stay the same."""
    worst, text = 0.0, ""
    for cut in case.cuts:
        _, other = case.altered(cut)
        if not np.array_equal(other.positions, case.trace.positions):
            return finding(False, np.inf, f"other positions are charged for when tokens after {cut + 1} change")
        before = np.flatnonzero(case.trace.positions < cut)
        difference = apart(case.trace.values, other.values)[before]
        entry = before[int(np.argmax(difference))]
        if difference.max() > worst:
            values = f"{case.trace.values[entry]:.6g} becomes {other.values[entry]:.6g}"
            text = f"position {case.trace.positions[entry]}: {values} when tokens after {cut + 1} change"
            worst = float(difference.max())
    text = text or f"all charges before are the same, bit for bit, when tokens change from {_list(case.cuts)} on"
    if worst <= SAME and case.subject.source_is_given:
        text += "; the neural statistics are given, and whether they saw the future can't be probed"
        return Finding("inconclusive", worst, text)
    return finding(worst <= SAME, worst, text)


def target_changes_no_other(case: Case) -> Finding:
    """With another target, the values of other tokens stay the same, and it is charged as predicted without it."""
    glimpses = {one.position: one for one in case.glimpses}
    worst, text = 0.0, ""
    for one in case.glimpses:
        if one.change is not None and abs(one.change.values[0] - one.change.values[1]) > worst:
            (first, second), (a, b) = one.change.targets, one.change.values
            worst = abs(a - b)
            text = f"position {one.position}: token {one.change.token} has {a:.6g} if the target is {first}, "
            text += f"{b:.6g} if it is {second}"
    if worst > SAME:
        return finding(False, worst, text)
    for cut in case.cuts:
        tokens, other = case.altered(cut)
        target = int(tokens[cut + 1])
        charged, foretold = other.values[case.first_entry(other, cut)], glimpses[cut].values[target]
        difference = float(apart(charged, foretold))
        if difference > worst:
            worst = difference
            text = f"position {cut}: with target {target} it is charged {charged:.6g}, foretold was {foretold:.6g}"
    return finding(worst <= CLOSE, worst, text or "no value of another token depends on the target")


def scores_before_counting(case: Case) -> Finding:
    """The charge of a target follows from the past alone: a second pass gets neither the target nor later tokens."""
    difference = apart(case.charged, case.foretold)
    worst = int(np.argmax(difference))
    text = f"position {case.samples[worst]}: charged {case.charged[worst]:.6g}, "
    text += f"foretold {case.foretold[worst]:.6g} with its target withheld"
    return finding(bool(difference.max() <= CLOSE), float(difference.max()), text)


def each_position_once(case: Case) -> Finding:
    """Every position of the stream is charged for exactly once, and the claimed sums are those of the charges."""
    trace, expected, claim = case.trace, case.expected, case.claim
    times = np.bincount(trace.positions, minlength=expected)
    dropped, repeated = np.flatnonzero(times[:expected] == 0), np.flatnonzero(times > 1)
    wrong = []
    if len(dropped) and not claim.subset:
        wrong.append(f"{len(dropped):,} of {expected:,} positions are not charged for, {dropped[0]} the first")
    if len(repeated):
        wrong.append(f"{len(repeated):,} are charged for up to {times.max()} times, {repeated[0]} the first")
    if len(times) > expected:
        wrong.append(f"{np.count_nonzero(times[expected:]):,} after the end are charged for")
    if claim.positions is not None and claim.positions != len(trace.positions):
        wrong.append(f"{claim.positions:,} positions are claimed, {len(trace.positions):,} have charges")
    nats = float(nats_of(trace.values).sum())
    if claim.nats is not None and not abs(claim.nats - nats) <= SAME * max(len(trace.positions), 1):
        wrong.append(f"{claim.nats:.6f} nats are claimed, the charges add up to {nats:.6f}")
    after = len(case.tokens) - 1 - expected
    text = f"positions 0 to {expected - 1}, each once"
    text += f" ({after:,} after the last whole sequence are left out by rule)" if after else ""
    text += " (a subset, as claimed)" if claim.subset else ""
    return finding(not wrong, float(len(dropped) + (times[repeated] - 1).sum()), "; ".join(wrong) or text)


def bytes_are_the_text_s(case: Case) -> Finding:
    """The claimed number of bytes is that of the text, which the decoder writes; if the text is at hand, that is it."""
    if case.tokenizer is None:
        raise NotApplicable("there are no bytes without a --tokenizer")
    if case.claim.bytes is None:
        raise NotApplicable("it claims no bytes")
    charged = len(np.unique(case.trace.positions)) if case.claim.subset else case.expected
    tokens = case.tokens[: charged + 1]
    size = case.tokenizer.text_bytes(tokens)
    if case.text is not None and not case.text.startswith(written := case.tokenizer.written(tokens)):
        at = first_difference(case.text, written)
        text = f"the text has {case.text[at : at + 24]!r} at byte {at:,}, the decoder writes {written[at : at + 24]!r}"
        return finding(False, float(len(written) - at), text)
    text = f"{case.claim.bytes:,} bytes are claimed, the text has {size:,} ({case.claim.bytes / size - 1:+.2%})"
    return finding(case.claim.bytes == size, float(case.claim.bytes - size), text)


def without_weight_it_is_the_model(case: Case) -> Finding:
    """With the memory's weight at 0, the charges are the neural model's own, bit for bit."""
    trace = case.subject.without_memory().score(case.tokens)
    if trace.neural is None:
        raise NotApplicable("no neural model is known")
    differ = np.flatnonzero(trace.values != trace.neural)
    text = f"all {len(trace.values):,} charges are the model's"
    if len(differ):
        at = differ[0]
        text = f"position {trace.positions[at]}: {trace.values[at]!r}, the model has {trace.neural[at]!r}"
    return finding(len(differ) == 0, float(len(differ)), text)


def same_number_again(case: Case) -> Finding:
    """A second run, other batches, another backend and several ranks give the same number."""
    mean = float(nats_of(case.trace.values).mean())
    wrong, found, worst = [], {}, 0.0
    for name, (variant, tolerance) in case.subject.variants().items():
        found[name] = float(nats_of(variant.score(case.tokens).values).mean())
        worst = max(worst, abs(found[name] - mean))
        if not abs(found[name] - mean) <= tolerance:
            wrong.append(f"{name}: {found[name]:.8f} nats a position, not {mean:.8f}")
    return finding(not wrong, worst, "; ".join(wrong) or f"the same: {', '.join(found)}", **found)


def no_gain_from_collisions(case: Case) -> Finding:
    """Smaller tables, which distinguish fewer contexts, are not better."""
    own = case.subject.buckets
    scores = {own: float(nats_of(case.trace.values).mean())}
    for size in {1 << 10, 1 << 13, 1 << 16, 1 << 19, 1 << 22} - {own}:
        scores[size] = float(nats_of(case.subject.with_buckets(size).score(case.tokens).values).mean())
    order = sorted(scores)
    gains = [scores[large] - scores[small] for small, large in pairwise(order)]
    text = ", ".join(f"{scores[size]:.4f} with 2^{size.bit_length() - 1}" for size in order) + " buckets"
    largest, best = scores[order[-1]], min(scores.values())
    holds = all(gain <= GAIN * largest for gain in gains)
    details = {str(size): scores[size] for size in order}
    return finding(holds, largest - best, f"nats a position: {text}", **details)


def renormalised(case: Case) -> Finding:
    """Divided by their sums, the values cost no more than was claimed."""
    sums = np.array([one.values.sum() for one in case.glimpses])
    charged, divided = float(nats_of(case.charged).sum()), float(nats_of(case.foretold / sums).sum())
    said, unit = case.per_token(charged)
    honest, _ = case.per_token(divided)
    text = f"{honest:.4f} {unit} at {len(sums)} positions; {said:.4f} before the values are divided by their sums"
    if case.trace.neural is not None:
        model = case.trace.neural[[case.first_entry(case.trace, position) for position in case.samples.tolist()]]
        text += f"; {case.per_token(float(nats_of(model).sum()))[0]:.4f} the neural model alone"
    holds = divided - charged <= CLOSE * len(sums)
    return finding(holds, honest, text, claimed=said, renormalised=honest, unit=unit)


def documents_are_apart(case: Case) -> Finding:
    """If documents are claimed to be scored independently, the documents before one do not matter."""
    start = case.claim.document_start
    if start is None:
        raise NotApplicable("it does not claim to score documents independently")
    starts = np.flatnonzero(case.tokens[: case.expected] == start)
    starts = starts[starts > 0]
    if len(starts) == 0:
        raise NotApplicable(f"no document starts (token {start}) after the first position")
    begin = int(starts[len(starts) // 2])
    tokens = case.tokens.copy()
    tokens[:begin] = np.random.default_rng(0).permutation(tokens[:begin])
    ours, other = case.trace, case.subject.score(tokens)
    pairs = (ours.values, other.values) if ours.neural is None or other.neural is None else (ours.neural, other.neural)
    within = np.flatnonzero(ours.positions >= begin)
    difference = apart(*pairs)[within]
    at = within[int(np.argmax(difference))]
    text = f"position {ours.positions[at]}: {pairs[0][at]:.6g} becomes {pairs[1][at]:.6g} "
    text += f"when tokens before the document's start at {begin} change"
    return finding(bool(difference.max() <= SAME), float(difference.max()), text)


def size_is_decimal(case: Case) -> Finding:
    """The artifact is as small as claimed, in MB of 1,000,000 bytes."""
    claimed = case.claim.megabytes
    if claimed is None or case.artifact is None:
        raise NotApplicable("no size of an artifact is claimed")
    size = case.artifact.stat().st_size
    text = f"{claimed:g} MB are claimed; {size:,} bytes are {size / 1e6:.3f} MB ({size / (1 << 20):.3f} MiB)"
    return finding(size / 1e6 <= claimed * 1.005, size / 1e6, text)


PROBES: tuple[Probe[Case], ...] = (
    Probe("sum to 1", "mean |Σ - 1|", sums_to_one, essential=True),
    Probe("future unseen", "nats", future_is_unseen, essential=True),
    Probe("target unseen", "change", target_changes_no_other),
    Probe("scored, then counted", "nats", scores_before_counting),
    Probe("each position once", "off", each_position_once),
    Probe("the text's bytes", "off", bytes_are_the_text_s),
    Probe("weight 0 is the model", "off", without_weight_it_is_the_model),
    Probe("same number again", "nats", same_number_again),
    Probe("no collision gain", "nats", no_gain_from_collisions),
    Probe("renormalised", "bpb", renormalised),
    Probe("documents apart", "nats", documents_are_apart),
    Probe("size", "MB", size_is_decimal),
)
"""All probes; their numbers start at 1."""


def _list(positions: list[int]) -> str:
    return " or ".join(str(position + 1) for position in positions)
