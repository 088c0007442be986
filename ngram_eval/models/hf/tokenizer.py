"""Hugging Face tokenizers: a text into tokens, and the number of bytes of each token of a stream.

Which bytes a token spells, `spelling` knows. Special tokens have none; their names in a text are ordinary text, and are
tokenised as such. A tokenizer may put a space before a text (SentencePiece's dummy prefix); the first token of a
document then spells one byte too many, which is not counted. So the bytes of all targets are those of the text:
`encode` compares them, byte for byte, and `check` compares tokens with what the library decodes them to.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ngram_eval.config import ByteRule
from ngram_eval.errors import InputError
from ngram_eval.files import read_input
from ngram_eval.models.hf.loading import load_tokenizer
from ngram_eval.models.hf.spelling import Spelling
from ngram_eval.structured import parse
from ngram_eval.text.shards import TokenStream
from ngram_eval.text.stream import MAX_VOCABULARY, Stream, Tokens, check_span
from ngram_eval.text.tokenizer import MOST_MODEL_BYTES, first_difference

_CHUNK = 1 << 20
_CHECKED = 1 << 14
"""Tokens of a stream that are decoded by the library as well: about 64 kB of text."""
_LONGEST = 4
"""Bytes of the longest character: no more tokens end within one."""
_SHOWN = 24
_PROBE = " The quick  brown fox's 12,345 náïve cafés\n\tsaid: “déjà vu” 東京 🦊 e\u0301\r\n  def f(x):  return x_1\n"
"""Text that two definitions of one tokenizer must cut alike after a word; before a text, one may put a space."""


class HfTokenizer:
    """`ngram_eval.text.tokenizer.TextTokenizer` of a Hugging Face tokenizer.

    Raises `InputError`, naming `source`, for a tokenizer whose tokens have unknown bytes.
    """

    def __init__(self, tokenizer: Any, source: str = "the tokenizer") -> None:
        """`tokenizer` is a `transformers.PreTrainedTokenizerBase` with a backend of the tokenizers library."""
        self._tokenizer, self._source = tokenizer, source
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise InputError(
                f"{source} is a {type(tokenizer).__name__} without a backend of the tokenizers library: the bytes of "
                "its tokens are unknown; convert it to a tokenizer.json"
            )
        self._spelling = Spelling(backend, tokenizer.all_special_ids, self._starts, source)
        surfaces = self._spelling.surfaces
        self.vocab_size = len(surfaces)
        if not 1 <= self.vocab_size <= MAX_VOCABULARY:
            raise InputError(f"{source} has {self.vocab_size:,} tokens: give 1 to {MAX_VOCABULARY:,}")
        self.dtype: DTypeLike = np.uint16 if self.vocab_size <= 1 << 16 else np.uint32
        self.unknown_id = self._spelling.unknown_id
        self._sizes = np.array([len(one or b"") for one in surfaces], np.int64)
        self._spaced = np.array([(one or b"").startswith(b" ") for one in surfaces])
        self._leads = self._find_leads()
        self._compare_with_file()

    @classmethod
    def load(cls, name: str) -> "HfTokenizer":
        """The tokenizer of a folder, a GGUF file or a name on the hub; raises `InputError`."""
        _check_numbers(name)
        return cls(load_tokenizer(name), f"the tokenizer of --hf {name}")

    def _find_leads(self) -> NDArray[np.bool_]:
        """Special tokens after which a space is the encoder's and not of the text, (V,).

        Some encoders put one after every special token, within a text as well; others only before a text.
        """
        spelling, given = self._spelling, self._tokenizer
        leads = np.zeros(self.vocab_size, np.bool_)
        if not spelling.prefixed:
            return leads
        special = np.zeros(self.vocab_size, np.bool_)
        silent = (token for token, one in enumerate(spelling.surfaces) if one is None and token != self.unknown_id)
        special[list(silent)] = True
        leads[[*self._starts, *given("a")["input_ids"]]] = True
        for name in (piece for piece, token in spelling.vocabulary.items() if special[token]):
            within = spelling.cut(f"{spelling.word}{name}{spelling.word}", names=True)
            if any(special[a] and self._spaced[b] for a, b in pairwise(within)):
                return special
        return leads & special

    def _compare_with_file(self) -> None:
        """Refuse a tokenizer that transformers made something else of than its tokenizer.json says."""
        given = self._tokenizer
        file = None if "gguf_file" in given.init_kwargs else _definition_of(str(given.name_or_path))
        if file is None:
            return
        import tokenizers

        saved = tokenizers.Tokenizer.from_file(str(file))
        saved.encode_special_tokens = True
        saved.no_truncation()
        saved.no_padding()

        def cut_by_file(text: str) -> list[int]:
            ids: list[int] = saved.encode(text, add_special_tokens=False).ids
            return ids

        word = self._spelling.word
        expected, found = (cut(word + _PROBE)[len(cut(word)) :] for cut in (cut_by_file, self._spelling.cut))
        if found != expected:
            at = first_difference(found, expected)
            ours, theirs = found[at : at + 4], expected[at : at + 4]
            raise InputError(
                f"{self._source} contradicts itself: as a {type(given).__name__} it cuts {_PROBE!r} from token {at} on "
                f"into {ours}, which spell {self._spelling.join(ours).decode(errors='replace')!r}, by its {file.name} "
                f'into {theirs}. In its tokenizer_config.json, tokenizer_class "PreTrainedTokenizerFast" takes '
                "tokenizer.json as it stands"
            )

    @cached_property
    def sha256(self) -> str:
        """The sha256 of the whole definition."""
        canonical = json.dumps(self._spelling.definition, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def surfaces(self) -> list[bytes | None]:
        """The bytes of each token within a text; None for special tokens, b"" for the unknown token."""
        return list(self._spelling.surfaces)

    @property
    def start_id(self) -> int | None:
        """The token that starts a document: BOS, else EOS, else None."""
        return self._starts[0] if self._starts else None

    @property
    def _starts(self) -> list[int]:
        named = (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id)
        return [int(token) for token in named if token is not None]

    @property
    def hf(self) -> Any:
        """The `transformers` tokenizer itself."""
        return self._tokenizer

    def encode(self, text: str, source: str = "the text") -> Tokens:
        """The tokens of a text, (N,) uint16, or uint32 above 65,536 tokens, without BOS.

        Raises `InputError`, naming the first difference, unless they spell the text byte for byte.
        """
        cut = self._spelling.cut(text)
        tokens: Tokens = np.array(cut, self.dtype)
        expected, spelt = text.encode(), self._spelling.spells(cut)
        if spelt != expected:
            self._explain(tokens, spelt, expected, source)
        return tokens

    def _explain(self, tokens: Tokens, spelt: bytes, expected: bytes, source: str) -> None:
        """Raise `InputError` with the place where a text and its tokens differ."""
        at = first_difference(spelt, expected)
        while at > 0 and expected[at : at + 1] > b"\x7f" and expected[at] & 0xC0 == 0x80:  # within a character
            at -= 1
        line = expected[:at].count(b"\n") + 1
        was, became = (one[at : at + _SHOWN].decode("utf-8", "replace") for one in (expected, spelt))
        unknown = np.flatnonzero(tokens == self.unknown_id) if self.unknown_id is not None else np.zeros(0, np.int64)
        why = "it drops or rewrites text"
        if len(unknown):
            why = f"its unknown token replaces text it has no token for ({len(unknown):,} times)"
        elif named := [token for token in tokens.tolist() if self._spelling.surfaces[token] is None]:
            why = f"it cuts text into the special token {named[0]}"
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
        texts = [_read(path) for path in paths]
        cut = [self.encode(text, str(path)) for text, path in zip(texts, paths, strict=True)]
        tokens: Tokens = np.concatenate([part for one in cut for part in (*lead, one)])
        counted = int(self.target_bytes(tokens, 0, len(tokens) - 1, "decoded").sum())
        expected = sum(len(text.encode()) for text in texts)
        if not lead:  # the first token is not a target
            expected -= len(self._spelling.spells(cut[0][:1]))
        if counted != expected:
            raise InputError(
                f"{paths[0]}: {self._source} counts {counted:,} bytes, the text has {expected:,}: the bytes of its "
                "tokens are unknown"
            )
        return TokenStream(tokens[:max_tokens], tuple(paths), len(tokens), "".join(texts).encode())

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
                    f"{spelt[at : at + _SHOWN]!r}, its decoder writes {written[at : at + _SHOWN]!r} for them"
                )
            # Where a run begins or ends within a text, spaces and parts of characters say nothing.
            self.encode(written.decode("utf-8", "ignore").strip(), "the text of the data")

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


def _definition_of(name: str) -> Path | None:
    """The tokenizer.json of a folder, or of a name on the hub that was loaded before, if there is one."""
    if Path(name).is_dir():
        file = Path(name, "tokenizer.json")
        return file if name and file.is_file() else None
    import huggingface_hub

    try:
        found = huggingface_hub.try_to_load_from_cache(name, "tokenizer.json")
    except ValueError:  # no name on the hub: it was made in Python
        return None
    return Path(found) if isinstance(found, str) else None


def _check_numbers(name: str) -> None:
    """Refuse numbers of tokens that no vocabulary has: transformers makes lists as long as the largest."""
    file = _definition_of(name)
    if file is None:
        return
    remedy = "fetch the tokenizer again"
    found = parse(read_input(file, remedy, MOST_MODEL_BYTES), file, remedy)
    try:
        vocabulary = found["model"]["vocab"]
        numbers = [*(vocabulary.values() if isinstance(vocabulary, dict) else ())]
        largest = max([*numbers, *(one["id"] for one in found.get("added_tokens", ()))], default=0)
    except (LookupError, TypeError, AttributeError):  # another layout, of which transformers says what is wrong
        return
    if largest >= MAX_VOCABULARY:
        raise InputError(f"{file} has a token of number {largest:,}: at most {MAX_VOCABULARY:,} tokens are supported")


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
