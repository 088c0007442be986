"""A model that sees the tokens it predicts is refused before anything is scored."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ngram_eval import evaluate
from ngram_eval.config import EvalConfig, WindowConfig
from ngram_eval.errors import InputError

VOCABULARY = 40
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, 200)
TABLE = np.random.default_rng(1).normal(size=(VOCABULARY, VOCABULARY))


def config(stride: int = 8) -> EvalConfig:
    return EvalConfig(scorer="exact", window=WindowConfig(seq_len=16, stride=stride))


def causal(windows: NDArray[np.int64]) -> Any:
    return np.cumsum(TABLE[windows], axis=1)


def glancing(ahead: int, much: float = 1.0) -> Callable[[NDArray[np.int64]], Any]:
    """A model that sees the token `ahead` positions after each."""

    def function(windows: NDArray[np.int64]) -> Any:
        later = np.zeros((*windows.shape, VOCABULARY))
        later[:, :-ahead] = TABLE[windows[:, ahead:]]
        return causal(windows) + much * later

    return function


@pytest.mark.parametrize("ahead", [1, 5])
@pytest.mark.parametrize("much", [1.0, 1e-3])
def test_a_model_that_looks_ahead_is_refused(ahead: int, much: float) -> None:
    with pytest.raises(InputError, match=r"the model, a .*function, is not causal"):
        evaluate(glancing(ahead, much), TOKENS, config())


def test_a_module_that_looks_ahead_is_refused_by_its_name() -> None:
    class Bidirectional(torch.nn.Module):
        def forward(self, windows: torch.Tensor) -> Any:
            return torch.from_numpy(glancing(1)(windows.numpy()))

    with pytest.raises(InputError, match="Bidirectional, is not causal"):
        evaluate(Bidirectional().eval(), TOKENS, config())


def test_a_causal_model_passes() -> None:
    """Also with rounding that depends on what comes later, and with tokens that it rules out."""
    assert evaluate(causal, TOKENS, config()).positions == 192
    assert evaluate(glancing(1, 1e-7), TOKENS, config()).positions == 192

    def ruling_out(windows: NDArray[np.int64]) -> Any:
        logits = causal(windows)
        logits[..., -1] = -np.inf
        return logits

    assert evaluate(ruling_out, TOKENS % 39, config()).positions == 192


def test_a_token_ruled_out_by_what_follows_is_sight_of_it() -> None:
    def told(windows: NDArray[np.int64]) -> Any:
        logits = causal(windows)
        logits[:, :-1][windows[:, 1:] % 2 == 0, ::2] = -np.inf
        return logits

    with pytest.raises(InputError, match="is not causal"):
        evaluate(told, TOKENS, config())


def test_rounding_of_half_precision_is_no_sight() -> None:
    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))

        def forward(self, windows: torch.Tensor) -> Any:
            return torch.from_numpy(glancing(1, 2**-8)(windows.numpy()))

    assert evaluate(Half().eval(), TOKENS, config()).positions == 192


def test_where_one_position_of_a_window_is_scored_nothing_later_is_there() -> None:
    windows: list[int] = []

    def counted(given: NDArray[np.int64]) -> Any:
        windows.append(len(given))
        return causal(given)

    evaluate(counted, TOKENS[:33], config(stride=16))
    assert windows == [1, 2, 2], "the form of an answer, causality, the two windows"
