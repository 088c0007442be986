"""The training loss."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ngram_eval.models.banded_attention import Band
from ngram_eval.models.transformer import Transformer


class Objective(nn.Module):
    """Inputs and targets (B, T) int64 -> (loss to minimise, mean nats of the next token); DDP can wrap this module."""

    def __init__(self, model: Transformer, mtp_weight: float, band: Band | None = None) -> None:
        super().__init__()
        self.model, self._mtp_weight, self._band = model, mtp_weight, band

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.model.hidden(inputs, band=self._band)
        nats = F.cross_entropy(self.model.logits(hidden).flatten(0, 1), targets.flatten())
        extra = [
            F.cross_entropy(logits[:, : -k - 1].flatten(0, 1), targets[:, k + 1 :].flatten())
            for k, logits in enumerate(self.model.mtp_logits(hidden))
        ]
        return (nats + self._mtp_weight * torch.stack(extra).mean() if extra else nats), nats
