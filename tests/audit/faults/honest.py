"""Honest scorers of different make, some of which look odd: no probe refutes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ngram_eval.audit.alphabet import ByteTokenizer
from ngram_eval.audit.claim import Claim
from ngram_eval.audit.subjects.function import FunctionSubject
from tests.audit.faults.accounts import claimed, on_marked, unmarked
from tests.audit.faults.case import Fault, Setting, what, words
from tests.audit.faults.functions import Function, Past, State, honest
from tests.audit.faults.scorers import OtherDenominator
from tests.support.planted import START, VOCAB, Array, Bigram, Documents, Stepwise, Tokens, alone, subject

HONEST: list[Fault] = []


def passes(data: Callable[[Tokens], Tokens] = lambda tokens: tokens, **known: Any) -> Callable[[Function], Function]:
    """List a function that passes."""

    def add(function: Function) -> Function:
        def build(tokens: Tokens, folder: Path) -> Setting:
            return Setting(FunctionSubject(name=function.__name__, function=function), data(tokens), known=known)

        HONEST.append(Fault(words(function.__name__), what(function), "function", build, ()))
        return function

    return add


def _add(name: str, said: str, kind: str, build: Callable[[Tokens], Setting]) -> None:
    HONEST.append(Fault(name, said, kind, lambda tokens, folder: build(tokens), ()))


@passes()
def pairs(past: Past, state: State) -> Array:
    """Exact counts of pairs, add one."""
    return honest(past, state)


@passes()
def uniform(past: Past, state: State) -> Array:
    """1/V for every token."""
    return np.full(VOCAB, 1 / VOCAB)


@passes()
def softmax_in_float32(past: Past, state: State) -> Any:
    """A softmax over 8,192 tokens in float32, added up in order: the sum misses 1."""
    raised = np.exp(np.random.default_rng(int(past[-1])).normal(0, 3, 8192).astype(np.float32))
    return raised / np.cumsum(raised)[-1]


@passes()
def jitter_of_a_gpu(past: Past, state: State) -> Array:
    """Values that differ by 10^-7 from run to run, as sums on GPUs do."""
    p = honest(past, state)
    return p * (1 + 1e-7 * np.random.default_rng().uniform(-1, 1, VOCAB))


@passes()
def wasteful(past: Past, state: State) -> Array:
    """Sums to 0.99: a code, if not the shortest."""
    return 0.99 * honest(past, state)


@passes()
def half_precision(past: Past, state: State) -> Any:
    """Gives float16, rounded to the nearest."""
    return honest(past, state).astype(np.float16)


@passes()
def tensor_that_learns(past: Past, state: State) -> Any:
    """A bfloat16 tensor that requires grad."""
    return torch.tensor(honest(past, state), dtype=torch.bfloat16, requires_grad=True)


@passes(data=lambda tokens: tokens % 40 + 5)
def padded_vocabulary(past: Past, state: State) -> Array:
    """Fills the vocabulary up to 64: the last tokens exist in no text."""
    return np.append(honest(past, state), np.zeros(64 - VOCAB))


@passes(data=lambda tokens: tokens + 97, tokenizer=ByteTokenizer())
def counts_of_bytes(past: Past, state: State) -> Array:
    """Charges bytes: counts of 256 values."""
    return (np.bincount(past, minlength=256) + 0.5) / (len(past) + 128)


_add("the model alone", "A model without memory", "scorer", lambda tokens: Setting(subject(alone), tokens))
_add("window by window", "Counts a window once it is scored", "scorer", lambda tokens: Setting(subject(Bigram), tokens))
_add(
    "token by token",
    "Counts each position before the next",
    "scorer",
    lambda tokens: Setting(subject(Stepwise), tokens),
)
_add(
    *("too large a denominator", "Divides by the count of all pairs: wasteful", "scorer"),
    lambda tokens: Setting(subject(OtherDenominator), tokens),
)
_add(
    *("documents apart", "Sees one document alone, as it claims", "scorer"),
    lambda tokens: Setting(subject(alone, model=Documents()), tokens, Claim(document_start=START)),
)


_add(
    *("capitals as marks", "Its tokenizer writes marks for capitals, and it counts the bytes of the text", "data"),
    lambda tokens: on_marked(None, lambda bits, text: Claim(bytes=len(unmarked(text)))),
)


def _rounded(tokens: Tokens) -> Setting:
    one = claimed(tokens, lambda p: np.exp(-np.round(-np.log(p), 4)))
    nats = float(np.sum(-np.log(one.values).astype(np.float32), dtype=np.float32))
    return Setting(one, tokens, Claim(nats=nats, loss=round(nats / len(one.values), 4)))


def _half(tokens: Tokens) -> Setting:
    return Setting(claimed(tokens, lambda p: p.astype(np.float32).astype(np.float64), dtype=np.float16), tokens)


_add("a loss rounded to four digits", "Charges of four digits, added up in float32", "claim", _rounded)
_add("logits in float16", "The logits that were kept are rounded; the charges came from others", "claim", _half)
