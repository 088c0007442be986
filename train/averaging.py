"""Averages of the weights during a run, in float32: bfloat16 would round small steps away.

`torch.optim.swa_utils.AveragedModel` computes the same averages (a test compares them), but copies the whole module and
keeps each weight's own precision.
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
    """Plain mean of the weights at all calls of `update` (tight SWA calls it only late in a run)."""

    def __init__(self, model: nn.Module) -> None:
        self.average = {
            name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in model.named_parameters()
        }
        self.count = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the model's weights to the mean."""
        self.count += 1
        weights = [weight.detach().float() for weight in model.parameters()]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 / self.count)


@torch.no_grad()
def put(weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Overwrite the model's parameters by `weights`, each rounded to the parameter's precision."""
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
