"""Do whole commands run on this GPU, and how long do they take? `python -m benchmarks.gpu.evaluation`.

Prints Markdown. Compares the embedded model by both backends, which must agree, and under torchrun with one rank
(NCCL); trains half a minute by the published recipe; then runs the published model (untrained) over a longer stream,
for the seconds a position. --dry-run takes the CPU and toy sizes. Exits with 1 if anything failed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ngram_eval.assets import asset
from ngram_eval.evaluation.published import TARGETS
from ngram_eval.models.artifact import QuantConfig, save
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.text.shards import read_shards, write_shard

TOY_MODEL = ModelConfig(width=32, layers=2, heads=2, kv_heads=2, value_layers=(1,))
AGREE = 1e-4
"""Bits per byte by which two backends may differ: `triton` computes statistics in float32, `cpu` in float64."""


def python(*arguments: str) -> str:
    """Standard output of `python -m ARGUMENTS`; raises `RuntimeError` with the last lines of what went wrong."""
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        raise RuntimeError(f"python -m {' '.join(arguments)} exited with {done.returncode}:\n{tail}")
    return done.stdout


class Runs:
    """Evaluations made so far, and what went wrong."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self.failures: list[str] = []

    def evaluate(self, title: str, *arguments: str, launcher: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """The result's runs, printed as rows of the table; none if the command fails."""
        out = self.folder / "result.json"
        command = [*launcher, "ngram_eval.run", "--device", self.device, *arguments, "--json", str(out)]
        try:
            python(*command)
        except RuntimeError as error:
            self.failures.append(str(error))
            print(f"| {title} | FAILED | | | | | |", flush=True)
            return []
        runs: list[dict[str, Any]] = json.loads(out.read_text())["runs"]
        for run in runs:
            seconds = run["seconds"]
            own = sum(value for stage, value in seconds.items() if stage not in ("load", "neural", "samples"))
            print(
                f"| {title} | {run['preset']} | {run['positions']:,} | {run['neural_bpb']:.6f} | {run['val_bpb']:.6f} "
                f"| {seconds.get('neural', 0):.2f} | {own:.2f} |",
                flush=True,
            )
        return runs


def agree(runs: Runs, ours: list[dict[str, Any]], others: list[dict[str, Any]], integers: bool = True) -> None:
    """Note a failure unless the runs agree: bits per byte to `AGREE`, matches by order exactly."""
    for one, other in zip(ours, others, strict=True):
        for key in ("neural_bpb", "val_bpb"):
            if abs(one[key] - other[key]) > AGREE:
                runs.failures.append(f"{one['preset']}: {key} is {one[key]} and {other[key]}")
        if integers and one["hits_by_order"] != other["hits_by_order"]:
            runs.failures.append(f"{one['preset']}: matches by order differ")


def head() -> None:
    """The head of a table of evaluations."""
    print(
        "| | preset | positions | neural, bpb | bpb or score | forward, s | rest, s |\n|---|---|---|---|---|---|---|",
        flush=True,
    )


def backends(runs: Runs, dry_run: bool) -> None:
    """The embedded model, by every backend and under torchrun."""
    print(
        "Seconds: of the forward passes (with `triton` also all that is enqueued after them), and of the rest without "
        "loading and samples.\n"
    )
    head()
    both: tuple[str, ...] = ("--preset", "pr890", "--preset", "hashed")
    subset = ("--max-tokens", "600") if dry_run else ()
    on_cpu = runs.evaluate("embedded model, `--backend cpu`", *both, "--preset", "exact", *subset)
    both = (*both, "--backend", "triton")
    on_gpu = runs.evaluate("embedded model, `--backend triton`", *both, *subset)
    launcher = ("torch.distributed.run", "--standalone", "--nproc_per_node=1", "-m")
    ranked = runs.evaluate("the same, torchrun, one rank", *both, *subset, launcher=launcher)
    if on_cpu and on_gpu:
        agree(runs, on_gpu, on_cpu[:2])
    if on_gpu and ranked:
        agree(runs, ranked, on_gpu, integers=False)


def longer_text(folder: Path, dry_run: bool) -> Path:
    """A shard: the embedded sample 16 times, which is enough for a batch of the published recipe."""
    shard = folder / "long.bin"
    sample = read_shards([str(asset("sample_000000.bin"))], max_tokens=500 if dry_run else None).tokens[:]
    write_shard(shard, np.tile(sample, 2 if dry_run else 16).astype(np.uint16))
    return shard


def published(runs: Runs, shard: Path, dry_run: bool) -> None:
    """The published model, untrained, over half of the shard: what a position costs."""
    print("\n## The published model\n")
    torch.manual_seed(0)
    artifact, length = runs.folder / "published.ngev", 64 if dry_run else 2048
    save(artifact, Transformer(TOY_MODEL if dry_run else ModelConfig()), QuantConfig(), length)
    head()
    long = ("--data", str(shard), "--max-tokens", "500" if dry_run else "270000", "--artifact", str(artifact))
    cut = ("--tokenizer", str(asset("tokenizer.model")), "--seq-len", str(length), "--stride", "32")
    for run in runs.evaluate("published model, untrained", *long, *cut, "--preset", "hashed", "--backend", "triton"):
        each = (sum(run["seconds"].values()) - run["seconds"].get("load", 0)) / run["positions"]
        print(
            f"\nStride 32: {1e6 * each:.1f} µs a position with all but loading (kernels are compiled in it, too), so "
            f"{each * TARGETS:,.0f} s for {TARGETS:,} positions on this GPU.",
            flush=True,
        )


def training(runs: Runs, shard: Path, dry_run: bool) -> None:
    """Tokens a second of the published recipe, and its last lines."""
    print("\n## Training\n", flush=True)
    size = (
        ("--preset", "embedded", "--steps", "1", "--batch", "2", "--warmup-steps", "0", "--warmdown-steps", "0")
        if dry_run
        else ("--preset", "pr890", "--batch", "48", "--micro-batch", "48", "--max-seconds", "30", "--steps", "400")
    )
    command = ("ngram_eval.train", "--device", runs.device, "--data", str(shard), "--out", str(runs.folder / "t.ngev"))
    folder = runs.folder / "train"
    try:
        said = python(*command, *size, "--folder", str(folder))
    except RuntimeError as error:
        runs.failures.append(str(error))
        print("FAILED", flush=True)
        return
    print("\n".join(f"    {line}" for line in said.splitlines()[-25:]))
    journal = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
    print("\nThe journal's last lines:\n")
    print("\n".join(f"    {line[:400]}" for line in journal[-5:]), flush=True)


def main() -> None:
    """Everything, printed as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true")
    dry_run = parser.parse_args().dry_run
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder), "cpu" if dry_run else "cuda")
        backends(runs, dry_run)
        shard = longer_text(runs.folder, dry_run)
        training(runs, shard, dry_run)
        published(runs, shard, dry_run)
    if runs.failures:
        print(f"\n## What failed: {len(runs.failures)}\n")
        print("\n".join(f"```\n{failure}\n```\n" for failure in runs.failures))
    sys.exit(int(bool(runs.failures)))


if __name__ == "__main__":
    main()
