"""Manifests belong to exactly their shards."""

import json
from pathlib import Path
from typing import Any

import pytest

from ngram_eval.errors import InputError
from ngram_eval.files import file_sha256
from ngram_eval.text.manifest import MANIFEST_FORMAT, Manifest, ShardEntry, read_manifest
from ngram_eval.text.shards import read_shards, write_shard
from tests.support.shards import u16


def make_manifest(folder: Path, names: list[str], **changes: Any) -> Manifest:
    entries = tuple(
        ShardEntry(file=name, tokens=len(read_shards([str(folder / name)]).tokens), sha256=file_sha256(folder / name))
        for name in names
    )
    fields: dict[str, Any] = {
        "format": MANIFEST_FORMAT,
        "name": "v",
        "shards": entries,
        "tokens": sum(entry.tokens for entry in entries),
        "documents": 1,
        "original_bytes": 10,
        "decoded_bytes": 9,
        "unknown_tokens": 0,
        "altered_documents": 1,
        "warnings": ("é",),
        "tokenizer_sha256": "0" * 64,
        "vocab_size": 300,
        "command": "c",
        "version": "0",
    }
    manifest = Manifest(**{**fields, **changes})
    (folder / "v_manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def test_a_manifest_is_found_for_exactly_its_shards(tmp_path: Path) -> None:
    paths = [tmp_path / f"v_{i:06}.bin" for i in range(2)]
    for path in paths:
        write_shard(path, u16(1, 2))
    assert read_manifest(paths) is None
    manifest = make_manifest(tmp_path, [path.name for path in paths])
    assert read_manifest(paths) == manifest
    assert read_manifest(paths[:1]) is None
    other = tmp_path / "w_000000.bin"
    write_shard(other, u16(1))
    assert read_manifest([other]) is None
    assert read_manifest([*paths, other]) is None
    assert read_manifest([tmp_path / "plain.bin"]) is None


def test_a_manifest_that_contradicts_its_shards_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v_000000.bin"
    write_shard(path, u16(1, 2))
    make_manifest(tmp_path, [path.name])
    write_shard(path, u16(1, 3))
    with pytest.raises(InputError, match=r"v_000000\.bin \(2 tokens\) is not the shard that .*v_manifest\.json desc"):
        read_manifest([path])
    make_manifest(tmp_path, [path.name], format="other")
    with pytest.raises(InputError, match="has the format 'other'"):
        read_manifest([path])
    make_manifest(tmp_path, [path.name], original_bytes="10")
    with pytest.raises(InputError, match=r"got `str` - at `\$\.original_bytes`"):
        read_manifest([path])
    for broken in ("{", "[]", json.dumps({"shards": []}), json.dumps({"shards": [{"file": "a"}]})):
        (tmp_path / "v_manifest.json").write_text(broken)
        with pytest.raises(InputError, match=r"v_manifest\.json is (not JSON|damaged)"):
            read_manifest([path])
