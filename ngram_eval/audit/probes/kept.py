"""The probe of a kept memory: does it hold the text that is scored?"""

from typing import NamedTuple

import numpy as np

from ngram_eval.audit.case import Told
from ngram_eval.audit.finding import Finding, NotApplicable, percent
from ngram_eval.audit.stretches import stretches
from ngram_eval.text.stream import Tokens

_GRAM = 16
"""Tokens of the stretches that are counted."""
_LONG = 64
"""Tokens of a run that any two texts may share: a motto, a licence."""
_FEW = 0.01
"""Share of stretches that any two texts may share."""


class Shared(NamedTuple):
    """What of one text another holds."""

    share: float
    """Share of its stretches of 16 tokens."""
    longest: int
    """Tokens of the longest run."""


def text_is_not_in_the_memory(case: Told) -> Finding:
    """The memory holds no more of the text than of another text of its own; a warning, and no proof."""
    kept, tokens = case.data.kept, case.tokens
    if kept is None:
        raise NotApplicable("no memory was kept: --memory gives one")
    length = min(len(tokens), len(kept) // 2)
    if length < _GRAM:
        raise NotApplicable(f"the text, or half of the memory, is shorter than {_GRAM} tokens")
    found, own = shared(tokens, kept), shared(kept[-length:], kept[:-length])
    chance = _chance(tokens, kept)
    said = (
        f"{percent(found.share)} of the text's stretches of {_GRAM} tokens are in the memory, the longest run has "
        f"{found.longest:,} tokens; of its own last {length:,} tokens the rest of it holds {percent(own.share)}, the "
        f"longest run {own.longest:,}; chance gives {percent(chance)}"
    )
    usual = found.share <= 2 * own.share + _FEW and found.longest <= max(2 * own.longest, _LONG)
    if usual:
        return Finding("pass", found.share, said)
    return Finding("inconclusive", found.share, f"warning: {said}: was the text, or a part of it, kept?")


def shared(text: Tokens, other: Tokens) -> Shared:
    """What of `text` (at least 16 tokens) `other` holds."""
    grams = np.isin(stretches(text, _GRAM), stretches(other, _GRAM))
    low, high = 0, min(len(text), len(other)) + 1  # it holds a run of `low`, and none of `high`
    while high - low > 1:
        length = (low + high) // 2
        if np.isin(np.unique(stretches(text, length)), stretches(other, length)).any():
            low = length
        else:
            high = length
    return Shared(float(grams.mean()), low)


def _chance(tokens: Tokens, kept: Tokens) -> float:
    """The share of stretches that the memory would hold if its tokens were drawn one by one."""
    most = int(max(tokens.max(), kept.max())) + 1
    ours, theirs = (np.bincount(one, minlength=most) / len(one) for one in (tokens, kept))
    return min(1.0, len(kept) * float(ours @ theirs) ** _GRAM)
