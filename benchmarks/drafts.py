"""Greedy generation with drafts of the memory: `python -m benchmarks.drafts --hf MODEL --text A --known B`.

Each text gives a prompt; what the model writes after it is the same by every method, but for ties that rounding breaks.
"""

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.machine import describe_machine, publish
from ngram_eval import NgramMemory
from ngram_eval.integrations.drafts import NgramDrafts
from ngram_eval.models.hf.loading import load_model, load_tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Plain decoding, transformers' prompt lookup, and drafts of two memories."""

    hf: str
    """The model: a folder or a .gguf file."""
    text: tuple[Path, ...]
    """Texts; the beginning of each is a prompt."""
    known: tuple[Path, ...] = ()
    """Texts that the second memory has observed before."""
    prompt: int = 512
    """Tokens of a prompt."""
    new: int = 128
    """Tokens generated after it."""
    tokens: int = 10
    """Most tokens of a draft."""
    out: Path | None = None
    """Write the table here as Markdown; default: print it."""


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.drafts")
    model, tokenizer = load_model(options.hf, torch.float32), load_tokenizer(options.hf)
    prompts = [tokenizer(path.read_text(), return_tensors="pt").input_ids[:, : options.prompt] for path in options.text]
    forwards = 0

    def count(*_: Any) -> None:
        nonlocal forwards
        forwards += 1

    model.register_forward_hook(count)
    known = NgramMemory()
    for path in options.known:
        known.observe(tokenizer(path.read_text()).input_ids)
    methods: dict[str, dict[str, Any]] = {
        "none": {},
        "prompt lookup": {"prompt_lookup_num_tokens": options.tokens},
        "memory of the prompt": {"custom_generate": NgramDrafts(tokens=options.tokens)},
        f"memory of {len(known):,} tokens more": {"custom_generate": NgramDrafts(known, tokens=options.tokens)},
    }
    lines: list[str] = []
    plain: list[list[int]] = []
    alone = 0.0
    for name, settings in methods.items():
        forwards, started, texts = 0, time.perf_counter(), []
        for prompt in prompts:
            given = {"max_new_tokens": options.new, "do_sample": False, "attention_mask": torch.ones_like(prompt)}
            texts.append(model.generate(prompt, pad_token_id=0, **given, **settings)[0].tolist())
        seconds = time.perf_counter() - started
        plain, alone = plain or texts, alone or seconds
        new = sum(len(text) - prompt.shape[1] for text, prompt in zip(texts, prompts, strict=True))
        same = sum(text == other for text, other in zip(texts, plain, strict=True))
        drafts = settings.get("custom_generate")
        accepted = f"{drafts.accepted / max(drafts.drafted, 1):.0%}" if drafts else ""
        lines.append(f"| {name} | {new / forwards:.2f} | {accepted} | {alone / seconds:.2f} | {same} of {len(texts)} |")
    page = [
        "# Drafts of the memory for generation",
        "",
        f"Command: `python -m benchmarks.drafts {shlex.join(sys.argv[1:])}`",
        "",
        f"{describe_machine()}, {torch.get_num_threads()} threads. {len(prompts)} prompts of {options.prompt} tokens, "
        f"{options.new} tokens after each, at most {options.tokens} a draft.",
        "",
        "| drafts | tokens a forward pass | drafted tokens accepted | speed, of plain decoding | same text |",
        "|---|---|---|---|---|",
        *lines,
    ]
    publish("\n".join([*page, ""]), options.out)


if __name__ == "__main__":
    main()
