"""The bytes that each token of a tokenizer spells: the one place that knows.

Of a tokenizer.json they are read off the definition itself (`tokenizers.Tokenizer.to_str`): its model, decoder and
added tokens. What classes and attributes say of a tokenizer is not believed. Two kinds of decoders write a text without
loss:

- byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM): every token is a string of bytes, written in a table of 256 characters;
- SentencePiece's (Llama 2, Gemma, Mistral): "▁" is a space, `<0xE2>` a byte, other characters are themselves.

What was read is held against the library: its encoder cuts probes, its decoder writes every token.

Where tokens are strings of bytes and nothing else (tiktoken's encodings, bytes themselves), `ByteStrings` has them.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Protocol

from ngram_eval.errors import InputError

Spelt = Callable[[str], bytes]
"""The bytes of a piece of the vocabulary."""
_WORDS = 64
"""Words that are cut to see whether the encoder puts a space before a text."""
_RARE = "\ue000"
"""A character (for private use) that no vocabulary has a token with: a space beside it is cut on its own."""


def byte_table() -> dict[str, int]:
    """Character -> the byte that it is in byte-level BPE (OpenAI's GPT-2, 2019).

    Bytes that Latin-1 prints are written as themselves, the others as the characters from U+0100 on, in order.
    """
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


class Speller(Protocol):
    """What is known of the tokens of a tokenizer."""

    surfaces: list[bytes | None]
    """The bytes of each token within a text; None for special tokens, b"" for the unknown token."""
    vocabulary: dict[str, int]
    """Tokens with names, special ones among them."""
    unknown_id: int | None
    doubtful: dict[int, str]
    """Tokens that stand for different bytes in different texts -> why; a text shows which, tokens alone do not."""
    prefixed: bool
    """Whether the encoder puts a space before a text."""
    encodes: bool
    """Whether it can cut a text."""
    splits_at_newlines: bool
    """Whether a text is cut into the tokens of its lines (each with its newline), one after another."""

    @property
    def word(self) -> str:
        """The text of a token that is plain text."""

    def cut(self, text: str, names: bool = False) -> Sequence[int]:
        """The tokens of a text; `names` of special tokens in it are text like any other unless asked for."""

    def join(self, tokens: Iterable[int]) -> bytes:
        """The bytes that tokens spell, a space before the text included."""

    def spells(self, tokens: Iterable[int]) -> bytes:
        """The bytes that the tokens of a whole text spell, without the space that the encoder puts before it."""

    def decode(self, tokens: Sequence[int]) -> str:
        """What the library's own decoder writes for tokens within a text."""


class ByteStrings:
    """`Speller` of tokens that are strings of bytes wherever they stand."""

    def __init__(
        self, surfaces: list[bytes | None], cut: Callable[[str], Sequence[int]] | None, source: str, lines: bool = False
    ) -> None:
        """`cut` makes tokens of a text, if it is known how; `lines`: line by line."""
        self.surfaces, self._cut, self._source = surfaces, cut, source
        self.vocabulary: dict[str, int] = {}
        self.unknown_id: int | None = None
        self.doubtful: dict[int, str] = {}
        self.prefixed, self.encodes, self.splits_at_newlines = False, cut is not None, lines
        self.word = ""

    def cut(self, text: str, names: bool = False) -> Sequence[int]:
        """The tokens of a text; raises `InputError` where it is not known how a text is cut."""
        if self._cut is None:
            raise InputError(
                f"{self._source} holds the bytes of tokens, not how a text is cut into them: give the tokenizer.json "
                "of the same encoding, or its name (tiktoken:gpt2)"
            )
        return self._cut(text)

    def join(self, tokens: Iterable[int]) -> bytes:
        """The bytes that tokens spell."""
        return b"".join(self.surfaces[token] or b"" for token in tokens)

    spells = join

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of these bytes; U+FFFD for what is no character."""
        return self.join(tokens).decode("utf-8", "replace")


class Spelling:
    """`Speller` of a `tokenizers.Tokenizer`; raises `InputError`, naming `source`, where bytes are unknown."""

    encodes, splits_at_newlines = True, False

    def __init__(self, backend: Any, named: Iterable[int], starts: Iterable[int], source: str) -> None:
        """`named` are tokens that someone calls special, `starts` those of them that a document may start with.

        A special token that ordinary text is cut into is a word all the same, unless documents start with it.
        """
        self._backend, self._source = backend, source
        self.definition: dict[str, Any] = json.loads(backend.to_str())
        self.vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
        self._added = {one["id"]: one for one in self.definition["added_tokens"]}
        special = {token for token, one in self._added.items() if one["special"]} | set(named)
        self.surfaces = self._spell(special)
        """The bytes of each token within a text; None for special tokens, b"" for the unknown token."""
        self.anchor = self._find_anchor(special)
        """A token that is plain text: what follows it is not at the start of a text."""
        self.doubtful: dict[int, str] = {}
        """Tokens that stand for different bytes in different texts -> why; a text shows which, tokens alone do not."""
        self._keep_words(special, frozenset(starts))
        words = (one.decode().strip() for one in self.surfaces if one and one.isascii() and one.strip().isalnum())
        self.prefixed = any(self.join(self.cut(word)).startswith(b" ") for word in islice(words, _WORDS))
        """Whether the encoder puts a space before a text."""
        self._ask_encoder(special)
        self._ask_decoder()

    def cut(self, text: str, names: bool = False) -> list[int]:
        """The tokens of a text; `names` of special tokens in it are text like any other unless asked for."""
        before = self._backend.encode_special_tokens
        self._backend.encode_special_tokens = not names
        self._backend.no_truncation()
        self._backend.no_padding()
        try:
            found: list[int] = self._backend.encode(text, add_special_tokens=False).ids
            return found
        finally:
            self._backend.encode_special_tokens = before

    def join(self, tokens: Iterable[int]) -> bytes:
        """The bytes that tokens spell, a space before the text included."""
        return b"".join(self.surfaces[token] or b"" for token in tokens)

    def spells(self, tokens: Iterable[int]) -> bytes:
        """The bytes that the tokens of a whole text spell, without the space that the encoder puts before it."""
        return self.join(tokens).removeprefix(b" " if self.prefixed else b"")

    def decode(self, tokens: Sequence[int]) -> str:
        """What the library's own decoder writes for tokens within a text."""
        text: str = self._backend.decode([self.anchor, *tokens], skip_special_tokens=False)
        return text.removeprefix(self._backend.decode([self.anchor]))

    @property
    def word(self) -> str:
        """The text of the anchor."""
        return self.join([self.anchor]).decode().strip()

    def _spell(self, special: set[int]) -> list[bytes | None]:
        is_bytes, spelt, self._mark = self._kind()
        surfaces: list[bytes | None] = [None] * (max(self.vocabulary.values(), default=-1) + 1)
        for piece, token in self.vocabulary.items():
            # An added token is written as it is in the text, whatever the form of the others.
            literal = is_bytes and token in self._added and token not in special
            try:
                surfaces[token] = piece.encode() if literal else spelt(piece)
            except KeyError as error:
                if token not in special:
                    raise InputError(
                        f"{self._source}: the token {token}, {piece!r}, holds {error.args[0]!r}, which byte-level BPE "
                        "does not write: its bytes are unknown"
                    ) from error
        return surfaces

    def _kind(self) -> tuple[bool, Spelt, str | None]:
        """(whether it is byte-level BPE, a function from a piece to its bytes, the character for a space if any)."""
        decoders = _parts(self.definition.get("decoder"))
        kinds = [one["type"] for one in decoders]
        if "ByteLevel" in kinds:
            table = byte_table()
            return True, lambda piece: bytes(table[character] for character in piece), None
        marks = [mark for one in decoders if (mark := _space_mark(one)) is not None]
        if not marks:
            raise InputError(
                f"{self._source} decodes by {' and '.join(kinds) or 'nothing'}: the bytes of tokens are known only for "
                "byte-level BPE (ByteLevel) and SentencePiece (Metaspace, Replace)"
            )
        mark = marks[0]
        if not any(mark in piece for piece, token in self.vocabulary.items() if token not in self._added):
            raise InputError(
                f"{self._source} contradicts itself: its decoder takes {mark!r} for a space, and no token of its "
                "vocabulary has one. It was loaded as something else than it is: check tokenizer_class in its "
                'tokenizer_config.json ("PreTrainedTokenizerFast" takes tokenizer.json as it stands)'
            )

        def spelt(piece: str) -> bytes:
            if "ByteFallback" in kinds and (byte := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece)):
                return bytes([int(byte[1], 16)])
            return piece.replace(mark, " ").encode()

        return False, spelt, mark

    def _find_anchor(self, special: set[int]) -> int:
        plain = (
            token
            for token, one in enumerate(self.surfaces)
            if one and (word := one.strip()).isalpha() and token not in self._added and token not in special
            if self._backend.id_to_token(token).encode().endswith(word)  # not a byte
        )
        if (found := next(plain, None)) is None:
            raise InputError(f"{self._source} has no token that is a plain word or letter: its bytes can't be checked")
        return found

    def _keep_words(self, special: set[int], starts: frozenset[int]) -> None:
        """Take the bytes from special tokens, but for those that are words, and from the unknown token."""
        model = self.definition["model"]
        piece = model.get("unk_token")
        if piece is None and isinstance(number := model.get("unk_id"), int):
            piece = model["vocab"][number][0]
        self.unknown_id: int | None = None if piece is None else self.vocabulary.get(piece)
        # Only merges tell a word from a name that stands in the vocabulary, too.
        is_merges = model["type"] == "BPE"
        merges = model["merges"] if is_merges else []
        merged = {one.replace(" ", "", 1) if isinstance(one, str) else "".join(one) for one in merges}
        for piece, token in self.vocabulary.items():
            if token not in special:
                continue
            is_word = piece in merged or (is_merges and len(piece) == 1 and piece in model["vocab"])
            if token in starts or token == self.unknown_id or not is_word:
                self.surfaces[token] = None
            if token in starts and is_word:
                self.doubtful[token] = f"documents start with {piece!r}, and ordinary text is cut into it as well"
            elif not is_merges and token not in starts and token != self.unknown_id:
                self.doubtful[token] = f"{piece!r} is called special, and may be a word"
        if self.unknown_id is not None and self.surfaces[self.unknown_id] is not None:
            self.surfaces[self.unknown_id] = b""  # its text is lost

    def _cuts_with(self, token: int) -> list[tuple[str, list[int]]]:
        """(text, tokens) of probes that hold the token's text, within words, and are cut into that token."""
        text, around = self.join([token]).decode("utf-8", "replace"), self.word
        normalizer = self._backend.normalizer
        texts = {text} if normalizer is None else {text, normalizer.normalize_str(text)}
        probes = [f"{around}{gap}{one}{gap}{around}" for one in sorted(texts) for gap in ("", " ")]
        return [(probe, tokens) for probe in probes if token in (tokens := self.cut(probe))]

    def _ask_encoder(self, special: set[int]) -> None:
        """Refuse spaces that it spells in bytes; doubt the added tokens that it cuts from other text than their own."""
        if self._mark is not None and self._mark.encode() in self.join(self.cut(f"{_RARE} {_RARE}")):
            raise InputError(
                f"{self._source} has no token {self._mark!r} for a space and writes one as three byte tokens, which "
                "its decoder does not make a space again: the bytes of a text are unknown; give a tokenizer that has it"
            )
        for token in self._added.keys() - special - {self.unknown_id}:
            for probe, tokens in self._cuts_with(token):
                if (spelt := self.spells(tokens)) != probe.encode():
                    self.doubtful[token] = (
                        f"{probe!r} is cut into {tokens}, which spell {spelt.decode(errors='replace')!r}"
                    )

    def _ask_decoder(self) -> None:
        """The library's decoder must write the bytes of every token; of an added one that it misreads, those doubt."""
        known = [token for token, one in enumerate(self.surfaces) if one]
        listed = [one for token in known for one in (token, self.anchor)]
        if self.decode(listed) == self.join(listed).decode("utf-8", "replace"):
            return
        for token in known:
            within = [token, self.anchor]
            spelt, written = self.join(within).decode("utf-8", "replace"), self.decode(within)
            if written == spelt:
                continue
            if token not in self._added:
                raise InputError(
                    f"{self._source} contradicts itself: by its definition the tokens {within} spell {spelt!r}, its "
                    f"decoder writes {written!r}: the bytes of its tokens are unknown"
                )
            self.doubtful[token] = f"by its definition the tokens {within} spell {spelt!r}, it decodes {written!r}"


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
