"""Sizes and speed of compressed files: `python -m benchmarks.codec FILE...`.

Every file goes through the codec (`--uniform`, the n-gram memory alone) with each tokenizer, and through those of
7-Zip's PPMd, zpaq, bzip3 and xz that are installed. A size counts only if the file comes back from it, byte for byte.
One thread.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from benchmarks.machine import describe_machine, publish
from ngram_eval import _core
from ngram_eval.codec import container, packing
from ngram_eval.codec.method import Method
from ngram_eval.config import preset
from ngram_eval.timing import untracked


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Compare sizes."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """What to compress."""
    tokenizers: tuple[str, ...] = ("packaged", "train", "bytes")
    """The codec's tokenizers."""
    presets: tuple[str, ...] = ("exact",)
    """The codec's methods."""
    pieces: int | None = None
    """Most pieces of a tokenizer that is trained; default: by the text's length."""
    known: tuple[str, ...] = ()
    """Other programs' figures, measured elsewhere: FILE,NAME,BYTES,SECONDS; back they take as long."""
    plot: Path | None = None
    """Draw size against time here (SVG); needs matplotlib."""
    out: Path | None = None
    """Write the result here as Markdown; default: print it."""


class Size(NamedTuple):
    """One way to compress one file."""

    way: str
    bytes: int
    seconds: tuple[float, float]
    """There and back."""
    tokens: int | None = None
    gap: float | None = None
    """How much larger the file is than what the scorer charges."""


class Tool(NamedTuple):
    """Another compressor: commands with the places of the input and of the output left open."""

    program: str
    way: str
    pack: tuple[str, ...]
    unpack: tuple[str, ...]


# Each runs in a folder of its own that holds the file `in`; `unpack` prints it or makes it anew.
TOOLS = (
    Tool(
        "7zz",
        "7-Zip PPMd, order 32, 2 GB",
        ("7zz", "a", "-bd", "-mmt1", "-m0=PPMd:o=32:mem=2g", "packed.7z", "in"),
        ("7zz", "e", "-bd", "-so", "packed.7z"),
    ),
    Tool("zpaq", "zpaq -m5", ("zpaq", "a", "packed.zpaq", "in", "-m5", "-t1"), ("zpaq", "x", "packed.zpaq", "-t1")),
    Tool("bzip3", "bzip3 -b 511", ("bzip3", "-e", "-b", "511", "-k", "in"), ("bzip3", "-d", "-c", "in.bz3")),
    Tool("xz", "xz -9e", ("xz", "-9e", "-T1", "-k", "in"), ("xz", "-dc", "in.xz")),
)


def ours(data: bytes, name: str, tokenizer: str, options: Options) -> Size:
    """The codec, in this process; raises `AssertionError` if the file does not come back."""
    base = preset(name)
    method = Method(preset=name, max_order=base.ngram.max_order, exact=base.exact, mixer=base.mixer, window=None)
    start = time.perf_counter()
    packed = packing.compress(
        data, method, tokenizer=tokenizer, pieces=options.pieces, artifact=None, backend="cpu", track=untracked
    )
    written = packed.container.to_bytes()
    middle = time.perf_counter()
    found = container.parse(written, Path("it"))
    back = packing.decompress(found, Path("it"), artifact=None, backend="cpu", track=untracked)
    stop = time.perf_counter()
    assert back == data, f"--tokenizer {tokenizer}: the file does not come back"
    charged = packed.nats / np.log(2) / 8
    gap = len(written) / charged - 1 if charged else None
    way, tokens = f"codec, `{name}`, `{tokenizer}`", packed.container.header.tokens
    return Size(way, len(written), (middle - start, stop - middle), tokens, gap)


def theirs(data: bytes, tool: Tool) -> Size | None:
    """Another compressor; None where it is not installed."""
    if shutil.which(tool.program) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        source.write_bytes(data)
        start = time.perf_counter()
        subprocess.run(tool.pack, cwd=folder, check=True, capture_output=True)
        middle = time.perf_counter()
        (packed,) = (path for path in Path(folder).iterdir() if path != source)
        source.unlink()
        printed = subprocess.run(tool.unpack, cwd=folder, check=True, capture_output=True).stdout
        stop = time.perf_counter()
        assert (source.read_bytes() if source.exists() else printed) == data, f"{tool.way}: it does not come back"
        return Size(tool.way, packed.stat().st_size, (middle - start, stop - middle))


def known(name: str, figures: tuple[str, ...]) -> list[Size]:
    """What is known of a file from elsewhere."""
    given = [figure.split(",") for figure in figures]
    return [
        Size(f"{way} (measured elsewhere)", int(size), (float(seconds), float(seconds)))
        for file, way, size, seconds in given
        if file == name
    ]


def draw(path: Path, sizes: dict[Path, list[Size]]) -> None:
    """Bits per byte against the seconds that writing takes, a panel a file."""
    import matplotlib  # an optional extra

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "codec"  # the same file from the same figures
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(sizes), figsize=(5 * len(sizes), 4.5), layout="constrained", squeeze=False)
    for axes, (file, found) in zip(panels[0], sizes.items(), strict=True):
        content = file.stat().st_size
        for size in found:
            at = size.seconds[0], 8 * size.bytes / content
            axes.plot(*at, "o", color="tab:blue" if size.tokens is not None else "tab:gray")
            name = size.way.removeprefix("codec, ").removesuffix(", `train`").replace("`", "")
            left = size.tokens is None and at[0] > 3  # where ours have their names to the right
            side = {"xytext": (-6, -11), "ha": "right"} if left else {"xytext": (6, 2)}
            axes.annotate(name, at, textcoords="offset points", fontsize=8, **side)
        axes.set_xscale("log")
        axes.margins(x=0.22, y=0.1)
        axes.set_title(f"{file.name}, {content:,} bytes")
        axes.set_xlabel("seconds to write it, one thread")
        axes.set_ylabel("bits per byte")
    figure.savefig(path, metadata={"Date": None})


def coder_cost(vocab_size: int, tokens: int = 2000, rounds: int = 5) -> float:
    """Microseconds that the range coder itself takes to write a token."""
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.full(vocab_size, 0.05), tokens)
    chosen = (rng.random((tokens, 1)) < rows.cumsum(axis=1)).argmax(axis=1).astype(np.uint16)
    times: list[float] = []
    for _ in range(rounds):
        encoder = _core.RangeEncoder()
        start = time.perf_counter()
        encoder.symbols(chosen, rows)
        times.append((time.perf_counter() - start) / tokens * 1e6)
    return statistics.median(times)


def measure(options: Options) -> str:
    """The result as Markdown."""
    names = {str(path): path.name for path in options.files}
    lines = [
        "# Sizes of compressed files",
        "",
        f"`{' '.join(['python -m benchmarks.codec', *(names.get(word, word) for word in sys.argv[1:])])}`",
        "",
        describe_machine(),
        "",
        "Every file came back byte for byte from every size below. The codec's size is that of the whole file: header,",
        "settings, trained tokenizer, payload, checksum.",
    ]
    sizes: dict[Path, list[Size]] = {}
    for path in options.files:
        data = path.read_bytes()
        found = [ours(data, name, tokenizer, options) for name in options.presets for tokenizer in options.tokenizers]
        found += filter(None, (theirs(data, tool) for tool in TOOLS))
        found += known(path.name, options.known)
        sizes[path] = found
        lines += ["", f"## {path.name}, {len(data):,} bytes", ""]
        lines += ["| | bytes | bits per byte | over the scorer's | tokens | tokens/s there | tokens/s back | seconds |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        lines += [_row(size, len(data)) for size in found]
    if options.plot is not None:
        draw(options.plot, sizes)
    lines += ["", "## The range coder's share", "", "| vocabulary | µs a token, writing |", "|---|---|"]
    for vocab_size in (256, 1024, 8192):
        lines.append(f"| {vocab_size:,} | {coder_cost(vocab_size):.1f} |")
    return "\n".join(lines) + "\n"


def _row(size: Size, original: int) -> str:
    there, back = size.seconds
    rates = ("", "", "") if size.tokens is None else tuple(f"{n:,.0f}" for n in _rates(size.tokens, there, back))
    gap = "" if size.gap is None else f"{size.gap:+.3%}"
    cells = [size.way, f"{size.bytes:,}", f"{8 * size.bytes / max(original, 1):.4f}", gap, *rates]
    return f"| {' | '.join(cells)} | {there:.1f} + {back:.1f} |"


def _rates(tokens: int, there: float, back: float) -> tuple[float, float, float]:
    return tokens, tokens / there, tokens / back


def main() -> None:
    """The command line."""
    options = tyro.cli(Options, prog="python -m benchmarks.codec")
    publish(measure(options), options.out)


if __name__ == "__main__":
    main()
