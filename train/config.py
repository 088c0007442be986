"""Every setting of a training run, and the presets."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from ngram_eval.errors import InputError
from ngram_eval.models.artifact import QuantConfig
from ngram_eval.models.transformer_config import ModelConfig

ExportWeights = Literal["ema", "swa", "raw"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The settings that decide the trained weights; the defaults are PR #890's."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The architecture."""
    quant: QuantConfig = field(default_factory=QuantConfig)
    """Quantisation, for the artifact and for early QAT."""
    seq_len: int = 2048
    """Positions of a training sequence."""
    attention_window: int = 0
    """Last positions that a position sees, itself included, as in --forward banded; 0: all before it (PR #890)."""
    batch: int = 384
    """Sequences of a step, over all ranks (PR #890: 786,432 tokens)."""
    micro_batch: int = 48
    """Sequences of one forward on one rank; gradients accumulate over the batch. 0: the whole batch at once."""
    shuffle: bool = False
    """Visit the sequences of each epoch in a new random order instead of stream order."""
    steps: int = 20_000
    """Optimiser steps."""
    max_seconds: float = 600.0
    """Time limit of the training steps, in seconds; the learning rate reaches 0 by then. 0: no limit."""
    warmup_steps: int = 20
    """Steps before the first one that are undone again: they compile kernels and allocate memory."""
    warmdown_steps: int = 3500
    """Steps at the end over which the learning rate falls linearly to 0; a time limit counts for them. 0: none."""
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
    """Largest norm of the whole gradient; 0: no limit."""
    ema: float = 0.997
    """Decay per step of the exponential average of the weights."""
    swa_every: int = 50
    """Steps between the weights that SWA averages."""
    swa_below: float = 0.2
    """Learning-rate multiplier below which SWA begins."""
    export_weights: ExportWeights = "ema"
    """Weights to export: the exponential average, SWA's mean, or the last ones."""
    qat_below: float = 0.5
    """Learning-rate multiplier below which matrices are fake-quantised (early QAT); 0: never."""
    mtp_weight: float = 0.2
    """Weight of the mean loss of the multi-token-prediction heads, if the model has any."""
    seed: int = 1337
    """Seed of the weights and of the order of the data (PR #890: 42, 1337, 2024)."""

    def __post_init__(self) -> None:
        for name in ("seq_len", "batch", "steps", "momentum_warmup", "swa_every"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}: give at least 1")
        for name in ("micro_batch", "warmup_steps", "warmdown_steps", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}: give at least 0")
        for name in ("momentum", "momentum_start", "ema", "swa_below", "qat_below"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}: give a number in [0, 1]")
        for name in (
            *("max_seconds", "matrix_lr", "table_lr", "vector_lr"),
            *("weight_decay", "grad_clip", "mtp_weight"),
        ):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}: give a finite value >= 0")
        if not 0 <= self.attention_window <= self.seq_len:
            raise InputError(
                f"--attention-window is {self.attention_window}: give 1 to --seq-len ({self.seq_len}), or 0 for none"
            )
        if self.export_weights not in get_args(ExportWeights):
            raise InputError(
                f"--export-weights is {self.export_weights!r}: choose from {', '.join(get_args(ExportWeights))}"
            )

    @property
    def trained_length(self) -> int:
        """Positions that the model learns to see: windows of an evaluation default to it."""
        return self.attention_window or self.seq_len

    def micro_batches(self, world: int) -> int:
        """Number of forwards of one rank per step; raises `InputError` if the batch can't be split evenly."""
        share, rest = divmod(self.batch, world)
        if rest:
            raise InputError(
                f"--batch is {self.batch}: {world} ranks can't share it evenly; give a multiple of {world}"
            )
        micro = self.micro_batch or share
        if share % micro:
            raise InputError(
                f"--micro-batch is {micro}: it must divide a rank's {share} sequences; give 0 for all of them at once"
            )
        return share // micro


def pr890() -> TrainConfig:
    """The published model and hyperparameters: 600 s on 8 GPUs."""
    return TrainConfig()


def embedded() -> TrainConfig:
    """The small model shipped in `ngram_eval/assets`: 15 minutes on two CPU cores, at most 1 MB."""
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
        micro_batch=0,
        shuffle=True,
        steps=2400,
        max_seconds=0.0,
        warmup_steps=0,
        warmdown_steps=1440,
        momentum=0.95,
        momentum_start=0.85,
        momentum_warmup=100,
        grad_clip=1.0,
        ema=0.99,
    )


def small() -> TrainConfig:
    """A 3.8 M-parameter model for an hour on two CPU cores and a few novels."""
    base = embedded()
    return replace(
        base,
        model=replace(
            base.model,
            layers=8,
            width=192,
            heads=6,
            kv_heads=6,
            mlp_hidden=672,
            bigram_slots=4096,
            bigram_width=64,
            rope_train_len=512,
            xsa_layers=8,
            value_layers=(6, 7),
            value_width=64,
        ),
        quant=replace(base.quant, matrix_levels=31),  # int6: int8 loses no less (benchmarks/results/small_training.md)
        seq_len=512,
        weight_decay=0.1,  # an hour visits a few novels several times
        warmdown_steps=900,
        steps=20_000,
        max_seconds=3600.0,
    )


PRESETS: dict[str, Callable[[], TrainConfig]] = {"embedded": embedded, "small": small, "pr890": pr890}
"""Preset name -> configuration."""
