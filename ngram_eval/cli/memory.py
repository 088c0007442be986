"""`ngram-eval memory build|info|merge|verify`: keeps the text that a memory begins with."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich import box
from rich.table import Table

from ngram_eval.cli.console import show_help, table_console, tracked
from ngram_eval.cli.flags import read_flags
from ngram_eval.config import preset
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.evaluation.job import load_stream, memory_job
from ngram_eval.evaluation.learning import learned_on, model_on
from ngram_eval.evaluation.settings import DataSettings, ModelSettings, Settings
from ngram_eval.files import STDOUT, require_writable, write_text
from ngram_eval.kept import file as kept_file
from ngram_eval.kept.choosing import fitted, ordered
from ngram_eval.kept.coding import Coding
from ngram_eval.text.kept import KeptMemory, joined, kept_of
from ngram_eval.text.shards import Raw
from ngram_eval.timing import Track

Files = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MEMORY.ngm ...")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """Output of every command."""

    json: Path | None = None
    """Write the figures here; - for standard output, and the table then goes to stderr."""
    quiet: bool = False
    """Show no progress and no table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Build(Shown):
    """Keep a text as the memory that evaluations begin with."""

    out: Path
    """The memory's file (.ngm); an existing file is replaced."""
    data: tuple[str, ...] = ()
    """Shards (.bin, .npy): file names or quoted patterns, read in sorted order."""
    raw_dtype: Raw | None = None
    """Type of the tokens in --data files without a header."""
    text: tuple[Path, ...] = ()
    """Text files or folders of them instead of --data, as `ngram-eval run` reads them."""
    text_field: str = "text"
    """Field of .jsonl, or column of .parquet, that holds the text."""
    tokenizer: Path | None = None
    """The tokenizer of what will be scored: a SentencePiece .model, a tokenizer.json, tiktoken:gpt2. Without one, bytes
    are the tokens of a text, and shards need --vocab-size."""
    hf: str | None = None
    """The Hugging Face model whose tokenizer cuts the text: a folder, a .gguf file, or a name on the hub."""
    vocab_size: int | None = None
    """Size of the vocabulary, for --data without a tokenizer."""
    coding: Coding = "mixer"
    """How the text is coded: mixer (smallest), exact, zstd, none (fastest to load)."""
    max_tokens: int | None = None
    """Keep only the first tokens."""
    max_bytes: int | None = None
    """Keep spans of the text that make a file of at most so many bytes: any, or with --score-with the best ones."""
    score_with: Path | None = None
    """The model (.ngev) beside which the memory will be used: spans are kept on which it spends most a byte stored."""

    def check(self) -> None:
        """Raise `InputError` for flags that do not go together."""
        if bool(self.data) == bool(self.text):
            raise InputError("a memory is of a text: give --text FILE ... or --data 'PATTERN'")
        if self.tokenizer is not None and self.hf is not None:
            raise InputError("--hf cuts the text by its own tokenizer: leave --tokenizer out")
        for name in ("max_tokens", "max_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} is {value}: give at least 1")
        if self.score_with is not None and self.max_bytes is None:
            raise InputError("--score-with chooses what --max-bytes keeps: give it, or leave --score-with out")

    @property
    def settings(self) -> Settings:
        """What is read, as an evaluation names it."""
        data = DataSettings(
            data=self.data,
            raw_dtype=self.raw_dtype,
            text=self.text,
            text_field=self.text_field,
            tokenizer=self.tokenizer,
            max_tokens=self.max_tokens,
        )
        return Settings(data=data, model=ModelSettings(hf=self.hf, vocab_size=self.vocab_size))


@dataclass(frozen=True, kw_only=True, slots=True)
class Info(Shown):
    """Say what files hold, without decoding them."""

    files: Files


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge(Shown):
    """Put memories of one tokenizer together, one after another."""

    files: Files
    out: Path
    """The file of all of them (.ngm)."""
    coding: Coding = "mixer"
    """How the text is coded: mixer (smallest), exact, zstd, none (fastest to load)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Learn(Shown):
    """Score a memory's text once with a model, and keep the weights that presets learn from it."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MEMORY.ngm")]
    out: Path
    """The memory with its weights (.ngm)."""
    preset: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ("exact",)
    """Presets that learn: exact, tilt, mixer, mixer-fast, ppmd; may be repeated."""
    artifact: Path | None = None
    """The model (.ngev) with which the memory will be used; default: the embedded one."""
    hf: str | None = None
    """A Hugging Face model instead."""
    uniform: bool = False
    """1/V instead, for a memory without a model."""
    tokenizer: Path | None = None
    """The memory's tokenizer, for mixer and ppmd (not with --hf or the embedded model)."""
    coding: Coding = "mixer"
    """How the text is coded: mixer (smallest), exact, zstd, none (fastest to load)."""

    @property
    def settings(self) -> Settings:
        """The model, as an evaluation names it."""
        return Settings(model=ModelSettings(artifact=self.artifact, hf=self.hf, uniform=self.uniform))


@dataclass(frozen=True, kw_only=True, slots=True)
class Verify(Shown):
    """Decode files and compare their tokens with the sha256 of those that were written."""

    files: Files


Command = Build | Info | Merge | Learn | Verify
Commands = tyro.conf.OmitSubcommandPrefixes[Command]
"""For shell completion."""
_COMMANDS: dict[str, Callable[..., Any]] = {
    "build": Build,
    "info": Info,
    "merge": Merge,
    "learn": Learn,
    "verify": Verify,
}


def build(command: Build, track: Track) -> list[dict[str, Any]]:
    """Write the memory of a text; raises `InputError`."""
    command.check()
    require_writable("--out", command.out)
    stream, tokenizer = load_stream(command.settings, ALONE)
    memory = kept_of(stream.tokens[:], tokenizer, command.vocab_size)
    if command.max_bytes is not None:
        p_model = None
        if command.score_with is not None:
            scoring = Settings(model=ModelSettings(artifact=command.score_with))
            p_model = model_on(memory_job(scoring, memory, command.tokenizer, "the text"), track)
        memory = fitted(memory, command.max_bytes, ordered(memory, p_model), partial(_size, command.coding))
    return [_written(command.out, memory, command.coding, track)]


def _size(coding: Coding, memory: KeptMemory) -> int:
    return len(kept_file.to_bytes(memory, coding))


def merge(command: Merge, track: Track) -> list[dict[str, Any]]:
    """Write the memory of several files; raises `InputError`."""
    require_writable("--out", command.out)
    memories = [kept_file.read(path, track) for path in command.files]
    whole = joined(memories, [str(path) for path in command.files])
    return [_written(command.out, whole, command.coding, track)]


def _written(path: Path, memory: KeptMemory, coding: Coding, track: Track) -> dict[str, Any]:
    return _figures(path, kept_file.write(path, memory, coding, track))


def learn(command: Learn, track: Track) -> list[dict[str, Any]]:
    """Write a memory with what presets learn on it; raises `InputError`."""
    require_writable("--out", command.out)
    memory = kept_file.read(command.file, track)
    configs = {name: preset(name) for name in command.preset}
    job = memory_job(command.settings, memory, command.tokenizer, str(command.file))
    learned = {**memory.learned, **learned_on(job, configs, track)}
    return [_written(command.out, replace(memory, learned=learned), command.coding, track)]


def info(command: Info) -> list[dict[str, Any]]:
    """What files hold."""
    return [_figures(path, kept_file.open_kept(path)) for path in command.files]


def verify(command: Verify, track: Track) -> list[dict[str, Any]]:
    """What files hold, with the seconds of decoding; raises `InputError` for other tokens than were written."""
    found = []
    for path in command.files:
        start, kept = time.perf_counter(), kept_file.open_kept(path)
        kept_file.load(kept, path, track)
        found.append({**_figures(path, kept), "seconds": time.perf_counter() - start})
    return found


def _figures(path: Path, found: kept_file.KeptFile) -> dict[str, Any]:
    header = found.header
    return {
        "file": str(path),
        "coding": found.coding,
        "bytes": found.size,
        "tokens": header.tokens,
        "text_bytes": header.text_bytes,
        "learned_bytes": header.learned_bytes,
        "bits_per_token": 8 * (found.size - header.learned_bytes) / header.tokens,
        "vocabulary": header.vocab_size,
        "tokenizer_sha256": header.tokenizer_sha256.hex(),
        "sha256": header.tokens_sha256.hex(),
    }


def table_of(found: list[dict[str, Any]]) -> Table:
    """Figures as a table, a column a file."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", *(one["file"] for one in found)):
        table.add_column(name, justify="right" if name else "left")
    for name in list(found[0])[1:]:
        table.add_row(name.replace("_", " "), *(_shown(one[name]) for one in found))
    return table


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"{value[:12]}..." if len(value) > 12 else value
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


HELP = """\
Keep a text in a file, as small as it can be coded, for memories to begin with.

examples
  {prog} build --text novels/ --tokenizer T.model --out novels.ngm
  {prog} info novels.ngm
  {prog} verify novels.ngm

commands
  build                     from --text FILE ... or --data 'PATTERN'
  info FILE ...             what files hold
  merge FILE ... --out FILE    several in one, in this order
  learn FILE --out FILE     with the weights that --preset NAME learns on it, beside a model
  verify FILE ...           decode, and compare with the sha256 of what was written

data (build only)
  --text FILE ... | --data 'PATTERN' (--raw-dtype, --max-tokens N)
  --tokenizer FILE      of what will be scored; or --hf NAME, a model's own
  --vocab-size V        for --data without a tokenizer
model (learn only; default: the embedded model)
  --artifact FILE | --hf NAME | --uniform
method
  --max-bytes N         keep spans that make a file of N bytes; --score-with FILE: the best
                        ones beside that model
  --coding mixer        mixer (smallest), exact, zstd, none (fastest to load)
output
  --out FILE            the memory (build, merge)
  --json FILE           the figures; - for stdout
  --quiet               no progress, no table

{prog} build --help-all: every flag. What it is worth, and the format: docs/memory.md.
"""


def main(arguments: Sequence[str], prog: str) -> None:
    """The command line."""
    given = list(arguments)
    with exit_on_input_error():
        show_help(given, HELP, prog)
        commands: Callable[..., Command] = partial(
            tyro.extras.subcommand_cli_from_dict, _COMMANDS, config=(tyro.conf.OmitArgPrefixes,)
        )
        command = read_flags(commands, given, prog)
        require_writable("--json", command.json)
        if isinstance(command, Info | Merge | Verify) and not command.files:
            raise InputError("no memory is given: give files that `ngram-eval memory build` wrote")
        with tracked(quiet=command.quiet) as track:
            if isinstance(command, Build):
                found = build(command, track)
            elif isinstance(command, Merge):
                found = merge(command, track)
            elif isinstance(command, Learn):
                found = learn(command, track)
            else:
                found = info(command) if isinstance(command, Info) else verify(command, track)
        if command.json is not None:
            write_text(command.json, json.dumps({"memories": found}, indent=2) + "\n")
        table_console(quiet=command.quiet, stdout_taken=command.json == STDOUT).print(table_of(found))
