"""Evaluate a nanoGPT checkpoint with an n-gram memory: run it in nanoGPT's folder, where its `model.py` is.

    python .../examples/nanogpt.py out/ckpt.pt data/openwebtext/val.bin --tokenizer gpt2

`val.bin` holds uint16 tokens and nothing else, as nanoGPT's `prepare.py` writes it. `--tokenizer` is a Hugging Face
tokenizer of these tokens (a folder, or a name on the hub); without it the result is in nats a token.
"""

import argparse
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ngram_eval


def load(checkpoint: Path, device: str) -> torch.nn.Module:
    """The model of a checkpoint, in evaluation mode; nanoGPT's own class is imported from the current folder."""
    sys.path.insert(0, str(Path.cwd()))
    theirs: Any = import_module("model")
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)  # runs no code of the file
    model = theirs.GPT(theirs.GPTConfig(**saved["model_args"]))
    model.load_state_dict({name.removeprefix("_orig_mod."): tensor for name, tensor in saved["model"].items()})
    return model.eval().to(device)  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("tokens", type=Path, help="nanoGPT's val.bin")
    parser.add_argument("--tokenizer", help="Hugging Face tokenizer of these tokens")
    parser.add_argument("--preset", default="exact")
    parser.add_argument("--max-tokens", type=int, default=100_000)
    parser.add_argument("--stride", type=int, help="new positions of each window; default: half a window")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--report", type=Path, help="write one page with charts here")
    asked = parser.parse_args()

    model: Any = load(asked.checkpoint, asked.device)
    tokens = np.fromfile(asked.tokens, np.dtype("<u2"), count=asked.max_tokens)
    length = model.config.block_size
    method = ngram_eval.preset(asked.preset)
    method = replace(method, window=replace(method.window, seq_len=length, stride=asked.stride or length // 2))
    tokenizer = None
    if asked.tokenizer:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(asked.tokenizer)

    def logits(windows: Any) -> Any:
        """(B, T) -> (B, T, V). Without targets, nanoGPT's model gives the last position alone."""
        windows = torch.as_tensor(windows, device=asked.device)
        return model(windows, windows)[0]

    result = ngram_eval.evaluate(logits, tokens, method, tokenizer=tokenizer, batch_windows=8)
    print(result)
    if asked.report:
        from ngram_eval.results.page import write_page

        write_page(asked.report, [result])


if __name__ == "__main__":
    main()
