"""The model file: every refusal."""

import math
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ngram_eval.errors import InputError
from ngram_eval.models import artifact
from tests.support.artifacts import TINY, TINY_QUANT, assembled, parts, refusal, repacked


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
        ({"width": 16}, "artifact of another model, embedding has shape (20, 8), its config needs (20, 16)"),
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("smear"), "the tensor smear is missing"),
        (lambda t: t.pop("embedding.scale"), "no row scales for embedding"),
        (lambda t: t.update({"embedding.scale": torch.ones(3)}), "no row scales for embedding"),
        (lambda t: t.update(extra=torch.ones(3)), "unknown tensors extra"),
        (lambda t: t.update(smear=torch.ones(3)), "smear has shape (3,), its config needs (8,)"),
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
