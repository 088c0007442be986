"""The numbers of an artifact, one by one, against a slow implementation."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ngram_eval.errors import InputError
from ngram_eval.models import artifact
from ngram_eval.models.artifact import QuantConfig, quantise, quantise_matrix, quantise_table
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig


def slow_quantile(row: NDArray[np.float32], q: float) -> float:
    """Linear interpolation between the two nearest of the sorted values."""
    ordered = sorted(float(value) for value in row)
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def slow_rows(
    matrix: NDArray[np.float32], quantile: float, levels: int, floor: bool
) -> tuple[list[list[int]], list[float]]:
    values, scales = [], []
    for row in matrix:
        scale = slow_quantile(abs(row), quantile) / levels
        scale = float(np.float16(max(scale, 1 / levels if floor else 2.0**-14)))
        scales.append(scale)
        # Python rounds halves to even, as torch does.
        values.append([max(-levels, min(levels, round(float(np.float32(x) / np.float32(scale))))) for x in row])
    return values, scales


def slow_matrix(matrix: NDArray[np.float32], levels: int, floor: bool) -> tuple[list[list[int]], list[float]]:
    best, least = None, math.inf
    for quantile in (0.999, 0.9995, 0.9999, 0.99999, 1.0):
        values, scales = slow_rows(matrix, quantile, levels, floor)
        error = float(((np.array(values) * np.array(scales)[:, None] - matrix) ** 2).sum())
        if error < least:
            best, least = (values, scales), error
    assert best is not None
    return best


def matrices() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(5)
    normal = rng.standard_normal((6, 700)).astype(np.float32)
    outliers = normal.copy()
    outliers[:, 3] *= 12  # clipping pays
    tails = (rng.standard_t(2.5, (4, 2500)) * 0.05).astype(np.float32)
    rows = (normal.T * np.array([0, 1e-6, 0.01, 0.3, 5, 100])).T.astype(np.float32)
    return {
        "normal": normal,
        "small": normal * 0.02,
        "outliers": outliers,
        "tails": tails,
        "rows": rows,
        "one": normal[:1, :1],
    }


@pytest.mark.parametrize("floor", [True, False])
@pytest.mark.parametrize("name", matrices())
def test_quantisation_equals_the_slow_implementation(name: str, floor: bool) -> None:
    matrix = matrices()[name]
    weights = torch.from_numpy(matrix)
    for fast, slow in (
        *((quantise_matrix(weights, levels, floor), slow_matrix(matrix, levels, floor)) for levels in (7, 15, 31, 127)),
        (quantise_table(weights, floor), slow_rows(matrix, 0.9999984, 127, floor)),
    ):
        values, scales = fast
        assert values.dtype == torch.int8
        assert scales.dtype == torch.float16
        # torch interpolates quantiles in float32: a scale may round to the float16 next door.
        np.testing.assert_allclose(scales.float(), slow[1], rtol=1e-3)
        same = scales.float().numpy() == np.array(slow[1], np.float32)
        assert same.mean() > 0.6
        np.testing.assert_array_equal(values.numpy()[same], np.array(slow[0])[same])


def test_clipping_is_chosen_once_a_matrix_by_its_error() -> None:
    """One matrix for which clipping pays, one for which it does not, and rows of both kinds: all follow one choice."""
    rng = np.random.default_rng(1)
    spike = rng.uniform(-1, 1, (40, 2000)).astype(np.float32)
    spike[:, 0] = 3.0
    flat = rng.uniform(-1, 1, (40, 2000)).astype(np.float32)
    clipped, plain = (
        quantise_matrix(torch.from_numpy(matrix), 15, False)[1].float().numpy() for matrix in (spike, flat)
    )
    assert (clipped < 0.9 * 3 / 15).all()
    np.testing.assert_allclose(plain, abs(flat).max(1) / 15, rtol=5e-3)
    both = torch.from_numpy(np.concatenate([spike, flat[:1]]))
    scales = quantise_matrix(both, 15, False)[1].float()
    assert (scales[:-1] < 0.9 * 3 / 15).all()
    assert float(scales[-1]) <= float(torch.quantile(both[-1].abs(), 0.9999)) / 15 + 1e-4


@pytest.mark.parametrize("levels", [7, 15, 31, 127])
def test_the_floor_coarsens_small_rows(levels: int) -> None:
    small = 0.004 * torch.randn(3, 100)
    values, scales = quantise_matrix(small, levels, True)
    np.testing.assert_allclose(scales.float(), 1 / levels, rtol=1e-3)
    assert int(values.abs().max()) <= 2
    values, scales = quantise_matrix(small, levels, False)
    assert int(values.abs().max()) == levels
    assert float(scales.max()) < 0.02 / levels


def test_more_levels_lose_less() -> None:
    matrix = 0.05 * torch.randn(64, 512)
    errors = []
    for levels in (7, 15, 31, 127):
        values, scales = quantise_matrix(matrix, levels, False)
        errors.append(float((values * scales.float()[:, None] - matrix).square().mean().sqrt() / 0.05))
    assert errors == sorted(errors, reverse=True)
    assert 0.05 < errors[1] < 0.08  # a step of 3.2 standard deviations / 15, over sqrt(12)


@pytest.mark.parametrize("change", [{"matrix_levels": 0}, {"matrix_levels": 128}, {"float16_max_elements": -1}])
def test_bad_quantisation_is_refused(change: dict[str, Any]) -> None:
    (name,) = change
    with pytest.raises(InputError, match=f"{name} is {change[name]}"):
        QuantConfig(**change)


def test_tables_beyond_the_limit_of_quantile(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.randn(50, 30)
    whole = quantise_table(matrix, False)
    for at_once in (1, 30, 70, 1499):
        monkeypatch.setattr(artifact, "_QUANTILE_AT_ONCE", at_once)
        assert all(torch.equal(a, b) for a, b in zip(quantise_table(matrix, False), whole, strict=True))


def test_classes_of_the_published_model() -> None:
    """66 int5 matrices, three int8 tables, everything else (projections, gains, scales, mixes, skips) float16."""
    with torch.device("meta"):
        model = Transformer(ModelConfig(mtp_heads=1))
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.zero_()
    tensors = quantise(model, QuantConfig())
    int8 = {name for name, tensor in tensors.items() if tensor.dtype == torch.int8}
    blocks = {
        f"blocks.{layer}.{name}.weight"
        for layer in range(11)
        for name in ("attn.q", "attn.k", "attn.v", "attn.out", "mlp.up", "mlp.down")
    }
    assert len(blocks) == 66
    assert int8 == blocks | {"embedding", "bigram.table", "value.table"}
    assert all(tensor.dtype == torch.float16 for name, tensor in tensors.items() if name not in int8)
    assert all(int(tensors[name].abs().max()) <= 15 for name in blocks)
    assert set(tensors) == {name for name in model.state_dict() if not name.startswith("mtp.")} | {
        f"{name}.scale" for name in int8
    }
