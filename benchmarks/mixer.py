"""What the mixer is made of, and what each part is worth: `python -m benchmarks.mixer --text FILE --out FILE.md`.

Alone on a text (a tokenizer is trained on it), with more and more contexts, weights and memory; beside the embedded
model, at several windows; on streams that hold nothing to learn; over many tokens in one run, for drift and memory.
"""

import resource
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.machine import describe_machine, publish
from ngram_eval.bpb import bits_per_byte, nats_of
from ngram_eval.codec.cutting import cut_trained
from ngram_eval.config import EvalConfig, MixerConfig, NgramConfig, WindowConfig, preset
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.evaluation.job import Job, load_job
from ngram_eval.evaluation.settings import EMBEDDED_SEQ_LEN, DataSettings, Settings
from ngram_eval.models.source import statistics
from ngram_eval.scorers.base import Scorer
from ngram_eval.scorers.exact.model import make_model
from ngram_eval.scorers.hashed.counts import make_counts
from ngram_eval.scorers.hashed.gate import GatedBackoff
from ngram_eval.scorers.hashed.scorer import HashedScorer
from ngram_eval.scorers.make import make_scorer
from ngram_eval.scorers.mixer.model import Spelling, make_mixer, spelling_of, unspelt
from ngram_eval.text.stream import Tokens
from ngram_eval.text.windows import batches, plan_windows, target_count

_AT_ONCE = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure the mixer."""

    text: Path
    """A text of some megabytes; it is only read."""
    tokens: int = 1_000_000
    """Of the text, for each line of the ablations."""
    windows: tuple[int, ...] = (128, 256, 512, 2048)
    """Windows of the embedded model."""
    max_tokens: int | None = None
    """Of the embedded sample; default: all."""
    long: int = 50_000_000
    """Tokens of the long run; 0: none."""
    adversarial: int = 1_000_000
    """Tokens of each stream that holds nothing, or little, to learn."""
    plot: Path | None = None
    """Draw the sweep of memory here (SVG); needs matplotlib."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


@dataclass(frozen=True)
class Text:
    """A text in tokens."""

    tokens: Tokens
    spelling: Spelling
    bytes: int


def load_text(path: Path, tokens: int) -> Text:
    """The first tokens of a text, by a tokenizer trained on all of it."""
    cut = cut_trained(path.read_bytes(), 1024, lambda: lambda done: None)
    assert cut is not None, f"{path} is too short to train a tokenizer on"
    spelling = spelling_of(cut.alphabet.surfaces)
    part = np.ascontiguousarray(cut.tokens[:tokens]).astype(np.uint16)
    lengths = np.array([len(surface) for surface in spelling.surfaces])
    return Text(part, spelling, int(lengths[part].sum()))


def alone(text: Text, config: MixerConfig) -> tuple[float, float]:
    """(bits per byte, tokens a second) without a model."""
    mixer = make_mixer("cpu", config, text.spelling, neural=False)
    vocab_size = len(text.spelling.surfaces)
    row, nats = np.full((1, vocab_size), 1 / vocab_size), 0.0
    start = time.process_time()
    for at in range(0, len(text.tokens), _AT_ONCE):
        p, _ = mixer.score(text.tokens[at : at + _AT_ONCE], row)
        nats += float(nats_of(p).sum())
    return float(bits_per_byte(nats, text.bytes) or np.nan), len(text.tokens) / (time.process_time() - start)


def ablations(text: Text) -> Iterator[str]:
    """Rows of tables."""
    exact, maximum = make_model("cpu", 24, preset("exact").exact), preset("mixer-max").mixer
    vocab_size = len(text.spelling.surfaces)
    base, entropy = np.full(len(text.tokens), 1 / vocab_size), np.full(len(text.tokens), np.log(vocab_size), np.float32)
    start = time.process_time()
    p, _ = exact.score(text.tokens, base, entropy, together=False)
    rate = len(text.tokens) / (time.process_time() - start)
    yield from ("| | bits per byte | tokens/s |", "|---|---|---|")
    yield f"| `exact`, 24 orders | {bits_per_byte(float(nats_of(p).sum()), text.bytes):.4f} | {rate:,.0f} |"
    for title, config in {
        "`mixer-max`": maximum,
        "`mixer`": preset("mixer").mixer,
        "`mixer-fast`": preset("mixer-fast").mixer,
        **{f"`mixer-max`, contexts: {n}": replace(maximum, contexts=n, runs=n) for n in range(0, maximum.contexts)},
        **{f"`mixer-max`, sets of weights: {n}": replace(maximum, weight_sets=n) for n in range(1, 8)},
        **{f"`mixer-max`, repetitions: {n}": replace(maximum, matches=n) for n in range(0, 3)},
        "`mixer-max` without exact counts": replace(maximum, exact_order=0),
        "`mixer-max` without runs": replace(maximum, runs=0),
        "`mixer-max` without the network": replace(maximum, cells=0),
        "`mixer-max`, n-gram inputs start at 0": replace(maximum, start_weight=0.0),
    }.items():
        bpb, rate = alone(text, config)
        yield f"| {title} | {bpb:.4f} | {rate:,.0f} |"


class Neural:
    """The embedded model's distributions over its sample, computed once a window."""

    def __init__(self, job: Job, seq_len: int) -> None:
        self.job, self.tokens = job, job.stream.tokens[:]
        window = WindowConfig(seq_len=seq_len)
        self.targets = target_count(len(self.tokens), max(seq_len, job.source.train_seq_len))
        self.parts = []
        for batch in batches(plan_windows(self.targets, window), 32):
            for row in range(0, len(batch), 64):
                part = batch[row : row + 64]
                self.parts.append((part, statistics(job.source, self.tokens, part, rows=True)))
        assert job.tokenizer is not None
        self.bytes = int(job.tokenizer.target_bytes(self.tokens, 0, self.targets, "decoded").sum())
        self.alone = self._bpb(np.concatenate([stats.p_target for _, stats in self.parts]))

    def _bpb(self, p: NDArray[np.float64]) -> float:
        return float(bits_per_byte(float(nats_of(p).sum()), self.bytes) or np.nan)

    def bpb(self, scorer: Scorer) -> float:
        """Bits per byte of the values that a scorer charges."""
        return self._bpb(np.concatenate([scorer.score(self.tokens, part, stats).values for part, stats in self.parts]))

    def of(self, config: EvalConfig) -> float:
        """Bits per byte of a configuration's scorer."""
        return self.bpb(make_scorer("cpu", config, vocabulary=self.job.vocabulary))


def beside_a_model(models: dict[int, Neural]) -> Iterator[str]:
    """Rows of a table, by the window of the model."""
    yield from (
        "| window | model alone | `exact` | `mixer-max` | `mixer` | `mixer-fast` |",
        "|---|---|---|---|---|---|",
    )
    for seq_len, neural in models.items():
        found = [neural.of(preset(name)) for name in ("exact", "mixer-max", "mixer", "mixer-fast")]
        assert all(bpb <= neural.alone + 0.002 for bpb in found), "never worse than the model alone"
        yield f"| {seq_len} | {neural.alone:.4f} | " + " | ".join(f"{bpb:.4f}" for bpb in found) + " |"


def memory(text: Text, neural: Neural) -> tuple[list[int], list[tuple[float, float, float]]]:
    """(logarithms of sizes, (alone on the text, beside the model, the published way beside it) of each)."""
    sizes, found = list(range(8, 25, 2)), []
    for log2 in sizes:
        config = MixerConfig(groups=1 << log2)
        counts = make_counts("cpu", NgramConfig(target_backoff=True, buckets=1 << min(log2, 22)), 1)
        hashed = HashedScorer(counts, GatedBackoff(preset("hashed").gate))
        mixed = replace(preset("mixer"), mixer=config)
        found.append((alone(text, config)[0], neural.of(mixed), neural.bpb(hashed)))
    return sizes, found


def draw(path: Path, sizes: list[int], found: list[tuple[float, float, float]], model: float) -> None:
    """The two ways to use less memory, side by side."""
    import matplotlib  # an optional extra

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "mixer"  # the same file from the same figures
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(sizes, [one[2] for one in found], "o-", color="tab:red", label="hashed counts (not a probability)")
    axes.plot(sizes, [one[1] for one in found], "o-", color="tab:blue", label="mixer (bits per byte)")
    axes.axhline(model, color="gray", linestyle="--", label="the model alone")
    axes.set_xlabel("log2 of buckets a table, or of groups")
    axes.set_ylabel("bits per byte, or score")
    axes.legend()
    figure.savefig(path)


def adversarial(tokens: int, vocab_size: int = 1024) -> Iterator[str]:
    """Rows of a table: bits a token of streams over `vocab_size` tokens, without a model."""
    rng = np.random.default_rng(0)
    streams = {
        "one token": np.full(tokens, 5),
        "two in turn": np.arange(tokens) % 2 * 700,
        "random": rng.integers(vocab_size, size=tokens),
        "random, then all of it again": np.tile(rng.integers(vocab_size, size=tokens // 2), 2),
        "random words of four": rng.integers(vocab_size, size=(100, 4))[rng.integers(100, size=tokens // 4)].ravel(),
    }
    yield from ("| stream | bits a token | log2 V |", "|---|---|---|")
    for name, stream in streams.items():
        mixer = make_mixer("cpu", preset("mixer").mixer, unspelt(vocab_size), neural=False)
        p, _ = mixer.score(stream.astype(np.uint16), np.full((1, vocab_size), 1 / vocab_size))
        bits = float(-np.log2(p).mean())
        assert bits <= np.log2(vocab_size) * 1.001, name
        yield f"| {name} | {bits:.4f} | {np.log2(vocab_size):.0f} |"


def long_run(text: Text, tokens: int) -> Iterator[str]:
    """Rows of a table: stretches of the text in random order, one long stream."""
    rng, config = np.random.default_rng(0), preset("mixer").mixer
    mixer = make_mixer("cpu", config, text.spelling, neural=False)
    vocab_size, stretch, parts = len(text.spelling.surfaces), min(5_000, len(text.tokens) // 2), 10
    row = np.full((1, vocab_size), 1 / vocab_size)
    yield from ("| tokens | bits a token | least p | own memory, MiB | seconds of CPU |", "|---|---|---|---|---|")
    start = time.process_time()
    for part in range(parts):
        nats, least = 0.0, 1.0
        for _ in range(tokens // parts // stretch):
            at = rng.integers(len(text.tokens) - stretch)
            p, _ = mixer.score(text.tokens[at : at + stretch], row)
            assert np.isfinite(p).all()
            nats, least = nats + float(nats_of(p).sum()), min(least, float(p.min()))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        bits = nats / (tokens // parts) / np.log(2)
        done = (part + 1) * tokens // parts
        yield f"| {done:,} | {bits:.4f} | {least:.1e} | {peak:,.0f} | {time.process_time() - start:,.0f} |"
    largest = max(float(np.abs(array).max()) for name, array in mixer.learned().items() if name != "switch")
    yield ""
    yield f"Largest weight at the end: {largest:.2f}."


def measure(options: Options) -> str:
    """The Markdown report."""
    text = load_text(options.text, options.tokens)
    job = load_job(Settings(data=DataSettings(max_tokens=options.max_tokens)), ALONE)
    models = {seq_len: Neural(job, seq_len) for seq_len in sorted({EMBEDDED_SEQ_LEN, *options.windows})}
    words = [Path(word).name if Path(word).exists() else word for word in sys.argv[1:]]
    lines = ["# The mixer", "", f"Command: `{shlex.join(['python', '-m', 'benchmarks.mixer', *words])}`", ""]
    lines += [describe_machine(), ""]
    lines += [f"Alone on {options.text.name}: {len(text.tokens):,} tokens, {text.bytes:,} bytes, one thread.", ""]
    lines += ablations(text)
    lines += [
        "",
        "## Beside the embedded model, on its sample (bits per byte)",
        "",
        *beside_a_model(models),
    ]
    sizes, found = memory(text, models[EMBEDDED_SEQ_LEN])
    lines += ["", "## Less memory", ""]
    lines += ["Hashed counts gain from collisions, as their values sum to more; the mixer loses, as it should.", ""]
    lines += [
        "| log2 of groups, or of buckets a table | mixer alone on the text | mixer beside the model | hashed counts |"
    ]
    lines += ["|---|---|---|---|"]
    lines += [
        f"| {size} | {one[0]:.4f} | {one[1]:.4f} | {one[2]:.4f} |" for size, one in zip(sizes, found, strict=True)
    ]
    if options.plot is not None:
        draw(options.plot, sizes, found, models[EMBEDDED_SEQ_LEN].alone)
    lines += ["", "## Streams with little to learn", "", *adversarial(options.adversarial)]
    if options.long:
        lines += ["", "## One long run", "", "Stretches of the same text in random order, 5,000 tokens each.", ""]
        lines += long_run(text, options.long)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    arguments = tyro.cli(Options, prog="python -m benchmarks.mixer")
    publish(measure(arguments), arguments.out)
