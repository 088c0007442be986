"""Files of the codec: what can't be right is refused."""

from dataclasses import astuple, replace
from typing import Any

import pytest

from ngram_eval.codec import container
from ngram_eval.codec.container import FORMAT_VERSION, HEADER_BYTES
from ngram_eval.codec.method import Method
from ngram_eval.config import WindowConfig
from ngram_eval.errors import InputError
from tests.support.codec import NOWHERE, compress, decompress, method, novel


@pytest.fixture(scope="module")
def written() -> bytes:
    return compress(b"to be or not to be", "train").container.to_bytes()


def test_every_flipped_bit_is_noticed() -> None:
    for tokenizer in ("packaged", "train"):
        written = compress(novel(300) * 3, tokenizer).container.to_bytes()
        for at in range(len(written)):
            for bit in range(8):
                damaged = bytearray(written)
                damaged[at] ^= 1 << bit
                with pytest.raises(InputError, match=r"^it "):
                    container.parse(bytes(damaged), NOWHERE)


def test_every_cut_and_every_addition_is_noticed(written: bytes) -> None:
    for size in range(len(written)):
        with pytest.raises(InputError, match=r"cut short|was not written by"):
            container.parse(written[:size], NOWHERE)
    with pytest.raises(InputError, match="damaged"):
        container.parse(written + b"\x00", NOWHERE)


def test_a_newer_format_is_named(written: bytes) -> None:
    newer = written[:8] + bytes([FORMAT_VERSION + 1]) + written[9:]
    with pytest.raises(InputError, match=rf"format version {FORMAT_VERSION + 1}.* reads 1 and {FORMAT_VERSION}"):
        container.parse(newer, NOWHERE)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("config_digest", "format version 2 and was written with another configuration"),
        ("alphabet_digest", "another packaged tokenizer"),
        ("artifact_digest", "with a model of sha256"),
        ("content_sha256", "does not have the sha256"),
    ],
)
def test_another_digest_is_refused(field: str, message: str) -> None:
    found = compress(b"to be or not to be").container
    if field == "artifact_digest":
        found = replace(found, settings=method(window=WindowConfig()).to_json())
        found = replace(found, header=replace(found.header, config_digest=method(window=WindowConfig()).digest))
    wrong: Any = bytes(byte ^ 1 for byte in getattr(found.header, field))
    with pytest.raises(InputError, match=rf"^it: .*{message}"):
        decompress(replace(found, header=replace(found.header, **{field: wrong})))


def test_a_wrong_length_or_count_is_refused() -> None:
    found = compress(b"to be or not to be").container
    tokens = found.header.tokens
    changes: list[dict[str, Any]] = [{"content_bytes": 17}, {"tokens": tokens - 1}, {"tokens": tokens + 1}]
    for change in changes:
        with pytest.raises(InputError, match=r"does not have the sha256|not of this model"):
            decompress(replace(found, header=replace(found.header, **change)))


@pytest.mark.parametrize(
    "settings",
    [
        b"",
        b"[]",
        b'{"preset":"no such"}',
        b'{"preset":"exact","other":1}',
        b'{"preset":"exact","max_order":"9"}',
        b'{"preset":"exact","max_order":0}',
        b'{"preset":"exact","exact":{"chain":1}}',
        b'{"exact":{}}',
        b"{",
    ],
)
def test_settings_of_another_release_are_refused(settings: bytes) -> None:
    found = compress(b"to be").container
    with pytest.raises(InputError, match=r"settings|preset is 'no such'|max_order"):
        decompress(replace(found, settings=settings))


def test_settings_say_what_differs_from_the_preset() -> None:
    assert method().to_json() == b'{"preset":"exact"}'
    changed = replace(method("tilt", WindowConfig(stride=7), tilt_confidence=0.5), max_order=3)
    assert changed.to_json() == (
        b'{"exact":{"tilt_confidence":0.5},"max_order":3,"preset":"tilt","window":{"stride":7}}'
    )
    assert Method.from_json(changed.to_json()) == changed
    assert len({changed.digest, method().digest, method("tilt").digest, method(window=WindowConfig()).digest}) == 4


def test_a_header_is_as_documented() -> None:
    found = compress(b"to be or not to be").container
    data = found.to_bytes()
    assert data[:8] == b"NGRMCODE"
    assert data[8] == FORMAT_VERSION == 2
    assert data[9] == found.header.tokenizer == 1
    assert int.from_bytes(data[10:12], "little") == len(found.settings)
    assert int.from_bytes(data[12:16], "little") == 0
    assert int.from_bytes(data[16:24], "little") == len(found.payload)
    assert int.from_bytes(data[24:32], "little") == 18
    assert int.from_bytes(data[32:40], "little") == found.header.tokens
    assert data[40:72] == found.header.content_sha256
    assert (data[72:88], data[88:104], data[104:120], data[120:128]) == astuple(found.header)[-4:]
    assert data[128 : 128 + len(found.settings)] == b'{"preset":"exact"}'
    assert HEADER_BYTES == 132
