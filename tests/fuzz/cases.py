"""Small valid files of every kind, the same each time, and how their readers are called."""

import io
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np

from ngram_eval.audit.subjects.claimed import load_claimed
from ngram_eval.cli.console import tracked
from ngram_eval.codec import container, packing
from ngram_eval.codec.method import Method
from ngram_eval.config import EvalConfig, MixerConfig, WindowConfig, preset
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.evaluation.engine import Engine
from ngram_eval.evaluation.evaluate import evaluate_all
from ngram_eval.evaluation.job import load_job, read_inputs
from ngram_eval.evaluation.settings import CheckpointSettings, DataSettings, HardwareSettings, ModelSettings, Settings
from ngram_eval.kept import file as kept_file
from ngram_eval.kept.coding import CODINGS
from ngram_eval.models import artifact, convert
from ngram_eval.models.hf.lead import lead_of_model
from ngram_eval.models.hf.loading import quietly
from ngram_eval.models.hf.source import load_hf_source
from ngram_eval.models.hf.tokenizer import HfTokenizer
from ngram_eval.models.saved_logits import load_logits
from ngram_eval.models.saved_scores import load_scores
from ngram_eval.models.source import UniformSource
from ngram_eval.results.compare import Comparison, compare
from ngram_eval.results.rerun import Again
from ngram_eval.text.byte_tokens import bytes_tokenizer
from ngram_eval.text.documents import TextForm, find_sources, read_segments
from ngram_eval.text.kept import kept_of
from ngram_eval.text.reading import read_texts
from ngram_eval.text.shards import write_shard
from ngram_eval.text.windows import plan_windows
from ngram_eval.timing import Stopwatch
from ngram_eval.train import snapshot
from ngram_eval.train.journal import cut
from ngram_eval.train.trainer import Trainer
from tests.fuzz import formats
from tests.models.test_convert import published_weights, quantised
from tests.support.codec import compress, method
from tests.support.hf_models import save_gguf, save_gpt2
from tests.support.training import CONFIG, trainer_of

OLD = Path(__file__).resolve().parents[1] / "golden" / "version_0_1"
POSITIONS = 300


def old(*names: str) -> Callable[[], list[bytes]]:
    return lambda: [(OLD / name).read_bytes() for name in names]


def _random() -> np.random.Generator:
    return np.random.default_rng(3)


def npz(arrays: dict[str, Any]) -> list[bytes]:
    plain, compressed = io.BytesIO(), io.BytesIO()
    np.savez(plain, **arrays)
    np.savez_compressed(compressed, **arrays)
    return [plain.getvalue(), compressed.getvalue()]


def scores() -> dict[str, Any]:
    rng = _random()
    entropy = rng.random(POSITIONS).astype(np.float32)
    return {"p_target": rng.random(POSITIONS), "entropy": entropy, "train_seq_len": np.array(64)}


def claims() -> dict[str, Any]:
    return {"p": _random().random(POSITIONS), "positions": np.arange(POSITIONS)}


def logits() -> list[bytes]:
    made = []
    for kind in ("f2", "f4", "f8"):
        whole = io.BytesIO()
        np.save(whole, _random().normal(size=(POSITIONS, 5)).astype(kind))
        made.append(whole.getvalue())
    return made


def read_claims(path: Path) -> None:
    load_claimed(path, None, np.zeros(POSITIONS + 1, np.uint16), 64, False)


def claim() -> list[bytes]:
    ours = b'{"positions": 5, "nats": 2.5, "bytes": null, "subset": false, "megabytes": 1.5}'
    return [ours, *old("result.json")()]


def read_result(path: Path) -> None:
    compare([path, OLD / "result.json"], Comparison(draws=100, mixed=True))


# Models


def read_scores(path: Path) -> None:
    scores = load_scores(path, (POSITIONS,))
    scores.stats(np.zeros(POSITIONS + 1, np.uint16), plan_windows(POSITIONS, WindowConfig(seq_len=64, stride=32)))


def read_logits(path: Path) -> None:
    found = load_logits(path, (POSITIONS,))
    found.stats(np.zeros(POSITIONS + 1, np.uint16), plan_windows(POSITIONS, WindowConfig(seq_len=64, stride=32)))


@cache
def _published(quantise: bool) -> bytes:
    """A model of PR #890, as tiny as they come."""
    weights = published_weights()
    return formats.torch_file(quantised(weights)[0] if quantise else weights)


def published() -> list[bytes]:
    return [_published(False)]


def published_packed() -> list[bytes]:
    return [zstd(_published(True))]


def read_published(path: Path) -> None:
    asked = convert.Conversion(source=path, out=path.with_suffix(".ngev"), value_layers=(1, 2), rope_dims=4)
    with patch.object(artifact, "size_report", str):  # starts a process to measure the code
        convert.convert(asked)


# Results and checkpoints


def run_again(path: Path) -> None:
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


def checkpoints(name: str) -> list[bytes]:
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


def resume(name: str) -> Callable[[Path], None]:
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


def training() -> list[bytes]:
    with TemporaryDirectory() as there:
        snapshot.save(Path(there) / "c.safetensors", _trainer(Path(there)))
        return [(Path(there) / "c.safetensors").read_bytes()]


def read_training(path: Path) -> None:
    trainer = _trainer(path.parent)
    snapshot.read_config(path)
    snapshot.resume(path, trainer)


def journal() -> list[bytes]:
    entry = {"step": 1, "seconds": 0.5, "loss": 2.5, "lr": 1.0, "tokens_per_second": 1e4}
    return [b"".join(json.dumps({**entry, "step": step}).encode() + b"\n" for step in range(1, 5))]


def cut_journal(path: Path) -> None:
    cut(path.parent, 2)


# Codec


def codec() -> list[bytes]:
    text = b"to be or not to be, that is the question: \xff whether" * 3
    made = [
        compress(text, "train"),
        compress(text, "bytes", method=method("tilt", tilt_confidence=0.25)),
        compress(text, "bytes", method=replace(method("mixer"), mixer=MixerConfig(groups=64))),
    ]
    return [one.container.to_bytes() for one in made]


def decompress(path: Path) -> None:
    found = container.read(path)
    # As long as it takes: so many tokens are decoded as the header announces (SECURITY.md).
    groups = Method.from_json(found.settings).mixer.groups
    if found.header.tokens < 5000 and found.header.artifact_digest == packing.NO_DIGEST and groups <= 1 << 24:
        with tracked(quiet=True) as track:
            packing.decompress(found, path, artifact=None, backend="cpu", track=track)


def kept() -> list[bytes]:
    tokens = np.frombuffer(b"to be or not to be, that is the question: whether" * 3, np.uint8).astype(np.uint16)
    known, unknown = kept_of(tokens, bytes_tokenizer()), kept_of(tokens.astype(np.uint32), None, 70_000)
    return [kept_file.to_bytes(one, coding) for coding in CODINGS for one in (known, unknown)]


def read_kept(path: Path) -> None:
    found = kept_file.open_kept(path)
    if found.header.tokens < 5000:  # as long as it takes: so many tokens are decoded as the header announces
        kept_file.load(found, path)


# Text


def segments(path: Path) -> None:
    for documents in ("file", "line", "blank-lines"):
        form = TextForm(documents=documents)
        for _ in read_segments(find_sources([str(path)], form), form, split=True, advance=lambda size: None):
            pass


TEXT = "One.\n\ntwo: naïve café, 東京\r\n\n three \x85 x\n".encode() * 3
RECORDS = b'{"text": "one\\n", "id": 1}\n{"id": [1, {"a": 2.5}], "text": "tw\\u00f6"}\n\n'


def packed_text(tool: Any) -> list[bytes]:
    return [tool.compress(TEXT), tool.compress(TEXT[:20]) + tool.compress(TEXT[20:])]


def parquet() -> list[bytes]:
    """As pyarrow writes it."""
    import pyarrow
    from pyarrow import parquet as writer

    made = []
    for compression in ("none", "snappy", "zstd"):
        whole = io.BytesIO()
        table = pyarrow.table({"id": list(range(60)), "text": ["naïve café " * (i % 9) for i in range(60)]})
        writer.write_table(table, whole, row_group_size=25, compression=compression)
        made.append(whole.getvalue())
    return made


def zstd(data: bytes) -> bytes:
    return artifact.compressed(data, 1)


# Hugging Face


@cache
def _hf(there: Path) -> Path:
    """A folder with a model, which stays as long as this process."""
    with quietly():
        save_gpt2(there / "hf")
    return there / "hf"


def hf_file(name: str) -> list[bytes]:
    with TemporaryDirectory() as there:
        return [(_hf(Path(there)) / name).read_bytes()]


def gguf() -> list[bytes]:
    with TemporaryDirectory() as there:
        save_gguf(_hf(Path(there)), Path(there) / "a.gguf")
        return [(Path(there) / "a.gguf").read_bytes()]


def read_hf(path: Path) -> None:
    """A folder in which this file is damaged."""
    folder = _hf(path.parent)
    whole = (folder / path.name).read_bytes()
    (folder / path.name).write_bytes(path.read_bytes())
    try:
        _use_hf(str(folder))
    finally:
        (folder / path.name).write_bytes(whole)


def read_hf_text(path: Path) -> None:
    read_texts(HfTokenizer.load(str(_hf(path.parent))), [path])


def read_gguf(path: Path) -> None:
    _use_hf(str(path))


def _use_hf(name: str) -> None:
    tokenizer = HfTokenizer.load(name)
    source = load_hf_source(name, lead_of_model(name), device="cpu", local_rank=0, dtype="float32", batch_windows=2)
    tokens = tokenizer.tokens_of("naive fox\n  dogs, and so on")
    stream = np.minimum(tokens, source.vocab_size - 1)
    source.stats(stream, plan_windows(len(stream) - 1, WindowConfig(seq_len=64, stride=64)))
