"""Functions of others and files of claims are audited like scorers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ngram_eval.audit.claim import Claim
from ngram_eval.audit.subjects.claimed import ClaimedSubject
from ngram_eval.audit.subjects.function import FunctionSubject
from ngram_eval.models.saved_logits import SavedLogits
from tests.support.functions import counting, negative, peeking, remembering, uniform, unnormalised
from tests.support.planted import LENGTH, VOCAB, Array, probe, refuted
from tests.support.streams import Stream


@pytest.mark.parametrize(
    ("function", "expected"),
    [(uniform, set()), (counting, set()), (unnormalised, {1, 10}), (negative, {1}), (remembering, {4, 8})],
)
def test_functions(stream: Stream, function: Any, expected: set[int]) -> None:
    findings = probe(FunctionSubject(name="f", function=function), stream.tokens[:LENGTH])
    assert expected <= refuted(findings), findings
    if not expected:
        assert refuted(findings) == set()


def test_a_function_can_t_reach_the_future(stream: Stream) -> None:
    """What it can reach are zeros; that token 0 comes next is then all it says."""
    trace = FunctionSubject(name="f", function=peeking).score(stream.tokens[:LENGTH])
    expected = np.where(stream.tokens[1:LENGTH] == 0, 0.5 + 0.5 / VOCAB, 0.5 / VOCAB)
    np.testing.assert_allclose(trace.values, expected)


# Claims


def claimed(
    stream: Stream, change: Callable[[Array], Array], positions: NDArray[np.int64] | None = None
) -> ClaimedSubject:
    tokens = stream.tokens[:LENGTH]
    log_p = np.log(np.random.default_rng(1).dirichlet(np.ones(VOCAB), LENGTH - 1))
    p = np.exp(log_p[np.arange(LENGTH - 1), tokens[1:]])
    at = np.arange(LENGTH - 1) if positions is None else positions
    return ClaimedSubject(
        name="c",
        positions=at,
        values=change(p[at]),
        logits=SavedLogits(log_p, Path("l.npy")),
        tokens=tokens,
        whole=LENGTH - 1,
    )


def test_claims(stream: Stream) -> None:
    tokens = stream.tokens[:LENGTH]
    assert refuted(probe(claimed(stream, lambda p: p), tokens)) == set()
    assert {4, 10} <= refuted(probe(claimed(stream, lambda p: np.minimum(p * 1.2, 1)), tokens))
    assert 1 in refuted(probe(claimed(stream, lambda p: p * 100), tokens))
    assert refuted(probe(claimed(stream, lambda p: p, np.arange(400)), tokens)) == {5}
    assert refuted(probe(claimed(stream, lambda p: p, np.append(np.arange(LENGTH - 1), 7)), tokens)) == {5}
    without = probe(replace(claimed(stream, lambda p: p), logits=None), tokens)
    assert {number for number, one in without.items() if one.verdict == "pass"} == {5}
    wrong = probe(claimed(stream, lambda p: p), tokens, claim=Claim(positions=LENGTH))
    assert refuted(wrong) == {5}
