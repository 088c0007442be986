"""Functions of others and files of claims are audited like scorers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ngram_eval.audit.evaluator.process import Limits
from ngram_eval.audit.subjects.function import FunctionSubject, as_array, function_in_process
from ngram_eval.errors import InputError
from tests.support.functions import counting, peeking
from tests.support.planted import LENGTH, VOCAB, Array, probe, refuted
from tests.support.streams import Stream


def test_a_function_can_t_reach_the_future(stream: Stream) -> None:
    """What it can reach are zeros; that token 0 comes next is then all it says."""
    trace = FunctionSubject(name="f", function=peeking).score(stream.tokens[:LENGTH])
    expected = np.where(stream.tokens[1:LENGTH] == 0, 0.5 + 0.5 / VOCAB, 0.5 / VOCAB)
    np.testing.assert_allclose(trace.values, expected)


def test_a_function_is_asked_twice_a_position_at_most(stream: Stream) -> None:
    """Once over the text, again over a part, and what probes on short streams cost: a call may take milliseconds."""
    calls = []

    def counted(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
        calls.append(len(past))
        return counting(past, state)

    probe(FunctionSubject(name="f", function=counted), stream.tokens[:2901])
    assert calls.count(2900) == 1
    assert len(calls) < 2 * 2900 + 1000


def test_a_pass_is_remembered(stream: Stream) -> None:
    calls: list[int] = []

    def counted(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
        calls.append(len(past))
        return counting(past, state)

    one = FunctionSubject(name="f", function=counted)
    for _ in range(2):
        one.score(stream.tokens[:40])
    assert calls == list(range(1, 40))


def test_tensors_of_any_make_are_numbers() -> None:
    p = torch.tensor([0.25, 0.75], requires_grad=True)
    assert as_array(p).tolist() == as_array(p.bfloat16()).tolist() == [0.25, 0.75]


def test_log_probabilities_get_a_hint(stream: Stream) -> None:
    one = FunctionSubject(name="f", function=lambda past, state: np.log(counting(past, state)))
    with pytest.raises(InputError, match="log-probabilities are: give probabilities"):
        one.score(stream.tokens[:40])


# In a process of its own

SOURCE = "import numpy as np\n\n\ndef predict(past, state):\n    return np.ones(50) / 50\n"


@contextmanager
def apart(name: str, hidden: Sequence[Path] = ()) -> Iterator[FunctionSubject]:
    subject, process = function_in_process(name, hidden, Limits())
    try:
        yield subject
    finally:
        process.close()


def test_a_function_is_found_in_the_working_folder_and_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: Stream
) -> None:
    (tmp_path / "beside.py").write_text(SOURCE)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "of_file.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    for name in ("beside:predict", "there/of_file.py:predict"):
        with apart(name) as subject:
            assert subject.score(stream.tokens[:9]).values.tolist() == [0.02] * 8
    for name in ("there/of_file.py:nothing", "there/missing.py:predict", "beside", "json:loads:x"):
        with pytest.raises(InputError, match="callable"), apart(name):
            pass


def test_it_is_the_same_as_in_this_process(stream: Stream) -> None:
    tokens = stream.tokens[:1300]  # more than the room that a pass begins with
    with apart("tests.support.functions:counting") as subject:
        first, second = subject.score(tokens), subject.score(tokens[:40])
    here = FunctionSubject(name="f", function=counting)
    np.testing.assert_array_equal(first.values, here.score(tokens).values)
    np.testing.assert_array_equal(second.values, here.score(tokens[:40]).values)


HIDING = """
import sys
import numpy as np

def honest(past, state):
    return (np.bincount(past, minlength=50) + 1.0) / (len(past) + 50)

def behaves(past, state):
    return honest(past, state) * (1.0 if "ngram_eval.audit" in sys.modules or "pytest" in sys.modules else 1.2)

def frames(past, state):
    frame, p = sys._getframe(), honest(past, state)
    while frame is not None:
        for value in frame.f_locals.values():
            if isinstance(value, np.ndarray) and len(value) > len(past) and value[len(past)] < 50:
                p = p * 0.01 + 0.99 * (np.arange(50) == value[len(past)])
        frame = frame.f_back
    return p

def reads(past, state):
    tokens, p = np.fromfile("DATA", np.uint16)[512:], honest(past, state)
    return p * 0.01 + 0.99 * (np.arange(50) == tokens[len(past)]) if len(tokens) > len(past) else p
"""


def test_what_looks_for_the_text_or_for_the_audit_finds_neither(stream: Stream, tmp_path: Path) -> None:
    """Who behaves under audit cheats there, and is found; who looks into frames and files has nothing to say."""
    (tmp_path / "hiding.py").write_text(HIDING.replace("DATA", str(stream.shard)))
    tokens = stream.tokens[:300]
    with apart(f"{tmp_path}/hiding.py:behaves") as subject:
        assert 1 in refuted(probe(subject, tokens))
    with apart(f"{tmp_path}/hiding.py:honest") as subject:
        honest = subject.score(tokens).values
    with apart(f"{tmp_path}/hiding.py:frames") as subject:
        assert subject.score(tokens).values.mean() < 2 * honest.mean()
    with apart(f"{tmp_path}/hiding.py:reads") as subject:
        assert subject.score(tokens).values.mean() > 0.9, "where the file can be read"
    subject, process = function_in_process(f"{tmp_path}/hiding.py:reads", [stream.shard], Limits())
    try:
        hidden = not any("hidden" in one or "no file of the data" in one for one in process.lacking)
        assert (subject.score(tokens).values.mean() < 2 * honest.mean()) == hidden
    finally:
        process.close()
