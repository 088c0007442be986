"""The size of a file is what the scorer charges."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ngram_eval.assets import asset
from ngram_eval.bpb import as_nats
from ngram_eval.codec import cutting
from ngram_eval.codec.alphabet import Alphabet
from ngram_eval.codec.base import UniformBase
from ngram_eval.codec.coder import Coder, make_coder
from ngram_eval.codec.container import HEADER_BYTES
from ngram_eval.errors import InputError
from ngram_eval.text.shards import write_shard
from tests.support.codec import begin, compress, decompress, ignore, method, novel


@pytest.mark.parametrize("tokenizer", ["packaged", "train", "bytes"])
@pytest.mark.parametrize("name", ["text", "repetitive", "random"])
def test_the_payload_is_what_the_scorer_charges(name: str, tokenizer: str) -> None:
    repetitive = novel(3000) * 40
    data = {"text": novel(60_000), "repetitive": repetitive, "random": np.random.default_rng(0).bytes(20_000)}[name]
    packed = compress(data, tokenizer, pieces=600, unwrapped=False)
    charged = packed.nats / math.log(2) / 8
    assert -8 <= packed.container.header.payload_bytes - charged <= 0.0001 * charged + 8
    rest = len(packed.container.to_bytes()) - packed.container.header.payload_bytes
    assert rest == HEADER_BYTES + len(packed.container.settings) + packed.container.header.table_bytes
    assert rest - packed.container.header.table_bytes < 200


def test_the_scorer_is_the_evaluators(evaluate: Callable[..., dict[str, dict[str, Any]]], tmp_path: Path) -> None:
    text = novel(60_000)
    cut = cutting.cut_with(asset("tokenizer.model").read_bytes(), "it", text, begin)
    write_shard(tmp_path / "data.bin", cut.tokens)
    flags = ["--tokenizer", asset("tokenizer.model"), "--uniform", "--seq-len", 1, "--stride", 1, "--preset", "exact"]
    result = evaluate("--data", tmp_path / "data.bin", *flags)["exact"]
    packed = compress(text, unwrapped=False)
    # The evaluator takes the first token as given; the codec writes it.
    assert packed.nats == pytest.approx(result["nats"] + math.log(1024), rel=2e-4)
    assert 8 * len(packed.container.payload) / len(text) == pytest.approx(result["val_bpb"], rel=0.002)


def coder(name: str, size: int, backend: str = "cpu") -> Coder:
    """A fresh coder of a small alphabet; the mixer with little memory."""
    how = replace(method(name), max_order=4)
    how = replace(how, mixer=replace(how.mixer, groups=1 << 8))
    return make_coder(how, Alphabet(tuple(bytes([97 + i]) for i in range(size))), UniformBase(size), backend)


@pytest.mark.parametrize("name", ["exact", "mixer"])
def test_escaped_bytes_are_charged_for(name: str) -> None:
    tokens = np.array([0, 1, 0, 0, 1, 1], np.uint16)
    payload, nats = coder(name, 2).encode(tokens, b"\x00\xffz", ignore)
    assert as_nats(nats) > 3 * math.log(256)
    again, raw = coder(name, 2).decode(6, 0, payload, ignore)
    assert (again.tolist(), raw) == (tokens.tolist(), b"\x00\xffz")


@pytest.mark.parametrize("name", ["exact", "mixer"])
def test_tokens_that_fill_several_chunks(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    text = novel(3000)
    whole = compress(text, method=method(name)).container
    monkeypatch.setattr("ngram_eval.codec.coder._AT_ONCE", 7 * 1024)
    assert compress(text, method=method(name)).container == whole
    assert decompress(whole) == text


@pytest.mark.parametrize("name", ["exact", "mixer"])
@pytest.mark.parametrize("writer", ["cpu", "reference"])
def test_the_reference_restores_what_cpp_wrote_and_the_other_way_round(writer: str, name: str) -> None:
    tokens = (np.random.default_rng(1).zipf(1.5, 150) % 5).astype(np.uint16)
    payload, nats = coder(name, 5, writer).encode(tokens, b"", ignore)
    reader = "reference" if writer == "cpu" else "cpu"
    assert coder(name, 5, reader).encode(tokens, b"", ignore) == (payload, nats)
    again, _ = coder(name, 5, reader).decode(150, None, payload, ignore)
    assert again.tolist() == tokens.tolist()


@pytest.mark.parametrize("name", ["exact", "mixer"])
def test_a_payload_of_fewer_tokens_is_refused(name: str) -> None:
    payload, _ = coder(name, 2).encode(np.zeros(20, np.uint16), b"", ignore)
    with pytest.raises(InputError, match="ends before its tokens"):
        coder(name, 2).decode(1 << 20, None, payload, ignore)
    with pytest.raises(InputError, match="ends before the bytes after its escapes"):
        coder(name, 2).decode(20, 0, payload, ignore)
