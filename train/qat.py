"""Quantisation-aware training: linear layers see int5 weights in the forward, gradients pass straight through."""

import torch
from torch import Tensor

from ngram_eval.artifact import row_scale
from ngram_eval.model import Linear, Transformer


def fake_quantise_int5(weight: Tensor, floor: bool) -> Tensor:
    """Weight (rows, columns) rounded to +-15 steps of its row's largest magnitude; the gradient is the identity."""
    with torch.no_grad():
        scale = row_scale(weight.abs().amax(dim=1), 15, floor)[:, None]
        rounded = (weight / scale).round().clamp(-15, 15) * scale
    return weight + (rounded - weight).detach()


def enable(model: Transformer, floor: bool) -> None:
    """Fake-quantise every linear layer from now on, but for the multi-token-prediction heads."""
    for name, module in model.named_modules():
        if isinstance(module, Linear) and not name.startswith("mtp."):
            module.fake_quantise = lambda weight: fake_quantise_int5(weight, floor)


def disable(model: Transformer) -> None:
    """Back to the weights as they are."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.fake_quantise = None
