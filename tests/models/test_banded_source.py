"""A transformer that forwards each position once: what it says, and that nothing but the stream decides its bits."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ngram_eval.bpb import Tally
from ngram_eval.config import WindowConfig, preset
from ngram_eval.distributed.ranks import Ranks
from ngram_eval.errors import InputError
from ngram_eval.evaluation import engine
from ngram_eval.evaluation.evaluate import Share, evaluate
from ngram_eval.evaluation.job import Job
from ngram_eval.evaluation.reader import Reading
from ngram_eval.evaluation.settings import CheckpointSettings, HardwareSettings, Settings
from ngram_eval.models.banded_attention import Band
from ngram_eval.models.banded_source import BandedSource, default_chunk
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.text.samples import SAMPLES
from ngram_eval.text.shards import TokenStream
from ngram_eval.text.windows import Windows, batches, plan_windows
from ngram_eval.timing import Stopwatch
from tests.support.slow_transformer import SMALL, close, random_model, slow_forward
from tests.support.streams import Stream
from tests.support.threads import on_ranks
from tests.support.torch_threads import torch_threads

LENGTH, CHUNK = 8, 16
TOKENS = np.random.default_rng(3).integers(SMALL.vocab_size, size=75, dtype=np.uint16)


def source_of(model: Transformer, chunk: int = CHUNK, **others: Any) -> BandedSource:
    defaults = {"train_seq_len": 0, "batch_windows": 4, "device": torch.device("cpu"), "dtype": torch.float32}
    return BandedSource(model, chunk=chunk, **{**defaults, **others})


def windows_of(targets: int, stride: int, length: int = LENGTH) -> Windows:
    return plan_windows(targets, WindowConfig(seq_len=length, stride=stride))


def at(position: int) -> Windows:
    """A window that scores one position."""
    return windows_of(len(TOKENS) - 1, 1).scoring(position)


@pytest.mark.parametrize("sinks", [0, 3])
def test_a_chunk_is_a_slow_forward_from_its_lead_in(sinks: int) -> None:
    """Chunk [a, b) is a forward of [a - L, b) in which every position sees the last L, and the first has no lead-in."""
    model = random_model(SMALL)
    windows = windows_of(len(TOKENS) - 1, 4)
    source = source_of(model, sinks=sinks)
    stats, whole = source.stats(TOKENS, windows), source.probabilities(TOKENS, windows)
    expected = []
    for first, stop in ((0, 8), (8, 24), (24, 40), (40, 56), (56, 72), (72, 74)):
        begin = max(first - LENGTH, 0)
        seen = TOKENS[begin:stop].tolist()
        logits = slow_forward(model, seen, LENGTH, Band(LENGTH, sinks))[0][first - begin :]
        expected.append(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    p = np.concatenate(expected)
    close(whole, p, 1e-4)
    close(stats.entropy, -(p * np.log(p)).sum(-1), 1e-4)
    assert (stats.p_target == whole[np.arange(74), TOKENS[1:]]).all()
    assert source.settings["sinks"] == f"{sinks or 'no'} sinks"


@pytest.fixture(scope="module")
def model() -> Transformer:
    return random_model(SMALL).float()


@pytest.mark.parametrize("stride", [1, 4, 5, 8])
def test_bits_do_not_depend_on_strides_batches_calls_or_threads(model: Transformer, stride: int) -> None:
    expected = source_of(model).stats(TOKENS, windows_of(74, 8))
    windows, source = windows_of(74, stride), source_of(model)
    for threads, size in ((1, 100), (2, 3)):
        with torch_threads(threads):
            source.probabilities(TOKENS, at(50))  # a call before
            parts = [source.stats(TOKENS, batch) for batch in batches(windows, size)]
            for position in (0, 7, 8, 23, 24, 73):
                p = source.probabilities(TOKENS, at(position))[0, TOKENS[position + 1]]
                assert p == expected.p_target[position]
        assert (np.concatenate([part.p_target for part in parts]) == expected.p_target).all()
        assert (np.concatenate([part.entropy for part in parts]) == expected.entropy).all()


def test_a_rescored_tail_gets_the_same_again(model: Transformer) -> None:
    """As `pr890` has it; its windows repeat positions."""
    plan = plan_windows(32, WindowConfig(seq_len=LENGTH, stride=4, rescore_tail=True))
    tail = plan[np.arange(len(plan)) >= len(plan) - 3]
    source = source_of(model)
    stats, once = source.stats(TOKENS, tail), source.stats(TOKENS, windows_of(74, 8))
    assert tail.scored > len(set(tail.positions().tolist()))
    assert (stats.p_target == once.p_target[tail.positions()]).all()
    whole = source.probabilities(TOKENS, tail)
    assert (whole[np.arange(tail.scored), TOKENS[tail.positions() + 1]] == stats.p_target).all()


def test_every_position_is_forwarded_once(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the batches, with looks in between: C + L positions for every chunk of C."""
    forwarded = []
    hidden = Transformer.hidden

    def counting(self: Transformer, tokens: torch.Tensor, **others: Any) -> torch.Tensor:
        forwarded.append(tokens.size(1))
        return hidden(self, tokens, **others)

    monkeypatch.setattr(Transformer, "hidden", counting)
    source = source_of(model)
    for batch in batches(windows_of(74, 3), 2):
        source.stats(TOKENS, batch)
        source.probabilities(TOKENS, at(int(batch.first[0])))
    assert forwarded == [8, 24, 24, 24, 24, 10]


def test_another_text_is_not_answered_from_memory(model: Transformer) -> None:
    """Though it differs in the last token of a chunk alone; what lies before stays the same to the bit."""
    source, changed = source_of(model), TOKENS.copy()
    before = source.stats(TOKENS, windows_of(74, 8))
    changed[23] = (changed[23] + 1) % SMALL.vocab_size
    after = source.stats(changed, windows_of(74, 8))
    assert (after.p_target[:22] == before.p_target[:22]).all()
    assert after.p_target[22] != before.p_target[22], "another target"
    assert (after.entropy[:23] == before.entropy[:23]).all()
    assert (after.entropy[23:] != before.entropy[23:]).any()
    changed[:] = TOKENS  # the caller's own memory
    assert (source.stats(changed, windows_of(74, 8)).p_target == before.p_target).all()


def test_full_chunks_are_compiled_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    traces, model = [], random_model(replace(SMALL, layers=1, value_layers=())).float()

    def traced(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        traces.append(graph)
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **kwargs: compile_(function, backend=traced, **kwargs))
    compiled = source_of(model, compiled=True)
    expected = source_of(model).stats(TOKENS, windows_of(74, 8))
    for first, stop, traces_then in ((0, 8, 0), (56, 74, 1), (0, 74, 1)):
        windows = Windows(np.array([max(first - 8, 0)]), np.array([first]), np.array([stop]), LENGTH)
        assert (compiled.stats(TOKENS, windows).entropy == expected.entropy[first:stop]).all()
        assert len(traces) == traces_then
    assert compiled.settings["compiled"] == "full chunks"


def test_models_that_say_nan_are_refused() -> None:
    model = random_model(SMALL).float()
    model.embedding[int(TOKENS[30])] = np.nan
    with pytest.raises(InputError, match="the model's statistics at position 0 are NaN"):
        source_of(model).stats(TOKENS, windows_of(74, 8))


@contextmanager
def tensors() -> Iterator[list[int]]:
    """The sizes of all tensors that are made in the block."""
    sizes: list[int] = []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            owned = (one for one in (out if isinstance(out, (tuple, list)) else [out]) if torch.is_tensor(one))
            sizes.extend(one.untyped_storage().nbytes() for one in owned)
            return out

    with Watching():  # type: ignore[no-untyped-call]
        yield sizes


def test_memory_is_linear_in_the_chunk() -> None:
    """The largest tensor, and all of them together, which would grow by 4 with a mask or scores of T x T."""
    model = Transformer(replace(SMALL, vocab_size=16))
    found = []
    for chunk in (512, 1024):
        with tensors() as sizes, torch.inference_mode():
            model.hidden(torch.zeros(1, 64 + chunk, dtype=torch.int64), last=chunk, band=Band(64))
        found.append((max(sizes), sum(sizes)))
    for smaller, larger in zip(*found, strict=True):
        assert larger <= 2 * smaller


def test_default_chunks_are_as_long_as_memory_allows() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert default_chunk(ModelConfig(), 256, cpu) == 2048
    assert default_chunk(ModelConfig(), 2048, cpu) == 16384
    assert default_chunk(ModelConfig(width=4096, mlp_hidden=16384, layers=40), 2048, cpu) == 1024
    assert default_chunk(ModelConfig(width=4096, mlp_hidden=16384, layers=40), 2048, gpu) == 8192
    assert default_chunk(ModelConfig(), 32, cpu) == 1024


# Ranks, checkpoints


@pytest.fixture(scope="module")
def spoken() -> BandedSource:
    """Batches of 4 windows of 24 positions, and chunks of 64: none of them coincide."""
    return source_of(random_model(replace(SMALL, vocab_size=50)).float(), chunk=64, batch_windows=4)


def evaluated(
    stream: Stream,
    source: BandedSource,
    name: str,
    world: int,
    saving: CheckpointSettings = CheckpointSettings(),  # noqa: B008 - frozen
    **options: Any,
) -> Tally:
    """The sum over ranks, of 1,200 tokens."""
    config = preset(name)
    config = replace(
        config,
        window=WindowConfig(seq_len=96, stride=24),
        ngram=replace(config.ngram, buckets=512, max_order=min(config.ngram.max_order, 12)),
        mixer=replace(config.mixer, groups=1 << 10),
    )
    settings = Settings(hardware=HardwareSettings(threads=1, **{"batch_windows": 4, **options}))
    tokens = stream.tokens[:1200]

    def one(ranks: Ranks) -> Share:
        job = Job(
            settings=settings,
            ranks=ranks,
            stream=TokenStream(tokens, (stream.shard,), len(tokens)),
            tokenizer=None,
            manifest=None,
            source=source,
            backend="cpu",
        )
        return evaluate(job, "it", config, saving=saving, clock=Stopwatch())

    results = on_ranks(world, one)
    return reduce(add, (found.tally for found in results), results[0].before.tally)


@pytest.mark.parametrize(
    ("name", "ngram"), [("hashed", "sharded"), ("hashed", "pipelined"), ("exact", "auto"), ("mixer", "auto")]
)
def test_one_answer_on_any_number_of_ranks(stream: Stream, spoken: BandedSource, name: str, ngram: str) -> None:
    alone = evaluated(stream, spoken, name, 1)
    assert alone.sampled == SAMPLES
    assert evaluated(stream, spoken, name, 3, ngram=ngram) == alone


def test_interrupted_and_resumed_the_answer_is_the_same(
    stream: Stream, spoken: BandedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, original, left = evaluated(stream, spoken, "exact", 1), engine.Engine.score, itertools.count(-2)

    def limited(self: engine.Engine, reading: Reading) -> None:
        if next(left) == 0:
            raise KeyboardInterrupt
        original(self, reading)

    monkeypatch.setattr(engine.Engine, "score", limited)
    with pytest.raises(KeyboardInterrupt):
        evaluated(stream, spoken, "exact", 1, CheckpointSettings(checkpoint=tmp_path, every=100))
    saving = CheckpointSettings(checkpoint=tmp_path, every=100, resume=True)
    assert evaluated(stream, spoken, "exact", 1, saving) == expected
