"""Hugging Face tokenizers, and the bytes that each token spells.

Two kinds spell a text without loss; the tokenizer's own decoder shows which of them it is:

- byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM): every token is a string of bytes, written in a table of 256 characters;
- SentencePiece's (Llama 2, Gemma, Mistral): "▁" is a space, `<0xE2>` a byte, other characters are themselves.

Special tokens have no bytes. Their names in a text are ordinary text, and are tokenised as such. A tokenizer may put a
space before a text (SentencePiece's dummy prefix); the first token of a document then spells one byte too many, which
is not counted. So the bytes of all targets are those of the text; `encode` compares them, byte for byte.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ngram_eval.config import ByteRule
from ngram_eval.errors import InputError
from ngram_eval.files import read_input
from ngram_eval.models.hf.loading import load_tokenizer
from ngram_eval.text.shards import TokenStream
from ngram_eval.text.stream import MAX_VOCABULARY, Stream, Tokens, check_span

_CHUNK = 1 << 20
_SHOWN = 24


def byte_table() -> dict[str, int]:
    """Character -> the byte that it is in byte-level BPE (OpenAI's GPT-2, 2019).

    Bytes that Latin-1 prints are written as themselves, the others as the characters from U+0100 on, in order.
    """
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


class HfTokenizer:
    """`ngram_eval.text.tokenizer.TextTokenizer` of a Hugging Face tokenizer.

    Raises `InputError`, naming `source`, for a tokenizer whose tokens have unknown bytes.
    """

    def __init__(self, tokenizer: Any, source: str = "the tokenizer") -> None:
        """`tokenizer` is a `transformers.PreTrainedTokenizerBase` with a backend of the tokenizers library."""
        self._tokenizer, self._source = tokenizer, source
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if self._backend is None:
            raise InputError(
                f"{source} is a {type(tokenizer).__name__} without a backend of the tokenizers library: the bytes of "
                "its tokens are unknown; convert it to a tokenizer.json"
            )
        self._learn()

    @classmethod
    def load(cls, name: str) -> "HfTokenizer":
        """The tokenizer of a folder, a GGUF file or a name on the hub."""
        return cls(load_tokenizer(name), f"the tokenizer of --hf {name}")

    def _learn(self) -> None:
        self._definition = json.loads(self._backend.to_str())
        added = self._tokenizer.added_tokens_decoder
        special = {token for token, one in added.items() if one.special} | set(self._tokenizer.all_special_ids)
        vocabulary = self._tokenizer.get_vocab()
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        if not 1 <= self.vocab_size <= MAX_VOCABULARY:
            raise InputError(f"{self._source} has {self.vocab_size:,} tokens: give 1 to {MAX_VOCABULARY:,}")
        is_bytes, spelt = _spelling(self._definition, self._source)
        surfaces: list[bytes | None] = [None] * self.vocab_size
        for piece, token in vocabulary.items():
            if token in special:
                continue
            # Added tokens are written as plain text, whatever the form of the others.
            try:
                surfaces[token] = piece.encode() if is_bytes and token in added else spelt(piece)
            except KeyError as error:
                raise InputError(
                    f"{self._source}: the token {token}, {piece!r}, holds {error.args[0]!r}, which byte-level BPE does "
                    "not write: its bytes are unknown"
                ) from error
        unknown = self._definition["model"].get("unk_token")
        if unknown is None and isinstance(number := self._definition["model"].get("unk_id"), int):
            unknown = self._definition["model"]["vocab"][number][0]
        self.unknown_id: int | None = vocabulary.get(unknown) if unknown is not None else None
        if self.unknown_id is not None and surfaces[self.unknown_id] is not None:
            surfaces[self.unknown_id] = b""  # its text is lost
        self._surfaces = surfaces
        self._boundary = np.array([one is None for one in surfaces])
        self._sizes = np.array([len(one or b"") for one in surfaces], np.int64)
        self._spaced = np.array([(one or b"").startswith(b" ") for one in surfaces])
        self.dtype: DTypeLike = np.uint16 if self.vocab_size <= 1 << 16 else np.uint32

    @cached_property
    def sha256(self) -> str:
        """The sha256 of the whole definition."""
        canonical = json.dumps(self._definition, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @cached_property
    def _prefixed(self) -> bool:
        """Whether a space is put before a text."""
        return self._join(self._cut("a").tolist()).startswith(b" ")

    def surfaces(self) -> list[bytes | None]:
        """The bytes of each token within a text; None for special tokens, b"" for the unknown token."""
        return list(self._surfaces)

    @property
    def start_id(self) -> int | None:
        """The token that starts a document: BOS, else EOS, else None."""
        for token in (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return None

    @property
    def hf(self) -> Any:
        """The `transformers` tokenizer itself."""
        return self._tokenizer

    def _cut(self, text: str) -> Tokens:
        """Tokens of a text, without special tokens."""
        before = self._backend.encode_special_tokens
        self._backend.encode_special_tokens = True  # names of special tokens are text like any other
        self._backend.no_truncation()
        self._backend.no_padding()
        try:
            return np.array(self._backend.encode(text, add_special_tokens=False).ids, self.dtype)
        finally:
            self._backend.encode_special_tokens = before

    def _join(self, tokens: Sequence[int]) -> bytes:
        return b"".join(self._surfaces[token] or b"" for token in tokens)

    def encode(self, text: str, source: str = "the text") -> Tokens:
        """The tokens of a text, (N,) uint16, or uint32 above 65,536 tokens, without BOS.

        Raises `InputError`, naming the first difference, unless they spell the text byte for byte.
        """
        tokens = self._cut(text)
        expected, spelt = text.encode(), self._join(tokens.tolist())
        if self._prefixed:
            spelt = spelt.removeprefix(b" ")
        if spelt != expected:
            self._explain(tokens, spelt, expected, source)
        return tokens

    def _explain(self, tokens: Tokens, spelt: bytes, expected: bytes, source: str) -> None:
        """Raise `InputError` with the place where a text and its tokens differ."""
        a, b = (np.frombuffer(one[: min(len(spelt), len(expected))], np.uint8) for one in (spelt, expected))
        at = int(np.argmax(a != b)) if (a != b).any() else len(a)
        while at > 0 and expected[at : at + 1] > b"\x7f" and expected[at] & 0xC0 == 0x80:  # within a character
            at -= 1
        line = expected[:at].count(b"\n") + 1
        was, became = (one[at : at + _SHOWN].decode("utf-8", "replace") for one in (expected, spelt))
        unknown = np.flatnonzero(tokens == self.unknown_id) if self.unknown_id is not None else np.zeros(0, np.int64)
        why = "it drops or rewrites text"
        if len(unknown):
            why = f"its unknown token replaces text it has no token for ({len(unknown):,} times)"
        raise InputError(
            f"{source}: {self._source} is lossy, {why}. At byte {at:,} (line {line:,}) the text has {was!r}, its "
            f"tokens spell {became!r}. Bits per byte of a text need every byte of it: change the text there, or give a "
            "model whose tokenizer keeps it"
        )

    def read_texts(self, paths: Sequence[Path], max_tokens: int | None = None) -> TokenStream:
        """The files as one token stream, each a document that begins with `start_id`. Each file is tokenised whole.

        Raises `InputError` for a file that is missing, empty, not UTF-8, or not spelt by its tokens.
        """
        lead = [] if self.start_id is None else [np.array([self.start_id], self.dtype)]
        if not lead and len(paths) > 1:
            raise InputError(f"{self._source} has neither BOS nor EOS to separate documents with: give one --text")
        parts = [part for path in paths for part in (*lead, self.encode(_read(path), str(path)))]
        tokens: Tokens = np.concatenate(parts)
        return TokenStream(tokens[:max_tokens], tuple(paths), len(tokens))

    def target_bytes(self, tokens: Stream, start: int, stop: int, rule: ByteRule) -> NDArray[np.int64]:
        """Bytes of the targets tokens[p + 1] of positions p in [start, stop), (stop - start,) int64.

        These are the bytes that they spell; a space that the tokenizer puts after a special token is not counted.
        Raises `InputError` unless `rule` is "decoded": the published formula is for SentencePiece models.
        """
        if rule != "decoded":
            raise InputError(
                f"--byte-rule {rule} is a formula for SentencePiece models, and {self._source} is not one: give "
                "--byte-rule decoded"
            )
        check_span(tokens, start, stop)
        sizes = np.empty(stop - start, np.int64)
        for low in range(start, stop, _CHUNK):
            high = min(low + _CHUNK, stop)
            read = tokens[low : high + 1]
            sizes[low - start : high - start] = self._sizes[read[1:]]
            if self._prefixed:
                sizes[low - start : high - start] -= self._spaced[read[1:]] & self._boundary[read[:-1]]
        return sizes

    def unknown_targets(self, tokens: Stream, start: int, stop: int) -> int:
        """The number of targets tokens[p + 1] of positions p in [start, stop) that are the unknown token."""
        check_span(tokens, start, stop)
        if self.unknown_id is None:
            return 0
        return int(np.count_nonzero(tokens[start + 1 : stop + 1] == self.unknown_id))

    def text_bytes(self, tokens: Tokens) -> int:
        """UTF-8 bytes of the text of all tokens except the first, from the tokenizer's own decoder.

        For tokens that end within a character, which the decoder can't show, these are the bytes that they spell.
        """
        runs = list(_runs(tokens, self._boundary))
        total = sum(self._decoded_bytes(run) for run in runs)
        first = tokens[:1]
        return total - (0 if self._boundary[first].all() else self._decoded_bytes(first.tolist()))

    def _decoded_bytes(self, tokens: list[int]) -> int:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if "\ufffd" not in text:
            return len(text.encode())
        spelt = self._join(tokens)
        return len(spelt.removeprefix(b" ") if self._prefixed else spelt)


def _spelling(definition: dict[str, Any], source: str) -> tuple[bool, Callable[[str], bytes]]:
    """(whether it is byte-level BPE, a function from a piece to its bytes), from a tokenizer.json."""
    decoders = _parts(definition.get("decoder"))
    kinds = [one["type"] for one in decoders]
    if "ByteLevel" in kinds:
        table = byte_table()
        return True, lambda piece: bytes(table[character] for character in piece)
    marks = [mark for one in decoders if (mark := _space_mark(one)) is not None]
    if not marks:
        raise InputError(
            f"{source} decodes by {' and '.join(kinds) or 'nothing'}: the bytes of tokens are known only for "
            "byte-level BPE (ByteLevel) and SentencePiece (Metaspace, Replace)"
        )

    def spelt(piece: str) -> bytes:
        if "ByteFallback" in kinds and (byte := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece)):
            return bytes([int(byte[1], 16)])
        return piece.replace(marks[0], " ").encode()

    return False, spelt


def _parts(decoder: Any) -> list[dict[str, Any]]:
    """A decoder of tokenizer.json as a list; a sequence is flattened."""
    if decoder is None:
        return []
    if decoder["type"] == "Sequence":
        return [part for one in decoder["decoders"] for part in _parts(one)]
    return [decoder]


def _space_mark(decoder: dict[str, Any]) -> str | None:
    """The character that this decoder turns into a space, if any."""
    if decoder["type"] == "Metaspace":
        return str(decoder.get("replacement", "▁"))
    if decoder["type"] == "Replace" and decoder.get("content") == " ":
        pattern = decoder.get("pattern", {}).get("String")
        return None if pattern is None else str(pattern)
    return None


def _runs(tokens: Tokens, boundary: NDArray[np.bool_]) -> Iterator[list[int]]:
    """The tokens between boundaries."""
    run: list[int] = []
    for token in tokens.tolist():
        if boundary[token]:
            if run:
                yield run
            run = []
        else:
            run.append(token)
    if run:
        yield run


def _read(path: Path) -> str:
    data = read_input(path, "check --text")
    if not data:
        raise InputError(f"{path}: empty; give --text a file with text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 at byte {error.start:,} ({data[error.start : error.start + 4].hex(' ')}); convert it"
        ) from error
