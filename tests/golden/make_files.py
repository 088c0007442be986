"""Writes version_0_1/ beside this file: what version 0.1 wrote, to be read by every later one.

They are of commit 610264e. In a checkout of it, with its own environment:

    .venv/bin/python .../tests/golden/make_files.py

Small text, shards of it, a model trained on them, a checkpoint of that training half way, results of all families, and
a checkpoint of an evaluation that was killed.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "version_0_1"
TEXT = Path(__file__).resolve().parents[1] / "data" / "sample.txt"
KILLED = """
import os
from ngram_eval import engine, neural, run

neural.UniformSource.batch_windows = 4
original, left = engine.Engine._score, iter(range(12))

def score(self, reading):
    if next(left, None) is None:
        os._exit(9)
    original(self, reading)

engine.Engine._score = score
run.main()
"""
"""An evaluation that ends in the middle, as if it had been killed."""
DATA = ("--data", "tokens_000000.bin", "--tokenizer", "tokenizer.model")
WINDOW = ("--seq-len", 64, "--stride", 32, "--buckets", 512, "--groups", 4096, "--threads", 1)
CHECKPOINTED = (
    *("--data", "tokens_000000.bin", "--uniform", "--vocab-size", 400, *WINDOW),
    *("--preset", "exact", "--min-order", 1, "--max-order", 1),
)
TRAINED = (
    *("--data", "tokens_000000.bin", "--vocab-size", 400, "--layers", 2),
    *("--width", 4, "--heads", 1, "--kv-heads", 1, "--mlp-hidden", 8, "--bigram-slots", 8, "--bigram-width", 2),
    *("--rope-dims", 4, "--xsa-layers", 1, "--value-layers", 1, "--value-width", 1, "--seq-len", 32, "--batch", 4),
    *("--steps", 20, "--warmdown-steps", 12, "--momentum-warmup", 10, "--ema", 0.9, "--swa-every", 2),
    *("--swa-below", 0.5, "--device", "cpu", "--log-every", 1, "--quiet"),
)


def call(*arguments: object, code: int = 0) -> None:
    """A command in the folder."""
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=FOLDER)
    assert done.returncode == code, arguments


def main() -> None:
    """All files, from nothing."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    (FOLDER / "text.txt").write_text(TEXT.read_text(encoding="utf-8")[:6000], encoding="utf-8")
    call("-m", "ngram_eval", "prepare", "text.txt", "--out", ".", "--train-tokenizer", 400)
    (FOLDER / "text.txt").unlink()

    presets = [flag for name in ("pr890", "hashed", "tilt", "mixer") for flag in ("--preset", name)]
    call(
        "-m",
        "ngram_eval.run",
        *DATA,
        "--uniform",
        *WINDOW,
        *presets,
        "--max-tokens",
        1600,
        "--quiet",
        "--json",
        "result.json",
    )

    call("-m", "ngram_eval.train", *TRAINED, "--folder", "training", "--stop-after", 12, "--out", "trained.ngev")
    shutil.copytree(FOLDER / "training", FOLDER / "rest")
    call("-m", "ngram_eval.train", *TRAINED, "--folder", "rest", "--resume", "--out", "trained.ngev")
    shutil.copy(FOLDER / "rest/log.jsonl", FOLDER / "trained.jsonl")
    shutil.rmtree(FOLDER / "rest")

    of_model = (*DATA, "--artifact", "trained.ngev", *WINDOW, "--preset", "exact", "--preset", "hashed", "--quiet")
    call("-m", "ngram_eval.run", *of_model, "--save-scores", "scores.npz", "--json", "of_model.json")

    call("-m", "ngram_eval.run", *CHECKPOINTED, "--quiet", "--json", "checkpointed.json")
    kept = ("--checkpoint", "checkpoint", "--every", 100)
    call("-c", KILLED, *CHECKPOINTED, "--quiet", *kept, "--json", "never.json", code=9)

    for path in sorted(FOLDER.rglob("*")):
        if path.is_file():
            assert path.stat().st_size < 60_000, path
            print(f"{path.stat().st_size:6} {path.relative_to(FOLDER)}")
    print(json.loads((FOLDER / "result.json").read_text())["runs"][0]["versions"])


if __name__ == "__main__":
    main()
