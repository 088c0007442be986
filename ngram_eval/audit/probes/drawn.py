"""Probes of totals alone, on texts whose cost nothing can undercut.

A code gains g nats over the true cost of a text with a probability of at most e^-g. One total refutes any mixture of
tricks, and nothing needs to be known of how it came about.
"""

import math

import numpy as np

from ngram_eval.audit.case import Case, first_entry
from ngram_eval.audit.finding import Finding, NotApplicable, finding
from ngram_eval.audit.precision import LUCK, above_one
from ngram_eval.bpb import nats_of
from ngram_eval.text.stream import Tokens

_MOST = 4096
"""Random tokens at most."""
_MOST_CALLS = 512
"""Random tokens for what is asked position by position."""


def random_numbers(case: Case) -> Finding:
    """Tokens drawn evenly from the vocabulary cost their entropy at least."""
    if case.subject.source_is_given:
        raise NotApplicable("its statistics are given: they can't be computed for another text")
    rng = np.random.default_rng((case.seed, 2))
    length = _MOST_CALLS if case.subject.past_only else max(min(_MOST, len(case.tokens) - 1), case.subject.short)
    size = len(case.vocabulary)
    tokens: Tokens = np.empty(length + 1, case.tokens.dtype)
    tokens[:] = rng.choice(case.vocabulary, length + 1)
    positions = case.subject.expected(tokens)
    trace = case.subject.score(tokens)
    values = trace.values[[first_entry(trace, position) for position in range(positions)]]
    nats, entropy = float(nats_of(values).sum()), positions * math.log(size)
    text = f"{nats / positions / math.log(2):.3f} bits are charged for a token that holds {math.log2(size):.3f}, "
    return _gained(case, entropy - nats, positions, text + f"{positions:,} random tokens")


def drawn_from_itself(case: Case) -> Finding:
    """A text drawn from what it shows costs, as a whole, what was shown."""
    drawn = case.subject.draw(case.tokens, np.random.default_rng((case.seed, 3)))
    trace = case.subject.score(drawn.tokens)
    positions = range(drawn.first, drawn.first + len(drawn.shown))
    charged = float(nats_of(trace.values[[first_entry(trace, position) for position in positions]]).sum())
    shown = float(-np.log(drawn.shown).sum())
    text = (
        f"{charged:.3f} nats are charged for {len(drawn.shown)} tokens drawn from what it shows, which cost {shown:.3f}"
    )
    return _gained(case, shown - charged, len(drawn.shown), text)


def _gained(case: Case, gain: float, positions: int, text: str) -> Finding:
    allowed = LUCK + positions * above_one(case.vocab_size, case.data.precision or "float32")
    if gain > 0:
        text += f": a gain of {gain:.3g} nats, which a code has with a probability of at most e^-{gain:.3g}"
    return finding(gain <= allowed, gain, text, details={"positions": positions, "allowed": allowed})
