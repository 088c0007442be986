"""Training runs of seconds."""

from pathlib import Path
from typing import Any

import torch

from ngram_eval.distributed.ranks import ALONE
from ngram_eval.models.artifact import QuantConfig
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.text.shards import read_shards
from ngram_eval.train.config import TrainConfig
from ngram_eval.train.trainer import Trainer

TINY = ModelConfig(
    vocab_size=20,
    layers=2,
    width=16,
    heads=2,
    kv_heads=2,
    mlp_hidden=24,
    table_dtype="float32",
    table_init_std=0.02,
    bigram_slots=16,
    bigram_width=4,
    rope_dims=4,
    rope_train_len=256,
    xsa_layers=2,
    value_layers=(1,),
    value_width=4,
)
CONFIG = TrainConfig(
    model=TINY,
    quant=QuantConfig(float16_max_elements=100, scale_floor=False),
    seq_len=32,
    batch=4,
    micro_batch=0,
    shuffle=True,
    steps=20,
    max_seconds=0.0,
    warmup_steps=0,
    warmdown_steps=12,
    momentum=0.95,
    momentum_start=0.85,
    momentum_warmup=10,
    grad_clip=1.0,
    ema=0.9,
    swa_every=2,
    swa_below=0.5,
)
"""20 steps; the rate falls from step 8, weights are quantised and collected from step 15."""
TINY_FLAGS = (
    *("--vocab-size", 20, "--layers", 2, "--width", 16, "--heads", 2, "--kv-heads", 2, "--mlp-hidden", 24),
    *("--bigram-slots", 16, "--bigram-width", 4, "--rope-dims", 4, "--xsa-layers", 2),
    *("--value-layers", 1, "--value-width", 4, "--float16-max-elements", 100),
    *("--seq-len", 32, "--batch", 4, "--steps", 20, "--warmdown-steps", 12, "--momentum-warmup", 10, "--ema", 0.9),
    *("--swa-every", 2, "--swa-below", 0.5, "--device", "cpu", "--log-every", 1),
)
"""`CONFIG` on the command line."""
CPU = torch.device("cpu")


def trainer_of(shard: Path, config: TrainConfig = CONFIG, **more: Any) -> Trainer:
    stream = read_shards([str(shard)]).tokens
    return Trainer(config, stream, ranks=ALONE, device=CPU, **more)


def losses_of(trainer: Trainer, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        trainer.take_step()
        losses.append(trainer.mean_nats())
    return losses


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two states are equal bit for bit, but for the seconds."""
    one["counters"][1] = other["counters"][1] = 0
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
