"""Trains on shards and exports the artifact: `python -m ngram_eval.train --data 'x_*.bin' --out m.ngev` (see --help).

On several GPUs: `torchrun --nproc_per_node=8 -m ngram_eval.train --preset pr890 ...`.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import tyro

from ngram_eval.cli.console import show_help
from ngram_eval.cli.flags import read_flags
from ngram_eval.cli.options import peek
from ngram_eval.distributed.ranks import ALONE, Ranks, first_rank_speaks, joined_ranks
from ngram_eval.errors import INTERRUPTED, InputError, exit_on_input_error
from ngram_eval.evaluation.interrupt import Interrupt
from ngram_eval.files import require_folder, require_writable
from ngram_eval.models.transformer_source import choose_device
from ngram_eval.results.page.plots import require_matplotlib
from ngram_eval.text.shards import read_shards
from ngram_eval.train.config import PRESETS, TrainConfig
from ngram_eval.train.curve import draw
from ngram_eval.train.export import compare, export, load_validation
from ngram_eval.train.journal import read
from ngram_eval.train.loop import RunOptions, train
from ngram_eval.train.trainer import Trainer


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(RunOptions):
    """Train a model of PR #890's family, on one device or under torchrun, and export its artifact."""

    data: tuple[str, ...]
    """Training shards (.bin): file names or quoted patterns."""
    out: Path
    """The artifact to write."""
    preset: str = "embedded"
    """Defaults of the training settings: embedded or small (for CPUs), pr890 (33,055,836 parameters, 8 GPUs)."""
    device: str = "auto"
    """torch device: auto, cpu, cuda, cuda:1 ..."""
    compile: bool = False
    """Run the model through torch.compile."""
    deterministic: bool = False
    """Use only operations that give the same bits each time. Slower on GPUs (set CUBLAS_WORKSPACE_CONFIG=:4096:8)."""
    val: tuple[str, ...] = ()
    """Validation shards, scored during training and at the end, before and after quantisation."""
    tokenizer: Path | None = None
    """SentencePiece model of the shards, for bits per byte."""
    val_tokens: int | None = None
    """Number of validation tokens to score; default: all."""
    curve: Path | None = None
    """Draw the loss curve here at the end (PNG); needs --folder and matplotlib."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    """The training settings; a flag overrides the preset."""

    def check(self) -> None:
        RunOptions.check(self)
        if self.val_every and not self.val:
            raise InputError("--val-every needs the text to score: --val 'PATTERN'")
        if self.curve is not None:
            if self.folder is None:
                raise InputError("--curve draws the log of the run: give --folder too")
            require_matplotlib("--curve")


@dataclass(frozen=True)
class _Named:
    preset: str = "embedded"


def parse(arguments: list[str], prog: str) -> Options:
    """Parse the command line, with the defaults of its preset; raises `InputError`."""
    pick = peek(arguments, _Named).preset
    if pick not in PRESETS:
        raise InputError(f"--preset is {pick!r}: choose from {', '.join(PRESETS)}")
    flags: Callable[..., Options] = partial(
        tyro.cli,
        Options,
        default=Options(data=tyro.MISSING, out=tyro.MISSING, config=PRESETS[pick]()),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    options = read_flags(flags, arguments, prog)
    options.check()
    return options


def run(options: Options, ranks: Ranks) -> int:
    """Train; on rank 0 also compare the averages, export and draw. Returns the exit code."""
    config = options.config
    require_writable("--out", options.out)
    require_writable("--curve", options.curve)
    require_folder("--folder", options.folder)
    if options.deterministic:
        torch.use_deterministic_algorithms(True)
    device = choose_device(options.device, ranks.local_rank)
    stream = read_shards(options.data).tokens
    text = (options.val, options.tokenizer, options.val_tokens)
    validation = load_validation(*text, config=config, device=device, ranks=ranks)
    trainer = Trainer(config, stream, ranks=ranks, device=device, compiled=options.compile)
    interrupt = Interrupt()
    with interrupt if ranks.world == 1 else nullcontext():  # ranks would each stop at another step
        finished = train(trainer, options, validation, interrupt)
    code = INTERRUPTED if interrupt.asked else 0
    if ranks.rank:
        return code
    if not finished:
        kept = "continue with --resume" if options.folder is not None else "nothing is kept without --folder"
        print(f"Stopped at step {trainer.step}; {kept}.")
        return code
    alone = load_validation(*text, config=config, device=device, ranks=ALONE)
    if alone is not None:
        compare(trainer, alone)
    export(options.out, trainer.weights(config.export_weights), config, device, alone)
    if options.curve is not None and options.folder is not None:
        draw(read(options.folder), options.curve)
    return code


HELP = """\
Train a small model of PR #890's family on token shards and export its artifact.

example
  {prog} --preset embedded --data 'shards/train_*.bin' --out model.ngev

data
  --data FILE ...      training shards (.bin): names or quoted patterns
  --val FILE ...       shards to score during training and at the end; --val-tokens N of them
  --tokenizer FILE     SentencePiece model, for bits per byte
model
  --preset NAME        embedded, small (for CPUs) or pr890 (33 M parameters, 8 GPUs)
method
  --steps N            optimiser steps; --max-seconds S ends earlier
  --batch B --seq-len L     sequences per step, and their length
output
  --out FILE           the artifact
  --folder DIR         log.jsonl and the checkpoint; --curve FILE.png
  --checkpoint-every N --resume     ctrl-C writes a checkpoint too
  --val-every N --log-every N
  --quiet              no progress
hardware
  --device NAME --compile --deterministic
  torchrun --nproc_per_node=8 -m ngram_eval.train ... for several GPUs

--help-all: every flag, with the settings of optimiser and schedule (docs/training.md)
"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m ngram_eval.train") -> None:
    """The command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with exit_on_input_error():
        with first_rank_speaks():
            show_help(given, HELP, prog)
            options = parse(given, prog)
        with joined_ranks(options.rank_timeout) as ranks:
            code = run(options, ranks)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
