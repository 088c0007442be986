"""lm-evaluation-harness beside this package on one text: `python -m benchmarks.harness --hf MODEL --text FILE`."""

import math
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from benchmarks.machine import describe_machine, publish
from ngram_eval import evaluate
from ngram_eval.config import EvalConfig, WindowConfig
from ngram_eval.integrations.lm_eval import NgramLM
from ngram_eval.models.hf.loading import where


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Log-likelihood of one text by the harness's model, by the harness's model with a memory, and by `evaluate`."""

    hf: str
    """The model: a folder or a .gguf file."""
    text: Path
    """The text."""
    characters: int = 12_000
    """Of its beginning."""
    length: int = 512
    """Tokens of a window."""
    out: Path | None = None
    """Write the table here as Markdown; default: print it."""


def figures(nats: float, text: str, size: int | None = None) -> str:
    """Word perplexity, byte perplexity and bits per byte; the harness's, unless `size` bytes are given."""
    words = f"{math.exp(nats / len(text.split())):,.2f}" if size is None else "-"
    size = size or len(text.encode())
    return f"{words} | {math.exp(nats / size):.4f} | {nats / size / math.log(2):.4f}"


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.harness")
    text = options.text.read_text(encoding="utf-8")[: options.characters]
    place = where(options.hf)
    given: dict[str, Any] = {"pretrained": place["pretrained_model_name_or_path"], "device": "cpu", "batch_size": 1}
    given |= {"max_length": options.length, "dtype": "float32"}
    if "gguf_file" in place:
        given["gguf_file"] = place["gguf_file"]
    request = [Instance("loglikelihood_rolling", {}, (text,), 0)]
    lines = []

    def add(name: str, nats: float, tokens: int, started: float, size: int | None = None) -> None:
        passed = time.perf_counter() - started
        lines.append(f"| {name} | {figures(nats, text, size)} | {tokens:,} | {passed:,.0f} |")

    models: dict[str, Any] = {
        "harness, `hf`": lambda: HFLM(**given),
        "harness, `ngram`: a memory a window": lambda: NgramLM(**given),
        "harness, `ngram`, `rolling=sliding`": lambda: NgramLM(**given, rolling="sliding"),
    }
    for name, make in models.items():
        model = make()
        count, started = len(model.tok_encode(text)), time.perf_counter()
        add(name, -model.loglikelihood_rolling(request, disable_tqdm=True)[0], count, started)
    tokens = np.array([model.prefix_token_id, *model.tok_encode(text)], np.uint32)
    for stride in (options.length, options.length // 2):
        started = time.perf_counter()
        window = WindowConfig(seq_len=options.length, stride=stride)
        config = EvalConfig(window=window, scorer="exact")
        result = evaluate(model.model, tokens, config, tokenizer=model.tokenizer, lead="none", samples=0)
        for name, nats in (("the model alone", result.neural_nats), ("`exact`", result.nats)):
            add(f"`evaluate`, stride {stride}, {name}", nats, result.positions, started, result.bytes)
    publish("\n".join(report(options, text, lines)), options.out)


def report(options: Options, text: str, lines: list[str]) -> list[str]:
    """The page."""
    return [
        "# lm-evaluation-harness beside this package",
        "",
        f"Command: `python -m benchmarks.harness {shlex.join(sys.argv[1:])}`",
        "",
        f"{describe_machine()}, {torch.get_num_threads()} threads. {len(text.encode()):,} bytes, windows of "
        f"{options.length} tokens.",
        "",
        "| | word perplexity | byte perplexity | bits per byte | tokens charged | seconds |",
        "|---|---|---|---|---|---|",
        *lines,
    ]


if __name__ == "__main__":
    main()
