"""Whatever goes in comes out, with a neural model too."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ngram_eval.assets import asset
from ngram_eval.codec import container
from ngram_eval.codec.method import Method, code_presets
from ngram_eval.config import WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.text.shards import read_shards
from tests.support.codec import GOLDEN, GOLDEN_TEXT, compress, decompress, method, novel, restored

HARD = [
    b"",
    b"a",
    b"\x00",
    b"\xff",
    bytes(range(256)),
    bytes(range(255, -1, -1)) * 2,
    "▁ a▁b ▁▁".encode(),
    "  two  spaces , tabs\t\t, \r\n returns\r and \x85 \u2028 others \ufeff \ufffd\n\n ".encode(),
    "a half \N{FACE WITH TEARS OF JOY}".encode()[:-2] + b" and \xc0\x80 overlong, \xed\xa0\x80 surrogate",
    "<s> </s> <unk> <0x41> ⁇ \x00 \x01".encode(),
    "\ufb01 \u212b \uff46\uff55 e\u0301 日本語 עברית".encode(),
    b"no newline " * 1000,
    b"\n" * 5000,
    b"\x00" * 5000,
]


@pytest.mark.parametrize("tokenizer", ["packaged", "train", "bytes", "lossy"])
@pytest.mark.parametrize("data", HARD, ids=range(len(HARD)))
def test_hard_cases_come_back(data: bytes, tokenizer: str, lossy_tokenizer: Path) -> None:
    assert restored(data, str(lossy_tokenizer) if tokenizer == "lossy" else tokenizer) == data


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode), st.sampled_from(["packaged", "bytes", "train"]))
@settings(max_examples=60)
def test_anything_comes_back(data: bytes, tokenizer: str) -> None:
    assert restored(data, tokenizer) == data


def test_a_file_of_version_1_is_restored() -> None:
    old = container.read(GOLDEN.with_name("codec_1.ngc"))
    assert old.version == 1
    assert decompress(old) == GOLDEN_TEXT


def test_a_file_of_an_earlier_mixer_is_refused() -> None:
    """Its contexts were others."""
    with pytest.raises(InputError, match=r"format version 1 .* another mixer than .*use the release that wrote it"):
        decompress(container.read(GOLDEN.with_name("codec_1_mixer.ngc")))


def test_an_old_file_is_restored_and_written_again_alike() -> None:
    assert decompress(container.read(GOLDEN)) == GOLDEN_TEXT
    assert compress(GOLDEN_TEXT).container.to_bytes() == GOLDEN.read_bytes(), (
        "other numbers need another FORMAT_VERSION"
    )


# With a neural model

WINDOW = WindowConfig(seq_len=24, stride=8)


def test_the_neural_model_is_the_evaluators() -> None:
    torch = pytest.importorskip("torch")
    from ngram_eval.codec.stepping import SteppedModel, load_model
    from ngram_eval.models.transformer_source import TransformerSource
    from ngram_eval.text.windows import batches, plan_windows

    tokens = read_shards([str(asset("sample_000000.bin"))]).tokens[:73]
    model = load_model(asset("model.ngev"))
    rows, entropies = SteppedModel(model, WINDOW).rows(tokens)
    source = TransformerSource(
        model, train_seq_len=24, batch_windows=8, device=torch.device("cpu"), dtype=torch.float32
    )
    windows = plan_windows(72, WINDOW)
    expected = np.concatenate([source.probabilities(tokens, batch) for batch in batches(windows, 8)])
    entropy = np.concatenate([source.stats(tokens, batch).entropy for batch in batches(windows, 8)])
    assert np.all(rows[0] == 1 / 1024)
    np.testing.assert_allclose(rows[1:], expected, atol=2e-5)
    np.testing.assert_allclose(entropies[1:], entropy, atol=1e-4)

    reader = SteppedModel(model, WINDOW)
    for token, row, written_entropy in zip(tokens.tolist(), rows, entropies, strict=True):
        found, found_entropy = reader.next()
        assert found.tobytes() == row.tobytes()
        assert found_entropy.tobytes() == written_entropy.tobytes()
        reader.push(token)


def test_a_banded_model_sees_the_last_tokens_of_one_long_chunk() -> None:
    torch = pytest.importorskip("torch")
    from ngram_eval.codec.stepping import SteppedModel, load_model
    from ngram_eval.models.banded_attention import Band
    from ngram_eval.models.side_by_side import one_thread

    tokens = read_shards([str(asset("sample_000000.bin"))]).tokens[:73]
    model = load_model(asset("model.ngev"))
    with one_thread(), torch.inference_mode():
        writer, reader = (SteppedModel(model, WINDOW, "banded") for _ in range(2))
        rows, entropies = writer.rows(tokens)
        hidden = model.hidden(torch.from_numpy(tokens[None, :-1].astype(np.int64)), band=Band(WINDOW.seq_len))
        expected = torch.softmax(model.logits(hidden[0]), dim=-1)
        np.testing.assert_allclose(rows[1:], expected, atol=2e-5)
        for token, row, entropy in zip(tokens.tolist(), rows, entropies, strict=True):
            found, found_entropy = reader.next()
            assert (found.tobytes(), found_entropy.tobytes()) == (row.tobytes(), entropy.tobytes())
            reader.push(token)


def test_a_banded_file_comes_back_and_says_so() -> None:
    text, windowed = novel(400), method(window=WINDOW)
    banded = replace(windowed, forward="banded")
    packed = compress(text, artifact="packaged", method=banded)
    assert decompress(packed.container) == text
    assert Method.from_json(packed.container.settings) == banded
    assert banded.digest != windowed.digest
    assert (
        packed.container.header.probe_digest
        != compress(b"", artifact="packaged", method=windowed).container.header.probe_digest
    )
    assert b"forward" not in windowed.to_json(), "files of windows stay as they were"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in ("exact", "mixer"))) for n in code_presets()]
)
def test_neural_files_come_back(name: str) -> None:
    text = novel(400) + b"\xff\x00"
    packed = compress(text, artifact="packaged", method=method(name, WINDOW))
    assert packed.container.header.payload_bytes < 0.002 * packed.nats + packed.nats / math.log(2) / 8 + 8
    assert packed.container.header.artifact_digest != bytes(16)
    assert decompress(packed.container) == text
    if name == "exact":
        with pytest.raises(InputError, match="with a model of sha256"):
            decompress(packed.container, artifact=str(asset("tokenizer.model")))
        with pytest.raises(InputError, match="can't be read"):
            decompress(packed.container, artifact="no such file")
        other = replace(packed.container.header, probe_digest=bytes(8))
        with pytest.raises(InputError, match="the model gives other bits"):
            decompress(replace(packed.container, header=other))


def test_a_model_that_was_not_used_is_refused() -> None:
    with pytest.raises(InputError, match="without a neural model"):
        decompress(compress(b"to be").container, artifact="packaged")


def test_the_tokenizer_must_be_the_models() -> None:
    with pytest.raises(InputError, match="256 tokens, the neural model 1024"):
        compress(b"to be", "bytes", artifact="packaged", method=method(window=WINDOW))
