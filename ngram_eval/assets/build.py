"""Rebuilds the embedded default: `python -m ngram_eval.assets.build austen.txt` (about 14 minutes on two cores).

The input is a text of Jane Austen's six novels, one after another. Five train the tokenizer and the model; the
beginning of the sixth, which neither has seen, becomes the sample.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ngram_eval.errors import InputError, exit_on_input_error

HELD_OUT = "SENSE AND SENSIBILITY\n\nby Jane Austen"
"""First lines of the held-out novel; the five others come before it in the text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Train the embedded tokenizer and model, and cut the held-out sample."""

    text: Annotated[Path, tyro.conf.Positional]
    """Plain text of the six novels, Sense and Sensibility last."""
    out: Path = Path(__file__).parent
    """Folder for tokenizer.model, model.ngev, sample.bin and the sample's manifest."""
    vocab_size: int = 1024
    """Pieces of the tokenizer."""
    sample_characters: int = 90_000
    """Length of the held-out stretch, from the novel's beginning, up to the end of a paragraph."""


def split(text: str, source: Path, characters: int) -> tuple[str, str]:
    """(the five novels, the held-out stretch) of the whole text."""
    begin = text.find(HELD_OUT)
    if begin < 0:
        raise InputError(f"{source}: {HELD_OUT!r} does not begin a line in it; give a text of the six novels")
    end = text.rfind("\n\n", begin, begin + characters) + 2
    return text[:begin], text[begin:end]


def main() -> None:
    """The command line."""
    with exit_on_input_error():
        options = tyro.cli(Options, prog="python -m ngram_eval.assets.build")
        training, sample = split(options.text.read_text(encoding="utf-8"), options.text, options.sample_characters)

        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)

            def command(*arguments: str) -> None:
                subprocess.run([sys.executable, "-m", "ngram_eval", *arguments], cwd=work, check=True)

            (work / "train.txt").write_text(training, encoding="utf-8")
            (work / "sample.txt").write_text(sample, encoding="utf-8")
            command(
                "prepare", "train.txt", "--name", "train", "--out", ".", "--train-tokenizer", str(options.vocab_size)
            )
            command("prepare", "sample.txt", "--name", "sample", "--out", ".", "--tokenizer", "tokenizer.model")
            command("train", "--preset", "embedded", "--data", "train_*.bin", "--out", "model.ngev")
            for pattern in ("tokenizer.model", "sample_*", "model.ngev"):
                for made in work.glob(pattern):
                    shutil.copyfile(made, options.out / made.name)


if __name__ == "__main__":
    main()
