"""What a kept memory is worth: `python -m benchmarks.kept_memory --novels FILE --source FOLDER --out FILE.md`.

Bytes of memory against bits per byte, on prose beside the embedded model, and on Python source without one; files after
a memory, beside zstd's dictionaries of the same text; what loading takes.
"""

import copy
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import tyro
import zstandard

from benchmarks.machine import describe_machine, publish_lines
from benchmarks.mixer import Neural
from ngram_eval.assets import asset
from ngram_eval.bpb import bits_per_byte, nats_of
from ngram_eval.codec import packing
from ngram_eval.codec.cutting import cut_with
from ngram_eval.codec.method import Method
from ngram_eval.config import preset
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.evaluation.job import load_job
from ngram_eval.evaluation.settings import Settings
from ngram_eval.kept import file as kept_file
from ngram_eval.kept.coding import CODINGS
from ngram_eval.scorers.exact.model import ExactModel, make_model
from ngram_eval.scorers.make import make_scorer
from ngram_eval.scorers.mixer.model import Mixer, make_mixer, spelling_of
from ngram_eval.scorers.primed import PrimedScorer
from ngram_eval.text.byte_tokens import bytes_tokenizer
from ngram_eval.text.documents import Segment
from ngram_eval.text.kept import KeptMemory, kept_of
from ngram_eval.text.prepare import train_tokenizer
from ngram_eval.text.shards import read_shards
from ngram_eval.text.stream import Tokens
from ngram_eval.text.tokenizer import Tokenizer
from ngram_eval.timing import untracked

PATH = Path("memory")
PRESETS = ("exact", "mixer")
_AT_ONCE = 1 << 22
_MOST_COPIED = 10_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure kept memories."""

    novels: Path | None = None
    """The text that the embedded model was trained on (assets/README.md), for the figures on prose and on loading."""
    source: Path | None = None
    """A folder of Python packages, for the figures on source and on small files."""
    held_out: tuple[str, ...] = ("rich",)
    """The packages in it whose files are scored, and in no memory."""
    most: int = 16_000_000
    """Bytes of Python source in the largest memory."""
    parts: int = 7
    """Memories of each figure: all of the text, half of it, a quarter ..."""
    shard: Path | None = None
    """A shard (.bin) of 50 million tokens, for the figures on counting."""
    files: int = 100
    """Small files."""
    dictionary: int = 400_000
    """Bytes of Python source in the memory of small files."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


def kept_size(memory: KeptMemory) -> int:
    """Bytes of a memory's file."""
    return len(kept_file.to_bytes(memory, "mixer"))


def shares(whole: Tokens, parts: int) -> list[Tokens]:
    """The end of a text, doubled from one to the next."""
    return [whole[-(len(whole) >> halvings) :] for halvings in reversed(range(parts))]


def prose(novels: Path, parts: int) -> Iterator[str]:
    """Rows: bytes of memory against bits per byte of the embedded sample."""
    job = load_job(Settings(), ALONE)
    tokenizer = Tokenizer.load(asset("tokenizer.model"))
    neural = Neural(job, 256)
    surfaces = tokenizer.surfaces()
    (whole,) = tokenizer.encode([novels.read_text(encoding="utf-8")])
    yield "| memory, bytes | tokens | model + `exact` | model + `mixer` | `exact` alone | `mixer` alone |"
    yield "|--:|--:|--:|--:|--:|--:|"
    for tokens in (whole[:0], *shares(whole, parts)):
        bytes_kept = kept_size(kept_of(tokens, tokenizer)) if len(tokens) else 0
        found = [
            neural.bpb(PrimedScorer(make_scorer("cpu", preset(name), vocabulary=job.vocabulary), tokens))
            for name in PRESETS
        ]
        found += [alone(name, tokens, neural.tokens[: neural.targets + 1], surfaces, neural.bytes) for name in PRESETS]
        yield f"| {bytes_kept:,} | {len(tokens):,} | " + " | ".join(f"{bpb:.4f}" for bpb in found) + " |"
    yield f"\nThe model alone: {neural.alone:.4f} bits per byte, {asset('model.ngev').stat().st_size:,} bytes."


class Alone:
    """A memory without a model, beside 1/V; a copy goes on by itself."""

    def __init__(self, name: str, surfaces: list[bytes | None]) -> None:
        config, vocab_size = preset(name), len(surfaces)
        self._row, self._entropy = np.full((1, vocab_size), 1 / vocab_size), np.float32(np.log(vocab_size))
        self._exact: ExactModel | None = None
        self._mixer: Mixer | None = None
        if config.scorer == "exact":
            self._exact = make_model("cpu", config.ngram.max_order, config.exact)
        else:
            self._mixer = make_mixer("cpu", config.mixer, spelling_of(surfaces), neural=False)

    def count(self, tokens: Tokens) -> int:
        """Count the next tokens, without their weights; returns the bytes of exact counts, 0 for the mixer's tables."""
        if self._mixer is not None:
            self._mixer.append(tokens)
            return 0
        assert self._exact is not None, "it is one or the other"
        self._exact.append(tokens)
        return self._exact.size()["bytes"]

    def nats(self, tokens: Tokens, skipped: int = 0) -> float:
        """What the next tokens are charged, but for the first `skipped`; it learns from all of them."""
        nats = 0.0
        for at in range(0, len(tokens), _AT_ONCE):
            part = tokens[at : at + _AT_ONCE]
            if self._mixer is not None:
                p, _ = self._mixer.score(part, self._row)
            else:
                assert self._exact is not None, "it is one or the other"
                p, _ = self._exact.score(part, self._row, np.full(len(part), self._entropy), together=False)
            nats += float(nats_of(p[max(skipped - at, 0) :]).sum())
        return nats


def alone(name: str, known: Tokens, tokens: Tokens, surfaces: list[bytes | None], size: int) -> float:
    """Bits per byte of a text after `known`, whose weights come along."""
    memory = Alone(name, surfaces)
    memory.nats(known)
    return bpb(memory.nats(tokens, 1), size)


def bpb(nats: float, size: int) -> float:
    """Bits per byte."""
    return float(bits_per_byte(nats, size) or np.nan)


def read_source(folder: Path, held_out: tuple[str, ...], most: int) -> tuple[bytes, list[bytes]]:
    """(source of packages but some, so many bytes at most; those' files of 1 to 50 kB), in random order."""
    known, size, files = [], 0, []
    paths = sorted(folder.rglob("*.py"))
    for at in np.random.default_rng(0).permutation(len(paths)).tolist():
        data = paths[at].read_bytes()
        if paths[at].relative_to(folder).parts[0] in held_out:
            files += [data] if 1000 <= len(data) <= 50_000 else []
        elif size < most and not {*held_out} & {*paths[at].parts}:
            known.append(data)
            size += len(data)
    return b"".join(known)[:most], files


def source(options: Options, folder: Path) -> Iterator[str]:
    """Rows: bytes of memory against bits per byte of packages that are not in it, without a model.

    A memory is the beginning of the text, and takes as many bytes as its tokens are charged for by the mixer.
    """
    known, files = read_source(folder, options.held_out, options.most)
    model = train_tokenizer([Segment(True, known[:2_000_000].decode(errors="ignore"))], 1024, 2_000_000, 0.9995)
    surfaces = Tokenizer(model).surfaces()
    whole, scored = (cut_with(model, "it", data, lambda: lambda done: None).tokens for data in (known, b"".join(files)))
    scored = scored[:200_000]
    lengths = np.array([len(surface or b"") for surface in surfaces])
    size = int(lengths[scored[1:]].sum())
    cuts = [0, 0, *(len(whole) >> halvings for halvings in reversed(range(options.parts)))]
    held_out = named(options.held_out)
    yield f"{size:,} bytes of {held_out}, tokens of a tokenizer trained on the memory, 1/V for a model:\n"
    yield "| memory, bytes | its text | tokens | `exact` | `mixer` |"
    yield "|--:|--:|--:|--:|--:|"
    grown = [Alone(name, surfaces) for name in PRESETS]
    charged = 0.0
    for start, stop in pairwise(cuts):
        found = []
        for memory in grown:
            nats = memory.nats(whole[start:stop])
            after = copy.deepcopy(memory) if stop < len(whole) else memory
            found.append(bpb(after.nats(scored, 1), size))
        charged += nats / np.log(2) / 8  # by the mixer
        cells = " | ".join(f"{one:.4f}" for one in found)
        yield f"| {charged:,.0f} | {int(lengths[whole[:stop]].sum()):,} | {stop:,} | {cells} |"


def named(packages: tuple[str, ...]) -> str:
    """Names of packages in a sentence."""
    return ", ".join(f"`{one}`" for one in packages)


def method(name: str) -> Method:
    """The codec's method of a preset."""
    base = preset(name)
    return Method(preset=name, max_order=base.ngram.max_order, exact=base.exact, mixer=base.mixer, window=None)


def packed(data: bytes, name: str, memory: KeptMemory | None, back: bool) -> int:
    """Bytes of a compressed file, which comes back from it."""
    how = {"artifact": None, "backend": "cpu", "track": untracked, "memory": memory}
    found = packing.compress(data, method(name), tokenizer="bytes", pieces=1024, **how)  # type: ignore[arg-type]
    if back:
        assert packing.decompress(found.container, PATH, **how) == data  # type: ignore[arg-type]
    return len(found.container.to_bytes())


def small_files(options: Options, folder: Path) -> Iterator[str]:
    """Rows: bytes of small files with and without the memory of other files."""
    known, files = read_source(folder, options.held_out, options.dictionary)
    files = files[: options.files]
    memory = kept_of(np.frombuffer(known, np.uint8).astype(np.uint16), bytes_tokenizer())
    raw = zstandard.ZstdCompressionDict(known, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    samples: list[bytes | bytearray | memoryview[int]] = [known[at : at + 8000] for at in range(0, len(known), 8000)]
    trained = zstandard.train_dictionary(112_640, samples)
    total = sum(map(len, files))
    held_out = named(options.held_out)
    yield f"{len(files)} files of {held_out}, {total:,} bytes; {len(known):,} bytes of other packages are known:\n"
    yield "| | without | after the known text | |"
    yield "|---|--:|--:|--:|"
    for name in PRESETS:
        without, after = (
            sum(packed(data, name, one, back=i < 3) for i, data in enumerate(files)) for one in (None, memory)
        )
        yield f"| codec, `{name}`, bytes | {without:,} | {after:,} | {after / without - 1:+.1%} |"
    for title, dictionary in {"its text": raw, "112,640 bytes trained on it": trained}.items():
        plain = zstandard.ZstdCompressor(level=19)
        level = zstandard.ZstdCompressor(level=19, dict_data=dictionary)
        without, after = (sum(len(one.compress(data)) for data in files) for one in (plain, level))
        yield f"| `zstd -19`, dictionary: {title} | {without:,} | {after:,} | {after / without - 1:+.1%} |"


def loading(novels: Path, shard: Path | None) -> Iterator[str]:
    """Rows: what a memory takes to load."""
    tokenizer = Tokenizer.load(asset("tokenizer.model"))
    (tokens,) = tokenizer.encode([novels.read_text(encoding="utf-8")])
    yield "| coding | bytes | bits a token | M tokens/s decoded |"
    yield "|---|--:|--:|--:|"
    for coding in reversed(CODINGS):
        content = kept_file.to_bytes(kept_of(tokens, tokenizer), coding)
        start = time.process_time()
        again = kept_file.load(kept_file.parse(content, PATH), PATH)
        seconds = time.process_time() - start
        assert again.tokens.tobytes() == tokens.tobytes()
        rate = len(tokens) / seconds / 1e6
        yield f"| `{coding}` | {len(content):,} | {8 * len(content) / len(tokens):.2f} | {rate:.3g} |"
    yield ""
    yield "| then counted | tokens | M tokens/s | fastest | bytes of memory a token | seconds to copy |"
    yield "|---|--:|--:|--:|--:|--:|"
    texts = [tokens]
    if shard is not None:
        long = read_shards([str(shard)], 50_000_000).tokens[:]
        texts += [long[:1_250_000], long[:10_000_000], long]
    for name, text in [*(("exact", text) for text in texts), *((name, tokens) for name in ("mixer", "mixer-fast"))]:
        rounds = 5 if len(text) < 2_000_000 else 1
        counted, copied = [], []
        for _ in range(rounds):
            memory = Alone(name, tokenizer.surfaces())
            start = time.process_time()
            size = memory.count(text)
            counted.append(time.process_time() - start)
            if len(text) <= _MOST_COPIED:
                start = time.process_time()
                copy.deepcopy(memory)
                copied.append(time.process_time() - start)
        rates = (len(text) / seconds / 1e6 for seconds in (median(counted), min(counted)))
        cells = " | ".join(f"{rate:.2f}" for rate in rates)
        copies = f"{median(copied):.2f}" if copied else "-"
        held = f"{size / len(text):.0f}" if size else "of a fixed size"
        yield f"| `{name}` | {len(text):,} | {cells} | {held} | {copies} |"


def measure(options: Options) -> Iterator[str]:
    """The lines of the result."""
    yield "# What a kept memory is worth\n"
    yield f"`{shlex.join(['python', '-m', 'benchmarks.kept_memory', *sys.argv[1:]])}`\n"
    yield describe_machine()
    if options.novels is not None:
        yield "\n## Prose: bytes of memory against bits per byte\n"
        yield from prose(options.novels, options.parts)
    if options.source is not None:
        yield "\n## Python source: bytes of memory against bits per byte\n"
        yield from source(options, options.source)
        yield "\n## Small files\n"
        yield from small_files(options, options.source)
    if options.novels is not None:
        yield "\n## Loading\n"
        yield from loading(options.novels, options.shard)


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.kept_memory")
    publish_lines(measure(options), options.out)


if __name__ == "__main__":
    main()
