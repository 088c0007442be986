"""Kept memories in files: the same tokens come back, and nothing else is taken for one."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ngram_eval.assets import asset
from ngram_eval.errors import InputError
from ngram_eval.kept import file as kept_file
from ngram_eval.kept.coding import CODINGS, Coding
from ngram_eval.text.byte_tokens import bytes_tokenizer
from ngram_eval.text.kept import KeptMemory, joined, kept_of
from ngram_eval.text.tokenizer import Tokenizer

TEXT = b"to be, or not to be: that is the question. " * 40


@pytest.fixture
def memory() -> KeptMemory:
    """Bytes of a text that repeats itself."""
    return kept_of(np.frombuffer(TEXT, np.uint8).astype(np.uint16), bytes_tokenizer())


@pytest.mark.parametrize("coding", CODINGS)
def test_the_tokens_come_back_by_every_coding(coding: Coding, memory: KeptMemory, tmp_path: Path) -> None:
    size = kept_file.write(tmp_path / "a.ngm", memory, coding).size
    again = kept_file.read(tmp_path / "a.ngm")
    assert again.tokens.tobytes() == memory.tokens.tobytes()
    for field in ("vocab_size", "text_bytes", "tokenizer_sha256", "surfaces_sha256", "sha256"):
        assert getattr(again, field) == getattr(memory, field)
    assert (again.surfaces is not None) == (coding == "mixer"), "only the mixer reads what tokens spell"
    assert size == (tmp_path / "a.ngm").stat().st_size
    assert size < len(TEXT) / 4 or coding == "none"
    assert memory.text_bytes == len(TEXT)


@pytest.mark.parametrize("tokens", [[0], [70_000], [5] * 9, [3, 70_001, 3]])
@pytest.mark.parametrize("coding", CODINGS)
def test_few_tokens_and_large_ones(coding: Coding, tokens: list[int], tmp_path: Path) -> None:
    kept_file.write(tmp_path / "a.ngm", kept_of(np.array(tokens, np.uint32), None, 80_000), coding)
    assert kept_file.read(tmp_path / "a.ngm").tokens.tolist() == tokens


def test_a_merged_memory_is_one_text_after_the_other(memory: KeptMemory) -> None:
    whole = joined([memory, memory], ["a", "b"])
    assert whole.tokens.tolist() == 2 * memory.tokens.tolist()
    assert (whole.text_bytes, whole.surfaces) == (2 * memory.text_bytes, memory.surfaces)
    other = kept_of(memory.tokens, None, 256)
    with pytest.raises(InputError, match=r"^b is a memory of another tokenizer than a \(vocabularies of 256 and 257"):
        joined([memory, other], ["a", "b"])


def test_a_memory_of_another_tokenizer_is_refused(memory: KeptMemory) -> None:
    memory.check(bytes_tokenizer(), 256, "it")
    memory.check(None, 256, "it")
    with pytest.raises(InputError, match=r"^it is a memory of another tokenizer \(sha256 .* build it again"):
        memory.check(Tokenizer.load(asset("tokenizer.model")), 1024, "it")
    with pytest.raises(InputError, match=r"^it is a memory of a vocabulary of 257 tokens, and here are 100"):
        memory.check(None, 100, "it")


def test_the_same_tokenizer_in_another_file_is_the_same(memory: KeptMemory) -> None:
    replace(memory, tokenizer_sha256="00" * 32).check(bytes_tokenizer(), 256, "it")


def test_every_flipped_bit_is_found(memory: KeptMemory, tmp_path: Path) -> None:
    path = tmp_path / "a.ngm"
    content = kept_file.to_bytes(memory, "exact")
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        with pytest.raises(InputError, match=r"damaged|version|announces"):
            kept_file.open_kept(path)
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match="announces"):
        kept_file.open_kept(path)


def _forged(content: bytes, field: str, value: object) -> bytes:
    """The file with another value in its header and a digest that fits."""
    fixed = kept_file._FIXED
    at = kept_file._PREFIX.size
    names = list(kept_file.Header.__dataclass_fields__)
    fields = dict(zip(names, fixed.unpack_from(content, at), strict=True)) | {field: value}
    body = content[:at] + fixed.pack(*fields.values()) + content[at + fixed.size : -32]
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("tokens", 1 << 50, "announces 1,125,899,906,842,624 tokens, more than it can hold"),
        ("tokens", len(TEXT) + 1, "is damaged|its tokens are not those written"),
        ("tokens", 0, "announces 0 tokens"),
        ("vocab_size", 1 << 30, "a coding or a vocabulary that no release writes"),
        ("vocab_size", 50, "its list of tokens is damaged"),
        ("coding", 9, "a coding or a vocabulary that no release writes"),
        ("rules", bytes(17), "with other rules than this release has"),
        ("tokens_sha256", bytes(32), "its tokens are not those written"),
        ("payload_bytes", 1 << 40, "announces"),
    ],
)
def test_a_file_that_says_what_it_does_not_hold_is_refused(
    field: str, value: object, message: str, memory: KeptMemory, tmp_path: Path
) -> None:
    (tmp_path / "a.ngm").write_bytes(_forged(kept_file.to_bytes(memory, "exact"), field, value))
    with pytest.raises(InputError, match=message) as refused:
        kept_file.read(tmp_path / "a.ngm")
    assert str(refused.value).startswith(str(tmp_path / "a.ngm"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kept_of(np.zeros(0, np.uint16), None, 9), "0 tokens of a vocabulary of 9: a memory holds 1 to"),
        (lambda: kept_of(np.zeros(3, np.uint16), None), "needs the size of its vocabulary"),
        (lambda: kept_of(np.array([9], np.uint16), None, 9), "token 9 is outside the vocabulary of 9"),
        (
            lambda: kept_file.to_bytes(kept_of(np.zeros(1 << 20, np.uint16), None, 9), "zstd"),
            "there is nothing to remember",
        ),
    ],
)
def test_what_makes_no_memory_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
