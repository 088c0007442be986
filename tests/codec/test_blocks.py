"""Blocks are written and read apart."""

import threading
from dataclasses import replace

import pytest

from ngram_eval.cli import codec as cli
from ngram_eval.codec import container
from ngram_eval.codec.blocks import Advance, each_block, span
from ngram_eval.codec.method import Layout, Method
from ngram_eval.errors import InputError
from tests.support.codec import NOWHERE, compress, decompress, ignore, method, novel


@pytest.mark.parametrize("name", ["exact", "mixer"])
@pytest.mark.parametrize("blocks", [2, 5])
def test_a_file_of_blocks_comes_back(name: str, blocks: int) -> None:
    text = novel(6000) + bytes(range(256))
    whole, apart = (compress(text, method=method(name), blocks=n).container for n in (1, blocks))
    assert decompress(container.parse(apart.to_bytes(), NOWHERE)) == text
    assert len(apart.payload) > len(whole.payload)
    assert len(Layout.from_json(apart.settings).blocks) == blocks


def test_a_block_is_what_its_text_alone_would_be() -> None:
    text = novel(4000)
    apart = compress(text * 2, "bytes", blocks=2).container
    parts, notes = Layout.from_json(apart.settings).parts(apart.payload)
    assert parts == [compress(text, "bytes").container.payload] * 2
    assert notes == b""


def test_the_bytes_after_escapes_go_with_their_block(lossy_tokenizer: str) -> None:
    text = b"one \xff\x00 two\n" * 40 + novel(500)
    assert decompress(compress(text, str(lossy_tokenizer), blocks=3).container) == text


@pytest.mark.parametrize("total", [0, 1, 7, 100])
def test_spans_make_up_the_whole(total: int) -> None:
    assert [i for block in range(4) for i in range(total)[span(total, block, 4)]] == list(range(total))


def test_an_interrupt_in_one_block_stops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    begun, rounds = threading.Event(), 0

    def work(block: int, advance: Advance) -> None:
        nonlocal rounds
        if block == 0:
            begun.wait(10)
            raise KeyboardInterrupt
        while True:
            begun.set()
            advance(1)
            rounds += 1

    with pytest.raises(KeyboardInterrupt):
        each_block(2, work, ignore)
    assert rounds > 0


@pytest.mark.parametrize(
    "layout", [Layout(blocks=(1, 2)), Layout(notes=10_000), Layout(blocks=(-1, 1)), Layout(notes=-1)]
)
def test_a_layout_that_is_not_of_the_payload_is_refused(layout: Layout) -> None:
    found = compress(b"to be or not to be").container
    with pytest.raises(InputError, match=r"^it: .*blocks of"):
        decompress(replace(found, settings=method().to_json(layout)))


def test_a_plain_layout_is_not_stored() -> None:
    assert method().to_json(Layout()) == method().to_json()
    assert Method.from_json(method().to_json(Layout(notes=3))) == method()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--uniform", "--blocks", "0"], "blocks is 0: give 1 to 256"),
        (["--artifact", "packaged", "--blocks", "2"], "blocks is 2: with a model of .*artifact there is one"),
    ],
)
def test_blocks_that_can_not_be_are_refused(flags: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cli.parse(["compress", "IN", "OUT", *flags], "codec")
