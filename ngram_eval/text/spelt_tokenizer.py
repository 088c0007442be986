"""Tokenizers of which it is known what each token spells: their text into tokens, and the bytes of each of a stream.

Which bytes a token spells, a `Speller` knows. Special tokens have none; their names in a text are ordinary text, and
are tokenised as such. A tokenizer may put a space before a text (SentencePiece's dummy prefix); the first token of a
document then spells one byte too many, which is not counted. So the bytes of all targets are those of the text:
`tokens_of` compares them, byte for byte, and `check` compares tokens with what the library decodes them to.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ngram_eval.config import ByteRule
from ngram_eval.errors import InputError
from ngram_eval.text.spelling import Speller
from ngram_eval.text.stream import MAX_VOCABULARY, Stream, Tokens, check_span
from ngram_eval.text.tokenizer import SHOWN, first_difference, require_text

_CHUNK = 1 << 20
_CHECKED = 1 << 14
"""Tokens of a stream that are decoded by the library as well: about 64 kB of text."""
_LONGEST = 4
"""Bytes of the longest character: no more tokens end within one."""


class SpeltTokenizer:
    """`ngram_eval.text.tokenizer.Encoder` of a `Speller`.

    Raises `InputError`, naming `source`, for a tokenizer whose tokens have unknown bytes.
    """

    def __init__(self, spelling: Speller, starts: Sequence[int], around: Iterable[int], source: str) -> None:
        """`starts`: tokens that a document may start with, best first; `around`: what the encoder puts around one."""
        self._spelling, self._source = spelling, source
        surfaces = spelling.surfaces
        self.vocab_size = len(surfaces)
        if not 1 <= self.vocab_size <= MAX_VOCABULARY:
            raise InputError(f"{source} has {self.vocab_size:,} tokens: give 1 to {MAX_VOCABULARY:,}")
        self.dtype: DTypeLike = np.uint16 if self.vocab_size <= 1 << 16 else np.uint32
        self.unknown_id = spelling.unknown_id
        self.start_id: int | None = starts[0] if starts else None
        self._sizes = np.array([len(one or b"") for one in surfaces], np.int64)
        self._spaced = np.array([(one or b"").startswith(b" ") for one in surfaces])
        self._leads = self._find_leads([*starts, *around])

    def _find_leads(self, around: Sequence[int]) -> NDArray[np.bool_]:
        """Special tokens after which a space is the encoder's and not of the text, (V,).

        Some encoders put one after every special token, within a text as well; others only before a text.
        """
        spelling = self._spelling
        leads = np.zeros(self.vocab_size, np.bool_)
        if not spelling.prefixed:
            return leads
        special = np.zeros(self.vocab_size, np.bool_)
        silent = (token for token, one in enumerate(spelling.surfaces) if one is None and token != self.unknown_id)
        special[list(silent)] = True
        leads[list(around)] = True
        for name in (piece for piece, token in spelling.vocabulary.items() if special[token]):
            within = spelling.cut(f"{spelling.word}{name}{spelling.word}", names=True)
            if any(special[a] and self._spaced[b] for a, b in pairwise(within)):
                return special
        return leads & special

    @cached_property
    def sha256(self) -> str:
        """The sha256 of the bytes of all tokens: equal for two definitions that count alike."""
        whole = hashlib.sha256(bytes([self._spelling.prefixed]) + self._leads.tobytes())
        for one in self._spelling.surfaces:
            whole.update(b"-" if one is None else b"%d:%b" % (len(one), one))
        return whole.hexdigest()

    def surfaces(self) -> list[bytes | None]:
        """The bytes of each token within a text; None for special tokens, b"" for the unknown token."""
        return list(self._spelling.surfaces)

    @property
    def splits_at_newlines(self) -> bool:
        """Whether a text encodes to the tokens of its lines (each with its newline), one after another."""
        return self._spelling.splits_at_newlines

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text, (N,) uint16, or uint32 above 65,536 tokens, without BOS."""
        return [np.array(self._spelling.cut(text), self.dtype) for text in texts]

    def decode_batch(self, sequences: Sequence[Tokens | Sequence[int]]) -> list[str]:
        """What the tokens of each text on its own spell; U+FFFD for bytes that are no character."""
        return [self._spelling.spells(np.asarray(one).tolist()).decode("utf-8", "replace") for one in sequences]

    def tokens_of(self, text: str, source: str = "the text") -> Tokens:
        """The tokens of a text, (N,) uint16, or uint32 above 65,536 tokens, without BOS.

        Raises `InputError`, naming the first difference, unless they spell the text byte for byte.
        """
        (tokens,) = self.encode([text])
        expected, spelt = text.encode(), self._spelling.spells(tokens.tolist())
        if spelt != expected:
            unknown = np.flatnonzero(tokens == self.unknown_id) if self.unknown_id is not None else np.zeros(0)
            why = "it drops or rewrites text"
            if len(unknown):
                why = f"its unknown token replaces text it has no token for ({len(unknown):,} times)"
            elif named := [token for token in tokens.tolist() if self._spelling.surfaces[token] is None]:
                why = f"it cuts text into the special token {named[0]}"
            require_text(spelt, expected, source, self._source, why)
        return tokens

    def check(self, tokens: Stream, part: tuple[int, int] = (0, 1)) -> None:
        """Raise `InputError` for a stream whose tokens have unknown bytes; a text's own tokens are known by the text.

        Tokens that stand for different bytes in different texts are looked for in one `part` (rank, world) of the
        stream. The first 16,384 tokens are compared with what the library decodes them to, and that with its tokens.
        """
        doubtful = np.zeros(self.vocab_size, np.bool_)
        doubtful[list(self._spelling.doubtful)] = True
        rank, world = part
        stop = len(tokens) * (rank + 1) // world
        for start in range(len(tokens) * rank // world, stop, _CHUNK):
            chunk = tokens[start : min(start + _CHUNK, stop)]
            if (found := doubtful[chunk]).any():
                at = int(np.argmax(found))
                raise InputError(
                    f"{self._source}: the bytes of token {chunk[at]} at position {start + at} are unknown: "
                    f"{self._spelling.doubtful[int(chunk[at])]}. Give the text itself (--text)"
                )
        for _, run in self._runs(tokens[:_CHECKED]):
            spelt, written = self._spelling.join(run), self._written(run)
            if spelt != written:
                at = first_difference(spelt, written)
                token = int(np.searchsorted(np.cumsum(self._sizes[run]), at, "right"))
                raise InputError(
                    f"{self._source} contradicts itself: by its definition the tokens {run[token : token + 4]} spell "
                    f"{spelt[at : at + SHOWN]!r}, its decoder writes {written[at : at + SHOWN]!r} for them"
                )
            if self._spelling.encodes:
                # Where a run begins or ends within a text, spaces and parts of characters say nothing.
                self.tokens_of(written.decode("utf-8", "ignore").strip(), "the text of the data")

    def target_bytes(self, tokens: Stream, start: int, stop: int, rule: ByteRule) -> NDArray[np.int64]:
        """Bytes of the targets tokens[p + 1] of positions p in [start, stop), (stop - start,) int64.

        These are the bytes that they spell; a space that the tokenizer itself puts before a text is not counted.
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
            sizes[low - start : high - start] -= self._spaced[read[1:]] & self._leads[read[:-1]]
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
        return len(self.written(tokens)) - len(self.written(tokens[:1]))

    def written(self, tokens: Tokens) -> bytes:
        """What the tokenizer's own decoder writes for a stream's first tokens, without special and unknown tokens."""
        led = np.append(self._spelling.prefixed, self._leads[tokens[:-1]])
        runs = ((start, self._written(run)) for start, run in self._runs(tokens))
        return b"".join(text.removeprefix(b" ") if led[start] else text for start, text in runs)

    def _runs(self, tokens: Tokens) -> Iterator[tuple[int, list[int]]]:
        """(start, tokens) of each run of tokens with text, between those without."""
        silent = np.flatnonzero(self._sizes[tokens] == 0)
        for start, stop in zip([0, *silent + 1], [*silent, len(tokens)], strict=True):
            if start < stop:
                yield int(start), tokens[start:stop].tolist()

    def _written(self, run: list[int]) -> bytes:
        """What the decoder writes for tokens within a text; what it can't, a character cut off, as it is spelt."""
        for stop in range(len(run), max(len(run) - _LONGEST, -1), -1):
            text, rest = self._spelling.decode(run[:stop]), self._spelling.join(run[stop:])
            if text.count("\ufffd") == self._spelling.join(run[:stop]).decode("utf-8", "ignore").count("\ufffd"):
                return text.encode() + rest
        return self._spelling.join(run)  # not a text
