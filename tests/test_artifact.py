"""The model file: quantisation against a slow implementation, the round trip, and every refusal."""

import hashlib
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ngram_eval.errors import InputError
from ngram_eval.models import artifact
from ngram_eval.models.artifact import QuantConfig, quantise, quantise_matrix, quantise_table
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig

TINY = ModelConfig(
    vocab_size=20,
    layers=2,
    width=8,
    heads=2,
    kv_heads=1,
    mlp_hidden=12,
    table_dtype="float32",
    bigram_slots=16,
    bigram_width=4,
    rope_dims=4,
    xsa_layers=1,
    value_layers=(1,),
    value_width=4,
)
TINY_QUANT = QuantConfig(float16_max_elements=60, scale_floor=False)
PREFIX_BYTES = 8 + 32 + 4


def random_model(config: ModelConfig = TINY, spread: float = 0.3) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape))
    return model


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a tiny artifact."""
    path = tmp_path_factory.mktemp("artifact") / "good.ngev"
    artifact.save(path, random_model(), TINY_QUANT, 64)
    return path.read_bytes()


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """(header, payload) of an artifact's bytes."""
    length = int.from_bytes(data[40:44], "little")
    return json.loads(data[44 : 44 + length]), data[44 + length :]


def assembled(header: Any, payload: bytes, *, consistent: bool = True) -> bytes:
    """An artifact of these parts, its digests made right: what only a hostile or broken writer could have made."""
    if consistent:
        header = {**header, "payload_bytes": len(payload), "payload_sha256": hashlib.sha256(payload).hexdigest()}
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return b"NGRMEVAL" + hashlib.sha256(encoded).digest() + len(encoded).to_bytes(4, "little") + encoded + payload


def refusal(tmp_path: Path, data: bytes) -> str:
    """The message with which `load` refuses the file."""
    path = tmp_path / "bad.ngev"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        artifact.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# Quantisation, number by number


def slow_quantile(row: NDArray[np.float32], q: float) -> float:
    """Linear interpolation between the two nearest of the sorted values."""
    ordered = sorted(float(value) for value in row)
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def slow_rows(
    matrix: NDArray[np.float32], quantile: float, levels: int, floor: bool
) -> tuple[list[list[int]], list[float]]:
    values, scales = [], []
    for row in matrix:
        scale = slow_quantile(abs(row), quantile) / levels
        scale = float(np.float16(max(scale, 1 / levels if floor else 2.0**-14)))
        scales.append(scale)
        # Python rounds halves to even, as torch does.
        values.append([max(-levels, min(levels, round(float(np.float32(x) / np.float32(scale))))) for x in row])
    return values, scales


def slow_matrix(matrix: NDArray[np.float32], levels: int, floor: bool) -> tuple[list[list[int]], list[float]]:
    best, least = None, math.inf
    for quantile in (0.999, 0.9995, 0.9999, 0.99999, 1.0):
        values, scales = slow_rows(matrix, quantile, levels, floor)
        error = float(((np.array(values) * np.array(scales)[:, None] - matrix) ** 2).sum())
        if error < least:
            best, least = (values, scales), error
    assert best is not None
    return best


def matrices() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(5)
    normal = rng.standard_normal((6, 700)).astype(np.float32)
    outliers = normal.copy()
    outliers[:, 3] *= 12  # clipping pays
    tails = (rng.standard_t(2.5, (4, 2500)) * 0.05).astype(np.float32)
    rows = (normal.T * np.array([0, 1e-6, 0.01, 0.3, 5, 100])).T.astype(np.float32)
    return {
        "normal": normal,
        "small": normal * 0.02,
        "outliers": outliers,
        "tails": tails,
        "rows": rows,
        "one": normal[:1, :1],
    }


@pytest.mark.parametrize("floor", [True, False])
@pytest.mark.parametrize("name", matrices())
def test_quantisation_equals_the_slow_implementation(name: str, floor: bool) -> None:
    matrix = matrices()[name]
    weights = torch.from_numpy(matrix)
    for fast, slow in (
        *((quantise_matrix(weights, levels, floor), slow_matrix(matrix, levels, floor)) for levels in (7, 15, 31, 127)),
        (quantise_table(weights, floor), slow_rows(matrix, 0.9999984, 127, floor)),
    ):
        values, scales = fast
        assert values.dtype == torch.int8
        assert scales.dtype == torch.float16
        # torch interpolates quantiles in float32: a scale may round to the float16 next door.
        np.testing.assert_allclose(scales.float(), slow[1], rtol=1e-3)
        same = scales.float().numpy() == np.array(slow[1], np.float32)
        assert same.mean() > 0.6
        np.testing.assert_array_equal(values.numpy()[same], np.array(slow[0])[same])


def test_clipping_is_chosen_once_a_matrix_by_its_error() -> None:
    """One matrix for which clipping pays, one for which it does not, and rows of both kinds: all follow one choice."""
    rng = np.random.default_rng(1)
    spike = rng.uniform(-1, 1, (40, 2000)).astype(np.float32)
    spike[:, 0] = 3.0
    flat = rng.uniform(-1, 1, (40, 2000)).astype(np.float32)
    clipped, plain = (
        quantise_matrix(torch.from_numpy(matrix), 15, False)[1].float().numpy() for matrix in (spike, flat)
    )
    assert (clipped < 0.9 * 3 / 15).all()
    np.testing.assert_allclose(plain, abs(flat).max(1) / 15, rtol=5e-3)
    both = torch.from_numpy(np.concatenate([spike, flat[:1]]))
    scales = quantise_matrix(both, 15, False)[1].float()
    assert (scales[:-1] < 0.9 * 3 / 15).all()
    assert float(scales[-1]) <= float(torch.quantile(both[-1].abs(), 0.9999)) / 15 + 1e-4


@pytest.mark.parametrize("levels", [7, 15, 31, 127])
def test_the_floor_coarsens_small_rows(levels: int) -> None:
    small = 0.004 * torch.randn(3, 100)
    values, scales = quantise_matrix(small, levels, True)
    np.testing.assert_allclose(scales.float(), 1 / levels, rtol=1e-3)
    assert int(values.abs().max()) <= 2
    values, scales = quantise_matrix(small, levels, False)
    assert int(values.abs().max()) == levels
    assert float(scales.max()) < 0.02 / levels


def test_more_levels_lose_less() -> None:
    matrix = 0.05 * torch.randn(64, 512)
    errors = []
    for levels in (7, 15, 31, 127):
        values, scales = quantise_matrix(matrix, levels, False)
        errors.append(float((values * scales.float()[:, None] - matrix).square().mean().sqrt() / 0.05))
    assert errors == sorted(errors, reverse=True)
    assert 0.05 < errors[1] < 0.08  # a step of 3.2 standard deviations / 15, over sqrt(12)


@pytest.mark.parametrize("change", [{"matrix_levels": 0}, {"matrix_levels": 128}, {"float16_max_elements": -1}])
def test_bad_quantisation_is_refused(change: dict[str, Any]) -> None:
    (name,) = change
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} is {change[name]}"):
        QuantConfig(**change)


def test_tables_beyond_the_limit_of_quantile(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.randn(50, 30)
    whole = quantise_table(matrix, False)
    for at_once in (1, 30, 70, 1499):
        monkeypatch.setattr(artifact, "_QUANTILE_AT_ONCE", at_once)
        assert all(torch.equal(a, b) for a, b in zip(quantise_table(matrix, False), whole, strict=True))


def test_classes_of_the_published_model() -> None:
    """66 int5 matrices, three int8 tables, everything else (projections, gains, scales, mixes, skips) float16."""
    with torch.device("meta"):
        model = Transformer(ModelConfig(mtp_heads=1))
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.zero_()
    tensors = quantise(model, QuantConfig())
    int8 = {name for name, tensor in tensors.items() if tensor.dtype == torch.int8}
    blocks = {
        f"blocks.{layer}.{name}.weight"
        for layer in range(11)
        for name in ("attn.q", "attn.k", "attn.v", "attn.out", "mlp.up", "mlp.down")
    }
    assert len(blocks) == 66
    assert int8 == blocks | {"embedding", "bigram.table", "value.table"}
    assert all(tensor.dtype == torch.float16 for name, tensor in tensors.items() if name not in int8)
    assert all(int(tensors[name].abs().max()) <= 15 for name in blocks)
    assert set(tensors) == {name for name in model.state_dict() if not name.startswith("mtp.")} | {
        f"{name}.scale" for name in int8
    }


# The round trip


def test_round_trip(tmp_path: Path) -> None:
    model, path = random_model(replace(TINY, mtp_heads=2, depth_gate=True)), tmp_path / "m.ngev"
    size = artifact.save(path, model, TINY_QUANT, 64)
    assert size == path.stat().st_size
    loaded, train_seq_len = artifact.load(path)
    assert train_seq_len == 64
    assert loaded.config == replace(model.config, mtp_heads=0)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    for name, original in model.state_dict().items():
        if name.startswith("mtp."):
            continue
        value = loaded.state_dict()[name]
        assert value.dtype == original.dtype
        if original.numel() <= 60:
            assert torch.equal(value, original.half().float()), name
        else:
            block = name.startswith("blocks.")
            values, scale = quantise_matrix(original, 15, False) if block else quantise_table(original, False)
            assert torch.equal(value, values.float() * scale.float()[:, None]), name
    tokens = torch.randint(TINY.vocab_size, (2, 9))
    assert torch.isfinite(loaded(tokens)).all()


@pytest.mark.parametrize(
    "change",
    [
        {"layers": 1, "value_layers": ()},  # no skips: an empty tensor
        {"bigram_slots": 0, "smear_gate": False, "unet_skips": False, "input_mix": False, "rope_dims": 0},
        {"table_dtype": "bfloat16", "logit_softcap": 30, "q_gain": 1},  # integers where floats are meant
    ],
)
def test_round_trip_of_other_models(tmp_path: Path, change: dict[str, Any]) -> None:
    model, path = random_model(replace(TINY, **change)), tmp_path / "m.ngev"
    artifact.save(path, model, TINY_QUANT, 64)
    loaded, _ = artifact.load(path)
    assert loaded.config == model.config
    tokens = torch.randint(TINY.vocab_size, (2, 9))
    assert torch.allclose(loaded(tokens), model(tokens), atol=0.5)


@pytest.mark.parametrize("levels", [5, 31, 127])
def test_round_trip_of_other_ranges(tmp_path: Path, levels: int) -> None:
    """Int6 and int8, which the loader need not tell from int5."""
    model, path = random_model(), tmp_path / "m.ngev"
    artifact.save(path, model, replace(TINY_QUANT, matrix_levels=levels), 64)
    assert parts(path.read_bytes())[0]["quantisation"]["matrix_levels"] == levels
    name = "blocks.0.mlp.up.weight"
    values, scale = quantise_matrix(model.state_dict()[name], levels, False)
    assert int(values.abs().max()) == levels
    loaded, _ = artifact.load(path)
    assert torch.equal(loaded.state_dict()[name], values.float() * scale.float()[:, None])


def test_older_artifacts_load(tmp_path: Path, good: bytes) -> None:
    """Before models knew of documents, their config had no `bos_id`."""
    header, payload = parts(good)
    del header["model"]["bos_id"]
    path = tmp_path / "older.ngev"
    path.write_bytes(assembled(header, payload))
    assert artifact.load(path)[0].config == TINY


@pytest.mark.parametrize("floor", [True, False])
def test_exporting_again_changes_nothing(tmp_path: Path, floor: bool) -> None:
    """Int5 and float16 tensors are exact fixed points. (An int8 clip lies a hair below the maximum, so tables move.)"""
    quant, first, second = replace(TINY_QUANT, scale_floor=floor), tmp_path / "1.ngev", tmp_path / "2.ngev"
    artifact.save(first, random_model(), quant, 64)
    once, _ = artifact.load(first)
    artifact.save(second, once, quant, 64)
    twice, _ = artifact.load(second)
    for name, value in once.state_dict().items():
        if "table" in name or name == "embedding":
            assert torch.allclose(twice.state_dict()[name], value, atol=float(value.abs().max()) / 127), name
        else:
            assert torch.equal(twice.state_dict()[name], value), name


def test_saving_twice_gives_the_same_bytes(tmp_path: Path, good: bytes) -> None:
    path = tmp_path / "again.ngev"
    artifact.save(path, random_model(), TINY_QUANT, 64)
    assert path.read_bytes() == good


def test_the_smaller_frame_is_kept(tmp_path: Path) -> None:
    """Random weights do not repeat and are best left at level 1; zeros are best at 22."""
    larger = replace(TINY, width=128, mlp_hidden=256, layers=4, bigram_slots=512)
    for spread, best in ((0.3, 1), (0.0, 22)):
        model, path = random_model(larger, spread), tmp_path / "m.ngev"
        artifact.save(path, model, replace(TINY_QUANT, matrix_levels=9), 64)
        unpacked = save_tensors(quantise(model, replace(TINY_QUANT, matrix_levels=9)))
        sizes = {level: len(artifact.compressed(unpacked, level)) for level in (1, 22)}
        assert min(sizes, key=sizes.__getitem__) == best
        assert len(parts(path.read_bytes())[1]) == sizes[best]


def test_saving_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.ngev"
    path.write_bytes(b"the one before")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        artifact.save(path, random_model(), TINY_QUANT, 64)
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "value"), [("embedding", math.nan), ("smear", 1e6), ("blocks.0.mlp.up.weight", math.inf)]
)
def test_weights_that_are_not_finite_are_not_exported(tmp_path: Path, name: str, value: float) -> None:
    model = random_model()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[3] = value
    with pytest.raises(InputError, match=f"{name}.* not finite"):
        artifact.save(tmp_path / "m.ngev", model, TINY_QUANT, 64)
    assert not list(tmp_path.iterdir())


# Refusals


def test_missing_file_and_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "none.ngev", tmp_path):
        with pytest.raises(InputError, match="can't be read"):
            artifact.load(path)


def test_truncated_anywhere(tmp_path: Path, good: bytes) -> None:
    header_end = len(good) - len(parts(good)[1])
    for length in (0, 1, 8, 43, 44, 45, header_end - 1, header_end, header_end + 1, header_end + 40, len(good) - 1):
        assert "truncated" in refusal(tmp_path, good[:length])


def test_trailing_bytes(tmp_path: Path, good: bytes) -> None:
    assert "1 bytes follow its end" in refusal(tmp_path, good + b"\0")
    header, payload = parts(good)
    assert "corrupted, zstd says" in refusal(tmp_path, assembled(header, payload + b"\0"))
    assert "corrupted, zstd says" in refusal(tmp_path, assembled(header, payload + payload))


def test_every_flipped_bit_is_refused(tmp_path: Path, good: bytes) -> None:
    """Every byte of the prefix and header and every third of the payload, one bit each, the bit taking turns."""
    end = len(good) - len(parts(good)[1])
    for i in [*range(end), *range(end, len(good), 3)]:
        damaged = bytearray(good)
        damaged[i] ^= 1 << i % 8
        message = refusal(tmp_path, bytes(damaged))
        assert any(word in message for word in ("corrupted", "truncated", "not an artifact")), message


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_damage_is_refused(tmp_path_factory: pytest.TempPathFactory, good: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(good) - 1))
    stop = data.draw(st.integers(start, min(start + 40, len(good))))
    damaged = good[:start] + data.draw(st.binary(max_size=40)) + good[stop:]
    if damaged != good:
        refusal(tmp_path_factory.getbasetemp(), damaged)


def test_not_an_artifact(tmp_path: Path, good: bytes) -> None:
    pickled = pickle.dumps({"model": list(range(100))})
    for other in (pickled, b"\x28\xb5\x2f\xfd" + bytes(100), b"PK\x03\x04" + bytes(100), bytes(100)):
        assert "not an artifact of ngram_eval" in refusal(tmp_path, other)
    header, _ = parts(good)
    assert "zstd says" in refusal(tmp_path, assembled(header, pickled))
    packed = zstandard.compress(pickled)
    assert "not a safetensors file" in refusal(tmp_path, assembled({**header, "unpacked_bytes": len(pickled)}, packed))


def test_loading_never_unpickles(tmp_path: Path, good: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to unpickle is made to fail, and the artifact still loads."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for place in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
        monkeypatch.setattr(place, never)
    (tmp_path / "good.ngev").write_bytes(good)
    artifact.load(tmp_path / "good.ngev")
    assert "import pickle" not in Path(artifact.__file__).read_text()


def test_other_format_version(tmp_path: Path, good: bytes) -> None:
    header, payload = parts(good)
    assert "format version 2, this release reads 1" in refusal(
        tmp_path, assembled({**header, "format_version": 2}, payload)
    )


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format_version": 1}',
        b'{"format_version": 1, "payload_bytes": null}',
        b'{"format_version": 1, "payload_bytes": ' + b"9" * 5000 + b"}",
    ],
)
def test_unreadable_headers(tmp_path: Path, header: bytes) -> None:
    assert "its header can't be read" in refusal(tmp_path, assembled(header, b"", consistent=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_seq_len": "64"}, "header can't be read"),
        ({"train_seq_len": 0}, "header can't be read"),
        ({"train_seq_len": True}, "header can't be read"),
        ({"unpacked_bytes": -1}, "header can't be read"),
        ({"unpacked_bytes": -2}, "header can't be read"),
        ({"unpacked_bytes": 1e300}, "header can't be read"),
        ({"unpacked_bytes": 10}, "oversized or corrupted"),
        ({"unpacked_bytes": 1 << 40}, "oversized, it declares"),
        ({"model": []}, "other fields than this release"),
        ({"model": {"layers": 2}}, "other fields than this release"),
        ({"model": None}, "header can't be read"),
    ],
)
def test_headers_that_lie(tmp_path: Path, good: bytes, change: dict[str, Any], message: str) -> None:
    header, payload = parts(good)
    assert message in refusal(tmp_path, assembled({**header, **change}, payload))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 10**6}, "layers is 1000000"),
        ({"layers": 100, "width": 1 << 20}, "oversized, it declares"),
        ({"vocab_size": 1 << 24, "width": 1 << 20}, "oversized, it declares"),
        ({"width": 10**40}, "model width is"),
        ({"mtp_heads": 10**7}, "multi-token-prediction heads are never exported"),
        ({"layers": 2.0}, "header can't be read"),
        ({"layers": "2"}, "header can't be read"),
        ({"layers": True}, "header can't be read"),
        ({"smear_gate": 1}, "header can't be read"),
        ({"value_layers": 1}, "header can't be read"),
        ({"value_layers": [1.0]}, "header can't be read"),
        ({"value_layers": [[1]]}, "header can't be read"),
        ({"bos_id": 20}, "bos_id is 20"),
        ({"table_dtype": "int8"}, "table_dtype is 'int8'"),
        ({"logit_softcap": math.nan}, "logit_softcap is nan"),
        ({"logit_softcap": 10**400}, "header can't be read"),
        ({"layers": 3}, "artifact of another model"),
        ({"width": 16}, "artifact of another model, embedding has shape (20, 8), its config asks for (20, 16)"),
        ({"kv_heads": 2}, "artifact of another model"),
        ({"smear_gate": False}, "unknown tensors smear"),
        ({"depth_gate": True}, "gate_weight is missing"),
    ],
)
def test_model_configs_that_lie(tmp_path: Path, good: bytes, change: dict[str, Any], message: str) -> None:
    header, payload = parts(good)
    assert message in refusal(tmp_path, assembled({**header, "model": {**header["model"], **change}}, payload))


@pytest.mark.parametrize("declared", [True, False])
def test_decompression_bombs(tmp_path: Path, good: bytes, declared: bool) -> None:
    """A gigabyte of zeros in 30 kB, whether the frame declares its size or not."""
    header, _ = parts(good)
    size = 1 << 30
    packer = zstandard.ZstdCompressor(level=1, write_content_size=declared).compressobj(size if declared else -1)
    zeros = bytes(1 << 20)
    bomb = b"".join([*(packer.compress(zeros) for _ in range(size >> 20)), packer.flush()])
    assert len(bomb) < 200_000
    assert "oversized" in refusal(tmp_path, assembled({**header, "unpacked_bytes": size}, bomb))
    assert "oversized or corrupted" in refusal(tmp_path, assembled({**header, "unpacked_bytes": 9000}, bomb))


def repacked(good: bytes, change: Callable[[dict[str, torch.Tensor]], object]) -> bytes:
    """The artifact with its tensors changed and all else made to agree."""
    header, payload = parts(good)
    tensors = load_tensors(zstandard.decompress(payload))
    change(tensors)
    unpacked = save_tensors(tensors)
    return assembled({**header, "unpacked_bytes": len(unpacked)}, zstandard.compress(unpacked))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("smear"), "the tensor smear is missing"),
        (lambda t: t.pop("embedding.scale"), "no row scales for embedding"),
        (lambda t: t.update({"embedding.scale": torch.ones(3)}), "no row scales for embedding"),
        (lambda t: t.update(extra=torch.ones(3)), "unknown tensors extra"),
        (lambda t: t.update(smear=torch.ones(3)), "smear has shape (3,), its config asks for (8,)"),
        (lambda t: t.update(smear=torch.ones(8, dtype=torch.int64)), "smear is torch.int64"),
        (lambda t: t.update(smear=torch.ones(8, dtype=torch.int8)), "smear is torch.int8"),
        (lambda t: t.update({"value.scale": torch.tensor(1, dtype=torch.int8)}), "value.scale is torch.int8"),
        (lambda t: t["smear"].fill_(math.nan), "smear is not finite"),
        (lambda t: t["embedding.scale"].fill_(math.inf), "embedding is not finite"),
    ],
)
def test_tensors_of_another_model(tmp_path: Path, good: bytes, change: Callable[..., object], message: str) -> None:
    assert message in refusal(tmp_path, repacked(good, change))


def test_the_helpers_make_files_that_load(tmp_path: Path, good: bytes) -> None:
    """Or the refusals above would prove nothing."""
    for data in (good, assembled(*parts(good)), repacked(good, lambda tensors: None)):
        (tmp_path / "m.ngev").write_bytes(data)
        assert artifact.load(tmp_path / "m.ngev")[0].config == TINY
    assert parts(good)[0]["model"] == {**asdict(TINY), "value_layers": [1]}
    assert parts(good)[0]["quantisation"] == asdict(TINY_QUANT)


# Sizes


def test_code_bytes_counts_what_an_evaluation_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    files = artifact.code_files()
    listed = {f"{path.parent.name}/{path.name}" for path in files}
    assert len(listed) == len(files)
    assert listed >= {
        *("ngram_eval/run.py", "ngram_eval/model.py", "ngram_eval/forward.py", "ngram_eval/artifact.py"),
        *("counts/cpu.py", "ngram_eval/blend.py", "ngram_eval/__init__.py"),
        *("hashed/hash.h", "python/module.cc", "hashed/counts.cc", "hashed/counts.h", "mixer/mixer.cc"),
    }
    assert not any("cuda" in name for name in listed)
    assert not any("train" in name or "prepare" in name or "test" in name or "build.py" in name for name in listed)
    monkeypatch.setattr(artifact, "code_files", lambda: files)
    assert artifact.code_bytes() == sum(len(path.read_bytes()) for path in files)


def test_size_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "code_bytes", lambda: 15_998_999)
    assert artifact.size_report(1000) == "model 1,000 + code 15,998,999 = 15,999,999 bytes, under 16,000,000"
    monkeypatch.setattr(artifact, "code_bytes", lambda: 15_999_000)
    assert artifact.size_report(1000).endswith("= 16,000,000 bytes, OVER 16,000,000")
