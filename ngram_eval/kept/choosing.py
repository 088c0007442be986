"""The part of a text that is kept where not all of it may be (`ngram-eval memory build --max-bytes`)."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import preset
from ngram_eval.errors import InputError
from ngram_eval.scorers.exact.model import make_model
from ngram_eval.text.kept import KeptMemory

SPAN = 256
"""Tokens that are kept together."""
_CLOSE = 0.01
"""Share of the bytes that may be left over."""


def ordered(memory: KeptMemory, p_model: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """The spans of a text, those to be kept first.

    With a model's probabilities of its tokens (N,), those on which the model spends most for what they cost in the
    file; without, any, by a fixed seed. (docs/memory.md has other orders, all worse.)
    """
    spans = -(-len(memory.tokens) // SPAN)
    if p_model is None:
        return np.random.default_rng(0).permutation(spans)
    own, uniform = np.arange(len(memory.tokens)) // SPAN, np.full(len(memory.tokens), 1 / memory.vocab_size)
    entropy = np.full(len(memory.tokens), np.log(memory.vocab_size), np.float32)
    model = make_model("cpu", preset("exact").ngram.max_order, preset("exact").exact)
    p_kept, _ = model.score(memory.tokens, uniform, entropy, together=False)
    spent, cost = (np.bincount(own, -np.log(np.maximum(p, 1e-30)), spans) for p in (p_model, p_kept))
    return np.argsort(-spent / cost, kind="stable")


def fitted(memory: KeptMemory, most: int, order: NDArray[np.int64], size_of: Callable[[KeptMemory], int]) -> KeptMemory:
    """The first spans of an order, put back in the text's, as many as a file of `most` bytes holds, within 1 %.

    Raises `InputError` where it does not hold one.
    """
    found, low, high = None, 0, len(order) + 1  # it holds `low` spans, and not `high`
    guess = len(order)
    while high - low > 1:
        part = _spans(memory, np.sort(order[:guess]))
        size = size_of(part)
        if size <= most:
            found, low = part, guess
            if size >= (1 - _CLOSE) * most:
                break
        else:
            high = guess
        guess = min(max(int(guess * most / size), low + 1), high - 1)
    if found is None:
        raise InputError(f"--max-bytes is {most:,}: {SPAN} tokens take {size:,} bytes; give more")
    return found


def _spans(memory: KeptMemory, chosen: NDArray[np.int64]) -> KeptMemory:
    tokens = np.concatenate([memory.tokens[at : at + SPAN] for at in (chosen * SPAN).tolist()])
    lengths = None if memory.surfaces is None else np.array([len(one or b"") for one in memory.surfaces])
    return replace(memory, tokens=tokens, text_bytes=0 if lengths is None else int(lengths[tokens].sum()))
