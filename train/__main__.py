"""Train on shards and export the artifact: `python -m ngram_eval.train --data 'x_*.bin' --out m.ngev`."""

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ngram_eval import artifact
from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.files import require_writable
from ngram_eval.forward import choose_device
from ngram_eval.model import parameter_count
from ngram_eval.tokens import check_vocabulary, read_shards
from ngram_eval.train.config import PRESETS, TrainConfig
from ngram_eval.train.loop import train


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Train a model of PR #890's family on one device and export its artifact."""

    data: tuple[str, ...]
    """Training shards (.bin): file names or quoted patterns."""
    out: Path
    """The artifact to write."""
    preset: str = "embedded"
    """Defaults of all that follows: embedded (small, for CPUs) or pr890 (33,055,836 parameters)."""
    device: str = "auto"
    """torch device: auto, cpu, cuda, cuda:1 ..."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    """The run; a flag given here overrides the preset."""


def parse(arguments: list[str]) -> Options:
    """The command line, with the defaults of the preset it names."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--preset", default="embedded")
    pick = first.parse_known_args(arguments)[0].preset
    if pick not in PRESETS:
        raise InputError(f"--preset is {pick!r}: choose from {', '.join(PRESETS)}")
    return tyro.cli(
        Options,
        prog="python -m ngram_eval.train",
        args=arguments,
        default=Options(data=tyro.MISSING, out=tyro.MISSING, config=PRESETS[pick]()),
        config=(tyro.conf.OmitArgPrefixes,),
    )


def main() -> None:
    """The command line."""
    with exit_on_input_error():
        options = parse(sys.argv[1:])
        config = options.config
        require_writable("--out", options.out)
        stream = read_shards(options.data)
        check_vocabulary(stream.tokens, config.model.vocab_size, "--vocab-size")
        model = train(config, stream.tokens[:], choose_device(options.device))
        artifact.save(options.out, model, config.quant, config.seq_len)
        print(f"{parameter_count(model):,} parameters -> {options.out}: {artifact.size_report(options.out)}")


if __name__ == "__main__":
    main()
