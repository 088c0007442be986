"""Functions of others and files of claims are audited like scorers."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ngram_eval.audit.subjects.function import FunctionSubject, as_array, load_function
from ngram_eval.errors import InputError
from tests.support.functions import counting, peeking
from tests.support.planted import LENGTH, VOCAB, Array, probe
from tests.support.streams import Stream


def test_a_function_can_t_reach_the_future(stream: Stream) -> None:
    """What it can reach are zeros; that token 0 comes next is then all it says."""
    trace = FunctionSubject(name="f", function=peeking).score(stream.tokens[:LENGTH])
    expected = np.where(stream.tokens[1:LENGTH] == 0, 0.5 + 0.5 / VOCAB, 0.5 / VOCAB)
    np.testing.assert_allclose(trace.values, expected)


def test_a_function_is_asked_three_times_a_position_at_most(stream: Stream) -> None:
    """Twice over the text, and what probes on short streams cost: a call may take milliseconds."""
    calls = []

    def counted(past: NDArray[np.integer], state: dict[str, Any]) -> Array:
        calls.append(len(past))
        return counting(past, state)

    probe(FunctionSubject(name="f", function=counted), stream.tokens[:2901])
    assert calls.count(2900) == 2
    assert len(calls) < 3 * 2900 + 1000


def test_each_pass_starts_anew(stream: Stream) -> None:
    """What runs a function in a process of its own is told when a pass begins."""
    starts = []
    one = FunctionSubject(name="f", function=counting, restart=lambda: starts.append(1))
    one.score(stream.tokens[:40])
    assert len(starts) == 1
    one.score(stream.tokens[:40])
    assert len(starts) == 1, "it is remembered"


def test_tensors_of_any_make_are_numbers() -> None:
    p = torch.tensor([0.25, 0.75], requires_grad=True)
    assert as_array(p).tolist() == as_array(p.bfloat16()).tolist() == [0.25, 0.75]


def test_log_probabilities_get_a_hint(stream: Stream) -> None:
    one = FunctionSubject(name="f", function=lambda past, state: np.log(counting(past, state)))
    with pytest.raises(InputError, match="log-probabilities are: give probabilities"):
        one.score(stream.tokens[:40])


SOURCE = "import numpy as np\n\n\ndef predict(past, state):\n    return np.ones(50) / 50\n"


def test_a_function_is_found_in_the_working_folder_and_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: Stream
) -> None:
    (tmp_path / "beside.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])  # a console script has no ""
    assert load_function("beside:predict").score(stream.tokens[:9]).values.tolist() == [0.02] * 8
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "of_file.py").write_text(SOURCE)
    assert load_function("there/of_file.py:predict").score(stream.tokens[:9]).values.tolist() == [0.02] * 8
    for name in ("there/of_file.py:nothing", "there/missing.py:predict", "beside", "json:loads:x"):
        with pytest.raises(InputError, match="give module:function"):
            load_function(name)
