"""Averages of the weights along a run. Kept in float32: in bfloat16, small steps would be rounded away.

`torch.optim.swa_utils.AveragedModel` computes the same (a test compares them) but copies the whole module and keeps
each weight's own precision.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average; `decay` is the share of the old average that each update keeps."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {name: weight.detach().float().clone() for name, weight in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's weights."""
        weights = [weight.detach().float() for weight in model.parameters()]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 - self.decay)


class Swa:
    """Plain mean of the weights at the moments given to `update` (tight SWA: late ones only)."""

    def __init__(self, model: nn.Module) -> None:
        self.average = {
            name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in model.named_parameters()
        }
        self.count = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's weights in."""
        self.count += 1
        weights = [weight.detach().float() for weight in model.parameters()]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 / self.count)


@torch.no_grad()
def put(weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Overwrite the model's parameters, each rounded to its own precision."""
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
