"""`ngram-eval codec compress|decompress|verify`: makes a file of the size that a score claims."""

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro
from rich import box
from rich.table import Table

from ngram_eval.cli.console import show_help, table_console, tracked
from ngram_eval.cli.flags import read_flags
from ngram_eval.codec import container, packing
from ngram_eval.codec.blocks import MOST_BLOCKS
from ngram_eval.codec.method import Forward, Method, code_presets
from ngram_eval.codec.packing import PACKAGED, Backend, Packed, artifact_path
from ngram_eval.config import ExactConfig, MixerConfig, WindowConfig, preset
from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.extensions import require_extension
from ngram_eval.files import STDOUT, read_input, replacing, require_writable, write_text
from ngram_eval.kept import file as kept_file
from ngram_eval.text.kept import KeptMemory, joined
from ngram_eval.timing import Track


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """Output of every command."""

    json: Path | None = None
    """Write the figures here; - for standard output, and the table then goes to stderr."""
    quiet: bool = False
    """Show no progress and no table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compress(Shown):
    """Compress a file with the probabilities that a preset gives its tokens."""

    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """Any file."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The compressed file; an existing file is replaced."""
    preset: str = "exact"
    """Method: a preset whose probabilities sum to 1."""
    uniform: bool = False
    """Base distribution: 1/V for every token, so the n-gram memory works alone."""
    artifact: str | None = None
    """Base distribution: a model file (.ngev), or `packaged`. Decompressing needs it again; its size is not counted."""
    tokenizer: str = PACKAGED
    """`packaged`, a SentencePiece model file, `train` (one trained on the input), or `bytes`. The compressed file holds
    the bytes of the tokens of a model file or a trained tokenizer."""
    pieces: int | None = None
    """Most pieces of a trained tokenizer. Default: 512, or 1024 for an input of 4 MB or more."""
    unwrap: bool = True
    """Leave out line breaks that a width of lines implies, where that restores every byte."""
    blocks: int = 1
    """Parts that are written and read apart, a thread each: faster on several cores, and larger."""
    memory: tuple[Path, ...] = ()
    """Kept memories (.ngm) that are counted before the first token; decompressing needs them again."""
    backend: Backend = "cpu"
    """Backend: cpu (C++), or reference (slow numpy, the same bits)."""
    max_order: int = field(default_factory=lambda: preset("exact").ngram.max_order)
    """Highest order n; its context has n - 1 tokens."""
    exact: Annotated[ExactConfig, tyro.conf.arg(name="")] = field(default_factory=lambda: preset("exact").exact)
    """The method of exact presets."""
    mixer: Annotated[MixerConfig, tyro.conf.arg(name="")] = field(default_factory=MixerConfig)
    """The method of mixer presets."""
    window: Annotated[WindowConfig, tyro.conf.arg(name="")] = field(default_factory=lambda: preset("exact").window)
    """The windows of the neural model."""
    forward: Forward = "windows"
    """windows: the model gets every window anew. banded: it gets each token once, and sees the last --seq-len."""

    def check(self) -> None:
        """Raise `InputError` for flags that do not go together or are out of range."""
        if self.uniform == (self.artifact is not None):
            raise InputError("give one base distribution: --uniform, --artifact FILE or --artifact packaged")
        if self.preset not in code_presets():
            raise InputError(
                f"--preset is {self.preset!r}: a code needs probabilities that sum to 1; "
                f"choose from {', '.join(code_presets())}"
            )
        if self.pieces is not None and not 260 <= self.pieces <= 1 << 16:
            raise InputError(f"--pieces is {self.pieces}: give 260 (256 of them are bytes) to {1 << 16}")
        if not 1 <= self.blocks <= MOST_BLOCKS:
            raise InputError(f"--blocks is {self.blocks}: give 1 to {MOST_BLOCKS}")
        if self.artifact is not None and self.blocks > 1:
            raise InputError(f"--blocks is {self.blocks}: with a model of --artifact there is one; leave --blocks out")
        if self.artifact is not None and self.tokenizer == "train":
            raise InputError("--tokenizer train: the model of --artifact knows only the tokenizer it was trained with")
        if self.forward == "banded" and self.uniform:
            raise InputError("--forward banded runs a model of --artifact: give one, or leave --forward out")
        if self.window.rescore_tail:
            raise InputError("--rescore-tail charges positions more than once, but a code writes each once")
        if self.exact.by_window:
            raise InputError("--by-window counts after each window, but a code counts each token as it is written")

    def method(self) -> Method:
        """The settings that decide the probabilities."""
        window = None if self.uniform else self.window
        return Method(
            preset=self.preset,
            max_order=self.max_order,
            exact=self.exact,
            mixer=self.mixer,
            window=window,
            forward=self.forward,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Decompress(Shown):
    """Restore a file byte for byte, or write nothing."""

    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """A compressed file."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The restored file; an existing file is replaced."""
    artifact: str | None = None
    """The model that the file was compressed with, if any; may be left out for the packaged model."""
    memory: tuple[Path, ...] = ()
    """Kept memories (.ngm) that are counted before the first token; decompressing needs them again."""
    backend: Backend = "cpu"
    """Backend: cpu (C++), or reference (slow numpy, the same bits)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verify(Shown):
    """Decompress in memory and compare with the checksum of the content, and with the original if given."""

    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """A compressed file."""
    original: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="ORIGINAL")] = None
    """The original file to compare with."""
    artifact: str | None = None
    """The model that the file was compressed with, if any; may be left out for the packaged model."""
    memory: tuple[Path, ...] = ()
    """Kept memories (.ngm) that are counted before the first token; decompressing needs them again."""
    backend: Backend = "cpu"
    """Backend: cpu (C++), or reference (slow numpy, the same bits)."""


Command = Compress | Decompress | Verify

Commands = tyro.conf.OmitSubcommandPrefixes[Command]
"""For shell completion."""
_COMMANDS: dict[str, Callable[..., Any]] = {"compress": Compress, "decompress": Decompress, "verify": Verify}
VALUES = {"--preset": code_presets()}
"""As in `options`."""
_CONFIG = (tyro.conf.OmitArgPrefixes,)


def parse(arguments: list[str], prog: str) -> Command:
    """The command, with the defaults of its preset. Exits for --help."""
    if "--hf" in arguments:
        raise InputError(
            "--hf is none of the codec's models: a code needs the same bits of each prediction token by token, and its "
            "models are --uniform and --artifact; `ngram-eval run --hf` says the size that one would have"
        )
    commands: Callable[..., Command] = partial(tyro.extras.subcommand_cli_from_dict, _COMMANDS, config=_CONFIG)
    command: Command = read_flags(commands, arguments, prog)
    if not isinstance(command, Compress):
        return command
    if command.preset in code_presets():
        base = preset(command.preset)
        window = base.window
        if command.artifact is not None:
            from ngram_eval.models.artifact import trained_length  # imports torch, which takes seconds

            window = window.of_length(trained_length(artifact_path(command.artifact)))
        default = replace(command, max_order=base.ngram.max_order, exact=base.exact, mixer=base.mixer, window=window)
        flags: Callable[..., Compress] = partial(tyro.cli, Compress, default=default, config=_CONFIG)
        command = read_flags(flags, arguments[1:], f"{prog} compress")
    command.check()
    return command


class Outcome(NamedTuple):
    """The outcome of a command, as rows of a table and as figures for programs."""

    rows: list[tuple[str, str]]
    caption: str | None
    figures: dict[str, Any]


def compress(command: Compress, track: Track) -> Outcome:
    """Compress a file; raises `InputError`."""
    data = _read(command.input)
    _check_output(command.input, command.output)
    start = time.perf_counter()
    packed = packing.compress(
        data,
        command.method(),
        tokenizer=command.tokenizer,
        pieces=command.pieces,
        artifact=command.artifact,
        backend=command.backend,
        track=track,
        unwrapped=command.unwrap,
        blocks=command.blocks,
        memory=_kept(command, track),
    )
    written = packed.container.to_bytes()
    with replacing(command.output) as file:
        file.write(written)
    return report(packed, len(written), time.perf_counter() - start)


def report(packed: Packed, size: int, seconds: float) -> Outcome:
    """The outcome of compressing."""
    header, container_ = packed.container.header, packed.container
    original, charged = header.content_bytes, packed.nats / math.log(2) / 8
    rows = [
        ("bytes in", f"{original:,}"),
        ("bytes out", f"{size:,}"),
        ("  header, settings, checksum", f"{packing.overhead(container_):,}"),
        ("  tokenizer", f"{header.table_bytes:,}"),
        ("  payload", f"{header.payload_bytes:,}"),
        ("ratio", f"{original / size:.3f}"),
        ("bits per byte of the file", f"{8 * size / original:.4f}" if original else "-"),
        ("bits per byte of the scorer", f"{8 * charged / original:.4f}" if original else "-"),
        ("gap, payload to scorer", _gap(header.payload_bytes, charged)),
        ("gap, file to scorer", _gap(size, charged)),
        ("tokens", f"{header.tokens:,}"),
        ("seconds", f"{seconds:.2f}"),
        ("tokens a second", f"{header.tokens / seconds:,.0f}"),
    ]
    figures = {
        "bytes_in": original,
        "bytes_out": size,
        "payload_bytes": header.payload_bytes,
        "bits_per_byte": 8 * size / original if original else None,
        "scorer_bits_per_byte": 8 * charged / original if original else None,
        "tokens": header.tokens,
        "seconds": seconds,
    }
    return Outcome(rows, f"{packed.tokenizer}", figures)


def _gap(size: int, charged: float) -> str:
    share = f" ({size / charged - 1:+.3%})" if charged else ""
    return f"{size - charged:+,.1f} bytes{share}"


def table_of(outcome: Outcome) -> Table:
    """An outcome as a table."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False, caption=outcome.caption)
    table.add_column()
    table.add_column(justify="right")
    for row in outcome.rows:
        table.add_row(*row)
    return table


def _restore(command: Decompress | Verify, track: Track) -> tuple[bytes, Outcome]:
    """(content, outcome of restoring it)."""
    found = container.read(command.input)
    start = time.perf_counter()
    data = packing.decompress(
        found,
        command.input,
        artifact=command.artifact,
        backend=command.backend,
        track=track,
        memory=_kept(command, track),
    )
    seconds, size, sha256 = time.perf_counter() - start, len(found.to_bytes()), found.header.content_sha256.hex()
    rows = [
        ("bytes in", f"{size:,}"),
        ("bytes out", f"{len(data):,}"),
        ("sha256", sha256),
        ("tokens", f"{found.header.tokens:,}"),
        ("seconds", f"{seconds:.2f}"),
        ("tokens a second", f"{found.header.tokens / seconds:,.0f}"),
    ]
    figures = {"bytes_in": size, "bytes_out": len(data), "sha256": sha256, "tokens": found.header.tokens}
    return data, Outcome(rows, None, {**figures, "seconds": seconds})


def decompress(command: Decompress, track: Track) -> Outcome:
    """Restore a file; raises `InputError`."""
    _check_output(command.input, command.output)
    data, outcome = _restore(command, track)
    with replacing(command.output) as file:
        file.write(data)
    return outcome


def verify(command: Verify, track: Track) -> Outcome:
    """Verify a file; raises `InputError` if the content is not the original."""
    original = None if command.original is None else _read(command.original)
    data, outcome = _restore(command, track)
    if original is not None and data != original:
        pairs = enumerate(zip(data, original, strict=False))
        differs = next((at for at, (a, b) in pairs if a != b), min(len(data), len(original)))
        raise InputError(
            f"{command.input} is whole, but holds another text than {command.original}: "
            f"{len(data)} and {len(original)} bytes, the first difference at byte {differs}"
        )
    return outcome._replace(
        caption="equal to its checksum" + ("" if original is None else f" and to {command.original}")
    )


def _kept(command: Command, track: Track) -> KeptMemory | None:
    """The memories of --memory, one after another."""
    memories = [kept_file.read(path, track) for path in command.memory]
    return joined(memories, [str(path) for path in command.memory]) if memories else None


def _read(path: Path) -> bytes:
    return read_input(path, "check the path")


def _check_output(source: Path, output: Path) -> None:
    require_writable("OUT", output)
    if output.exists() and source.exists() and output.samefile(source):
        raise InputError(f"OUT is {output}, which is also the input: give another name")


HELP = """\
Compress a file to the size that a score claims, and restore it byte for byte.

examples
  {prog} compress --uniform --tokenizer bytes novel.txt novel.ngc
  {prog} decompress novel.ngc again.txt
  {prog} verify novel.ngc novel.txt

commands
  compress IN OUT
  decompress IN OUT
  verify IN [ORIGINAL]    decompress in memory; compare with the checksum and the original

data (compress only)
  --tokenizer WHICH     packaged, FILE, train (on the input; --pieces V) or bytes
  --no-unwrap           code every line break, those too that the width of lines implies
model
  --uniform             1/V as the base distribution, so counts alone (compress only)
  --artifact FILE       a model (.ngev) as the base; `packaged`: the embedded model
  --forward banded      the model gets each token once (compress only; docs/forward_once.md)
  --memory FILE ...     texts kept by `ngram-eval memory build`, counted before the first token
method (compress only)
  --preset NAME         a preset whose probabilities sum to 1 (default: exact)
output
  --json FILE           sizes and times; - for stdout
  --quiet               no progress, no table
hardware
  --backend NAME        cpu, or reference (slow, the same bits)
  --blocks N            N parts at once, a core each; the file gets larger (compress only)

{prog} compress --help-all: every flag. Format and guarantees: docs/codec.md.
Ctrl-C leaves no file.
"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m ngram_eval.codec") -> None:
    """The command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with exit_on_input_error():
        show_help(given, HELP, prog)
        command = parse(given, prog)
        require_writable("--json", command.json)
        if command.backend == "cpu":
            require_extension()
        with tracked(quiet=command.quiet) as track:
            if isinstance(command, Compress):
                outcome = compress(command, track)
            elif isinstance(command, Decompress):
                outcome = decompress(command, track)
            else:
                outcome = verify(command, track)
        if command.json is not None:
            write_text(command.json, json.dumps(outcome.figures, indent=2) + "\n")
        table_console(quiet=command.quiet, stdout_taken=command.json == STDOUT).print(table_of(outcome))
