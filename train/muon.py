"""Parallel Muon: momentum that Newton-Schulz iterations make orthogonal, with the matrices split over ranks.

K. Jordan et al., "Muon: an optimizer for hidden layers" (2024), as PR #890 uses it. `torch.optim.Muon` (2.13) is not
used here since it differs in four points. It does not split the work over ranks. It always iterates in bfloat16, which
is slow on CPUs. Its momentum is an average, while the published one is a sum (the iteration removes the factor 1 - m
only while m is constant, and here it rises). And it takes matrices one by one, not those of one shape together.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.distributed
from torch import Tensor, nn
from torch.optim import Optimizer

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x x' x and x x' x x' x (PR #890): singular values come near 1 quickly, and then stay near it."""
STEPS = 5
_EPS = 1e-7


def orthogonalise(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Matrices (N, rows, columns) with all singular values moved near 1, computed and returned in `dtype`."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.to(dtype)
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + _EPS)  # the largest singular value is at most 1
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def newton_schulz_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs, as published; else float32, since bfloat16 is emulated there."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


class Muon(Optimizer):
    """Muon over ranks: rank i mod world orthogonalises matrix i, and one all-reduce gives all updates to all ranks.

    Gradients must be the same on all ranks (DDP averages them). Every rank keeps the momentum of all matrices, so
    checkpoints do not depend on the number of ranks.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._dtype, self._rank, self._world = dtype, rank, world

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            matrices: list[Tensor] = [matrix for matrix in group["params"] if matrix.grad is not None]
            if not matrices:
                continue
            updates = self._shared(self._directions(matrices, group["momentum"]))
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            for matrix, update in zip(matrices, updates, strict=True):
                scale = max(1.0, matrix.size(0) / matrix.size(1)) ** 0.5
                matrix.add_(update.to(matrix.dtype), alpha=-group["lr"] * scale)

    def _directions(self, matrices: list[Tensor], momentum: float) -> list[Tensor]:
        """Nesterov's look-ahead of each matrix: gradient + momentum * (momentum * buffer + gradient)."""
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        buffers = []
        for matrix in matrices:
            state = self.state[matrix]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(matrix)
            buffers.append(state["momentum"])
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        return list(torch._foreach_add(gradients, buffers, alpha=momentum))

    def _shared(self, directions: list[Tensor]) -> list[Tensor]:
        """Every direction orthogonalised, on every rank."""
        mine: dict[torch.Size, list[int]] = defaultdict(list)
        for i in range(self._rank, len(directions), self._world):
            mine[directions[i].shape].append(i)
        if self._world == 1:
            updates = directions
        else:
            flat = directions[0].new_zeros(sum(one.numel() for one in directions), dtype=self._dtype)
            parts = flat.split([one.numel() for one in directions])
            updates = [part.view_as(one) for part, one in zip(parts, directions, strict=True)]
        for indices in mine.values():
            made = orthogonalise(torch.stack([directions[i] for i in indices]), self._dtype)
            for i, update in zip(indices, made, strict=True):
                if self._world == 1:
                    updates[i] = update
                else:
                    updates[i].copy_(update)
        if self._world > 1:
            torch.distributed.all_reduce(flat)
        return updates
