"""Tokenizers, and the bytes that each token decodes to; this module holds SentencePiece's."""

import bisect
import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ngram_eval.config import ByteRule
from ngram_eval.errors import InputError, refusing
from ngram_eval.files import read_input
from ngram_eval.text.stream import Stream, Tokens, check_span

_CHUNK = 1 << 20
"""Tokens handled at once; temporaries of this size stay in the cache."""
_CHECKED = 1 << 14
"""Tokens of a stream that are decoded, about 64 kB of text, to see that their bytes are counted right."""
_SPACES = "\ue000 \ue000"
"""A space that is cut on its own: no piece has these characters (for private use)."""
SHOWN = 24
"""Bytes of a text that a message shows."""
OTHER_TOKENIZER = "the shards were made with another tokenizer; give the one that made them"
MOST_MODEL_BYTES = 1 << 28
"""Most bytes of a SentencePiece model; the largest in use have 10 MB."""


def check_vocabulary(
    tokens: Stream,
    vocab_size: int,
    source: str,
    part: tuple[int, int] = (0, 1),
    first: int = 0,
    remedy: str = OTHER_TOKENIZER,
) -> None:
    """Raise `InputError` if a token is not below vocab_size; the message calls the owner of the vocabulary `source`.

    With `part` (rank, world), only that rank's share of the tokens is checked; `first` is the position of `tokens[0]`.
    """
    rank, world = part
    stop = len(tokens) * (rank + 1) // world
    for start in range(len(tokens) * rank // world, stop, _CHUNK):
        chunk = tokens[start : min(start + _CHUNK, stop)]
        if int(chunk.max()) >= vocab_size:
            bad = int(np.argmax(chunk >= vocab_size))
            raise InputError(
                f"token {chunk[bad]} at position {first + start + bad} is outside the vocabulary of {source} "
                f"({vocab_size} tokens): {remedy}"
            )


def first_difference(a: Sequence[int], b: Sequence[int]) -> int:
    """Where two sequences begin to differ; the length of the shorter if that is how the longer begins."""
    x, y = (np.array(memoryview(one) if isinstance(one, bytes) else one)[: min(len(a), len(b))] for one in (a, b))
    return int(np.argmax(x != y)) if (x != y).any() else len(x)


def require_text(spelt: bytes, expected: bytes, source: str, owner: str, why: str) -> None:
    """Raise `InputError`, naming the first difference, unless the tokens of a text spell it.

    `source` names the text, `owner` its tokenizer, `why` says what that did.
    """
    if spelt == expected:
        return
    at = first_difference(spelt, expected)
    while at > 0 and expected[at : at + 1] > b"\x7f" and expected[at] & 0xC0 == 0x80:  # within a character
        at -= 1
    line = expected[:at].count(b"\n") + 1
    was, became = (one[at : at + SHOWN].decode("utf-8", "replace") for one in (expected, spelt))
    raise InputError(
        f"{source}: {owner} is lossy, {why}. At byte {at:,} (line {line:,}) the text has {was!r}, its tokens spell "
        f"{became!r}. Bits per byte of a text need every byte of it: change the text there, or give a tokenizer that "
        "keeps it"
    )


class TextTokenizer(Protocol):
    """What an evaluation needs of a tokenizer: the bytes that tokens decode to."""

    vocab_size: int
    """Number of tokens."""

    @property
    def sha256(self) -> str:
        """The sha256 of the tokenizer's file."""

    def surfaces(self) -> list[bytes | None]:
        """The bytes of each token within a text; None for a token without text, or whose text is lost."""

    def target_bytes(self, tokens: Stream, start: int, stop: int, rule: ByteRule) -> NDArray[np.int64]:
        """Bytes of the targets tokens[p + 1] of positions p in [start, stop), (stop - start,)."""

    def unknown_targets(self, tokens: Stream, start: int, stop: int) -> int:
        """The number of these targets that are unknown tokens, whose text is lost."""

    def text_bytes(self, tokens: Tokens) -> int:
        """Bytes of the text of all tokens except the first, from the decoder alone."""

    def written(self, tokens: Tokens) -> bytes:
        """What the decoder writes for a stream's first tokens."""

    def check(self, tokens: Stream, part: tuple[int, int] = (0, 1)) -> None:
        """Raise `InputError` for tokens whose bytes are unknown; of a long stream only `part` (rank, world) is read."""


def stream_bytes(tokenizer: TextTokenizer, tokens: Stream) -> int:
    """Bytes of all targets of a stream, under the rule "decoded"."""
    targets = len(tokens) - 1
    spans = ((start, min(start + _CHUNK, targets)) for start in range(0, targets, _CHUNK))
    return sum(int(tokenizer.target_bytes(tokens, start, stop, "decoded").sum()) for start, stop in spans)


class Encoder(TextTokenizer, Protocol):
    """A tokenizer that makes tokens of a text as well."""

    dtype: DTypeLike
    """uint16, or uint32 above 65,536 tokens."""
    start_id: int | None
    """The token that starts a document, if it has one."""

    @property
    def splits_at_newlines(self) -> bool:
        """Whether a text encodes to the tokens of its lines (each with its newline), one after another."""

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text, (N,), without `start_id`."""

    def decode_batch(self, sequences: Sequence[Tokens | Sequence[int]]) -> list[str]:
        """The text of each token sequence on its own."""

    def tokens_of(self, text: str, source: str = "the text") -> Tokens:
        """The tokens of one text; raises `InputError`, naming `source`, unless they spell it byte for byte."""


class Tokenizer:
    """A SentencePiece model, and the number of bytes that each of its tokens counts.

    Two rules count bytes. "piece" is the published formula: the UTF-8 length of the target's piece without a leading
    "▁", plus 1 if it has one and the token before is not control, unknown or unused; a byte token counts 1; control,
    unknown and unused tokens count 0. "decoded" is what the target adds to the decoded text: every "▁" counts 1,
    wherever it is in the piece; a byte token 1; control tokens 0; and unknown tokens 0, since their text is lost.

    SentencePiece drops the "▁" that its encoder put (or may have put) before a text: with `add_dummy_prefix` one from
    the first token that is not a control token; with `remove_extra_whitespaces` one from every token until there is
    text, which removes a whole run of "▁" tokens. It does so once, at the start of the stream; a "▁" after a later
    BOS is a space. So "decoded" sums to `len(decode(x[0..T])) - len(decode(x[0..0]))` UTF-8 bytes if nothing is unknown
    and byte tokens form valid UTF-8. (SentencePiece writes U+FFFD, three bytes, for a byte that does not; we count 1,
    so a stream cut within a character still counts its bytes once.)
    The sum does not hold for a model with a denormaliser, which rewrites the text after decoding.
    """

    def __init__(self, model: bytes, source: str = "the tokenizer") -> None:
        """Load a serialised SentencePiece model.

        Raises `InputError`, naming `source`, if `model` is not one.
        """
        if not model:
            raise InputError(f"{source} is empty, not a SentencePiece model: give a .model file")
        import sentencepiece  # not at the top: reading shards does not need it

        with refusing(source, "is not a SentencePiece model", "give a .model file"):
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            self.vocab_size: int = self._processor.get_piece_size()
            self._pieces: list[str] = [self._processor.id_to_piece(i) for i in range(self.vocab_size)]
        self.sha256 = hashlib.sha256(model).hexdigest()
        self.dtype: DTypeLike = np.uint16 if self.vocab_size <= 1 << 16 else np.uint32
        self.start_id: int | None = self._processor.bos_id() if self._processor.bos_id() >= 0 else None
        self._source = source
        self._learn_pieces()
        if not self._unknown.any():
            raise InputError(f"{source} has no unknown token, which every SentencePiece model has: fetch it again")
        self._learn_decoder()

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Read a SentencePiece .model file; raises `InputError` if it is missing, unreadable or not such a model."""
        return cls(read_input(Path(path), "give --tokenizer a .model file", MOST_MODEL_BYTES), str(path))

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text, (N,) uint16 or (above 65,536 pieces) uint32, without BOS; uses every core."""
        return [np.array(ids, self.dtype) for ids in self._processor.encode(list(texts), out_type=int, num_threads=-1)]

    def tokens_of(self, text: str, source: str = "the text") -> Tokens:
        """The tokens of one text; raises `InputError`, naming the first difference, unless they decode to it."""
        (tokens,) = self.encode([text])
        why = "its normalisation or its unknown token changes text"
        require_text(self.decode(tokens).encode(), text.encode(), source, self._source, why)
        return tokens

    def decode(self, tokens: Tokens | Sequence[int]) -> str:
        """The text of tokens."""
        return self.decode_batch([tokens])[0]

    def decode_batch(self, sequences: Sequence[Tokens | Sequence[int]]) -> list[str]:
        """The text of each token sequence on its own; uses every core."""
        ids = [np.asarray(tokens).tolist() for tokens in sequences]
        texts: list[str] = self._processor.decode(ids, num_threads=-1) if ids else []
        return texts

    def surfaces(self) -> list[bytes | None]:
        """The bytes of each token within a text; None for a token without text, or whose text is lost."""
        return list(self._surfaces)

    @cached_property
    def _surfaces(self) -> list[bytes | None]:
        return [
            bytes([int(piece[3:5], 16)]) if byte else None if boundary else piece.replace("▁", " ").encode()
            for piece, byte, boundary in zip(self._pieces, self._byte.tolist(), self._boundary.tolist(), strict=True)
        ]

    @property
    def unknown_id(self) -> int:
        """The number of the unknown token."""
        return int(np.argmax(self._unknown))

    def text_bytes(self, tokens: Tokens) -> int:
        """UTF-8 bytes of the text of all tokens except the first, from the decoder alone.

        Equals the sum of `target_bytes`. Unknown tokens have no bytes; a byte that is not part of a character counts 1.
        """
        return self._decoded_bytes(tokens) - self._decoded_bytes(tokens[:1])

    def written(self, tokens: Tokens) -> bytes:
        """What the decoder writes for a stream's first tokens; U+FFFD for a byte that is not part of a character."""
        return self.decode(tokens).encode()

    def _decoded_bytes(self, tokens: Tokens) -> int:
        text = self.decode(tokens)
        spelt = b"".join(self._surfaces[token] or b"\n" for token in tokens.tolist())
        # The decoder shows a stray byte as U+FFFD, three bytes, which a text may hold as well.
        stray = text.count("\ufffd") - spelt.count("\ufffd".encode())
        return len(text.encode()) - 2 * stray - self._unknown_bytes * self.unknown_count(tokens)

    def check(self, tokens: Stream, part: tuple[int, int] = (0, 1)) -> None:
        """Raise `InputError` unless the first 16,384 tokens count as many bytes as the decoder makes of them.

        And for a space that is three byte tokens, anywhere: `check_spaces`.
        """
        self.check_spaces(tokens)
        first = tokens[:_CHECKED]

        def sizes(stop: int) -> tuple[int, int]:
            counted = int(self.target_bytes(first, 0, stop, "decoded").sum())
            return counted, self.text_bytes(first[: stop + 1])

        counted, decoded = sizes(len(first) - 1)
        if counted == decoded:
            return
        at = bisect.bisect_left(range(len(first)), True, key=lambda stop: len(set(sizes(stop))) > 1)
        shown = first[max(at - 2, 0) : at + 2]
        raise InputError(
            f"{self._source} contradicts itself: by its pieces the first {len(first):,} tokens have {counted:,} bytes, "
            f"its decoder writes {decoded:,}. They part at position {at - 1}: tokens {shown.tolist()}, pieces "
            f"{[self._pieces[token] for token in shown]}, decoded {self.decode(shown)!r}"
        )

    def check_spaces(self, tokens: Stream) -> None:
        """Raise `InputError` for a space that is three byte tokens, as a model without the piece "▁" writes it."""
        if "▁" not in self.decode(self._processor.encode(_SPACES)):
            return
        spelt = [self._surfaces.index(bytes([byte])) for byte in "▁".encode()]
        for start in range(0, len(tokens), _CHUNK):
            read = tokens[start : start + _CHUNK + 2]
            at = np.flatnonzero((read[:-2] == spelt[0]) & (read[1:-1] == spelt[1]) & (read[2:] == spelt[2]))
            if len(at):
                raise InputError(
                    f"{self._source} has no piece '▁' for a space and writes one as three byte tokens (from token "
                    f"{start + int(at[0]):,} on), which its decoder does not make a space again: its bytes "
                    "are unknown; give a model that has that piece"
                )

    @property
    def splits_at_newlines(self) -> bool:
        """Whether a text encodes to the tokens of its lines (each with its newline), one after another.

        Then a document of any length can be encoded in parts. This needs a newline token, and a normaliser that adds
        and removes no space.
        """
        text = "a \n b\n\n  c\n\n\n d"
        whole, *lines = self.encode([text, *text.splitlines(keepends=True)])
        return (
            not any("\n" in piece and piece != "\n" for piece in self._pieces)
            and not self._unknown[whole].any()
            and self.decode(whole) == text
            and np.array_equal(whole, np.concatenate(lines))
        )

    def target_bytes(self, tokens: Stream, start: int, stop: int, rule: ByteRule) -> NDArray[np.int64]:
        """Bytes of the targets tokens[p + 1] of positions p in [start, stop), (stop - start,) int64.

        `tokens` is the whole stream of N, all below vocab_size: a target's bytes depend on the tokens before it.
        Spans add up. Raises `ValueError` for positions outside [0, N - 1).
        """
        check_span(tokens, start, stop)
        sizes = np.empty(stop - start, np.int64)
        leading = self._count_leading(tokens, stop + 1) if rule == "decoded" else 0
        for lo in range(start, stop, _CHUNK):
            hi = min(lo + _CHUNK, stop)
            read = tokens[lo : hi + 1]
            targets = read[1:]
            chunk = sizes[lo - start : hi - start]
            if rule == "piece":
                chunk[:] = self._piece_bytes[targets] + (self._spaced[targets] & ~self._boundary[read[:-1]])
                continue
            chunk[:] = self._later_bytes[targets]
            first_targets = targets[: max(0, leading - lo - 1)]
            chunk[: len(first_targets)] = self._first_bytes[first_targets]
        return sizes

    def unknown_targets(self, tokens: Stream, start: int, stop: int) -> int:
        """The number of targets tokens[p + 1] of positions p in [start, stop) that are the unknown token."""
        check_span(tokens, start, stop)
        return self.unknown_count(tokens[start + 1 : stop + 1])

    def unknown_count(self, tokens: Tokens) -> int:
        """The number of tokens that are the unknown token."""
        return sum(
            int(np.count_nonzero(self._unknown[tokens[lo : lo + _CHUNK]])) for lo in range(0, len(tokens), _CHUNK)
        )

    def _count_leading(self, tokens: Stream, stop: int) -> int:
        """The number of tokens at the start of a stream that decode as the start of a text, at most `stop`.

        Nothing after `stop` is read.
        """
        for lo in range(0, stop, _CHUNK):
            stays = self._stays_leading[tokens[lo : min(lo + _CHUNK, stop)]]
            if not stays.all():
                return lo + int(np.argmin(stays)) + 1
        return stop

    def _learn_pieces(self) -> None:
        processor, ids = self._processor, range(self.vocab_size)
        self._byte = np.array([processor.is_byte(i) for i in ids])
        self._unknown = np.array([processor.is_unknown(i) for i in ids])
        self._boundary = self._unknown | [processor.is_control(i) or processor.is_unused(i) for i in ids]
        text = ~(self._boundary | self._byte)
        self._spaced = text & [piece.startswith("▁") for piece in self._pieces]
        self._piece_bytes = np.array([len(piece.removeprefix("▁").encode()) for piece in self._pieces])
        self._piece_bytes[self._byte] = 1
        self._piece_bytes[self._boundary] = 0

    def _learn_decoder(self) -> None:
        """Measure with the decoder how many bytes each token adds, at the start of a text and later.

        The decoder depends on settings that only the model's protocol buffer holds; the measurement covers them all.
        """

        def decoded_bytes(sequences: Iterator[list[int]]) -> NDArray[np.int64]:
            return np.array([len(text.encode()) for text in self.decode_batch(list(sequences))], np.int64)

        ids = range(self.vocab_size)
        first = decoded_bytes([i] for i in ids)
        anchor = int(np.argmax(first))  # a token with text: what follows it is not the start
        later = decoded_bytes([anchor, i] for i in ids) - first[anchor]
        doubled = decoded_bytes([i, i] for i in ids)
        # A token without text leaves the decoder at the start. One whose space was dropped may count as text or not:
        # doubled, it shows which.
        self._stays_leading = (first == 0) & (doubled == 0)
        self._unknown_bytes = int(later[self._unknown].max())  # what is written for lost text
        for sizes in (first, later):
            sizes[self._byte] = 1  # alone, a byte above 127 decodes to U+FFFD
            sizes[self._unknown] = 0
        self._first_bytes, self._later_bytes = first, later
