"""Turns text into token shards and a manifest (`ngram-eval prepare`).

Writes NAME_000000.bin, NAME_000001.bin, … and NAME_manifest.json into DIR, and with `--train-tokenizer` the trained
tokenizer.model. All files are made in a hidden folder inside DIR, so an error or Ctrl-C leaves none. Then they are
moved into place; if that is broken off, the next run of this name finishes it. Text is streamed: memory holds one shard
and one batch of text at a time.
"""

import io
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sentencepiece

from ngram_eval import __version__
from ngram_eval.errors import InputError
from ngram_eval.files import file_sha256, locked, naming, replacing, temporary_folder, write_text
from ngram_eval.text.documents import Segment, Source, TextForm, find_sources, read_segments, size_of
from ngram_eval.text.manifest import MANIFEST_FORMAT, Manifest, ShardEntry, parse_manifest
from ngram_eval.text.shards import MAX_SHARD_TOKENS, read_shards, write_shard
from ngram_eval.text.stream import Stream, Tokens
from ngram_eval.text.tokenizer import Encoder, stream_bytes
from ngram_eval.text.tokenizer_files import load_tokenizer
from ngram_eval.timing import Track, untracked

_BATCH_CHARS = 1 << 22


_READ_AT_ONCE = 1 << 22


_TRAINING_LINE = 1 << 16
"""Longest line, in characters, that the trainer gets; SentencePiece drops lines beyond its limit."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(TextForm):
    """Turn text into token shards with a manifest; each document begins with a BOS token."""

    inputs: tuple[str, ...]
    """.txt, .md or .jsonl files, these also with .zst, .gz, .bz2 or .xz, and .parquet; folders of such files, read in
    sorted order; - is stdin."""

    out: Path
    """Folder for the shards and the manifest; made if it does not exist."""

    name: str = "tokens"
    """The files are NAME_000000.bin, … and NAME_manifest.json."""

    tokenizer: Path | None = None
    """Tokenizer to use, instead of --train-tokenizer: a SentencePiece .model, a tokenizer.json or its folder, or an
    encoding that tiktoken knows by name (tiktoken:gpt2)."""

    train_tokenizer: int | None = None
    """Train a lossless BPE tokenizer with byte fallback and this vocabulary size on the text: OUT/tokenizer.model."""

    train_characters: int = 100_000_000
    """Number of characters of the text, from its start, to train the tokenizer on."""

    shard_tokens: int = 100_000_000
    """Tokens in each shard except the last."""

    overwrite: bool = False
    """Replace shards, manifest and trained tokenizer of the same name."""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise InputError("no input is given: give files, folders, or - for stdin")
        if self.inputs.count("-") > 1:
            raise InputError("- is given twice: stdin can be read only once")
        if (self.tokenizer is None) == (self.train_tokenizer is None):
            raise InputError("give either --tokenizer FILE or --train-tokenizer VOCABULARY")
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise InputError(f"--name is {self.name!r}: use letters, digits, '.', '-' and '_'")
        if self.train_characters < 1:
            raise InputError(f"--train-characters is {self.train_characters}: give at least 1")
        if not 1 <= self.shard_tokens <= MAX_SHARD_TOKENS:
            raise InputError(f"--shard-tokens is {self.shard_tokens}: give 1 to {MAX_SHARD_TOKENS}")


def train_tokenizer(
    segments: Iterable[Segment], vocab_size: int, characters: int, character_coverage: float = 0.9995
) -> bytes:
    """A serialised SentencePiece BPE model of the first `characters` characters; the same text gives the same bytes.

    The model keeps text unchanged: it does not normalise, adds and removes no space, and spells text without a piece,
    such as newlines, in bytes. The one exception is "▁" (U+2581), SentencePiece's own sign for a space. Raises
    `InputError` if the text does not allow a vocabulary of this size, and what `segments` raises.
    """

    def lines() -> Iterator[str]:
        left = characters
        for segment in segments:
            for line in segment.text[:left].split("\n"):
                for start in range(0, len(line), _TRAINING_LINE):
                    yield line[start : start + _TRAINING_LINE]
            left -= len(segment.text)
            if left <= 0:
                return

    unreadable: list[BaseException] = []

    def readable() -> Iterator[str]:
        try:
            yield from lines()
        except BaseException as error:  # SentencePiece raises another in its place
            unreadable.append(error)
            raise

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=readable(),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            character_coverage=character_coverage,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            max_sentence_length=4 * _TRAINING_LINE,  # in bytes
            minloglevel=2,
        )
    except RuntimeError as error:
        if unreadable:
            raise unreadable[0] from None
        raise InputError(
            f"--train-tokenizer {vocab_size}: this text allows no such vocabulary ({error}); choose another size"
        ) from error
    return model.getvalue()


class _ShardWriter:
    """Writes a token stream as shards of a fixed number of tokens."""

    def __init__(self, folder: Path, name: str, shard_tokens: int, tokenizer: Encoder) -> None:
        self._folder, self._name = folder, name
        self._buffer = np.empty(shard_tokens, tokenizer.dtype)  # the system allocates the memory as it fills
        self._filled = 0
        self.paths: list[Path] = []

    def append(self, tokens: Tokens) -> None:
        while len(tokens):
            part = tokens[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            tokens = tokens[len(part) :]
            if self._filled == len(self._buffer):
                self.flush()

    def flush(self) -> None:
        if self._filled:
            if len(self.paths) == 1_000_000:
                raise InputError("that is more than a million shards: raise --shard-tokens")
            path = self._folder / f"{self._name}_{len(self.paths):06}.bin"
            write_shard(path, self._buffer[: self._filled])
            self.paths.append(path)
            self._filled = 0


class _Counts(NamedTuple):
    documents: int
    original_bytes: int
    altered_documents: int


def _tokenize(segments: Iterable[Segment], tokenizer: Encoder, start: Tokens, writer: _ShardWriter) -> _Counts:
    documents = original_bytes = altered_documents = 0
    altered = False
    for batch in _batches(segments):
        encoded = tokenizer.encode([segment.text for segment in batch])
        for segment, tokens, decoded in zip(batch, encoded, tokenizer.decode_batch(encoded), strict=True):
            if segment.starts_document:
                writer.append(start)
                documents += 1
                altered_documents += altered
                altered = False
            writer.append(tokens)
            original_bytes += len(segment.text.encode())
            altered |= decoded != segment.text
    writer.flush()
    return _Counts(documents, original_bytes, altered_documents + altered)


def _batches(segments: Iterable[Segment]) -> Iterator[list[Segment]]:
    batch: list[Segment] = []
    size = 0
    for segment in segments:
        batch.append(segment)
        size += len(segment.text)
        if size >= _BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


# The command


def prepare(config: PrepareConfig, command: str, track: Track = untracked) -> Manifest:
    """Write shards, manifest and, with `train_tokenizer`, the tokenizer; `command` is recorded in the manifest.

    Raises `InputError` for input that can't be read and for output that is in the way.
    """
    sources = find_sources(config.inputs, config)
    if _ready(config).exists():
        with locked(config.out):
            _publish(config)
    trained = config.out / "tokenizer.model"
    existing = _existing(config)
    if config.train_tokenizer is not None and trained.exists():
        existing.append(trained)
    if existing and not config.overwrite:
        raise InputError(f"{existing[0]} already exists: choose another --name or --out, or give --overwrite")
    new_folder = not config.out.exists()
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        with temporary_folder(config.out / config.name) as staging:
            manifest = _prepare(config, command, sources, staging, track)
            with locked(config.out):
                _publish(config)  # what another run has left meanwhile
                os.rename(staging, _ready(config))
                _publish(config)
            return manifest
    finally:
        if new_folder and config.out.exists() and not any(config.out.iterdir()):
            config.out.rmdir()


def _prepare(config: PrepareConfig, command: str, sources: list[Source], staging: Path, track: Track) -> Manifest:
    model = staging / "tokenizer.model"
    if config.train_tokenizer is None:
        assert config.tokenizer is not None  # checked by PrepareConfig
        tokenizer = load_tokenizer(config.tokenizer)
    else:
        sources = [_spool(source, staging) for source in sources]  # they are read twice
        segments = read_segments(sources, config, split=True, advance=track("training the tokenizer", size_of(sources)))
        with replacing(model) as file:
            file.write(train_tokenizer(segments, config.train_tokenizer, config.train_characters))
        tokenizer = load_tokenizer(model)
    if tokenizer.start_id is None:
        raise InputError(
            f"{config.tokenizer} has no BOS token to separate documents with: use a SentencePiece model trained with "
            "bos_id >= 0, or the folder of a tokenizer.json with a tokenizer_config.json that names it"
        )

    writer = _ShardWriter(staging, config.name, config.shard_tokens, tokenizer)
    segments = read_segments(
        sources, config, split=tokenizer.splits_at_newlines, advance=track("writing tokens", size_of(sources))
    )
    counts = _tokenize(segments, tokenizer, np.array([tokenizer.start_id], tokenizer.dtype), writer)
    if not counts.documents:
        raise InputError(f"{', '.join(config.inputs)}: the input holds no text, so there is nothing to write")

    tokens = read_shards([str(path) for path in writer.paths]).tokens
    tokenizer.check(tokens)
    decoded_bytes = stream_bytes(tokenizer, tokens)
    unknown_tokens = _count_unknown(tokenizer, tokens)
    manifest = Manifest(
        format=MANIFEST_FORMAT,
        name=config.name,
        shards=tuple(
            ShardEntry(file=path.name, tokens=read_shards([str(path)]).total, sha256=file_sha256(path))
            for path in writer.paths
        ),
        tokens=len(tokens),
        documents=counts.documents,
        original_bytes=counts.original_bytes,
        decoded_bytes=decoded_bytes,
        unknown_tokens=unknown_tokens,
        altered_documents=counts.altered_documents,
        warnings=_warnings(counts, decoded_bytes, unknown_tokens),
        tokenizer_sha256=tokenizer.sha256,
        vocab_size=tokenizer.vocab_size,
        command=command,
        version=__version__,
    )
    write_text(staging / _manifest_name(config), manifest.to_json())
    return manifest


def _count_unknown(tokenizer: Encoder, tokens: Stream) -> int:
    spans = ((start, min(start + _READ_AT_ONCE, len(tokens) - 1)) for start in range(0, len(tokens) - 1, _READ_AT_ONCE))
    return sum(tokenizer.unknown_targets(tokens, start, stop) for start, stop in spans)


def _spool(source: Source, staging: Path) -> Source:
    if source.path is not None:
        return source
    path = staging / "stdin"
    with naming(path), path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return source._replace(path=path)


def _warnings(counts: _Counts, decoded_bytes: int, unknown_tokens: int) -> tuple[str, ...]:
    warnings = []
    if unknown_tokens:
        warnings.append(f"{unknown_tokens} tokens are unknown: their text is lost and counts no bytes")
    if counts.altered_documents:
        warnings.append(
            f"{counts.altered_documents} of {counts.documents} documents do not decode to their text: "
            "the tokenizer's normalisation or its unknown token changed it"
        )
    if decoded_bytes != counts.original_bytes:
        warnings.append(
            f"the tokens decode to {decoded_bytes} bytes, the documents have {counts.original_bytes}: "
            "bits per byte and bits per original byte will differ"
        )
    return tuple(warnings)


def _manifest_name(config: PrepareConfig) -> str:
    return f"{config.name}_manifest.json"


def _existing(config: PrepareConfig) -> list[Path]:
    """Manifest and shards of this name from an earlier run."""
    if not config.out.exists():
        return []
    pattern = re.compile(rf"{re.escape(config.name)}_(\d{{6}}\.bin|manifest\.json)")
    return sorted(path for path in config.out.iterdir() if pattern.fullmatch(path.name))


def _ready(config: PrepareConfig) -> Path:
    """The folder of a set of files that is whole, while it is published."""
    return config.out / f".{config.name}.ready"


def _publish(config: PrepareConfig) -> None:
    """Move what is ready into place, shards of a longer earlier set out of it; goes on where another run ended.

    The manifest comes last: until then a mixture of two sets contradicts the old one. Nothing is removed before.
    """
    ready, last = _ready(config), _manifest_name(config)
    if (ready / last).exists():
        for path in sorted(path for path in ready.iterdir() if path.is_file() and path.name != last):
            os.replace(path, config.out / path.name)
        new = {last, *(entry.file for entry in parse_manifest(ready / last).shards)}
        (ready / "old").mkdir(exist_ok=True)
        for path in _existing(config):
            if path.name not in new:
                os.replace(path, ready / "old" / path.name)
        os.replace(ready / last, config.out / last)
    if ready.exists():
        shutil.rmtree(ready)
