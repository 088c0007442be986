"""Logits on a device → a target's statistics and the branches on its path (`ngram_eval.models.branches`)."""

from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from ngram_eval.models.branches import Tree


def _exp(log_p: Tensor) -> Tensor:
    """Probabilities in float64; on the CPU by numpy, as whole distributions are, since torch rounds differently."""
    if log_p.device.type == "cpu":
        return torch.from_numpy(np.exp(log_p.numpy().astype(np.float64)))
    return log_p.double().exp()


class PathSums:
    """A tree, for logits on one device."""

    def __init__(self, tree: Tree, device: torch.device, *, use_kernels: bool | None = None) -> None:
        """`use_kernels`: whether `ngram_eval.kernels.paths` computes; by default on a GPU where Triton is."""
        self._tree = tree
        self.use_kernels = device.type == "cuda" and find_spec("triton") is not None
        if use_kernels is not None:
            self.use_kernels = use_kernels
        self._order, self._rank = (torch.from_numpy(one.astype(np.int32)).to(device) for one in (tree.order, tree.rank))

    def stats(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(probability of the target, (n,) float64, entropy in nats, (n,) float32, branches (n, D) float64).

        Of logits (n, V) and targets (n,). On the CPU the branches are those of the whole distributions, to the bit. The
        kernel adds up in float32 what lies below a node: its branches are within 2e-5 of themselves.
        """
        if self.use_kernels:
            return self._by_kernel(logits, targets)
        log_p = torch.log_softmax(logits.float(), dim=-1)
        entropy = torch.special.entr(log_p.exp()).sum(dim=-1)  # 0 where p is 0
        return _exp(log_p.gather(-1, targets[:, None])[:, 0]), entropy, self.branches(log_p, targets)

    def branches(self, log_p: Tensor, targets: Tensor) -> Tensor:
        """As `Tree.branches`, of log-probabilities (n, V)."""
        known = targets.cpu().numpy()
        if log_p.device.type == "cpu":
            return torch.from_numpy(self._tree.branches(_exp(log_p).numpy(), known))
        below = torch.zeros(len(log_p), len(self._order) + 1, dtype=torch.float64, device=log_p.device)
        torch.cumsum(_exp(log_p[:, self._order]), dim=1, out=below[:, 1:])
        borders = torch.from_numpy(self._tree.borders(known)).to(log_p.device)
        low, mid, high = (below.gather(1, border) for border in borders)
        whole = high - low
        return torch.where(whole > 0, (high - mid) / whole, 0.5)

    def _by_kernel(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from ngram_eval.kernels.paths import path_stats  # needs Triton, which not every machine has

        p_target = torch.empty(len(logits), dtype=torch.float64, device=logits.device)
        entropy = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        branches = torch.empty(len(logits), self._tree.depth, dtype=torch.float64, device=logits.device)
        path_stats(logits, targets, self._order, self._rank, p_target, entropy, branches)
        return p_target, entropy, branches
