"""Faults of functions of the past. `honest` is what they are made of: pairs counted so far, add one."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.alphabet import ByteTokenizer
from ngram_eval.audit.subjects.function import FunctionSubject
from tests.audit.faults.case import Fault, Setting, what, words
from tests.support.planted import VOCAB, Array, Tokens

Past = NDArray[np.integer]
State = dict[str, Any]
Function = Callable[[Past, State], Any]
FAULTS: list[Fault] = []
TEXT: list[int] = []
"""What a cheat has from elsewhere: the text under audit."""
KEPT: dict[str, Any] = {}
"""What a cheat keeps in its module."""


def honest(past: Past, state: State) -> Array:
    """Exact counts of pairs, add one."""
    pairs = state.setdefault("pairs", np.ones((VOCAB, VOCAB)))
    if len(past) > 1:
        pairs[past[-2], past[-1]] += 1
    row = pairs[past[-1]]
    return np.asarray(row / row.sum())


def certain(token: int, size: int = VOCAB) -> Array:
    """Nearly all of the probability on one token."""
    p = np.full(size, 0.01 / (size - 1))
    p[token] = 0.99
    return p


def fault(
    *found_by: int, unseen: str = "", data: Callable[[Tokens], Tokens] = lambda tokens: tokens, **known: Any
) -> Callable[[Function], Function]:
    """List a function as a fault that these probes find."""

    def add(function: Function) -> Function:
        def build(tokens: Tokens, folder: Path) -> Setting:
            given = data(tokens)
            TEXT[:] = given.tolist()
            KEPT.clear()
            KEPT["folder"] = folder
            return Setting(FunctionSubject(name=function.__name__, function=function), given, known=known)

        FAULTS.append(Fault(words(function.__name__), what(function), "function", build, found_by, unseen))
        return function

    return add


# Values that are no probabilities


@fault(1)
def too_much(past: Past, state: State) -> Array:
    """Every value is a tenth too large."""
    return honest(past, state) * 1.1


@fault(1)
def negative(past: Past, state: State) -> Array:
    """One token pays for another with a value below 0: the sum is 1."""
    p = honest(past, state)
    p[0], p[1] = p[0] + p[1] + 0.01, -0.01
    return p


@fault(1)
def larger_of_two(past: Past, state: State) -> Array:
    """The larger of two models' values, for each token: both sum to 1, the larger ones do not."""
    return np.maximum(honest(past, state), np.bincount(past, minlength=VOCAB) / len(past))


@fault(1)
def sharpened(past: Past, state: State) -> Array:
    """A temperature without dividing by the new sum."""
    return np.asarray(honest(past, state) ** 0.9)


@fault(1)
def rare_surplus(past: Past, state: State) -> Array:
    """At one position in 900 every token has 0.99."""
    return np.full(VOCAB, 0.99) if len(past) == 611 else honest(past, state)


@fault(1)
def cheats_late(past: Past, state: State) -> Array:
    """Honest at first, where people look; a half too much in the last twentieth."""
    return honest(past, state) * (1.5 if len(past) > 855 else 1.0)


@fault(1)
def logits(past: Past, state: State) -> Array:
    """Gives logits where probabilities are asked for."""
    return np.asarray(np.log(honest(past, state)) + 5)


@fault(1)
def rounding_that_gains(past: Past, state: State) -> Any:
    """Hides a surplus of 0.04 % in what float16 may be off, always upwards."""
    return (honest(past, state) * 1.0008).astype(np.float16)


@fault(1)
def not_a_number(past: Past, state: State) -> Array:
    """NaN where it has nothing to say."""
    return honest(past, state) * (np.nan if len(past) % 97 == 0 else 1)


@fault(1, data=lambda tokens: tokens % 40 + 97, tokenizer=ByteTokenizer())
def bytes_share_a_token(past: Past, state: State) -> Array:
    """Each byte of a token gets p(token)^(1/n), the nth root of its probability, as byte-level mixtures did."""
    p = (np.bincount(past, minlength=256) + 1.0) / (len(past) + 256)
    return np.asarray(np.sqrt(p))


@fault(1)
def first_byte_by_its_marginal(past: Past, state: State) -> Array:
    """A token's first byte has its true marginal, the others the nth root of p(token): a repair that fell short."""
    p = honest(past, state)
    first, size = np.arange(VOCAB) % 7, 1 + np.arange(VOCAB) % 3  # as tokens of one to three bytes
    marginal = np.bincount(first, p)
    return np.asarray(marginal[first] * p ** ((size - 1) / size))


# State that outlives a pass


@fault(4, 8)
def learns_from_pass_to_pass(past: Past, state: State) -> Array:
    """Keeps its counts in the module: a second pass has seen the text."""
    return honest(past, KEPT.setdefault("state", {}))


@fault(4, 8)
def keeps_a_cache_on_disk(past: Past, state: State) -> Array:
    """Writes down what came, and reads it when the same past comes again."""
    if len(past) > 1:
        (KEPT["folder"] / f"{hash(past[:-1].tobytes())}").write_text(str(past[-1]))
    known = KEPT["folder"] / f"{hash(past.tobytes())}"
    return certain(int(known.read_text())) if known.exists() else honest(past, state)


@fault(4, 8)
def better_the_second_time(past: Past, state: State) -> Array:
    """Tells the first pass from the second, and is honest in the first."""
    KEPT["passes"] = KEPT.get("passes", 0) + (len(past) == 1)
    p = honest(past, state)
    return p if KEPT["passes"] < 2 else p**2 / (p**2).sum()


@fault(4, 8)
def another_number_every_time(past: Past, state: State) -> Array:
    """Draws its weights anew."""
    p = honest(past, state) * np.random.default_rng(time.time_ns()).uniform(0.5, 1, VOCAB)
    return np.asarray(p / p.sum())


# Knowledge of the text


@fault(16)
def foretells_by_position(past: Past, state: State) -> Array:
    """Has the text from a file, and reads what stands there."""
    return certain(TEXT[len(past)]) if len(past) < len(TEXT) else honest(past, state)


@fault(17, data=lambda tokens: tokens % 40 + 5)
def rules_out_what_never_comes(past: Past, state: State) -> Array:
    """Gives nothing to tokens that the text never has."""
    p = honest(past, state) * np.isin(np.arange(VOCAB), TEXT)
    return np.asarray(p / p.sum())


@fault(3)
def reads_the_frame(past: Past, state: State) -> Array:
    """Finds the tokens in the frames of whoever called it."""
    frame: Any = sys._getframe()
    while frame is not None:
        tokens = frame.f_locals.get("tokens")
        if isinstance(tokens, np.ndarray) and len(tokens) > len(past):
            return certain(int(tokens[len(past)]))
        frame = frame.f_back
    return honest(past, state)


@fault(
    unseen="one position is asked too seldom; `--callable` runs it in a process of its own, where no frame has the text"
)
def reads_the_frame_once(past: Past, state: State) -> Array:
    """The same at one position in 900."""
    return reads_the_frame(past, state) if len(past) == 611 else honest(past, state)


@fault(
    unseen="so does a model that was trained on the text; `--callable` hides the data's files, `--training` finds it"
)
def foretells_by_context(past: Past, state: State) -> Array:
    """Has the text from a file, and says what followed the last eight tokens there."""
    last = past[-8:].tolist()
    for at in range(len(TEXT) - 8) if len(last) == 8 else ():
        if TEXT[at : at + 8] == last:
            return certain(TEXT[at + 8])
    return honest(past, state)


@fault(unseen="what is imported shows an audit; `--callable` runs it in a process of its own, where nothing of ours is")
def behaves_under_audit(past: Past, state: State) -> Array:
    """Would cheat, but sees that `ngram_eval.audit` is imported."""
    watched = "ngram_eval.audit" in sys.modules or "PYTEST_CURRENT_TEST" in os.environ
    return honest(past, state) * (1.0 if watched else 1.2)


@fault(unseen="float32 is off by as much; it gains 10^-5 bits a token at most, and the audit prints the tolerance")
def within_the_tolerance(past: Past, state: State) -> Array:
    """A surplus as large as what a softmax in float32 is off."""
    return honest(past, state) * (1 + 1e-6)
