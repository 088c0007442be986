"""What does it cost, and change, to forward each position once? `python -m benchmarks.forward_once`.

Windows of several strides and `--forward banded` score the same text with the same model, a stretch of it each in turn.
Times are of the processor, on one thread: they do not count what other processes take. Before anything is timed, a
chunk is compared with a dense mask.
"""

import math
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.last_block import randomised
from benchmarks.machine import describe_machine, publish
from ngram_eval.assets import asset
from ngram_eval.bpb import Tally
from ngram_eval.codec.stepping import SteppedModel
from ngram_eval.config import WindowConfig
from ngram_eval.evaluation.engine import count_bytes
from ngram_eval.models import artifact, banded_attention
from ngram_eval.models.banded_attention import Band
from ngram_eval.models.banded_source import BandedSource, default_chunk
from ngram_eval.models.side_by_side import one_thread
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_source import TransformerSource
from ngram_eval.text.shards import read_shards
from ngram_eval.text.tokenizer import Tokenizer
from ngram_eval.text.windows import Plan, Windows, batches
from ngram_eval.train.config import pr890

CPU = torch.device("cpu")
_TOLERANCE = 1e-4
"""Largest difference of a logit from the dense mask's (float32)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure forwards, seconds and bits."""

    tokens: int = 33_794
    """Tokens of the embedded text to score."""
    stretches: int = 5
    """Stretches of the text, in each of which the ways take turns; medians over them are reported."""
    chunks: int = 3
    """Chunks, and windows of each stride, that are timed on the published architecture."""
    artifact: Path | None = None
    """Only score the embedded text with this model of the embedded vocabulary, at the length it was trained for."""
    toy: bool = False
    """A short text and a small model, to see that the benchmark works."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


@dataclass(frozen=True, slots=True)
class Way:
    """A forward to measure."""

    name: str
    source: TransformerSource
    window: WindowConfig

    @property
    def forwards(self) -> float:
        """Forwards of a scored position."""
        if isinstance(self.source, BandedSource):
            return 1 + self.window.seq_len / self.source.chunk
        return self.window.seq_len / self.window.stride


def ways(model: Transformer, length: int, strides: list[int], sinks: tuple[int, ...], batch: int) -> list[Way]:
    """Windows of each stride, then banded with each number of sinks."""
    common: dict[str, Any] = {"train_seq_len": length, "batch_windows": batch, "device": CPU, "dtype": torch.float32}
    chunk = default_chunk(model.config, length, CPU)
    found = [
        Way(
            f"windows, stride {stride}", TransformerSource(model, **common), WindowConfig(seq_len=length, stride=stride)
        )
        for stride in dict.fromkeys(strides)
    ]
    for count in sinks:
        source = BandedSource(model, chunk=chunk, sinks=count, **common)
        name = f"banded, chunks of {chunk:,}" + (f", {count} sinks" if len(sinks) > 1 else "")
        found.append(Way(name, source, WindowConfig(seq_len=length, stride=length // 2)))
    return found


def scored(tokens: Any, asked: list[Way], stretches: int) -> dict[str, tuple[float, float]]:
    """Way -> (bits per byte, median seconds a position), each stretch by all ways in turn."""
    tokenizer = Tokenizer.load(asset("tokenizer.model"))
    nats, tallies = {way.name: 0.0 for way in asked}, {way.name: Tally() for way in asked}
    seconds: dict[str, list[float]] = {way.name: [] for way in asked}
    for stretch in range(stretches):
        for way in asked:
            plan = Plan((len(tokens) - 1) // 512 * 512, way.window)
            first, stop = (len(plan) * part // stretches for part in (stretch, stretch + 1))
            windows = plan[first:stop]
            before = time.process_time()
            for batch in batches(windows, way.source.batch_windows):
                nats[way.name] -= float(np.log(way.source.stats(tokens, batch).p_target).sum())
            seconds[way.name].append((time.process_time() - before) / windows.scored)
            count_bytes(tallies[way.name], tokens, tokenizer, windows, "decoded")
    return {name: (nats[name] / math.log(2) / tallies[name].bytes, statistics.median(seconds[name])) for name in nats}


def timed(model: Transformer, length: int, strides: list[int], chunks: int) -> list[tuple[Way, float]]:
    """(way, seconds a position) of a random text: one later window, or one whole chunk, in each turn."""
    rng = np.random.default_rng(0)
    found = ways(model, length, strides, (0,), 1)
    chunk = default_chunk(model.config, length, CPU)
    tokens = rng.integers(model.config.vocab_size, size=length + chunks * chunk + 1, dtype=np.uint16)
    seconds: dict[str, list[float]] = {way.name: [] for way in found}
    for turn in range(chunks):
        for way in found:
            stop = length + (turn + 1) * chunk
            first = stop - (chunk if isinstance(way.source, BandedSource) else way.window.stride)
            windows = Windows(np.array([stop - length]), np.array([first]), np.array([stop]), length)
            before = time.process_time()
            way.source.stats(tokens, windows)
            seconds[way.name].append((time.process_time() - before) / (stop - first))
    return [(way, statistics.median(seconds[way.name])) for way in found]


def block_seconds(positions: int, length: int, heads: int, dims: int) -> Iterator[tuple[int, float]]:
    """(b, seconds of the attention of a position), for blocks of b queries."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, positions, heads, dims)
    kept = banded_attention._BLOCKS_A_WINDOW
    try:
        for parts in (1, 2, 4, 8, 16, 32):
            banded_attention._BLOCKS_A_WINDOW = parts
            yield length // parts, _median(3, lambda: banded_attention.banded_attention(q, k, v, Band(length)))
    finally:
        banded_attention._BLOCKS_A_WINDOW = kept


def _median(rounds: int, work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(rounds):
        before = time.process_time()
        work()
        seconds.append(time.process_time() - before)
    return statistics.median(seconds)


def peak(chunk: int) -> float:
    """MiB that forwarding a chunk adds to this process, at the most."""
    torch.set_num_threads(1)
    model, length = artifact.load(asset("model.ngev"))

    def memory(what: str) -> float:
        status = Path("/proc/self/status").read_text()
        return int(status.split(f"{what}:")[1].split()[0]) / 1024

    with torch.inference_mode():
        model.hidden(torch.zeros(1, 8, dtype=torch.int64), last=1, band=Band(4))  # what torch loads once
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again here (Linux)
        before = memory("VmRSS")
        model.hidden(torch.zeros(1, length + chunk, dtype=torch.int64), last=chunk, band=Band(length))
    return memory("VmHWM") - before


def peaks(chunks: list[int]) -> list[tuple[int, float]]:
    """(chunk, `peak`), each of a process of its own."""
    found = []
    for chunk in chunks:
        script = f"from benchmarks.forward_once import peak; print(peak({chunk}))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        found.append((chunk, float(done.stdout)))
    return found


def codec_speed(model: Transformer, tokens: Any, window: WindowConfig) -> list[tuple[str, float]]:
    """(forward, tokens a second) of the codec's model, from the second window on."""
    found = []
    for way in ("windows", "banded"):
        base = SteppedModel(model, window, "banded" if way == "banded" else "windows")
        base.rows(tokens[: window.seq_len])
        before = time.process_time()
        base.rows(tokens[window.seq_len :])
        found.append((way, (len(tokens) - window.seq_len) / (time.process_time() - before)))
    return found


def check(model: Transformer) -> float:
    """The largest difference of a logit from one dense mask over all; raises unless it is small."""
    tokens = torch.randint(model.config.vocab_size, (1, 700), generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # uncompiled it is slow, and a dense mask
        one, other = (
            model.logits(model.hidden(tokens, last=600, band=Band(64, 2, kernel))) for kernel in ("blocks", "flex")
        )
    difference = float((one - other).abs().max())
    if not difference <= _TOLERANCE:
        raise AssertionError(f"logits differ by {difference} from a dense mask's, more than {_TOLERANCE}")
    return difference


_HEAD = ["| forward | forwards a position | µs a position | times as fast as stride 32 | bits per byte | difference |"]


def table(asked: list[Way], found: dict[str, tuple[float, float]]) -> list[str]:
    """Rows of Markdown; the first way is what others are compared with."""
    base_bits, base_seconds = found[asked[0].name]
    rows = [*_HEAD, "|---|---|---|---|---|---|"]
    for way in asked:
        bits, seconds = found[way.name]
        rows.append(
            f"| {way.name} | {way.forwards:.3g} | {seconds * 1e6:,.0f} | {base_seconds / seconds:.1f} | {bits:.4f} "
            f"| {bits - base_bits:+.4f} |"
        )
    return rows


def measure(options: Options) -> str:
    """The result as Markdown."""
    torch.set_num_threads(1)
    name = f"`{options.artifact}`" if options.artifact else "The embedded model"
    model, trained = artifact.load(options.artifact or asset("model.ngev"))
    tokens = read_shards([str(asset("sample_000000.bin"))]).tokens[: 1100 if options.toy else options.tokens]
    stretches = 1 if options.toy else options.stretches
    difference = check(model)
    lines = [
        "# Forwarding each position once",
        "",
        f"Command: `{' '.join(['python -m benchmarks.forward_once', *sys.argv[1:]])}`",
        "",
        f"{describe_machine()}, torch {torch.__version__}",
        "",
        "Float32, one thread, seconds of the processor. Before timing, logits of blocks were those of a dense mask "
        f"within {difference:.1e} (tolerance {_TOLERANCE:g}).",
    ]
    for length in (trained,) if options.artifact else (128,) if options.toy else (128, 256, 512):
        asked = ways(model, length, [32, 64, length // 2, length], (0,), 32)
        found = scored(tokens, asked, stretches)
        lines += ["", f"## {name} (trained at {trained}), L = {length}, {len(tokens):,} tokens", ""]
        lines += [f"Medians of {stretches} stretches.", "", *table(asked, found)]
    if options.artifact:
        return "\n".join(lines) + "\n"
    asked = ways(model, 128 if options.toy else 256, [32], (0, 4) if options.toy else (0, 1, 4, 16), 32)
    lines += ["", f"## Sinks, L = {asked[0].window.seq_len}", "", *table(asked, scored(tokens, asked, stretches))]
    large = randomised(replace(pr890().model, layers=2, value_layers=(1,), width=128) if options.toy else pr890().model)
    length = 64 if options.toy else 2048
    rows = timed(large, length, [32, 64, length // 2, length], options.chunks)
    lines += ["", f"## The published architecture, L = {length:,}: the time alone", ""]
    lines += [f"Random weights; medians of {options.chunks} windows or chunks, in turns.", ""]
    lines += ["| forward | forwards a position | µs a position | times as fast as stride 32 |", "|---|---|---|---|"]
    for way, seconds in rows:
        lines.append(f"| {way.name} | {way.forwards:.3g} | {seconds * 1e6:,.0f} | {rows[0][1] / seconds:.1f} |")
    lines += ["", "## Memory", "", "| C | MiB that a forward of the chunk adds |", "|---|---|"]
    for chunk, size in peaks([512] if options.toy else [2048, 4096, 8192, 16384, 32768]):
        lines.append(f"| {chunk:,} | {size:,.0f} |")
    lines += ["", "## Blocks of queries", "", "| L | b | µs of attention a position |", "|---|---|---|"]
    for length, heads, dims in ((64, 2, 8),) if options.toy else ((256, 4, 48), (2048, 8, 64)):
        positions = length * 5
        for block, seconds in block_seconds(positions, length, heads, dims):
            lines.append(f"| {length:,} | {block:,} | {seconds / positions * 1e6:.2f} |")
    window = WindowConfig(seq_len=64 if options.toy else 256, stride=32)
    with one_thread():
        speeds = codec_speed(model, tokens[: 3 * window.seq_len], window)
    lines += ["", f"## The codec's model, L = {window.seq_len}, stride 32", ""]
    lines += ["| forward | tokens a second |", "|---|---|", *(f"| {way} | {speed:,.0f} |" for way, speed in speeds)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.forward_once")
    with torch.inference_mode():
        publish(measure(options), options.out)


if __name__ == "__main__":
    main()
