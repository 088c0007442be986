"""Muon for matrices, AdamW for the rest, and the schedules of PR #890."""

import torch
from torch import nn

from ngram_eval.errors import InputError
from ngram_eval.train.config import TrainConfig

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def is_table(name: str) -> bool:
    """Embedding tables: the token embedding, the bigram hash and the value embedding."""
    return name == "embedding" or name.endswith(".table")


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """[Muon, AdamW]; each group remembers its full learning rate as `peak_lr`."""
    if not hasattr(torch.optim, "Muon"):
        raise InputError(f"torch {torch.__version__} has no torch.optim.Muon: training needs torch >= 2.9")
    matrices, tables, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if is_table(name):
            tables.append(parameter)
        elif parameter.ndim == 2 and name.endswith(".weight"):
            matrices.append(parameter)
        else:
            vectors.append(parameter)
    # torch's momentum averages where the published code accumulates; Newton-Schulz normalises the difference away.
    muon = torch.optim.Muon(
        matrices,
        lr=config.matrix_lr,
        weight_decay=config.weight_decay,
        momentum=config.momentum_start,
        nesterov=True,
        ns_coefficients=_NEWTON_SCHULZ,
        ns_steps=5,
        adjust_lr_fn="original",  # update times sqrt(max(1, rows / columns))
    )
    adamw = torch.optim.AdamW(
        [{"params": tables, "lr": config.table_lr}, {"params": vectors, "lr": config.vector_lr}],
        betas=(0.9, 0.95),
        eps=1e-8,
        weight_decay=config.weight_decay,
    )
    optimizers = [muon, adamw]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def lr_multiplier(step: int, config: TrainConfig) -> float:
    """1, then a linear fall to 0 over the last `warmdown` share of the steps."""
    left = (config.steps - step) / config.steps
    return min(1.0, left / config.warmdown) if config.warmdown else 1.0


def momentum_at(step: int, config: TrainConfig) -> float:
    """Muon's momentum: a linear rise over the first `momentum_warmup` steps."""
    share = min(1.0, step / config.momentum_warmup)
    return config.momentum_start + share * (config.momentum - config.momentum_start)
