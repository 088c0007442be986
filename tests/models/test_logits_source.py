"""Models that give logits: one that sees the tokens it predicts is refused; distributions sum to 1."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ngram_eval import evaluate
from ngram_eval.config import EvalConfig, WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.models.logits_source import CallableSource
from ngram_eval.text.windows import batches, plan_windows

VOCABULARY = 40
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, 200)
TABLE = np.random.default_rng(1).normal(size=(VOCABULARY, VOCABULARY))


def config(stride: int = 8) -> EvalConfig:
    return EvalConfig(scorer="exact", window=WindowConfig(seq_len=16, stride=stride))


def causal(windows: torch.Tensor) -> Any:
    return np.cumsum(TABLE[windows.numpy()], axis=1)


def glancing(ahead: int, much: float = 1.0) -> Callable[[torch.Tensor], Any]:
    """A model that sees the token `ahead` positions after each."""

    def function(windows: torch.Tensor) -> Any:
        later = np.zeros((*windows.shape, VOCABULARY))
        later[:, :-ahead] = TABLE[windows[:, ahead:].numpy()]
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
            return torch.from_numpy(glancing(1)(windows))

    with pytest.raises(InputError, match="Bidirectional, is not causal"):
        evaluate(Bidirectional().eval(), TOKENS, config())


def test_a_causal_model_passes() -> None:
    """Also with rounding that depends on what comes later, and with tokens that it rules out."""
    assert evaluate(causal, TOKENS, config()).positions == 192
    assert evaluate(glancing(1, 1e-7), TOKENS, config()).positions == 192

    def ruling_out(windows: torch.Tensor) -> Any:
        logits = causal(windows)
        logits[..., -1] = -np.inf
        return logits

    assert evaluate(ruling_out, TOKENS % 39, config()).positions == 192


def test_a_token_ruled_out_by_what_follows_is_sight_of_it() -> None:
    def told(windows: torch.Tensor) -> Any:
        logits = causal(windows)
        logits[:, :-1][windows[:, 1:].numpy() % 2 == 0, ::2] = -np.inf
        return logits

    with pytest.raises(InputError, match="is not causal"):
        evaluate(told, TOKENS, config())


def test_rounding_of_half_precision_is_no_sight() -> None:
    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))

        def forward(self, windows: torch.Tensor) -> Any:
            return torch.from_numpy(glancing(1, 2**-8)(windows))

    assert evaluate(Half().eval(), TOKENS, config()).positions == 192


def test_where_one_position_of_a_window_is_scored_nothing_later_is_there() -> None:
    windows: list[int] = []

    def counted(given: torch.Tensor) -> Any:
        windows.append(len(given))
        return causal(given)

    evaluate(counted, TOKENS[:33], config(stride=16))
    assert windows == [1, 2, 2], "the form of an answer, causality, the two windows"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_distributions_over_large_vocabularies_sum_to_1(dtype: torch.dtype) -> None:
    """A float32 softmax misses 1 by 2e-5 there."""
    large = torch.randn(4, 200_000, generator=torch.Generator().manual_seed(0)).mul(3).to(dtype)
    source = CallableSource(lambda windows: large[windows], 2)
    tokens = TOKENS.astype(np.uint16) % 4
    (batch,) = batches(plan_windows(16, WindowConfig(seq_len=8, stride=8)), 2)
    rows = source.probabilities(tokens, batch)
    assert np.abs(rows.sum(axis=1) - 1).max() < 1e-7
    exact = torch.softmax(large.double(), dim=-1).numpy()[tokens[:16]]
    np.testing.assert_allclose(rows, exact, rtol=2e-6)
    stats = source.stats(tokens, batch)
    assert (stats.p_target == rows[np.arange(16), tokens[1:17]]).all()
    np.testing.assert_allclose(stats.entropy, -(exact * np.log(exact)).sum(axis=1), rtol=1e-5)


def test_every_function_gets_a_tensor() -> None:
    given: list[Any] = []

    def function(windows: torch.Tensor) -> Any:
        given.append(windows)
        return TABLE[windows.numpy()]

    class Module(torch.nn.Module):
        def forward(self, windows: torch.Tensor) -> Any:
            return function(windows)

    alone, inside = evaluate(function, TOKENS, config()), evaluate(Module().eval(), TOKENS, config())
    assert alone.nats == inside.nats
    assert all(one.dtype == torch.int64 and one.device.type == "cpu" and one.ndim == 2 for one in given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": -1}, "samples is -1: "),
        ({"batch_windows": 0}, "batch_windows is 0: "),
        ({"config": "best"}, "preset is 'best': "),
        ({"backend": "abacus"}, "backend is 'abacus': "),
        ({"tokens": TOKENS[:9]}, "a seq_len of at most 8"),
    ],
)
def test_errors_name_arguments(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        evaluate(**{"model": causal, "tokens": TOKENS, "config": config(), **settings})
    assert message in str(raised.value)
    assert "--" not in str(raised.value)
