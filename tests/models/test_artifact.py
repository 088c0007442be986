"""The model file: the round trip, and its size."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as save_tensors

from ngram_eval.errors import InputError
from ngram_eval.models import artifact
from ngram_eval.models.artifact import quantise, quantise_matrix, quantise_table
from tests.support.artifacts import TINY, TINY_QUANT, assembled, parts, random_model


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
