"""Exports weights as an artifact, and checks it: `python -m ngram_eval.train.export --help`.

The artifact is loaded before it is written, and scored, to compare bits per byte before and after quantisation.
"""

import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, get_args

import torch
import tyro
from torch import Tensor

from ngram_eval.distributed.ranks import ALONE, Ranks
from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.files import replacing, require_writable
from ngram_eval.models import artifact
from ngram_eval.models.artifact import QuantConfig
from ngram_eval.models.transformer import Transformer, parameter_count
from ngram_eval.models.transformer_source import choose_device
from ngram_eval.text.shards import read_shards
from ngram_eval.text.tokenizer import Tokenizer, check_vocabulary
from ngram_eval.train import snapshot
from ngram_eval.train.averaging import put
from ngram_eval.train.config import ExportWeights, TrainConfig
from ngram_eval.train.trainer import Trainer
from ngram_eval.train.validate import Validation


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Export a checkpoint again, with other weights or another quantisation."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """checkpoint.safetensors of a run."""
    out: Path
    """The artifact to write."""
    val: tuple[str, ...] = ()
    """Validation shards, to measure the cost of quantisation."""
    tokenizer: Path | None = None
    """SentencePiece model of the shards, for bits per byte."""
    val_tokens: int | None = None
    """Number of validation tokens to score; default: all."""
    device: str = "auto"
    """torch device: auto, cpu, cuda, cuda:1 ..."""
    export_weights: ExportWeights = "ema"
    """Weights to export: the exponential average, SWA's mean, or the last ones."""
    quant: Annotated[QuantConfig, tyro.conf.arg(name="")] = field(default_factory=QuantConfig)
    """The quantisation; by default the run's own."""


def load_validation(
    patterns: tuple[str, ...],
    tokenizer: Path | None,
    most: int | None,
    *,
    config: TrainConfig,
    device: torch.device,
    ranks: Ranks,
) -> Validation | None:
    """The validation text of the command line; None without one. Raises `InputError`."""
    if not patterns:
        if tokenizer is not None or most is not None:
            raise InputError("--tokenizer and --val-tokens describe --val, and no --val was given")
        return None
    tokens = read_shards(patterns, most).tokens[:]
    size = config.model.vocab_size
    check_vocabulary(tokens, size, "--vocab-size", ranks.part)
    loaded = None if tokenizer is None else Tokenizer.load(tokenizer)
    if loaded is not None and loaded.vocab_size != size:
        raise InputError(
            f"{tokenizer} has {loaded.vocab_size} pieces, the model {size}: give the one that made the shards"
        )
    return Validation(tokens, loaded, seq_len=config.trained_length, device=device, ranks=ranks)


def compare(trainer: Trainer, validation: Validation) -> None:
    """Print the validation loss of the last weights and of each average."""
    model = Transformer(trainer.config.model).to(trainer.device)
    for which in get_args(ExportWeights):
        if which != "swa" or trainer.swa.count:
            put(trainer.weights(which), model)
            chosen = " (exported)" if which == trainer.config.export_weights else ""
            print(f"{which + chosen:14} {validation.score(model)}")


def export(
    path: Path, weights: dict[str, Tensor], config: TrainConfig, device: torch.device, validation: Validation | None
) -> None:
    """Load the artifact, write it, and print sizes and the validation loss before and after quantisation."""
    model = Transformer(config.model).to(device)
    put(weights, model)
    before = validation.score(model) if validation is not None else None
    data = artifact.encode(
        artifact.quantise(model, config.quant), config.model, asdict(config.quant), config.trained_length
    )
    loaded, _ = artifact.decode(path, data)  # what is written, which from a FIFO can't be read again
    with replacing(path) as file:
        file.write(data)
    if validation is not None:
        print(f"before quantisation: {before}")
        print(f"after:               {validation.score(loaded)} (+-{config.quant.matrix_levels}, from {path})")
    else:
        print("No --val, so the cost of quantisation was not measured.")
    print(f"{parameter_count(model):,} parameters -> {path}: {artifact.size_report(len(data))}")


def main() -> None:
    """The command line."""
    with exit_on_input_error():
        arguments = sys.argv[1:]
        options = tyro.cli(
            Options, prog="python -m ngram_eval.train.export", args=arguments, config=(tyro.conf.OmitArgPrefixes,)
        )
        config = snapshot.read_config(options.checkpoint)
        options = tyro.cli(
            Options,
            prog="python -m ngram_eval.train.export",
            args=arguments,
            default=replace(options, export_weights=config.export_weights, quant=config.quant),
            config=(tyro.conf.OmitArgPrefixes,),
        )
        require_writable("--out", options.out)
        device, one = choose_device(options.device), ALONE
        validation = load_validation(
            options.val, options.tokenizer, options.val_tokens, config=config, device=device, ranks=one
        )
        weights = snapshot.read_weights(options.checkpoint, options.export_weights)
        export(options.out, weights, replace(config, quant=options.quant), device, validation)


if __name__ == "__main__":
    main()
