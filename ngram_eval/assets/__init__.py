"""The embedded default: a small language model, its tokenizer and a held-out sample. See README.md in this folder."""

from importlib.resources import files
from pathlib import Path


def asset(name: str) -> Path:
    """A file of the embedded default: sample_000000.bin, tokenizer.model or model.ngev."""
    return Path(str(files(__name__) / name))
