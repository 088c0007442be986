"""The codec: whatever goes in comes out, its size is the scorer's, and what can't be right is refused.

`python tests/test_codec.py` writes golden/codec.ngc, to be done with a new format version only.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from ngram_eval.assets import asset
from ngram_eval.bpb import as_nats
from ngram_eval.cli import codec as command_line
from ngram_eval.codec import alphabet, container, cutting, packing
from ngram_eval.codec.alphabet import Alphabet
from ngram_eval.codec.base import UniformBase
from ngram_eval.codec.coder import Coder, make_coder
from ngram_eval.codec.container import FORMAT_VERSION, HEADER_BYTES, Container
from ngram_eval.codec.method import Method, code_presets
from ngram_eval.config import WindowConfig, preset
from ngram_eval.errors import InputError
from ngram_eval.text.shards import read_shards, write_shard
from ngram_eval.text.tokenizer import Tokenizer
from ngram_eval.timing import Track, untracked

GOLDEN = Path(__file__).with_name("golden") / "codec.ngc"
GOLDEN_TEXT = (Path(__file__).parent / "data/sample.txt").read_bytes()[:2000] + bytes(range(256))
NOWHERE = Path("it")


def method(name: str = "exact", window: WindowConfig | None = None, **exact: Any) -> Method:
    """A preset's method, with the fields of `exact` changed."""
    base = preset(name)
    return Method(
        preset=name, max_order=base.ngram.max_order, exact=replace(base.exact, **exact), mixer=base.mixer, window=window
    )


def ignore(done: int) -> None:
    pass


def begin() -> Callable[[int], None]:
    return ignore


def compress(
    data: bytes, tokenizer: str = "packaged", artifact: str | None = None, backend: packing.Backend = "cpu", **how: Any
) -> packing.Packed:
    return packing.compress(
        data,
        how.get("method", method()),
        tokenizer=tokenizer,
        pieces=how.get("pieces", 300),
        artifact=artifact,
        backend=backend,
        track=how.get("track", untracked),
    )


def decompress(
    found: Container, artifact: str | None = None, backend: packing.Backend = "cpu", track: Track = untracked
) -> bytes:
    return packing.decompress(found, NOWHERE, artifact=artifact, backend=backend, track=track)


def restored(data: bytes, tokenizer: str = "packaged", **how: Any) -> bytes:
    """`data` compressed, written, read and decompressed."""
    return decompress(container.parse(compress(data, tokenizer, **how).container.to_bytes(), NOWHERE))


def novel(size: int) -> bytes:
    """The start of the embedded sample."""
    tokens = read_shards([str(asset("sample_000000.bin"))]).tokens[: size // 2]
    return Tokenizer.load(asset("tokenizer.model")).decode(tokens).encode()[:size]


# Whatever goes in comes out

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


@pytest.fixture(scope="session")
def lossy_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that normalises, adds and removes spaces, and has no bytes to fall back on."""
    prefix = tmp_path_factory.mktemp("lossy") / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(novel(20_000).decode().splitlines()),
        model_prefix=str(prefix),
        model_type="unigram",
        vocab_size=200,
        normalization_rule_name="nmt_nfkc_cf",
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


def test_the_lossy_tokenizer_loses_text_by_itself_and_is_used_all_the_same(lossy_tokenizer: Path) -> None:
    text = "It Was  so; £5 "
    plain = Tokenizer.load(lossy_tokenizer)
    assert plain.decode(plain.encode([text])[0]) != text
    cut = cutting.cut_with(lossy_tokenizer.read_bytes(), "it", novel(5000).lower(), begin)
    assert len(cut.tokens) < 3500, "pieces, not characters"
    assert cut.alphabet.escape == plain.unknown_id


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode), st.sampled_from(["packaged", "bytes", "train"]))
@settings(max_examples=60)
def test_anything_comes_back(data: bytes, tokenizer: str) -> None:
    assert restored(data, tokenizer) == data


@given(st.lists(st.binary(max_size=8) | st.none(), min_size=2, max_size=40), st.data())
def test_an_alphabet_survives_its_table(surfaces: list[bytes | None], data: st.DataObject) -> None:
    escape = data.draw(st.none() | st.integers(0, len(surfaces) - 1))
    one = Alphabet(tuple(surfaces), escape)
    assert alphabet.unpack(alphabet.pack(one)) == one


@given(st.binary(max_size=60))
def test_a_damaged_table_is_no_crash(packed: bytes) -> None:
    whole = alphabet.pack(Alphabet((b"a", None, b"abc")))
    for bad in (packed, whole[: len(packed)], whole[:5] + packed):
        try:
            alphabet.unpack(bad)
        except InputError:
            continue


@given(st.binary(max_size=60))
def test_the_longest_match_spells_the_text_with_escapes(data: bytes) -> None:
    one = Alphabet((None, b"a", b"ab", b"\x00", b"abc", b"bc"), escape=0)
    tokens, raw = one.cut_greedily(data)
    assert one.spell(np.array(tokens, np.uint16), raw) == data


def test_the_longest_match_is_the_longest() -> None:
    assert Alphabet((None, b"a", b"ab", b"abc", b"bc")).cut_greedily(b"abcabbc") == ([3, 2, 4], b"")


def test_a_byte_without_token_and_escape_is_named() -> None:
    with pytest.raises(InputError, match="0x7a"):
        Alphabet((b"a", b"b")).cut_greedily(b"az")


def test_tokens_are_those_of_prepare() -> None:
    text = novel(30_000)
    model = asset("tokenizer.model").read_bytes()
    cut = cutting.cut_with(model, "it", text, begin)
    assert cut.tokens.tolist() == Tokenizer(model).encode([text.decode()])[0].tolist()


def test_a_trained_tokenizer_is_small_and_holds_what_occurs() -> None:
    text = novel(80_000)
    packed = compress(text, "train", pieces=1024)
    table = alphabet.unpack(packed.container.table)
    assert 300 < table.size <= 1024
    assert packed.container.header.table_bytes < 2000
    assert None not in table.surfaces
    assert decompress(packed.container) == text


# Its size is the scorer's


@pytest.mark.parametrize("tokenizer", ["packaged", "train", "bytes"])
@pytest.mark.parametrize("name", ["text", "repetitive", "random"])
def test_the_payload_is_what_the_scorer_charges(name: str, tokenizer: str) -> None:
    repetitive = novel(3000) * 40
    data = {"text": novel(60_000), "repetitive": repetitive, "random": np.random.default_rng(0).bytes(20_000)}[name]
    packed = compress(data, tokenizer, pieces=600)
    charged = packed.nats / math.log(2) / 8
    assert -0.002 * charged - 8 <= packed.container.header.payload_bytes - charged <= 0.002 * charged + 8
    rest = len(packed.container.to_bytes()) - packed.container.header.payload_bytes
    assert rest == HEADER_BYTES + len(packed.container.settings) + packed.container.header.table_bytes
    assert rest - packed.container.header.table_bytes < 200


def test_the_scorer_is_the_evaluators(evaluate: Callable[..., dict[str, dict[str, Any]]], tmp_path: Path) -> None:
    text = novel(60_000)
    cut = cutting.cut_with(asset("tokenizer.model").read_bytes(), "it", text, begin)
    write_shard(tmp_path / "data.bin", cut.tokens)
    flags = ["--tokenizer", asset("tokenizer.model"), "--uniform", "--seq-len", 1, "--stride", 1, "--preset", "exact"]
    result = evaluate("--data", tmp_path / "data.bin", *flags)["exact"]
    packed = compress(text)
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
    payload, nats = coder(name, 2).encode(tokens, 0, b"\x00\xffz", ignore)
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
    payload, nats = coder(name, 5, writer).encode(tokens, None, b"", ignore)
    reader = "reference" if writer == "cpu" else "cpu"
    assert coder(name, 5, reader).encode(tokens, None, b"", ignore) == (payload, nats)
    again, _ = coder(name, 5, reader).decode(150, None, payload, ignore)
    assert again.tolist() == tokens.tolist()


def test_an_old_file_is_restored_and_written_again_alike() -> None:
    assert decompress(container.read(GOLDEN)) == GOLDEN_TEXT
    assert compress(GOLDEN_TEXT).container.to_bytes() == GOLDEN.read_bytes(), (
        "other numbers need another FORMAT_VERSION"
    )


# What can't be right is refused


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
    with pytest.raises(InputError, match=rf"format version {FORMAT_VERSION + 1}.* reads {FORMAT_VERSION}"):
        container.parse(newer, NOWHERE)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("config_digest", "another configuration"),
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
    with pytest.raises(InputError, match=r"settings .* are not of this release"):
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
    assert data[8] == FORMAT_VERSION == 1
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


@pytest.mark.parametrize("name", code_presets())
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
        with pytest.raises(InputError, match="other bits out of the model"):
            decompress(replace(packed.container, header=other))


def test_a_model_that_was_not_used_is_refused() -> None:
    with pytest.raises(InputError, match="without a neural model"):
        decompress(compress(b"to be").container, artifact="packaged")


def test_the_tokenizer_must_be_the_models() -> None:
    with pytest.raises(InputError, match="256 tokens, the neural model 1024"):
        compress(b"to be", "bytes", artifact="packaged", method=method(window=WINDOW))


# The command line


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command line in this process; returns its exit code."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["codec", *map(str, arguments)])
        try:
            command_line.main()
        except SystemExit as error:
            return int(error.code or 0)
        return 0

    return run


def test_the_three_commands(call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, packed, out = (tmp_path / name for name in ("text", "packed", "out"))
    source.write_bytes(novel(5000))
    assert (
        call("compress", "--preset", "exact", "--uniform", "--max-order", 5, "--tokenizer", "train", source, packed)
        == 0
    )
    shown = capsys.readouterr().out
    for row in ("bytes in", "bytes out", "ratio", "bits per byte of the file", "bits per byte of the scorer", "gap"):
        assert row in shown
    assert str(f"{packed.stat().st_size:,}") in shown
    assert container.read(packed).settings == b'{"max_order":5,"preset":"exact"}'
    assert call("verify", packed) == 0
    assert call("verify", packed, source) == 0
    assert call("decompress", packed, out) == 0
    assert out.read_bytes() == source.read_bytes()

    source.write_bytes(novel(5000)[:-1] + b"#")
    capsys.readouterr()
    assert call("verify", packed, source) == 2
    assert "the first difference at byte 4999" in capsys.readouterr().err


def test_nothing_is_written_where_something_is_wrong(call: Callable[..., int], tmp_path: Path) -> None:
    packed, out = tmp_path / "packed", tmp_path / "out"
    found = compress(b"to be or not to be").container
    wrong = replace(found, header=replace(found.header, content_sha256=bytes(32)))
    packed.write_bytes(wrong.to_bytes())
    out.write_bytes(b"kept")
    assert call("decompress", packed, out) == 2
    assert out.read_bytes() == b"kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "packed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compress", "IN", "OUT"], "give one base distribution"),
        (["compress", "--uniform", "--artifact", "packaged", "IN", "OUT"], "give one base distribution"),
        (["compress", "--uniform", "--preset", "pr890", "IN", "OUT"], "sum to 1; choose from exact, tilt"),
        (["compress", "--uniform", "--preset", "none", "IN", "OUT"], "choose from exact, tilt"),
        (["compress", "--uniform", "--pieces", "7", "IN", "OUT"], "--pieces is 7"),
        (["compress", "--uniform", "--by-window", "IN", "OUT"], "--by-window"),
        (["compress", "--uniform", "--rescore-tail", "IN", "OUT"], "--rescore-tail"),
        (["compress", "--uniform", "--max-order", "99", "IN", "OUT"], "--max-order is 99"),
        (["compress", "--artifact", "packaged", "--tokenizer", "train", "IN", "OUT"], "--tokenizer train"),
        (["compress", "--uniform", "--tokenizer", "none.model", "IN", "OUT"], "none.model can't be read"),
        (["compress", "--uniform", "--tokenizer", "IN", "IN", "OUT"], "no SentencePiece model"),
        (["compress", "--uniform", "none", "OUT"], "none can't be read"),
        (["compress", "--uniform", "IN", "no/OUT"], "existing, writable folder"),
        (["compress", "--uniform", "IN", "IN"], "the input itself"),
        (["compress", "--uniform", "IN", "/"], "existing, writable folder"),
        (["decompress", "IN", "OUT"], "was not written by"),
        (["verify", "none"], "none can't be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    call: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("IN").write_text("to be")
    assert call(*arguments) == 2
    assert not Path("OUT").exists()
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_progress_covers_the_whole_text() -> None:
    bars: dict[str, list[int]] = {}

    def track(title: str, total: int | None) -> Callable[[int], None]:
        assert total is not None
        done = bars[title] = [total, 0]

        def advance(amount: int) -> None:
            done[1] += amount

        return advance

    packed = compress(novel(20_000) + b"\xff\xfe", "packaged", track=track).container
    decompress(packed, track=track)
    assert set(bars) == {"cutting into tokens", "compressing", "decompressing"}
    assert all(total == done for total, done in bars.values())


if __name__ == "__main__":
    GOLDEN.write_bytes(compress(GOLDEN_TEXT).container.to_bytes())
