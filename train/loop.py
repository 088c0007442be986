"""The training loop: one process, one device."""

import time

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from ngram_eval.counts import Tokens
from ngram_eval.model import Transformer, attention_kernel
from ngram_eval.train import qat
from ngram_eval.train.averaging import Ema
from ngram_eval.train.config import TrainConfig
from ngram_eval.train.data import batches
from ngram_eval.train.optim import lr_multiplier, make_optimizers, momentum_at

_LOSS_SMOOTHING = 0.98


def loss_of(model: Transformer, inputs: Tensor, targets: Tensor, mtp_weight: float) -> tuple[Tensor, Tensor]:
    """(loss to minimise, mean nats of the next token); inputs and targets (B, T) int64."""
    hidden = model.hidden(inputs)
    nats = F.cross_entropy(model.logits(hidden).flatten(0, 1), targets.flatten())
    extra = [
        F.cross_entropy(logits[:, : -k - 1].flatten(0, 1), targets[:, k + 1 :].flatten())
        for k, logits in enumerate(model.mtp_logits(hidden))
    ]
    return (nats + mtp_weight * torch.stack(extra).mean() if extra else nats), nats


def train(config: TrainConfig, tokens: Tokens, device: torch.device) -> Transformer:
    """Train on the stream and return the model with its averaged weights, in evaluation mode."""
    torch.manual_seed(config.seed)
    model = Transformer(config.model).to(device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    model.use_attention(attention_kernel(device, torch.bfloat16 if device.type == "cuda" else torch.float32))
    optimizers = make_optimizers(model, config)
    ema = Ema(model, config.ema)
    data = batches(tokens, config.seq_len, config.batch, config.seed)
    smoothed, quantising = float("nan"), False
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=config.steps)
        started = time.perf_counter()
        for step in range(config.steps):
            multiplier = lr_multiplier(step, config)
            if multiplier < config.qat_below and not quantising:
                qat.enable(model, config.quant.scale_floor)
                quantising = True
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak_lr"] * multiplier
                    if "momentum" in group:
                        group["momentum"] = momentum_at(step, config)
            inputs, targets = next(data)
            with autocast:
                loss, nats = loss_of(model, inputs.to(device), targets.to(device), config.mtp_weight)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            ema.update(model)
            smoothed = nats.item() if step == 0 else _LOSS_SMOOTHING * smoothed + (1 - _LOSS_SMOOTHING) * nats.item()
            rate = (step + 1) * config.batch * config.seq_len / (time.perf_counter() - started)
            progress.update(
                task, advance=1, description=f"loss {smoothed:.3f} nats, lr x{multiplier:.2f}, {rate:,.0f} tokens/s"
            )
    qat.disable(model)
    ema.apply_to(model)
    return model.eval().requires_grad_(False)
