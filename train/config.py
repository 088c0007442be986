"""Every setting of a training run, and the presets."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ngram_eval.artifact import QuantConfig
from ngram_eval.errors import InputError
from ngram_eval.model import ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Optimisation; defaults are PR #890's values where they carry over to one process."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The architecture."""
    quant: QuantConfig = field(default_factory=QuantConfig)
    """Quantisation, of the artifact and of early QAT alike."""
    seq_len: int = 2048
    """Positions of a training sequence."""
    batch: int = 384
    """Sequences of a step (PR #890: 786,432 tokens)."""
    steps: int = 20_000
    """Optimiser steps."""
    warmdown: float = 0.175
    """Share of the steps, at the end, over which the learning rate falls linearly to 0 (PR #890: 3500 of 20,000)."""
    matrix_lr: float = 0.025
    """Muon's learning rate, for block matrices and projections."""
    table_lr: float = 0.035
    """AdamW's learning rate for embedding tables."""
    vector_lr: float = 0.025
    """AdamW's learning rate for vectors and scalars."""
    weight_decay: float = 0.04
    """Decoupled weight decay of both optimisers."""
    momentum: float = 0.99
    """Muon's Nesterov momentum, reached linearly from `momentum_start`."""
    momentum_start: float = 0.92
    """Muon's momentum at step 0."""
    momentum_warmup: int = 1500
    """Steps over which the momentum rises."""
    grad_clip: float = 0.3
    """Largest norm of the whole gradient."""
    ema: float = 0.997
    """Decay a step of the averaged weights, which are the ones exported."""
    qat_below: float = 0.5
    """Matrices are fake-quantised once the learning-rate multiplier is below this (early QAT)."""
    mtp_weight: float = 0.2
    """Weight of the mean loss of the multi-token-prediction heads, where the model has any."""
    seed: int = 1337
    """Seed of the weights and of the order of the data."""

    def __post_init__(self) -> None:
        for name in ("seq_len", "batch", "steps", "momentum_warmup"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}: give at least 1")
        for name in ("warmdown", "momentum", "momentum_start", "ema", "qat_below"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}: it lies in [0, 1]")
        for name in ("matrix_lr", "table_lr", "vector_lr", "weight_decay", "grad_clip", "mtp_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}: give a finite value >= 0")


def pr890() -> TrainConfig:
    """The published model and hyperparameters, in one process."""
    return TrainConfig()


def embedded() -> TrainConfig:
    """The small model shipped in `ngram_eval/assets`: two CPU cores, within 15 minutes, at most 1 MB."""
    return TrainConfig(
        model=ModelConfig(
            layers=6,
            width=128,
            heads=4,
            kv_heads=4,
            mlp_hidden=448,
            table_dtype="float32",
            table_init_std=0.02,
            bigram_slots=2048,
            bigram_width=32,
            rope_dims=16,
            rope_train_len=256,
            xsa_layers=6,
            value_layers=(4, 5),
            value_width=32,
        ),
        quant=QuantConfig(float16_max_elements=4096, scale_floor=False),
        seq_len=256,
        batch=8,
        steps=2400,
        warmdown=0.6,
        momentum=0.95,
        momentum_start=0.85,
        momentum_warmup=100,
        grad_clip=1.0,
        ema=0.99,
    )


PRESETS: dict[str, Callable[[], TrainConfig]] = {"embedded": embedded, "pr890": pr890}
"""Preset name -> its configuration."""
