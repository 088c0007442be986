"""Where an n-gram memory helps a pretrained model: `python -m benchmarks.pretrained --hf MODEL --text prose=FILE ...`.

Each text and each window is forwarded once; every method then scores the same distributions at the same positions.
"""

import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from benchmarks.machine import describe_machine, publish
from ngram_eval import evaluate, preset
from ngram_eval.config import WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.evaluation.result import Result
from ngram_eval.models.hf.lead import lead_of_model
from ngram_eval.models.hf.source import HfSource, load_hf_source
from ngram_eval.models.hf.tokenizer import HfTokenizer
from ngram_eval.models.source import Asked, Stats, all_rows
from ngram_eval.text.reading import read_texts
from ngram_eval.text.stream import Stream, Tokens
from ngram_eval.text.windows import Windows, batches, plan_windows, target_count

METHODS = ("exact", "mixer", "tilt", "hashed")
WINDOWS = ((128, 64), (512, 512), (512, 256), (2048, 1024))


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Neural alone, exact, mixer, tilt and hashed on texts of several kinds."""

    hf: str
    """The model: a folder, a .gguf file or a name on the hub."""
    text: tuple[str, ...]
    """KIND=FILE: texts, of each its first tokens."""
    tokens: int = 6144
    """Positions scored of each text."""
    batch_windows: int = 8
    """Windows of one forward pass."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


class KeptSource:
    """A source forwarded once, all its distributions kept in memory as float32 log-probabilities."""

    name = "kept"
    train_seq_len = 0
    gives_all = True

    def __init__(self, source: HfSource, tokens: Tokens, window: WindowConfig) -> None:
        positions = target_count(len(tokens), window.seq_len)
        self.vocab_size, self.batch_windows, self.settings = source.vocab_size, source.batch_windows, source.settings
        self._rows = np.empty((positions, source.vocab_size), np.float32)
        self._p, self._entropy = np.empty(positions), np.empty(positions, np.float32)
        for batch in batches(plan_windows(positions, window), source.batch_windows):
            here = batch.positions()
            self._p[here], self._entropy[here], *_ = stats = source.stats(tokens, batch, np.ones(len(here), np.bool_))
            assert stats.rows is not None, "they were asked for"
            self._rows[here] = np.log(np.maximum(stats.rows, np.finfo(np.float64).tiny))

    def stats(self, tokens: Stream, windows: Windows, whole: Asked | None = None) -> Stats:
        here = windows.positions()
        rows = None if whole is None else np.exp(self._rows[here[whole]].astype(np.float64))
        return Stats(self._p[here], self._entropy[here], rows)

    def probabilities(self, tokens: Stream, windows: Windows) -> NDArray[np.float64]:
        return all_rows(self, tokens, windows)


def line(kind: str, window: WindowConfig, results: dict[str, Result]) -> str:
    """A row of the table."""
    neural = results["exact"].neural_bpb
    assert neural is not None
    cells = [kind, f"{window.seq_len:,}", f"{window.stride:,}", f"{neural:.4f}"]
    for name, result in results.items():
        assert result.val_bpb is not None
        if result.normalised:
            cells.append(f"{result.val_bpb:.4f} ({result.val_bpb / neural - 1:+.1%})")
        else:
            cells.append(f"{result.val_bpb:.4f} (Σ {result.vocabulary_sum:.2f})")
        assert name in METHODS
    return f"| {' | '.join(cells)} |"


def measure(options: Options) -> str:
    """The Markdown report."""
    torch.set_num_threads(1)
    tokenizer = HfTokenizer.load(options.hf)
    source = load_hf_source(
        options.hf,
        lead_of_model(options.hf),
        device="auto",
        local_rank=0,
        dtype="auto",
        batch_windows=options.batch_windows,
    )
    lines, sizes, seconds = [], [], {"forward passes": 0.0, "n-gram memory, all methods": 0.0}
    for one in options.text:
        kind, _, path = one.partition("=")
        stream = read_texts(tokenizer, [Path(path)], options.tokens + 1)
        tokens = stream.tokens[:]
        if len(tokens) <= options.tokens:
            raise InputError(f"{path} has {len(tokens):,} tokens: --tokens {options.tokens:,} needs one more than that")
        sizes.append(f"{kind} {int(tokenizer.target_bytes(tokens, 0, options.tokens, 'decoded').sum()):,}")
        for seq_len, stride in WINDOWS:
            window = WindowConfig(seq_len=seq_len, stride=stride)
            started = time.perf_counter()
            kept = KeptSource(source, tokens, window)
            seconds["forward passes"] += time.perf_counter() - started
            started = time.perf_counter()
            results = {}
            for name in METHODS:
                config = replace(preset(name), window=window)
                results[name] = replace(evaluate(kept, tokens, config, tokenizer=tokenizer), preset=name)
            seconds["n-gram memory, all methods"] += time.perf_counter() - started
            lines.append(line(kind, window, results))
            print(lines[-1], file=sys.stderr, flush=True)
    spent = ", ".join(f"{what} {value:,.0f} s" for what, value in seconds.items())
    command = shlex.join(["python", "-m", "benchmarks.pretrained", *sys.argv[1:]])
    return (
        "\n".join(
            [
                "# A pretrained model with an n-gram memory",
                "",
                f"Command: `{command}`",
                "",
                f"{describe_machine()}, torch {torch.__version__}. One thread: {spent}.",
                "",
                f"{options.tokens:,} positions of each text; bytes: {', '.join(sizes)}. "
                f"Vocabulary {source.vocab_size:,}.",
                "",
                "| text | window | stride | the model alone | exact | mixer | tilt | hashed (not a probability) |",
                "|---|---|---|---|---|---|---|---|",
                *lines,
                "",
                "Bits per byte; in brackets the difference from the model alone, and of `hashed` the sum of its values",
                "over the vocabulary, which of a probability is 1.",
            ]
        )
        + "\n"
    )


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.pretrained")
    publish(measure(options), options.out)


if __name__ == "__main__":
    main()
