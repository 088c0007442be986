"""Bytes of the full-size artifact: `python -m benchmarks.export_sizes --out benchmarks/results/export_sizes.md`.

The published model (33,055,836 parameters) is exported as initialised, and with Gaussian weights of several widths:
what the scale floor, the range of the integers and a penalty on entropy cost in bytes and in precision. Of all weights
of one variance, Gaussian ones have the most entropy.
"""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
import zstandard
from safetensors.torch import save as save_tensors
from torch import Tensor

from benchmarks.machine import describe_machine, publish
from ngram_eval.config import SIZE_LIMIT
from ngram_eval.models import artifact
from ngram_eval.models.artifact import QuantConfig, is_block_matrix
from ngram_eval.models.transformer import Transformer, parameter_count
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.train.config import embedded

RANGES = (127, 31, 15, 13, 12, 11, 10, 9, 8)
WIDTHS = (0.02, 0.044, 0.1, 0.2, 0.5)
SEARCHED = {(None, 15), (0.044, 15), (0.2, 15), (0.1, 15), (0.1, 13), (0.1, 9)}
"""(width, range) of the cases packed at level 22 too, which takes a minute each."""
PENALTIES = (0.0, 0.1, 0.5, 1.0, 2.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Export and weigh."""

    toy: bool = False
    """A small model and few cases, to see that the benchmark works."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One export."""

    std: float | None
    """Standard deviation of every matrix and table; None: as initialised."""
    quant: QuantConfig


def cases(toy: bool) -> Iterator[Case]:
    """The floor at every width, then ranges without it, for which the width does not matter."""
    published = QuantConfig(float16_max_elements=4096 if toy else 65_536)
    for std in (None, *(WIDTHS[-2:] if toy else WIDTHS)):
        yield Case(std, published)
    for levels in (31, 15) if toy else RANGES:
        yield Case(0.1, replace(published, matrix_levels=levels, scale_floor=False))


def filled(config: ModelConfig, std: float | None) -> Transformer:
    """The model as initialised, or with its matrices and tables drawn anew."""
    torch.manual_seed(0)
    model = Transformer(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if std is not None and parameter.ndim == 2 and name != "skip_weights" and not name.endswith(".mix"):
                parameter.normal_(std=std)
    return model


def relative_error(model: Transformer, tensors: dict[str, Tensor]) -> float:
    """Root mean square error of the block matrices over their root mean square; 0 where all are 0."""
    wrong = whole = 0.0
    for name, value in model.state_dict().items():
        if is_block_matrix(name):
            stored = tensors[name].double() * tensors[name + ".scale"].double()[:, None]
            wrong += float((stored - value.double()).square().sum())
            whole += float(value.double().square().sum())
    return (wrong / whole) ** 0.5 if whole else 0.0


def penalised(matrix: Tensor, levels: int, penalty: float) -> tuple[Tensor, Tensor]:
    """(values, float32 scales) of a matrix, each value the one with the least (error / scale)^2 + penalty * bits.

    `bits` are those of an ideal coder that knows how often each value occurs, found in a few rounds.
    """
    scale = matrix.abs().amax(dim=1, keepdim=True) / levels
    exact = matrix / scale
    nearest = exact.round().clamp(-levels, levels)
    values = nearest
    for _ in range(4 if penalty else 0):
        counts = torch.bincount((values + levels).long().flatten(), minlength=2 * levels + 1).double()
        bits = -torch.log2((counts + 0.5) / (counts + 0.5).sum())
        choices = torch.stack([(nearest + move).clamp(-levels, levels) for move in (-1, 0, 1)])
        cost = (choices - exact).square() + penalty * bits[(choices + levels).long()]
        values = choices.gather(0, cost.argmin(0, keepdim=True))[0]
    return values.to(torch.int8), scale


def penalty_rows(rows: int, columns: int) -> list[str]:
    """What a penalty gains over a narrower range, at equal bytes."""
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))
    lines = []
    for levels, penalty in [*((15, penalty) for penalty in PENALTIES), (14, 0.0), (13, 0.0), (12, 0.0), (11, 0.0)]:
        values, scale = penalised(matrix, levels, penalty)
        packed = zstandard.ZstdCompressor(level=22).compress(values.numpy().tobytes())
        error = float((values * scale - matrix).square().mean().sqrt() / matrix.square().mean().sqrt())
        lines.append(f"| ±{levels} | {penalty:g} | {8 * len(packed) / matrix.numel():.3f} | {error:.4f} |")
    return lines


def measure(options: Options) -> str:
    """The result as Markdown."""
    config = replace(embedded().model, layers=2, value_layers=(1,), xsa_layers=2) if options.toy else ModelConfig()
    code = artifact.code_bytes()
    lines = [
        "# Bytes of the full-size artifact",
        "",
        f"Command: `{shlex.join(['python', '-m', 'benchmarks.export_sizes', *sys.argv[1:]])}`",
        "",
        f"{describe_machine()}, torch {torch.__version__}, zstandard {zstandard.__version__}",
        "",
        f"{parameter_count(filled(config, None)):,} parameters; code {code:,} bytes. "
        "Error: of the block matrices, relative to their root mean square.",
        "",
        "| weights | block matrices | floor | bytes, zstd-22 | zstd-1 | bits a parameter | fits, with code | error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in cases(options.toy):
        model = filled(config, case.std)
        tensors = artifact.quantise(model, case.quant)
        unpacked = save_tensors(tensors)
        searched = options.toy or (case.std, case.quant.matrix_levels) in SEARCHED
        sizes = {level: len(artifact.compressed(unpacked, level)) for level in ((1, 22) if searched else (1,))}
        size = min(sizes.values())
        weights = "as initialised" if case.std is None else f"Gaussian, std {case.std:g}"
        floor = "yes" if case.quant.scale_floor else "no"
        lines.append(
            f"| {weights} | ±{case.quant.matrix_levels} | {floor} | "
            f"{f'{sizes[22]:,}' if searched else ''} | {sizes[1]:,} | "
            f"{8 * size / parameter_count(model):.3f} | {'yes' if size + code < SIZE_LIMIT else 'no'} | "
            f"{relative_error(model, tensors):.3f} |"
        )
    lines += [
        "",
        "A penalty on entropy, against a narrower range: one Gaussian matrix, scales from each row's maximum, zstd-22.",
        "",
        "| range | penalty, squared steps a bit | bits a weight | error |",
        "|---|---|---|---|",
        *penalty_rows(*((64, 256) if options.toy else (1792, 512))),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.export_sizes")
    publish(measure(options), options.out)


if __name__ == "__main__":
    main()
