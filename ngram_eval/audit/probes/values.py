"""Probes of the values: are they probabilities?"""

import numpy as np

from ngram_eval.audit.case import Case, first_entry
from ngram_eval.audit.finding import Finding, NotApplicable, Reach, finding
from ngram_eval.audit.precision import CLOSE, above_one
from ngram_eval.bpb import nats_of

_SOFTMAX = 1e-5
"""Largest accepted error of the sum of our own neural softmax, which is known at each sample."""
_KNOWING = 8
"""Tokens that have not occurred yet and must have a probability for those that never have one to tell something."""


def sums_to_one(case: Case) -> Finding:
    """The values of all tokens at a position are probabilities: none is negative, and they sum to no more than 1."""
    most = int(np.argmax(case.trace.values))
    allowed = above_one(case.vocab_size, case.data.precision or "float32")
    if case.trace.values[most] > 1 + allowed:
        value = float(case.trace.values[most])
        return finding(False, value, f"position {case.trace.positions[most]} is charged {value:.6g}, more than 1")
    if case.trace.sums is not None:
        sums, least, positions = case.trace.sums.total, case.trace.sums.least, case.trace.positions
        missed, reach = np.zeros(len(sums)), Reach(len(sums), case.expected)
    else:
        sums = np.array([one.values.sum() for one in case.glimpses])
        least = np.array([one.values.min() for one in case.glimpses])
        missed = np.array([0.0 if one.neural is None else abs(one.neural.sum() - 1) for one in case.glimpses])
        positions, reach = case.samples, case.reach
    allowed = above_one(case.vocab_size, case.precision)
    excess = np.nan_to_num(sums - 1, nan=np.inf) - np.minimum(missed, _SOFTMAX)
    # Rounding goes both ways: over many positions hardly anything of what one may be off remains.
    allowed_mean = above_one(case.vocab_size, "float32") + 4 * allowed / np.sqrt(len(sums))
    at, lowest = int(np.argmax(excess)), float(least.min())
    holds = bool(excess[at] <= allowed and excess.mean() <= allowed_mean) and lowest >= 0
    text = f"Σ ≤ 1 {sums[at] - 1:+.2g}, the most at position {positions[at]}; mean {sums.mean():.7g}; "
    text += f"{case.precision} may have 1 + {allowed:.1g}"
    text += f"; a token has {lowest:g}" if lowest < 0 else ""
    if sums.min() < 1 - allowed and holds:
        text += f"; as low as {sums.min():.4g}: wasteful, but a code"
    return finding(
        holds,
        float(np.abs(sums - 1).mean()),
        text,
        reach,
        {
            "mean": float(sums.mean()),
            "least": float(sums.min()),
            "most": float(sums.max()),
            "tolerance": allowed,
            "precision": case.precision,
        },
    )


def every_token_is_possible(case: Case) -> Finding:
    """No token is ruled out everywhere, for want of occurring in this text, while tokens yet to come are not."""
    seen_later = np.setdiff1d(case.tokens[case.samples[0] + 1 :], case.tokens[: case.samples[0] + 1])
    values = np.stack([one.values for one in case.glimpses])
    if len(seen_later) < _KNOWING or not (values[0, seen_later] > 0).all():
        raise NotApplicable("it rules out tokens that come later, too: nothing that it knows of the text")
    never = np.flatnonzero((values == 0).all(axis=0))
    absent = np.setdiff1d(np.intersect1d(never, case.vocabulary), case.tokens)
    text = "every token has a probability somewhere"
    if len(absent):
        text = f"{len(absent):,} tokens, {absent[0]} the first, have none at any of {len(case.samples)} positions: "
        text += "they are those that the text never has"
    return finding(len(absent) == 0, float(len(absent)), text, case.reach)


def renormalised(case: Case) -> Finding:
    """Divided by their sums, the values cost no more than was claimed."""
    sums = np.array([one.values.sum() for one in case.glimpses])
    charged, divided = float(nats_of(case.charged).sum()), float(nats_of(case.foretold / sums).sum())
    said, unit = case.per_token(charged)
    honest, _ = case.per_token(divided)
    text = f"{honest:.4f} {unit} at {len(sums)} positions; {said:.4f} before the values are divided by their sums"
    if case.trace.neural is not None:
        model = case.trace.neural[[first_entry(case.trace, position) for position in case.samples.tolist()]]
        text += f"; {case.per_token(float(nats_of(model).sum()))[0]:.4f} the neural model alone"
    allowed = max(CLOSE, case.subject.slack, above_one(case.vocab_size, case.precision))
    holds = divided - charged <= allowed * len(sums)
    return finding(holds, honest, text, case.reach, {"claimed": said, "renormalised": honest, "unit": unit})
