"""Exponential moving average of the weights."""

import torch
from torch import nn


class Ema:
    """The average, float32; `decay` is the share of the old average that each update keeps."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {name: weight.detach().float().clone() for name, weight in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's weights."""
        for name, weight in model.named_parameters():
            self.average[name].lerp_(weight.float(), 1 - self.decay)

    @torch.no_grad()
    def apply_to(self, model: nn.Module) -> None:
        """Overwrite the model's weights with the average."""
        for name, weight in model.named_parameters():
            weight.copy_(self.average[name])
