"""Tokenizers whose tokens are strings of bytes: tiktoken's encodings, llm.c's list of them, and bytes themselves."""

import base64
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ngram_eval.errors import InputError, refusing
from ngram_eval.files import read_input
from ngram_eval.text.spelling import ByteStrings
from ngram_eval.text.spelt_tokenizer import SpeltTokenizer
from ngram_eval.text.stream import MAX_VOCABULARY
from ngram_eval.text.tokenizer import MOST_MODEL_BYTES

NAMED = "tiktoken:"
"""What stands before the name of an encoding that the tiktoken library knows."""
RANKS = ".tiktoken"
"""Suffix of a file that leaves out special tokens."""
_LLM_C = 20240328
_HEADER = struct.Struct("<256I")


def bytes_tokenizer() -> SpeltTokenizer:
    """Every byte a token, and 256 before each document."""

    def cut(text: str) -> Sequence[int]:
        return list(text.encode())

    surfaces: list[bytes | None] = [*(bytes([byte]) for byte in range(256)), None]
    return SpeltTokenizer(ByteStrings(surfaces, cut, "bytes", lines=True), [256], (), "bytes")


def load_encoding(name: str) -> SpeltTokenizer:
    """The encoding that the tiktoken library knows by this name, which it may fetch; raises `InputError`."""
    try:
        import tiktoken
    except ImportError as error:
        raise InputError(
            f"--tokenizer {NAMED}{name} needs tiktoken, which can't be imported ({error}): pip install "
            "ngram_eval[tiktoken]"
        ) from error
    with refusing(f"--tokenizer {NAMED}{name}", "is no encoding that tiktoken can load", "check name and network"):
        found: Any = tiktoken.get_encoding(name)
        special = {found.encode_single_token(one) for one in found.special_tokens_set}
        surfaces: list[bytes | None] = [None] * found.n_vocab
        for token in range(found.n_vocab):
            with suppress(KeyError):  # a number that the encoding leaves out
                surfaces[token] = None if token in special else found.decode_single_token_bytes(token)
        starts = [found.eot_token] if "<|endoftext|>" in found.special_tokens_set else []
    return SpeltTokenizer(ByteStrings(surfaces, found.encode_ordinary, name), starts, (), f"{NAMED}{name}")


def load_ranks(path: Path, vocab_size: int | None) -> SpeltTokenizer:
    """The encoding of a .tiktoken file: a token a line, its bytes in base64 and its number.

    Special tokens are not in it: the tokens up to `vocab_size`, if that is given, are those. Raises `InputError`.
    """
    remedy = "fetch it again; a .tiktoken file has a line for each token, its bytes in base64 and its number"
    found: dict[int, bytes] = {}
    for number, line in enumerate(read_input(path, remedy, MOST_MODEL_BYTES).splitlines(), 1):
        try:
            spelt, rank = line.split()
            token, content = int(rank), base64.b64decode(spelt, validate=True)
        except ValueError as error:
            raise InputError(f"{path}:{number} is no token ({error}): {remedy}") from error
        if not content or not 0 <= token < MAX_VOCABULARY or token in found:
            raise InputError(f"{path}:{number} has no bytes, or a number that is taken or too large: {remedy}")
        found[token] = content
    size = max(found, default=-1) + 1 if vocab_size is None else vocab_size
    if not found or size <= max(found):
        raise InputError(f"{path} has tokens up to {max(found, default=-1)}: give --vocab-size more, or leave it out")
    return SpeltTokenizer(ByteStrings([found.get(i) for i in range(size)], None, str(path)), [], (), str(path))


def load_llm_c(path: Path) -> SpeltTokenizer:
    """The tokens of llm.c's gpt2_tokenizer.bin: 256 words (magic number, version, tokens, the token that ends a text),
    then of each token one byte for its length, and its bytes. Raises `InputError`.
    """
    remedy = "give the gpt2_tokenizer.bin that llm.c's scripts write"
    content = read_input(path, remedy, MOST_MODEL_BYTES)
    if len(content) < _HEADER.size:
        raise InputError(f"{path} has {len(content)} bytes, less than a header of {_HEADER.size}: {remedy}")
    magic, version, size, end, *_ = _HEADER.unpack_from(content)
    if magic != _LLM_C or version not in (1, 2) or not 0 < size < MAX_VOCABULARY:
        raise InputError(f"{path} begins with {magic} version {version} and {size} tokens: {remedy}")
    surfaces: list[bytes | None] = []
    at = _HEADER.size
    while len(surfaces) < size and at < len(content):
        length = content[at]
        surfaces.append(content[at + 1 : at + 1 + length])
        at += 1 + length
    if len(surfaces) < size or at != len(content):
        raise InputError(f"{path} has {len(content):,} bytes, its {size:,} tokens have another length: {remedy}")
    surfaces[size - 1 if version == 1 else min(end, size - 1)] = None
    return SpeltTokenizer(ByteStrings(surfaces, None, str(path)), [], (), str(path))
