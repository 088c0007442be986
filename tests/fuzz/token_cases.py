"""Small valid shards and tokenizers of every kind, the same each time, and how their readers are called."""

import base64
import io
import struct
from pathlib import Path

import numpy as np

from ngram_eval.text import manifest
from ngram_eval.text.shards import read_shards
from ngram_eval.text.tokenizer import Tokenizer, stream_bytes
from ngram_eval.text.tokenizer_files import check_tokens, load_tokenizer
from tests.fuzz import cases
from tests.support.shards import header


def shards() -> list[bytes]:
    llama3 = header(50, 7, 20240801) + np.arange(50, dtype="<u4").tobytes()
    return [*cases.old("tokens_000000.bin")(), llama3]


def npy_tokens() -> list[bytes]:
    made = []
    for kind in ("u1", "<u2", ">i4", "<i8"):
        whole = io.BytesIO()
        np.save(whole, np.arange(100).astype(kind))
        made.append(whole.getvalue())
    return made


def read_shard(path: Path) -> None:
    tokens = read_shards([str(path)]).tokens
    assert len(tokens[:]) == len(tokens)


def read_raw_shard(path: Path) -> None:
    for raw in ("uint16", "uint32"):
        tokens = read_shards([str(path)], raw=raw).tokens
        assert len(tokens[:]) == len(tokens)


def ranks() -> list[bytes]:
    words = [*(bytes([byte]) for byte in range(256)), b" the", "東".encode()]
    return [b"".join(base64.b64encode(one) + b" %d\n" % token for token, one in enumerate(words))]


def llm_c() -> list[bytes]:
    words = [*(bytes([byte]) for byte in range(256)), b" the", b"<|endoftext|>"]
    tokens = b"".join(bytes([len(one)]) + one for one in words)
    return [struct.pack("<256I", 20240328, version, 258, 257, *[0] * 252) + tokens for version in (1, 2)]


def read_any_tokenizer(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    tokens = np.arange(tokenizer.vocab_size).astype(tokenizer.dtype)[:300]
    check_tokens(tokens, tokenizer, str(path))
    stream_bytes(tokenizer, tokens)
    tokenizer.sha256  # noqa: B018  # is computed
    if path.suffix == ".json":
        tokenizer.tokens_of("naive fox\n  dogs, and so on")


def read_tokenizer_config(path: Path) -> None:
    (path.parent / "tokenizer.json").write_bytes(cases.hf_file("tokenizer.json")[0])
    read_any_tokenizer(path.parent / "tokenizer.json")


def read_manifest(path: Path) -> object:
    for shard in cases.OLD.glob("tokens_*.bin"):
        if not (path.parent / shard.name).exists():
            (path.parent / shard.name).write_bytes(shard.read_bytes())
    return manifest.read_manifest(sorted(path.parent.glob("tokens_*.bin")))


def read_tokenizer(path: Path) -> None:
    tokenizer = Tokenizer.load(path)
    tokens = tokenizer.encode(["naïve café\n  東京 two"])[0]
    tokenizer.decode(tokens)
    tokenizer.surfaces()
    if len(tokens) > 1:
        tokenizer.target_bytes(tokens, 0, len(tokens) - 1, "decoded")
        tokenizer.target_bytes(tokens, 0, len(tokens) - 1, "piece")
