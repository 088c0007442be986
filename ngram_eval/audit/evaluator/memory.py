"""The probe of an evaluator that looks for a memory of the text, brought along from elsewhere.

Each question is a text that is as good as the true one to whoever learns from what comes by, and that nobody can have
seen. What the true text costs less is a gain that only it has.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.evaluator.ask import Answer
from ngram_eval.audit.evaluator.case import Case, Questions, asked
from ngram_eval.audit.finding import Finding, NotApplicable, finding

_SIGMAS, _NATS = 6.0, 0.02
"""A gain is real that is one of more standard errors, and of more nats a token, than these."""
_SHIFT = 3
"""Tokens by which a text is shifted."""
_SETTLED = 64
"""Tokens after which a shifted text is compared."""
_BLOCK = 17
"""A ghost after so many tokens less one that were replaced."""
_DOCUMENTS = 8
"""Fewest documents that are put in another order."""
_BEGINNING = 8
"""Tokens at a document's start that tell nobody yet which document it is."""


class Gain(NamedTuple):
    """What the true text gains over one that nobody can have seen."""

    what: str
    nats: float
    """A token."""
    error: float
    """The standard error of it."""

    @property
    def least(self) -> float:
        """The smallest gain that would be found."""
        return _NATS + _SIGMAS * self.error

    def __str__(self) -> str:
        return f"{self.what} {self.nats:+.4f} (found from {self.least:.2g})"


def text_is_not_remembered(case: Case) -> Finding:
    """Where the text is shifted, renamed, replaced or put in another order, the true one is not foretold better."""
    gains, skipped = [], []
    for asker in (shifted, renamed, ghosts, reordered):
        try:
            gains.append(case.once(asker))
        except NotApplicable as reason:
            skipped.append(str(reason))
    worst = max(gains, key=lambda gain: gain.nats - gain.least)
    text = "; ".join([f"nats a token that the true text costs less: {', '.join(map(str, gains))}", *skipped])
    return finding(worst.nats <= worst.least, worst.nats, text, details={gain.what: gain.nats for gain in gains})


def shifted(case: Case) -> Questions[Gain]:
    """If a few tokens are put after the first: what stands at a place is another token than in the text."""
    what = f"than shifted by {_SHIFT} tokens"
    (answer,) = yield from asked([np.concatenate([case.text[:1], case.noise[:_SHIFT], case.text[1:]])])
    count = len(case.text) - 1
    if answer.nats is None or case.base.nats is None:  # the tokens put in cost something, too: at most this
        least = _SHIFT * 2 * np.log(case.vocab_size)
        return Gain(what, (answer.total - case.base.total - least) / count, case.evaluator.tolerance / count)
    begin = min(_SETTLED, len(case.text) // 4)
    return Gain(what, *_mean(answer.nats[_SHIFT + begin :], case.base.nats[begin:]))


def renamed(case: Case) -> Questions[Gain]:
    """If each token stands for another: whoever learned all from the text before has learned the same.

    Who knows the tokens by themselves, as a trained model does, can't be asked so. A drawn text shows whether it does.
    """
    fixed = np.unique(case.text[case.starts])
    names, free = np.arange(case.vocab_size), np.setdiff1d(case.source.alphabet, fixed)
    names[free] = case.rng(10).permutation(free)
    drawn = case.noise[: len(case.text)]
    text, plain, other = yield from asked([names[case.text], drawn, names[drawn]])
    usual, error = _more(case, plain, other)
    if abs(usual) > _NATS + _SIGMAS * error:
        raise NotApplicable(f"with its tokens renamed it can't be asked: it tells them apart ({usual:+.3f}, drawn)")
    gain, deviation = _more(case, case.base, text)
    return Gain("than renamed", gain - usual, float(np.hypot(error, deviation)))


def ghosts(case: Case) -> Questions[Gain]:
    """Among replaced tokens: a true one at its place, and another of the text there."""
    _ = case.charges
    rng, places = case.rng(9), np.arange(_BLOCK - 1, len(case.text), _BLOCK)
    others = case.text[rng.permutation(len(case.text))[: len(places)]]
    true_first = rng.random(len(places)) < 0.5
    streams = []
    for turn in (True, False):
        stream = case.noise[: len(case.text)].copy()
        stream[places] = np.where(true_first == turn, case.text[places], others)
        streams.append(stream)
    first, second = yield from asked(streams)
    assert first.nats is not None
    assert second.nats is not None
    true = np.where(true_first, first.nats[places], second.nats[places])
    other = np.where(true_first, second.nats[places], first.nats[places])
    return Gain(f"than another after {_BLOCK - 1} replaced tokens", *_mean(other, true))


def reordered(case: Case) -> Questions[Gain]:
    """With its documents in another order: how a document begins follows from none before it."""
    base, edges = case.charges, [*case.starts.tolist(), len(case.text)]
    if len(edges) <= _DOCUMENTS:
        raise NotApplicable(f"fewer than {_DOCUMENTS} documents are known, to be put in another order")
    documents = list(pairwise(edges))
    order = case.rng(11).permutation(len(documents)).tolist()
    parts = [case.text[slice(*documents[which])] for which in order]
    (answer,) = yield from asked([np.concatenate([case.text[: edges[0]], *parts])])
    assert answer.nats is not None
    means, at = [], edges[0]
    for which, part in zip(order, parts, strict=True):
        inside = slice(1, min(len(part), _BEGINNING + 1))
        means.append(_mean(answer.nats[at:][inside], base[documents[which][0] :][inside])[0])
        at += len(part)
    return Gain("than at the start of documents in another order", *_mean(np.array(means), np.zeros(len(means))))


def _more(case: Case, one: Answer, other: Answer) -> tuple[float, float]:
    """(nats a token that the second costs more, standard error); of totals, their tolerance."""
    if one.nats is not None and other.nats is not None:
        return _mean(other.nats, one.nats)
    count = len(case.text) - 1
    return (other.total - one.total) / count, case.evaluator.tolerance / count


def _mean(dear: NDArray[np.float64], cheap: NDArray[np.float64]) -> tuple[float, float]:
    """(mean, its standard error) of the differences, where both are finite."""
    both = np.isfinite(dear) & np.isfinite(cheap)
    values = dear[both] - cheap[both]
    return (float(values.mean()), float(values.std() / np.sqrt(len(values)))) if len(values) else (0.0, 0.0)
