"""Probes that run the subject in other ways: without its memory, again, with smaller tables."""

from itertools import pairwise

import numpy as np

from ngram_eval.audit.case import Case
from ngram_eval.audit.finding import Finding, NotApplicable, finding
from ngram_eval.bpb import nats_of

_GAIN = 0.005
"""Fraction of the score by which smaller tables may be better: noise."""


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
    tokens = case.repeated
    mean = float(nats_of(case.trace.values[case.trace.positions < len(tokens) - 1]).mean())
    wrong, found, worst = [], {}, 0.0
    for name, (variant, tolerance) in case.subject.variants().items():
        found[name] = float(nats_of(variant.score(tokens).values).mean())
        worst = max(worst, abs(found[name] - mean))
        if not abs(found[name] - mean) <= tolerance:
            wrong.append(f"{name}: {found[name]:.8f} nats a position, not {mean:.8f}")
    said = "; ".join(wrong) or f"the same over {len(tokens) - 1:,} positions: {', '.join(found)}"
    return finding(not wrong, worst, said, details=found)


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
    holds = all(gain <= _GAIN * largest for gain in gains)
    details: dict[str, float] = {str(size): scores[size] for size in order}
    return finding(holds, largest - best, f"nats a position: {text}", details=details)
