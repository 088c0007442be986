"""Train on shards and export the artifact: `python -m ngram_eval.train --data 'x_*.bin' --out m.ngev` (see --help).

On several GPUs: `torchrun --nproc_per_node=8 -m ngram_eval.train --preset pr890 ...`.
"""

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.files import require_writable
from ngram_eval.forward import choose_device
from ngram_eval.ranks import Ranks, first_rank_speaks, joined_ranks
from ngram_eval.tokens import read_shards
from ngram_eval.train.config import PRESETS, TrainConfig
from ngram_eval.train.curve import draw, require_matplotlib
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
    """Defaults of all that decides the weights: embedded or small (for CPUs), pr890 (33,055,836 parameters, 8 GPUs)."""
    device: str = "auto"
    """torch device: auto, cpu, cuda, cuda:1 ..."""
    compile: bool = False
    """Run the model through torch.compile."""
    deterministic: bool = False
    """Only operations that give the same bits each time, slower on GPUs (there set CUBLAS_WORKSPACE_CONFIG=:4096:8)."""
    val: tuple[str, ...] = ()
    """Validation shards, scored on the way and, before and after quantisation, at the end."""
    tokenizer: Path | None = None
    """SentencePiece model of the shards, for bits per byte."""
    val_tokens: int | None = None
    """Validation tokens to score; default: all."""
    curve: Path | None = None
    """Draw the loss curve here at the end (PNG); needs --folder and matplotlib."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    """What decides the weights; a flag given here overrides the preset."""

    def check(self) -> None:
        RunOptions.check(self)
        if self.val_every and not self.val:
            raise InputError("--val-every needs the text to score: --val 'PATTERN'")
        if self.curve is not None:
            if self.folder is None:
                raise InputError("--curve draws what the log says: give --folder too")
            require_matplotlib()


def parse(arguments: list[str]) -> Options:
    """The command line, with the defaults of the preset it names."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--preset", default="embedded")
    pick = first.parse_known_args(arguments)[0].preset
    if pick not in PRESETS:
        raise InputError(f"--preset is {pick!r}: choose from {', '.join(PRESETS)}")
    options = tyro.cli(
        Options,
        prog="python -m ngram_eval.train",
        args=arguments,
        default=Options(data=tyro.MISSING, out=tyro.MISSING, config=PRESETS[pick]()),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    options.check()
    return options


def run(options: Options, ranks: Ranks) -> None:
    """Train, and on rank 0 compare the averages, export and draw."""
    config = options.config
    require_writable("--out", options.out)
    require_writable("--curve", options.curve)
    if options.deterministic:
        torch.use_deterministic_algorithms(True)
    device = choose_device(options.device, ranks.local_rank)
    stream = read_shards(options.data).tokens
    text = (options.val, options.tokenizer, options.val_tokens)
    validation = load_validation(*text, config=config, device=device, ranks=ranks)
    trainer = Trainer(config, stream, ranks=ranks, device=device, compiled=options.compile)
    finished = train(trainer, options, validation)
    if ranks.rank:
        return
    if not finished:
        print(f"Stopped at step {trainer.step}; go on with --resume.")
        return
    alone = load_validation(*text, config=config, device=device, ranks=Ranks(0, 1))
    if alone is not None:
        compare(trainer, alone)
    export(options.out, trainer.weights(config.export_weights), config, device, alone)
    if options.curve is not None and options.folder is not None:
        draw(read(options.folder), options.curve)


def main() -> None:
    """The command line."""
    with exit_on_input_error():
        with first_rank_speaks():
            options = parse(sys.argv[1:])
        with joined_ranks(options.rank_timeout) as ranks:
            run(options, ranks)


if __name__ == "__main__":
    main()
