"""Logits on a device → a target's statistics and the branches on its path (`ngram_eval.models.branches`)."""

import numpy as np
import torch
from torch import Tensor

from ngram_eval.models.branches import Tree


def target_stats(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(log-probability of the target, entropy in nats), both float32 (...), of logits (..., V) and targets (...)."""
    log_p = torch.log_softmax(logits.float(), dim=-1)
    entropy = torch.special.entr(log_p.exp()).sum(dim=-1)  # 0 where p is 0
    return log_p.gather(-1, targets[..., None]).squeeze(-1), entropy


def _exp(log_p: Tensor) -> Tensor:
    """Probabilities in float64; on the CPU by numpy, as whole distributions are, since torch rounds differently."""
    if log_p.device.type == "cpu":
        return torch.from_numpy(np.exp(log_p.numpy().astype(np.float64)))
    return log_p.double().exp()


class PathSums:
    """A tree, for logits on one device."""

    def __init__(self, tree: Tree, device: torch.device) -> None:
        self._tree, self._order = tree, torch.from_numpy(tree.order).to(device)

    def stats(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(probability of the target, (n,) float64, entropy in nats, (n,) float32, branches (n, D) float64).

        Of logits (n, V) and targets (n,). On the CPU the branches are those of the whole distributions, to the bit.
        """
        log_p, entropy = target_stats(logits, targets)
        return _exp(log_p), entropy, self.branches(torch.log_softmax(logits, dim=-1), targets)

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
