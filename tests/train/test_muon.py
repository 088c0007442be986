"""Parallel Muon against slow float64 arithmetic and against torch's own."""

import copy

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ngram_eval.train.muon import Muon, orthogonalise

SHAPES = [(24, 16), (16, 24), (20, 20), (1, 30), (30, 1), (64, 512)]


def slow_iteration(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The polynomial applied to the singular values, one by one: no matrix is ever multiplied by its transpose."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    s = s / (np.sqrt((s**2).sum()) + 1e-7)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    result: NDArray[np.float64] = (u * s) @ v
    return result


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1.0, 1e-4, 1e3])
def test_iteration_is_the_polynomial_of_the_singular_values(shape: tuple[int, int], size: float) -> None:
    rng = np.random.default_rng(0)
    matrices = size * rng.standard_normal((3, *shape))
    found = orthogonalise(torch.from_numpy(matrices), torch.float64)
    for one, matrix in zip(found.numpy(), matrices, strict=True):
        np.testing.assert_allclose(one, slow_iteration(matrix), atol=1e-9)
    narrow = orthogonalise(torch.from_numpy(matrices).float(), torch.float32)
    torch.testing.assert_close(narrow.double(), found, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonality_error(dtype: torch.dtype) -> None:
    """Singular values of a random 128 x 512 matrix end within 0.65 and 1.25; those of its gradient-like sum as well."""
    torch.manual_seed(0)
    dense = torch.randn(128, 512)
    steep = torch.randn(128, 128) @ torch.diag(torch.logspace(0, -1.3, 128)) @ torch.randn(128, 512)
    values = torch.linalg.svdvals(orthogonalise(torch.stack([dense, steep]), dtype).double())
    assert float(values.max()) < 1.25
    assert float(values[0].min()) > 0.65
    assert float(values[1].median()) > 0.65  # the smallest of a steep spectrum are lifted but not there yet
    before = torch.linalg.svdvals(torch.stack([dense, steep]).double())
    assert ((values.amax(1) / values.median(1)[0]) < (before.amax(1) / before.median(1)[0])).all()


def slow_steps(start: torch.Tensor, gradients: list[torch.Tensor], momenta: list[float]) -> NDArray[np.float64]:
    """The published update in float64: momentum sums, Nesterov, decay, sqrt(max(1, rows / columns))."""
    weight, buffer = start.double().numpy().copy(), np.zeros(start.shape)
    for gradient, momentum in zip(gradients, momenta, strict=True):
        buffer = momentum * buffer + gradient.double().numpy()
        update = slow_iteration(gradient.double().numpy() + momentum * buffer)
        weight = weight * (1 - 0.02 * 0.1) - 0.02 * max(1, start.size(0) / start.size(1)) ** 0.5 * update
    return weight


def test_steps_equal_the_slow_update_while_the_momentum_rises() -> None:
    torch.manual_seed(1)
    matrices = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    starts = [matrix.detach().clone() for matrix in matrices]
    gradients = [[torch.randn(shape) for _ in range(4)] for shape in SHAPES]
    momenta = [0.5, 0.7, 0.9, 0.95]
    muon = Muon(matrices, lr=0.02, momentum=0.5, weight_decay=0.1, dtype=torch.float32)
    for i, momentum in enumerate(momenta):
        muon.param_groups[0]["momentum"] = momentum
        for matrix, their in zip(matrices, gradients, strict=True):
            matrix.grad = their[i].clone()
        muon.step()
        assert all(torch.equal(m.grad, g[i]) for m, g in zip(matrices, gradients, strict=True))  # left as they were
    for matrix, start, their in zip(matrices, starts, gradients, strict=True):
        np.testing.assert_allclose(matrix.detach(), slow_steps(start, their, momenta), atol=1e-4)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch < 2.9")
def test_torchs_muon_agrees_at_constant_momentum_only() -> None:
    """As the module says: the same but for bfloat16, unless the momentum changes."""

    def difference(momenta: list[float]) -> float:
        torch.manual_seed(2)
        matrices = [torch.nn.Parameter(torch.randn(shape)) for shape in ((64, 32), (32, 48))]
        theirs = copy.deepcopy(matrices)
        ours = Muon(matrices, lr=1.0, momentum=0.0, weight_decay=0.0, dtype=torch.bfloat16)
        other = torch.optim.Muon(theirs, lr=1.0, momentum=0.0, weight_decay=0.0, adjust_lr_fn="original")
        for momentum in momenta:
            ours.param_groups[0]["momentum"] = other.param_groups[0]["momentum"] = momentum
            for one, two in zip(matrices, theirs, strict=True):
                one.grad = torch.randn_like(one)
                two.grad = one.grad.clone()
            ours.step()
            other.step()
        return max(float(((one - two).norm() / one.norm()).detach()) for one, two in zip(matrices, theirs, strict=True))

    assert difference([0.9] * 5) < 0.02
    assert difference([0.1, 0.3, 0.5, 0.9, 0.99]) > 0.05


def test_matrices_without_a_gradient_stay() -> None:
    with_gradient, without = (torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    with_gradient.grad = torch.eye(4)
    muon = Muon([with_gradient, without], lr=0.1, momentum=0.9, weight_decay=0.1, dtype=torch.float32)
    muon.step()
    assert not torch.equal(with_gradient, torch.ones(4, 4))
    assert torch.equal(without, torch.ones(4, 4))
