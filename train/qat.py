"""Quantisation-aware training: linear layers use rounded weights in the forward; gradients pass straight through."""

import torch
from torch import Tensor

from ngram_eval.models.artifact import QuantConfig, row_scale
from ngram_eval.models.transformer import Linear, Transformer


def fake_quantise(weight: Tensor, levels: int, floor: bool) -> Tensor:
    """Weight (rows, columns) in `levels` steps up to its row's largest magnitude; the gradient is the identity."""
    with torch.no_grad():
        scale = row_scale(weight.abs().amax(dim=1), levels, floor)[:, None]
        rounded = (weight / scale).round().clamp(-levels, levels) * scale
    return weight + (rounded - weight).detach()


def enable(model: Transformer, quant: QuantConfig) -> None:
    """Fake-quantise every linear layer from now on, except multi-token-prediction heads."""
    for name, module in model.named_modules():
        if isinstance(module, Linear) and not name.startswith("mtp."):
            module.fake_quantise = lambda weight: fake_quantise(weight, quant.matrix_levels, quant.scale_floor)


def disable(model: Transformer) -> None:
    """Use the weights as they are again."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.fake_quantise = None
