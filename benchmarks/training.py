"""What the training recipe costs: `python -m benchmarks.training --out benchmarks/results/training.md`.

Steps of the recipe (`Trainer.take_step`: data, gradients, clip, Muon, AdamW, EMA) against plain PyTorch loops of the
same model, batch and number of threads, in turns in one run; where the recipe's time goes; peak memory. Before anything
is timed, one step of the recipe is checked against the same step written out by hand.

Then the budget of the published run by arithmetic: operations of a step, and what they need to be done in.
"""

import multiprocessing
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import nn

from benchmarks.machine import describe_machine, publish
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.models.transformer import Transformer, parameter_count
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.text.stream import Tokens
from ngram_eval.train.averaging import Ema
from ngram_eval.train.config import PRESETS, TrainConfig
from ngram_eval.train.muon import NEWTON_SCHULZ, STEPS
from ngram_eval.train.optim import is_matrix, is_table
from ngram_eval.train.trainer import Trainer

CPU = torch.device("cpu")
PUBLISHED_MS, PUBLISHED_TOKENS, GPUS, CAP = 116.0, 786_432, 8, 600.0
"""Milliseconds of a published step (PR #890's log), its tokens, GPUs, and the cap in seconds."""
H100_FLOPS, NVLINK = 989e12, 450e9
"""Dense bfloat16 operations a second, and bytes a second in each direction, of an H100 SXM by its data sheet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Time training steps."""

    preset: str = "small"
    """Model and batch."""
    rounds: int = 7
    """Each way is timed once a round; medians are reported."""
    steps: int = 2
    """Steps of each way in a round."""
    toy: bool = False
    """A small model and two rounds, to see that the benchmark works."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


def configuration(options: Options) -> TrainConfig:
    """The preset without warm-up, cap and quantisation."""
    config = replace(PRESETS[options.preset](), max_seconds=0.0, warmup_steps=0, qat_below=0.0, warmdown_steps=0)
    if options.toy:
        model = replace(config.model, layers=2, value_layers=(1,), xsa_layers=2, width=96, mlp_hidden=64)
        config = replace(config, model=model, seq_len=32, batch=2)
    return config


def corpus(config: TrainConfig) -> Tokens:
    """Random tokens: what they are does not matter for speed."""
    return np.random.default_rng(0).integers(0, config.model.vocab_size, 1 << 18).astype(np.uint16)


class PlainLoop:
    """The loop one would write: batch, loss, backward, step."""

    def __init__(self, config: TrainConfig, muon: bool) -> None:
        torch.manual_seed(config.seed)
        self.config, self.model = config, Transformer(config.model)
        named = list(self.model.named_parameters())
        matrices = [parameter for name, parameter in named if muon and is_matrix(name, parameter)]
        rest = [parameter for name, parameter in named if not (muon and is_matrix(name, parameter))]
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=1e-3)]
        if muon:
            self.optimizers.append(torch.optim.Muon(matrices, lr=config.matrix_lr))
        self._tokens = torch.randint(config.model.vocab_size, (config.batch, config.seq_len + 1))

    def take_step(self) -> None:
        """One step, always on the same batch."""
        logits = self.model(self._tokens[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), self._tokens[:, 1:].flatten()).backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()


def trainer_of(config: TrainConfig) -> Trainer:
    """The recipe, on one device."""
    return Trainer(config, corpus(config), ranks=ALONE, device=CPU)


def check(config: TrainConfig) -> float:
    """Largest difference of a weight between a step of the recipe and the same by hand, from torch's own parts."""
    trainer, model = trainer_of(config), Transformer(config.model)
    model.load_state_dict(trainer.model.state_dict())
    rows = torch.from_numpy(trainer._batches.rows(0, slice(None)))
    trainer.take_step()
    F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten()).backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
    ema = Ema(model, config.ema)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.grad is None:
                continue
            if is_matrix(name, parameter):
                direction = parameter.grad * (1 + config.momentum_start)
                u, s, v = torch.linalg.svd(direction / (direction.norm() + 1e-7), full_matrices=False)
                a, b, c = NEWTON_SCHULZ
                for _ in range(STEPS):
                    s = a * s + b * s**3 + c * s**5
                update, lr = (u * s) @ v * max(1, parameter.size(0) / parameter.size(1)) ** 0.5, config.matrix_lr
            else:
                lr = config.table_lr if is_table(name) else config.vector_lr
                update = parameter.grad / (parameter.grad.abs() + 1e-8)  # the first step of Adam
            parameter.mul_(1 - lr * config.weight_decay).sub_(lr * update)
    ema.update(model)
    wrong = [
        float((trainer.weights("raw")[name] - p.detach()).abs().max())
        for name, p in model.named_parameters()
        if p.numel()
    ]
    wrong += [float((trainer.ema.average[name] - e).abs().max()) for name, e in ema.average.items() if e.numel()]
    return float(torch.tensor(wrong).max())


def timed(of: Any, method: str, into: dict[str, float], name: str) -> None:
    """Replace a method by itself, its time added to `into[name]`."""
    original: Callable[..., Any] = getattr(of, method)

    def wrapper(*arguments: Any) -> Any:
        started = time.perf_counter()
        result = original(*arguments)
        into[name] = into.get(name, 0.0) + time.perf_counter() - started
        return result

    setattr(of, method, wrapper)


def shares(config: TrainConfig, steps: int) -> tuple[dict[str, float], float]:
    """(part of the recipe -> seconds a step, seconds of the whole step)."""
    trainer = trainer_of(config)
    trainer.take_step()
    parts: dict[str, float] = {}
    timed(trainer._batches, "rows", parts, "data")
    timed(trainer, "_compute_gradients", parts, "data, forward and backward")
    timed(trainer.optimizers[0], "step", parts, "Muon")
    timed(trainer.optimizers[1], "step", parts, "AdamW")
    timed(trainer.ema, "update", parts, "EMA")
    started = time.perf_counter()
    for _ in range(steps):
        trainer.take_step()
    whole = (time.perf_counter() - started) / steps
    parts = {name: seconds / steps for name, seconds in parts.items()}
    parts["forward and backward"] = parts.pop("data, forward and backward") - parts["data"]
    parts["clip, schedules and the rest"] = whole - sum(parts.values())
    return parts, whole


def peak_mebibytes(config: TrainConfig, which: str) -> float:
    """Largest resident memory of a new process that takes three steps, less what it had before the model."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (config, which, torch.get_num_threads()))


def _peak(config: TrainConfig, which: str, threads: int) -> float:
    torch.set_num_threads(threads)
    tokens = corpus(config)
    before = _high_water()
    loop = Trainer(config, tokens, ranks=ALONE, device=CPU) if which == "recipe" else PlainLoop(config, muon=False)
    for _ in range(3):
        loop.take_step()
    return (_high_water() - before) / 1024


def _high_water() -> int:
    """Largest resident memory of this process so far, KiB. (What getrusage says includes the parent's, on Linux.)"""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def memory(config: TrainConfig) -> str:
    """A sentence on peak memory."""
    recipe, plain = (peak_mebibytes(config, which) for which in ("recipe", "plain"))
    return (
        f"Peak memory above the imports: {recipe:,.0f} MiB, plain loop with AdamW {plain:,.0f} MiB. (The recipe keeps "
        "two averages, 8 bytes a parameter; Muon keeps 4 bytes a matrix weight where AdamW keeps 8.)"
    )


def matrix_operations(config: ModelConfig, seq_len: int) -> float:
    """Operations of forward and backward a token: 6 a matrix weight, and causal attention."""
    with torch.device("meta"):
        model = Transformer(config)
    weights = sum(p.numel() for name, p in model.named_parameters() if is_matrix(name, p) or name == "embedding")
    return 6 * weights + 6 * config.layers * config.width * seq_len


def muon_operations(config: ModelConfig) -> float:
    """Operations of Muon's iterations for all matrices."""
    with torch.device("meta"):
        model = Transformer(config)
    total = 0.0
    for name, parameter in model.named_parameters():
        if is_matrix(name, parameter):
            short, long = sorted(parameter.shape)
            total += STEPS * (4 * short**2 * long + 2 * short**3)
    return total


def budget() -> list[str]:
    """Arithmetic about the published run, and where this recipe would stand: predictions, not measurements."""
    config = ModelConfig()
    a_token, muon = matrix_operations(config, 2048), muon_operations(config)
    step = a_token * PUBLISHED_TOKENS / GPUS
    with torch.device("meta"):
        parameters = parameter_count(Transformer(config))
    utilisation = step / (PUBLISHED_MS / 1e3) / H100_FLOPS
    gather = 2 * 2 * parameters * (GPUS - 1) / GPUS / NVLINK * 1e3
    lines = [
        "",
        "## The budget: 600 s on 8 H100",
        "",
        "Arithmetic and, where it says so, prediction; nothing here has run on a GPU.",
        "",
        "| | |",
        "|---|---|",
        f"| operations a token, forward and backward | {a_token / 1e6:,.0f} M |",
        f"| of a step of {PUBLISHED_TOKENS:,} tokens, each of 8 GPUs | {step / 1e12:,.1f} T |",
        f"| Muon's iterations, each of 8 GPUs | {muon / GPUS / 1e12:.3f} T ({muon / GPUS / step:.2%} of the above) |",
        f"| published step | {PUBLISHED_MS:g} ms: {CAP / PUBLISHED_MS * 1e3:,.0f} steps in {CAP:g} s, "
        f"{PUBLISHED_TOKENS / PUBLISHED_MS / 1e3:,.2f} M tokens/s, {utilisation:.0%} of the GPUs' peak |",
    ]
    for share in (0.15, utilisation, 0.35):
        compute = step / (share * H100_FLOPS) * 1e3
        iterations = muon / GPUS / (share * H100_FLOPS) * 1e3
        whole = compute + iterations + gather
        name = f"predicted: this recipe at {share:.0%} of peak"
        parts = f"{compute:.0f} ms, Muon's iterations {iterations:.2f} ms and all-reduce {gather:.2f} ms"
        lines.append(f"| {name} | {parts}: {whole:.0f} ms a step, {CAP / whole * 1e3:,.0f} steps in {CAP:g} s |")
    return lines


def measure(options: Options) -> str:
    """The result as Markdown."""
    config = configuration(options)
    rounds, steps = (2, 1) if options.toy else (options.rounds, options.steps)
    wrong = check(config)
    if not wrong < 1e-3:
        raise AssertionError(f"a step of the recipe differs from the same by hand by {wrong}")
    loops: dict[str, Trainer | PlainLoop] = {
        "the recipe": trainer_of(config),
        "the recipe, fake-quantising": trainer_of(replace(config, qat_below=1.0, warmdown_steps=config.steps)),
        "plain loop, torch's AdamW": PlainLoop(config, muon=False),
        "plain loop, torch's Muon and AdamW": PlainLoop(config, muon=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(rounds + 1):
        for name, loop in loops.items():
            started = time.perf_counter()
            for _ in range(steps):
                loop.take_step()
            if turn:  # the first is a warm-up
                seconds[name].append((time.perf_counter() - started) / steps)
    tokens, base = config.batch * config.seq_len, seconds["the recipe"]
    lines = [
        "# What the training recipe costs",
        "",
        f"Command: `{shlex.join(['python', '-m', 'benchmarks.training', *sys.argv[1:]])}`",
        "",
        f"{describe_machine()}, torch {torch.__version__}",
        "",
        f"Preset {options.preset}, {parameter_count(loops['the recipe'].model):,} parameters, {tokens:,} tokens a "
        f"step, float32, {torch.get_num_threads()} threads; {rounds} interleaved rounds of {steps} steps, medians (and "
        f"range). One step of the recipe equals the same written out by hand to {wrong:.1e} in every weight.",
        "",
        "| | seconds a step | tokens/s | speed of the recipe against it (median of the rounds' ratios) |",
        "|---|---|---|---|",
    ]
    for name, times in seconds.items():
        median = statistics.median(times)
        ratio = statistics.median(other / own for own, other in zip(base, times, strict=True))
        lines.append(
            f"| {name} | {median:.3f} ({min(times):.3f} to {max(times):.3f}) | {tokens / median:,.0f} | {ratio:.3f} |"
        )
    parts, whole = shares(config, steps * rounds)
    lines += ["", "| part of the recipe's step | seconds | share |", "|---|---|---|"]
    lines += [f"| {name} | {value:.4f} | {value / whole:.1%} |" for name, value in parts.items()]
    if not options.toy:
        lines += ["", memory(config)]
    return "\n".join([*lines, *budget()]) + "\n"


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.training")
    publish(measure(options), options.out)


if __name__ == "__main__":
    main()
