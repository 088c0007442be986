"""The optimisers: Muon for matrices, AdamW for tables, vectors and scalars (PR #890)."""

import torch
from torch import nn

from ngram_eval.distributed.ranks import Ranks
from ngram_eval.train.config import TrainConfig
from ngram_eval.train.muon import Muon, newton_schulz_dtype


def is_table(name: str) -> bool:
    """Whether the parameter is an embedding table: of tokens, of bigram hashes, or of values."""
    return name == "embedding" or name.endswith(".table")


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether the parameter is the weight of a linear layer (block, projection, multi-token-prediction head)."""
    return parameter.ndim == 2 and name.endswith(".weight")


def make_optimizers(model: nn.Module, config: TrainConfig, ranks: Ranks) -> list[torch.optim.Optimizer]:
    """[Muon, AdamW]; each group keeps its full learning rate as `peak_lr`."""
    matrices, tables, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if is_table(name):
            tables.append(parameter)
        elif is_matrix(name, parameter):
            matrices.append(parameter)
        else:
            vectors.append(parameter)
    device = matrices[0].device
    muon = Muon(
        matrices,
        lr=config.matrix_lr,
        momentum=config.momentum_start,
        weight_decay=config.weight_decay,
        dtype=newton_schulz_dtype(device),
        rank=ranks.rank,
        world=ranks.world,
    )
    adamw = torch.optim.AdamW(
        [{"params": tables, "lr": config.table_lr}, {"params": vectors, "lr": config.vector_lr}],
        betas=(0.9, 0.95),
        eps=1e-8,
        weight_decay=config.weight_decay,
        fused=device.type == "cuda",
    )
    optimizers: list[torch.optim.Optimizer] = [muon, adamw]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers
