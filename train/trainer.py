"""One rank's part of a training run: the model, its optimisers and averages (PR #890)."""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ngram_eval.distributed.ranks import Ranks
from ngram_eval.errors import InputError
from ngram_eval.extensions import to_device
from ngram_eval.models.banded_attention import Band, band_kernel
from ngram_eval.models.transformer import Transformer, attention_kernel
from ngram_eval.text.stream import Stream
from ngram_eval.train import qat
from ngram_eval.train.averaging import Ema, Swa
from ngram_eval.train.config import ExportWeights, TrainConfig
from ngram_eval.train.data import Batches
from ngram_eval.train.objective import Objective
from ngram_eval.train.optim import make_optimizers
from ngram_eval.train.schedule import lr_multiplier, momentum_at

COUNTERS, SWA_COUNT = 6, 2
"""Number of `counters` in the state, and the index of SWA's count in them."""


class Trainer:
    """The whole state of a run, and its next step. All ranks have the same weights after each step."""

    def __init__(
        self, config: TrainConfig, stream: Stream, *, ranks: Ranks, device: torch.device, compiled: bool = False
    ) -> None:
        """`compiled` uses `torch.compile`. Raises `InputError` if batches can't be made or split over ranks."""
        self.config, self.ranks, self.device = config, ranks, device
        self._micro_batches = config.micro_batches(ranks.world)
        self._batches = Batches(
            stream,
            vocab_size=config.model.vocab_size,
            seq_len=config.seq_len,
            batch=config.batch,
            shuffle=config.shuffle,
            seed=config.seed,
        )
        torch.manual_seed(config.seed)
        self.model = Transformer(config.model).to(device)
        half = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.model.use_attention(attention_kernel(device, half))
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter.numel() > 0)  # a model of one block has no skips to learn
        self.optimizers = make_optimizers(self.model, config, ranks)
        self.ema, self.swa = Ema(self.model, config.ema), Swa(self.model)
        band = None
        if config.attention_window:
            band = Band(config.attention_window, kernel=band_kernel(device, half, 0, compiled=compiled))
        objective = Objective(self.model, config.mtp_weight, band)
        self._objective: nn.Module = cast(nn.Module, torch.compile(objective)) if compiled else objective
        if ranks.world > 1:
            self._objective = DistributedDataParallel(self._objective)
        self.step = 0
        """Number of steps taken; also the number of the next batch."""
        self.seconds = 0.0
        """Seconds that these steps took on rank 0."""
        self.multiplier = 1.0
        """Multiplier of the learning rates in the last step."""
        self._quantising = False
        self._nats = torch.zeros((), dtype=torch.float32, device=device)
        self._counted = 0

    @property
    def done(self) -> bool:
        """Whether all steps are taken or the time is used up."""
        config = self.config
        return self.step >= config.steps or bool(config.max_seconds and self.seconds >= config.max_seconds)

    def seconds_left(self) -> float:
        """Estimate of the remaining time, in seconds."""
        left = (self.config.steps - self.step) * self.seconds / self.step if self.step else math.inf
        return max(0.0, min(left, self.config.max_seconds - self.seconds) if self.config.max_seconds else left)

    def warm_up(self) -> None:
        """Take `warmup_steps` steps, the last one with quantised weights if the run uses them, and undo all."""
        if not self.config.warmup_steps:
            return
        before = {name: tensor.clone() for name, tensor in self.state().items()}
        for i in range(self.config.warmup_steps):
            if self.config.qat_below and i == self.config.warmup_steps - 1:
                self._quantise()
            self.take_step()
        self.load_state(before)

    def take_step(self) -> None:
        """One optimiser step on the next batch."""
        started = time.perf_counter()
        self.multiplier = lr_multiplier(self.step, self.seconds, self.config)
        if self.multiplier < self.config.qat_below:
            self._quantise()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * self.multiplier
                if "momentum" in group:
                    group["momentum"] = momentum_at(self.step, self.config)
        self._compute_gradients()
        if self.config.grad_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.ema.update(self.model)
        self.step += 1
        if self.multiplier < self.config.swa_below and self.step % self.config.swa_every == 0:
            self.swa.update(self.model)
        self.seconds = self._rank_0s(self.seconds + time.perf_counter() - started)

    def mean_nats(self) -> float:
        """Mean training loss over all ranks since the last call, in nats per token; every rank must call this.

        Raises `InputError` if the training has diverged.
        """
        mine = float(self._nats) / self._counted if self._counted else math.nan
        self._nats.zero_()
        self._counted = 0
        everyone = self.ranks.gather(mine)
        nats = sum(everyone) / len(everyone)
        if self.step and not math.isfinite(nats):
            raise InputError(
                f"the loss is {nats} at step {self.step}: the training diverged; lower --matrix-lr, --table-lr, "
                "--vector-lr, or --grad-clip"
            )
        return nats

    def weights(self, which: ExportWeights) -> dict[str, Tensor]:
        """Parameters by name: the last ones, or an average. Raises `InputError` if SWA has not begun."""
        if which == "raw":
            return {name: parameter.detach() for name, parameter in self.model.named_parameters()}
        if which == "swa" and not self.swa.count:
            raise InputError(
                f"--export-weights is 'swa', but in {self.step} steps none was collected (every --swa-every "
                f"{self.config.swa_every} below a multiplier of {self.config.swa_below}): train longer, or give ema"
            )
        return self.ema.average if which == "ema" else self.swa.average

    def state(self) -> dict[str, Tensor]:
        """Everything that a run needs to resume: the live tensors by name, and counters."""
        tensors = {f"model.{name}": parameter.detach() for name, parameter in self.model.named_parameters()}
        tensors |= {f"ema.{name}": average for name, average in self.ema.average.items()}
        tensors |= {f"swa.{name}": average for name, average in self.swa.average.items()}
        for optimizer in self.optimizers:
            for parameter, name in self._places(optimizer):
                for field, value in optimizer.state[parameter].items():
                    tensors[f"{type(optimizer).__name__}.{name}.{field}"] = value
        counters = [self.step, self.seconds, self.swa.count, self._counted, float(self._nats), self._quantising]
        return tensors | {"counters": torch.tensor(counters, dtype=torch.float64)}

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Load what `state` returned. Raises `KeyError` or `ValueError` for tensors of another run."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
            self.ema.average[name].copy_(tensors[f"ema.{name}"])
            self.swa.average[name].copy_(tensors[f"swa.{name}"])
        for optimizer in self.optimizers:
            states: dict[int, dict[str, Tensor]] = {}
            for i, (parameter, name) in enumerate(self._places(optimizer)):
                prefix = f"{type(optimizer).__name__}.{name}."
                fields = {
                    key.removeprefix(prefix): value.clone() for key, value in tensors.items() if key.startswith(prefix)
                }
                if wrong := [key for key, value in fields.items() if value.shape not in ((), parameter.shape)]:
                    raise ValueError(f"{prefix}{wrong[0]} has the shape {tuple(fields[wrong[0]].shape)}")
                if fields:
                    states[i] = fields
            optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
        step, self.seconds, count, counted, nats, quantising = tensors["counters"].tolist()
        if min(step, count, counted) < 0:
            raise ValueError(f"its counters are {step}, {count} and {counted}")
        self.step, self.swa.count, self._counted = int(step), int(count), int(counted)
        self._nats.fill_(nats)
        qat.disable(self.model)
        self._quantising = False
        if quantising:
            self._quantise()

    def _quantise(self) -> None:
        """Fake-quantise from now on, even if the multiplier, which may depend on time, rises again."""
        if not self._quantising:
            qat.enable(self.model, self.config.quant)
            self._quantising = True

    def _compute_gradients(self) -> None:
        """Compute the mean gradients of the batch, over its micro-batches and over ranks."""
        parts = self._micro_batches
        share = self.config.batch // self.ranks.world
        size = share // parts
        for part in range(parts):
            first = self.ranks.rank * share + part * size
            sequences = to_device(self._batches.rows(self.step, slice(first, first + size)), self.device)
            with self._collecting(part == parts - 1):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                    loss, nats = self._objective(sequences[:, :-1], sequences[:, 1:])
                (loss / parts).backward()
            self._nats += nats.detach() / parts
        self._counted += 1

    def _collecting(self, last: bool) -> AbstractContextManager[object]:
        """A context in which DDP averages gradients over ranks only in the last backward pass of a step."""
        if isinstance(self._objective, DistributedDataParallel) and not last:
            return cast(AbstractContextManager[object], self._objective.no_sync())
        return nullcontext()

    def _places(self, optimizer: torch.optim.Optimizer) -> list[tuple[nn.Parameter, str]]:
        """(parameter, name) in the optimiser's order."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        return [(parameter, names[parameter]) for group in optimizer.param_groups for parameter in group["params"]]

    def _rank_0s(self, seconds: float) -> float:
        """Rank 0's value on all ranks if a time limit decides when they end, else the rank's own."""
        if self.ranks.world == 1 or not self.config.max_seconds:
            return seconds
        shared = torch.tensor(seconds, dtype=torch.float64)
        torch.distributed.broadcast(shared, 0)
        return float(shared)
