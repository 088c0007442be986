"""The manifest beside shards: what they were made from, and their checksums."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ngram_eval.errors import InputError
from ngram_eval.files import file_sha256, read_input
from ngram_eval.structured import MOST_BYTES, Count, build, parse
from ngram_eval.text.shards import _read_header


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One shard in a manifest."""

    file: str
    tokens: Count
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Facts about a set of shards; `prepare` writes them beside the shards, as `NAME_manifest.json`."""

    format: str
    """"ngram_eval shards 1"."""
    name: str
    """The shards are NAME_000000.bin, NAME_000001.bin, …"""
    shards: tuple[ShardEntry, ...]
    tokens: Count
    documents: Count
    """Number of documents; each begins with a BOS token. Empty documents are left out."""
    original_bytes: Count
    """UTF-8 bytes of the documents as given."""
    decoded_bytes: Count
    """Bytes of all targets under the rule "decoded"."""
    unknown_tokens: Count
    """Number of unknown tokens; their text is lost."""
    altered_documents: Count
    """Number of documents whose tokens do not decode to their text."""
    warnings: tuple[str, ...]
    """The reasons why decoded_bytes and original_bytes differ."""
    tokenizer_sha256: str
    vocab_size: Count
    command: str
    """The command line that wrote the shards."""
    version: str
    """The version of ngram_eval that wrote them."""

    def to_json(self) -> str:
        """The manifest as indented JSON, ending in a newline."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


MANIFEST_FORMAT = "ngram_eval shards 1"


def read_manifest(paths: Sequence[Path], part: tuple[int, int] = (0, 1)) -> Manifest | None:
    """The manifest that `prepare` stored beside these shards, or None if there is none for exactly this set.

    With `part` (rank, world), only every world-th shard, from the rank-th on, is read to compare its sha256.

    A manifest of more or fewer shards (only some of NAME_*.bin are evaluated) says nothing about the bytes of these
    and is ignored. Raises `InputError` if a manifest of exactly these files can't be read, or if a shard's token count
    or sha256 differs: its byte counts would then belong to another text.
    """
    names = [re.fullmatch(r"(.+)_\d{6}\.bin", path.name) for path in paths]
    prefixes = {path.with_name(match[1]) if match else None for path, match in zip(paths, names, strict=True)}
    prefix = prefixes.pop()
    if prefixes or prefix is None:
        return None
    source = prefix.with_name(f"{prefix.name}_manifest.json")
    if not source.exists():
        return None
    manifest = parse_manifest(source)
    if {entry.file for entry in manifest.shards} != {path.name for path in paths}:
        return None
    found = {path.name: path for path in paths}
    rank, world = part
    for index, entry in enumerate(manifest.shards):
        path = found[entry.file]
        tokens = _read_header(path).tokens
        if tokens != entry.tokens or (index % world == rank and file_sha256(path) != entry.sha256):
            raise InputError(
                f"{path} ({tokens} tokens) is not the shard that {source} describes ({entry.tokens} tokens, "
                f"sha256 {entry.sha256}): remove the manifest, or make the shards again with `prepare --overwrite`"
            )
    return manifest


def parse_manifest(source: Path) -> Manifest:
    """The manifest in a file; raises `InputError` for anything else."""
    remedy = "remove it, or make the shards again with `prepare --overwrite`"
    found = parse(read_input(source, remedy, MOST_BYTES), source, remedy)
    manifest = build(found, Manifest, source, remedy)
    if manifest.format != MANIFEST_FORMAT:
        raise InputError(f"{source} has the format {manifest.format!r}, not {MANIFEST_FORMAT!r}: {remedy}")
    return manifest
