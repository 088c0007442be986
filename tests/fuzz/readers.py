"""Every reader of files: valid small files of its kind, how they are built, and how it is called.

`test_fuzz.py` compares what `reads` names with the functions that open files.
"""

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor

from ngram_eval.audit.claim import load_claim
from ngram_eval.audit.subjects import load_claimed
from ngram_eval.cli.console import tracked
from ngram_eval.codec import container, packing
from ngram_eval.codec.method import Method
from ngram_eval.config import EvalConfig, MixerConfig, WindowConfig, preset
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.evaluation.engine import Engine
from ngram_eval.evaluation.evaluate import evaluate_all
from ngram_eval.evaluation.job import load_job, read_inputs
from ngram_eval.evaluation.settings import CheckpointSettings, DataSettings, HardwareSettings, ModelSettings, Settings
from ngram_eval.models import artifact, convert
from ngram_eval.models.saved_logits import load_logits
from ngram_eval.models.saved_scores import load_scores
from ngram_eval.models.source import UniformSource
from ngram_eval.results.compare import Comparison, compare
from ngram_eval.results.rerun import Again
from ngram_eval.text.documents import TextForm, find_sources, read_segments
from ngram_eval.text.manifest import read_manifest
from ngram_eval.text.shards import read_shards, write_shard
from ngram_eval.text.tokenizer import Tokenizer
from ngram_eval.text.windows import plan_windows
from ngram_eval.timing import Stopwatch
from ngram_eval.train import snapshot
from ngram_eval.train.trainer import Trainer
from tests.fuzz import formats
from tests.fuzz.formats import Format
from tests.support.codec import compress, method
from tests.support.training import CONFIG, trainer_of

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
OLD = GOLDEN / "version_0_1"
POSITIONS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """One kind of file."""

    name: str
    file: str
    """The name that the damaged file gets."""
    seeds: Callable[[], list[bytes]]
    """Valid files, the same each time."""
    format: Format
    read: Callable[[Path], object]
    reads: tuple[str, ...] = ()
    """The functions of the package, as module:function, that open this file."""


def _old(*names: str) -> Callable[[], list[bytes]]:
    return lambda: [(OLD / name).read_bytes() for name in names]


def _random() -> np.random.Generator:
    return np.random.default_rng(3)


def _npz(compressed: bool, **arrays: Any) -> bytes:
    whole = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(whole, **arrays)
    return whole.getvalue()


def _scores() -> dict[str, Any]:
    rng = _random()
    entropy = rng.random(POSITIONS).astype(np.float32)
    return {"p_target": rng.random(POSITIONS), "entropy": entropy, "train_seq_len": np.array(64)}


def _claims() -> dict[str, Any]:
    return {"p": _random().random(POSITIONS), "positions": np.arange(POSITIONS)}


def _npy(array: Any) -> bytes:
    whole = io.BytesIO()
    np.save(whole, array)
    return whole.getvalue()


# Shards


def _read_shard(path: Path) -> None:
    tokens = read_shards([str(path)]).tokens
    assert len(tokens[:]) == len(tokens)


def _read_manifest(path: Path) -> object:
    for shard in OLD.glob("tokens_*.bin"):
        if not (path.parent / shard.name).exists():
            (path.parent / shard.name).write_bytes(shard.read_bytes())
    return read_manifest(sorted(path.parent.glob("tokens_*.bin")))


def _read_tokenizer(path: Path) -> None:
    tokenizer = Tokenizer.load(path)
    tokens = tokenizer.encode(["naïve café\n  東京 two"])[0]
    tokenizer.decode(tokens)
    tokenizer.surfaces()
    if len(tokens) > 1:
        tokenizer.target_bytes(tokens, 0, len(tokens) - 1, "decoded")
        tokenizer.target_bytes(tokens, 0, len(tokens) - 1, "piece")


# Models


def _read_scores(path: Path) -> None:
    scores = load_scores(path, (POSITIONS,))
    scores.stats(np.zeros(POSITIONS + 1, np.uint16), plan_windows(POSITIONS, WindowConfig(seq_len=64, stride=32)))


def _read_logits(path: Path) -> None:
    logits = load_logits(path, (POSITIONS,))
    tokens = np.zeros(POSITIONS + 1, np.uint16)
    logits.stats(tokens, plan_windows(POSITIONS, WindowConfig(seq_len=64, stride=32)))


def _published() -> dict[str, Any]:
    """A model of PR #890, as tiny as they come."""
    from tests.models.test_convert import published_weights

    return published_weights()


@cache
def _converted(quantised: bool) -> bytes:
    from tests.models.test_convert import quantised as quantise

    return formats.torch_file(quantise(_published())[0] if quantised else _published())


def _read_published(path: Path) -> None:
    asked = convert.Conversion(source=path, out=path.with_suffix(".ngev"), value_layers=(1, 2), rope_dims=4)
    convert.convert(asked)


# Results and checkpoints


def _run_again(path: Path) -> None:
    again = Again.read(path)
    settings, configs = again.settings, again.configs
    if settings is not None:
        settings.check()
    assert configs or again.arguments


def _evaluation(folder: Path) -> tuple[Settings, dict[str, EvalConfig]]:
    shard = folder / "tokens.bin"
    if not shard.exists():
        write_shard(shard, _random().integers(0, 20, POSITIONS + 1).astype(np.uint16))
    settings = Settings(
        data=DataSettings(data=(str(shard),)),
        model=ModelSettings(uniform=True, vocab_size=20),
        hardware=HardwareSettings(threads=1),
    )
    window, small = WindowConfig(seq_len=16, stride=8), MixerConfig(groups=64, contexts=3)
    configs = {name: replace(preset(name), window=window) for name in ("exact", "tilt", "mixer", "hashed")}
    configs["mixer"] = replace(configs["mixer"], mixer=small)
    configs["hashed"] = replace(configs["hashed"], ngram=replace(configs["hashed"].ngram, buckets=64))
    return settings, configs


def _evaluate(folder: Path, name: str, saving: CheckpointSettings) -> None:
    settings, configs = _evaluation(folder)
    job = load_job(settings, ALONE)
    with patch.object(UniformSource, "batch_windows", 10):
        inputs = read_inputs(job)
        list(evaluate_all(job, {name: configs[name]}, inputs, settings, clock=Stopwatch(), saving=saving))


def _checkpoints(name: str) -> list[bytes]:
    """What there is of half an evaluation."""
    score, batches = Engine.score, iter(range(1))

    def limited(engine: Engine, reading: Any) -> None:
        if next(batches, None) is None:
            raise KeyboardInterrupt
        score(engine, reading)

    with TemporaryDirectory() as there, patch.object(Engine, "score", limited):
        saving = CheckpointSettings(checkpoint=Path(there) / "state", every=1)
        with suppress(KeyboardInterrupt):
            _evaluate(Path(there), name, saving)
        return [one.read_bytes() for one in (Path(there) / "state" / name).glob("rank-*")]


def _resume(name: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        folder = path.parent / "state" / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        (folder / "start-0000.ckpt").write_bytes(path.read_bytes())
        saving = CheckpointSettings(checkpoint=path.parent / "state", resume=True, every=100)
        _evaluate(path.parent, name, saving)

    return read


@cache
def _trainer(folder: Path) -> Trainer:
    shard = folder / "train.bin"
    write_shard(shard, _random().integers(0, 20, 3000).astype(np.uint16))
    trainer = trainer_of(shard, CONFIG)
    trainer.take_step()
    return trainer


def _training() -> list[bytes]:
    with TemporaryDirectory() as there:
        snapshot.save(Path(there) / "c.safetensors", _trainer(Path(there)))
        return [(Path(there) / "c.safetensors").read_bytes()]


def _read_training(path: Path) -> None:
    trainer = _trainer(path.parent)
    snapshot.read_config(path)
    snapshot.resume(path, trainer)


# Codec


def _codec() -> list[bytes]:
    text = b"to be or not to be, that is the question: \xff whether" * 3
    made = [
        compress(text, "train"),
        compress(text, "bytes", method=method("tilt", tilt_confidence=0.25)),
        compress(text, "bytes", method=replace(method("mixer"), mixer=MixerConfig(groups=64))),
    ]
    return [one.container.to_bytes() for one in made]


def _decompress(path: Path) -> None:
    found = container.read(path)
    # As long as it takes: so many tokens are decoded as the header announces (SECURITY.md).
    groups = Method.from_json(found.settings).mixer.groups
    if found.header.tokens < 5000 and found.header.artifact_digest == packing.NO_DIGEST and groups <= 1 << 24:
        with tracked(quiet=True) as track:
            packing.decompress(found, path, artifact=None, backend="cpu", track=track)


# Text


def _segments(path: Path) -> None:
    for documents in ("file", "line", "blank-lines"):
        form = TextForm(documents=documents)  # type: ignore[arg-type]
        for _ in read_segments(find_sources([str(path)], form), form, split=True, advance=lambda size: None):
            pass


TEXT = "One.\n\ntwo: naïve café, 東京\r\n\n three \x85 x\n".encode() * 3
RECORDS = b'{"text": "one\\n", "id": 1}\n{"id": [1, {"a": 2.5}], "text": "tw\\u00f6"}\n\n'

READERS: tuple[Reader, ...] = (
    Reader(
        name="shard",
        file="tokens_000000.bin",
        seeds=_old("tokens_000000.bin"),
        format=formats.SHARD,
        read=_read_shard,
        reads=("text.shards:_read_header",),
    ),
    Reader(
        name="manifest",
        file="tokens_manifest.json",
        seeds=_old("tokens_manifest.json"),
        format=formats.JSON,
        read=_read_manifest,
        reads=("text.manifest:_parse_manifest",),
    ),
    Reader(
        name="tokenizer",
        file="tokenizer.model",
        seeds=_old("tokenizer.model"),
        format=formats.MODEL,
        read=_read_tokenizer,
        reads=("text.tokenizer:load", "codec.packing:_cut"),
    ),
    Reader(
        name="artifact",
        file="model.ngev",
        seeds=_old("trained.ngev"),
        format=formats.ARTIFACT,
        read=artifact.load,
        reads=("models.artifact:load",),
    ),
    Reader(
        name="scores-npz",
        file="scores.npz",
        seeds=lambda: [_npz(False, **_scores()), _npz(True, **_scores())],
        format=formats.NPZ,
        read=_read_scores,
        reads=("models.saved_arrays:open_arrays", "models.saved_arrays:__init__"),
    ),
    Reader(
        name="scores-safetensors",
        file="scores.safetensors",
        seeds=lambda: [save(_scores())],
        format=formats.TENSORS,
        read=_read_scores,
        reads=("models.saved_arrays:open_arrays", "models.saved_arrays:__init__"),
    ),
    Reader(
        name="logits",
        file="logits.npy",
        format=formats.NPY,
        read=_read_logits,
        seeds=lambda: [_npy(_random().normal(size=(POSITIONS, 5)).astype(kind)) for kind in ("f2", "f4", "f8")],
        reads=("models.saved_logits:load_logits",),
    ),
    Reader(
        name="claimed-npz",
        file="claims.npz",
        seeds=lambda: [_npz(False, **_claims()), _npz(True, **_claims())],
        format=formats.NPZ,
        reads=("models.saved_arrays:open_arrays",),
        read=lambda path: load_claimed(path, None, np.zeros(POSITIONS + 1, np.uint16), 64, False),
    ),
    Reader(
        name="claim",
        file="claim.json",
        format=formats.JSON,
        read=load_claim,
        reads=("audit.claim:load_claim",),
        seeds=lambda: [
            b'{"positions": 5, "nats": 2.5, "bytes": null, "subset": false, "megabytes": 1.5}',
            *_old("result.json")(),
        ],
    ),
    Reader(
        name="result-compare",
        file="result.json",
        seeds=_old("result.json", "of_model.json"),
        format=formats.RESULT,
        read=lambda path: compare([path, OLD / "result.json"], Comparison(draws=100, mixed=True)),
        reads=("results.result_file:read_runs",),
    ),
    Reader(
        name="from-result",
        file="result.json",
        seeds=_old("result.json", "of_model.json"),
        format=formats.RESULT,
        read=_run_again,
        reads=("results.result_file:read_runs",),
    ),
    *(
        Reader(
            name=f"checkpoint-{name}",
            file="a.ckpt",
            seeds=partial(_checkpoints, name),
            format=formats.CHECKPOINT,
            read=_resume(name),
            reads=("evaluation.checkpoint:_read",),
        )
        for name in ("exact", "tilt", "mixer", "hashed")
    ),
    Reader(
        name="training",
        file="checkpoint.safetensors",
        seeds=_training,
        format=formats.TENSORS,
        read=_read_training,
        reads=("train.snapshot:_read_metadata", "train.snapshot:read_weights", "train.snapshot:resume"),
    ),
    Reader(
        name="codec",
        file="a.ngc",
        seeds=_codec,
        format=formats.CODEC,
        read=_decompress,
        reads=("codec.container:read", "cli.codec:_read"),
    ),
    Reader(
        name="txt",
        file="a.txt",
        seeds=lambda: [TEXT],
        format=formats.LINES,
        read=_segments,
        reads=("text.documents:_file_source", "text.documents:read_segments", "models.hf.tokenizer:_read"),
    ),
    Reader(name="jsonl", file="a.jsonl", seeds=lambda: [RECORDS], format=formats.LINES, read=_segments),
    Reader(
        name="txt.zst",
        file="a.txt.zst",
        seeds=lambda: [_zstd(TEXT)],
        format=formats.zstd(formats.LINES),
        read=_segments,
    ),
    Reader(
        name="jsonl.zst",
        file="a.jsonl.zst",
        seeds=lambda: [_zstd(RECORDS)],
        format=formats.zstd(formats.LINES),
        read=_segments,
    ),
    Reader(
        name="convert-pt",
        file="a.pt",
        seeds=lambda: [_converted(False)],
        format=formats.TORCH,
        read=_read_published,
        reads=("models.convert:read", "models.convert:_load", "models.convert:convert"),
    ),
    Reader(
        name="convert-ptz",
        file="a.ptz",
        seeds=lambda: [_zstd(_converted(True))],
        format=formats.PTZ,
        read=_read_published,
    ),
)


def _zstd(data: bytes) -> bytes:
    return artifact.compressed(data, 1)


__all__ = ["READERS", "Reader", "Tensor", "torch"]
