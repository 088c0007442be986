"""A training checkpoint that is damaged, old, or of wrong types inside."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ngram_eval.errors import InputError
from ngram_eval.train import snapshot
from tests.support.training import CONFIG, same, trainer_of

OLD = "ngram_eval checkpoint 1"


@pytest.fixture(scope="module")
def good(shard: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After two steps."""
    path, trainer = tmp_path_factory.mktemp("run") / "checkpoint.safetensors", trainer_of(shard)
    trainer.take_step()
    trainer.take_step()
    snapshot.save(path, trainer)
    return path


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def test_it_says_what_it_holds(good: Path, shard: Path) -> None:
    assert set(metadata_of(good)) == {"format", "config", "sha256"}
    trainer = trainer_of(shard)
    snapshot.resume(good, trainer)
    assert trainer.step == 2
    assert snapshot.read_config(good) == CONFIG


def test_a_flipped_bit_anywhere_is_refused(good: Path, shard: Path, tmp_path: Path) -> None:
    """Of the length, the metadata and some other bytes, by everything that reads one."""
    data, path, trainer = good.read_bytes(), tmp_path / "flipped", trainer_of(shard)
    header = 8 + int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(0)
    some = rng.integers(8, [header] * 200 + [len(data)] * 50).tolist()
    for at in [*range(100), *some, len(data) - 1]:
        flipped = bytearray(data)
        flipped[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(InputError, match="flipped"):
            snapshot.read_config(path)
    for read in (lambda: snapshot.resume(path, trainer), lambda: snapshot.read_weights(path, "ema")):
        with pytest.raises(InputError, match="sha256 does not match"):
            read()


def old(good: Path, path: Path, config: Any = None, **tensors: torch.Tensor) -> Path:
    """As version 0.1 wrote it, without a digest, and with these settings and tensors instead."""
    config = metadata_of(good)["config"] if config is None else config
    save_file(load_file(good) | tensors, path, {"format": OLD, "config": config})
    return path


def test_one_without_a_digest_is_read(good: Path, shard: Path, tmp_path: Path) -> None:
    path, trainers = old(good, tmp_path / "old.safetensors"), (trainer_of(shard), trainer_of(shard))
    for file, trainer in zip((path, good), trainers, strict=True):
        snapshot.resume(file, trainer)
        trainer.take_step()
    assert same(trainers[0].state(), trainers[1].state())
    config = asdict(CONFIG)
    del config["mtp_weight"], config["model"]["mtp_heads"]  # as if these settings were new
    assert snapshot.read_config(old(good, path, json.dumps(config))) == CONFIG


def test_a_new_one_needs_its_digest(good: Path, tmp_path: Path) -> None:
    metadata = metadata_of(good)
    del metadata["sha256"]
    save_file(load_file(good), tmp_path / "c.safetensors", metadata)
    with pytest.raises(InputError, match="sha256 does not match"):
        snapshot.read_config(tmp_path / "c.safetensors")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", None),
        ("model", [1]),
        ("quant", "text"),
        ("layers", 2.5),
        ("layers", "2"),
        ("layers", True),
        ("layers", -1),
        ("width", None),
        ("value_layers", ["a"]),
        ("value_layers", {}),
        ("steps", [3]),
        ("grad_clip", float("nan")),
        ("export_weights", "none"),
        ("export_weights", 3),
        ("scale_floor", 1),
        ("unknown", 1),
    ],
)
def test_settings_of_wrong_types_are_one_line(good: Path, tmp_path: Path, name: str, value: Any) -> None:
    config = json.loads(metadata_of(good)["config"])
    next((config[one] for one in ("model", "quant") if name in config[one]), config)[name] = value
    with pytest.raises(InputError, match=r"c\.safetensors") as raised:
        snapshot.read_config(old(good, tmp_path / "c.safetensors", json.dumps(config)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("config", ["[]", "3", "null", "[" * 10**5, '"x"', "{"])
def test_what_is_no_configuration_is_one_line(good: Path, tmp_path: Path, config: str) -> None:
    with pytest.raises(InputError, match=r"c\.safetensors"):
        snapshot.read_config(old(good, tmp_path / "c.safetensors", config))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.embedding", torch.zeros(1)),
        ("model.embedding", torch.zeros(20, 16, dtype=torch.int64)),
        ("ema.embedding", torch.zeros(20, 1)),
        ("swa.blocks.0.mlp.up.weight", torch.zeros(())),
        ("Muon.blocks.0.mlp.up.weight.momentum", torch.zeros(1)),
        ("counters", torch.zeros(5, dtype=torch.float64)),
        ("counters", torch.zeros(6)),
        ("counters", torch.full((6,), float("nan"), dtype=torch.float64)),
        ("counters", torch.full((6,), float("inf"), dtype=torch.float64)),
        ("counters", torch.full((6,), -1.0, dtype=torch.float64)),
    ],
)
def test_tensors_of_wrong_shapes_are_one_line(
    good: Path, shard: Path, tmp_path: Path, name: str, value: torch.Tensor
) -> None:
    assert name in load_file(good)
    path = old(good, tmp_path / "c.safetensors", **{name: value})
    with pytest.raises(InputError, match=r"c\.safetensors: not a checkpoint of this model") as raised:
        snapshot.resume(path, trainer_of(shard))
    assert "\n" not in str(raised.value)
    which = name.partition(".")[0].replace("model", "raw")
    if which in ("raw", "ema", "swa"):
        with pytest.raises(InputError, match=r"c\.safetensors: not a checkpoint of this model"):
            snapshot.read_weights(path, which)
