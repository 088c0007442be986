"""What a kept memory is worth: `python -m benchmarks.kept_memory --novels FILE --source FOLDER --out FILE.md`.

Bytes of memory against bits per byte, on prose beside the embedded model, and on Python source without one; files after
a memory, beside zstd's dictionaries of the same text; what loading takes.
"""

import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
import zstandard

from benchmarks.machine import describe_machine, publish
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
from ngram_eval.scorers.exact.model import make_model
from ngram_eval.scorers.make import make_scorer
from ngram_eval.scorers.mixer.model import make_mixer, spelling_of
from ngram_eval.scorers.primed import PrimedScorer
from ngram_eval.text.byte_tokens import bytes_tokenizer
from ngram_eval.text.documents import Segment
from ngram_eval.text.kept import KeptMemory, kept_of
from ngram_eval.text.prepare import train_tokenizer
from ngram_eval.text.stream import Tokens
from ngram_eval.text.tokenizer import Tokenizer
from ngram_eval.timing import untracked

PATH = Path("memory")
PRESETS = ("exact", "mixer")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Measure kept memories."""

    novels: Path | None = None
    """The text that the embedded model was trained on (assets/README.md), for the figures on prose and on loading."""
    source: Path | None = None
    """A folder of Python packages, for the figures on source and on small files."""
    held_out: str = "rich"
    """The package in it whose files are scored, and in no memory."""
    most: int = 16_000_000
    """Bytes of Python source in the largest memory."""
    parts: int = 7
    """Memories of each figure: all of the text, half of it, a quarter ..."""
    files: int = 100
    """Small files."""
    dictionary: int = 400_000
    """Bytes of Python source in the memory of small files."""
    million: int = 0
    """Millions of made-up tokens of the large memory; 0: none."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


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
        size = len(kept_file.to_bytes(kept_of(tokens, tokenizer), "mixer")) if len(tokens) else 0
        found = [
            neural.bpb(PrimedScorer(make_scorer("cpu", preset(name), vocabulary=job.vocabulary), tokens))
            for name in PRESETS
        ]
        found += [alone(name, tokens, neural.tokens, surfaces, neural.bytes) for name in PRESETS]
        yield f"| {size:,} | {len(tokens):,} | " + " | ".join(f"{bpb:.4f}" for bpb in found) + " |"
    yield f"\nThe model alone: {neural.alone:.4f} bits per byte, {asset('model.ngev').stat().st_size:,} bytes."


def alone(
    name: str, known: Tokens, tokens: Tokens, surfaces: list[bytes | None], size: int, learn: bool = True
) -> float:
    """Bits per byte of a text after `known`, over 1/V; what is learned on that text comes along with `learn`."""
    vocab_size = len(surfaces)
    row, entropy = np.full((1, vocab_size), 1 / vocab_size), np.float32(np.log(vocab_size))
    if name == "mixer":
        mixer = make_mixer("cpu", preset(name).mixer, spelling_of(surfaces), neural=False)
        mixer.score(known, row) if learn else mixer.append(known)
        p, _ = mixer.score(tokens, row)
    else:
        model = make_model("cpu", preset(name).ngram.max_order, preset(name).exact)
        if learn:
            model.score(known, row, np.full(len(known), entropy), together=False)
        else:
            model.append(known)
        p, _ = model.score(tokens, row, np.full(len(tokens), entropy), together=False)
    return float(bits_per_byte(float(nats_of(p[1:]).sum()), size) or np.nan)


def read_source(folder: Path, held_out: str, most: int) -> tuple[bytes, list[bytes]]:
    """(source of packages but one, at most so many bytes; the files of that one that have 1 to 50 kB)."""
    known, size, files = [], 0, []
    for path in sorted(folder.rglob("*.py")):
        data = path.read_bytes()
        if path.relative_to(folder).parts[0] == held_out:
            files += [data] if 1000 <= len(data) <= 50_000 else []
        elif size < most and held_out not in path.parts:
            known.append(data)
            size += len(data)
    return b"".join(known)[:most], files


def source(options: Options, folder: Path) -> Iterator[str]:
    """Rows: bytes of memory against bits per byte of a package that is not in it, without a model."""
    known, files = read_source(folder, options.held_out, options.most)
    text = known.decode(errors="ignore")
    model = train_tokenizer([Segment(True, text[:2_000_000])], 1024, 2_000_000, 0.9995)
    tokenizer = Tokenizer(model)
    whole, scored = (cut_with(model, "it", data, lambda: lambda done: None).tokens for data in (known, b"".join(files)))
    scored = scored[:200_000]
    surfaces = tokenizer.surfaces()
    size = sum(len(surfaces[token] or b"") for token in scored[1:].tolist())
    yield f"{size:,} bytes of `{options.held_out}`, tokens of a tokenizer trained on the memory, 1/V for a model:\n"
    yield "| memory, bytes | its text | tokens | `exact` | `mixer` | `mixer`, only counted |"
    yield "|--:|--:|--:|--:|--:|--:|"
    for tokens in (whole[:0], *shares(whole, options.parts)):
        kept = kept_of(tokens, tokenizer) if len(tokens) else None
        bytes_kept = 0 if kept is None else len(kept_file.to_bytes(kept, "mixer"))
        found = [alone(name, tokens, scored, surfaces, size) for name in PRESETS]
        found.append(alone("mixer", tokens, scored, surfaces, size, learn=False))
        text_bytes = 0 if kept is None else kept.text_bytes
        cells = " | ".join(f"{bpb:.4f}" for bpb in found)
        yield f"| {bytes_kept:,} | {text_bytes:,} | {len(tokens):,} | {cells} |"


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
    yield f"{len(files)} files of `{options.held_out}`, {total:,} bytes; {len(known):,} of other packages are known:\n"
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


def loading(novels: Path, million: int) -> Iterator[str]:
    """Rows: what a memory takes to load."""
    tokenizer = Tokenizer.load(asset("tokenizer.model"))
    (tokens,) = tokenizer.encode([novels.read_text(encoding="utf-8")])
    yield "| coding | bytes | bits a token | M tokens/s decoded |"
    yield "|---|--:|--:|--:|"
    for coding in reversed(CODINGS):
        content = kept_file.to_bytes(kept_of(tokens, tokenizer), coding)
        start = time.thread_time()
        again = kept_file.load(kept_file.parse(content, PATH), PATH)
        seconds = time.thread_time() - start
        assert again.tokens.tobytes() == tokens.tobytes()
        rate = len(tokens) / seconds / 1e6
        yield f"| `{coding}` | {len(content):,} | {8 * len(content) / len(tokens):.2f} | {rate:.3g} |"
    yield ""
    large = (
        np.concatenate([tokens] * (-(-million * 1_000_000 // len(tokens))))[: million * 1_000_000] if million else None
    )
    yield "| then counted | tokens | M tokens/s | bytes of memory a token |"
    yield "|---|--:|--:|--:|"
    for one in (tokens, *([] if large is None else [_unlike(large)])):
        model = make_model("cpu", 24, preset("exact").exact)
        start = time.thread_time()
        model.append(one)
        seconds = time.thread_time() - start
        yield f"| `exact` | {len(one):,} | {len(one) / seconds / 1e6:.2f} | {model.size()['bytes'] / len(one):.0f} |"
    mixer = make_mixer("cpu", preset("mixer").mixer, spelling_of(tokenizer.surfaces()), neural=True)
    start = time.thread_time()
    mixer.append(tokens)
    yield f"| `mixer` | {len(tokens):,} | {len(tokens) / (time.thread_time() - start) / 1e6:.2f} | of a fixed size |"


def _unlike(tokens: Tokens) -> Tokens:
    """The text again and again, a tenth of its tokens others, so that it goes on to grow."""
    rng = np.random.default_rng(0)
    changed = tokens.copy()
    at = rng.random(len(tokens)) < 0.1
    changed[at] = rng.integers(0, 1024, int(at.sum()))
    return changed


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
        yield from loading(options.novels, options.million)


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.kept_memory")
    lines = []
    for line in measure(options):
        print(line, file=sys.stderr, flush=True)
        lines.append(line)
    publish("\n".join(lines) + "\n", options.out)


if __name__ == "__main__":
    main()
