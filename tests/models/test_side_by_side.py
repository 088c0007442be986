"""Results on the CPU, whatever the number of torch's threads: the same bits."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ngram_eval.config import WindowConfig
from ngram_eval.models.logits_source import CallableSource
from ngram_eval.models.side_by_side import in_parts, one_thread, side_by_side
from ngram_eval.models.source import NeuralSource
from ngram_eval.models.test_time_training import AdaptingSource, TttConfig
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.models.transformer_source import TransformerSource
from ngram_eval.text.windows import Windows, batches, plan_windows

CPU = torch.device("cpu")
THREADS = (1, 2, 3)
SHAPES = [(256, 256, 32), (256, 1, 32), (101, 7, 5), (101, 1, 5), (64, 5, 30), (300, 33, 11), (1500, 750, 2)]
"""(positions of a window, scored ones, windows of a batch)."""


@pytest.fixture(autouse=True)
def threads_put_back() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def on_each_number_of_threads(work: Callable[[], dict[str, Any]]) -> None:
    """What `work` returns is the same every time."""
    torch.set_num_threads(THREADS[0])
    expected = work()
    for threads in THREADS[1:]:
        torch.set_num_threads(threads)
        for name, value in work().items():
            assert np.array_equal(value, expected[name]), (name, threads)


def model_of(config: ModelConfig) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape))
    return model.eval().requires_grad_(False)


def said(source: NeuralSource, tokens: NDArray[np.uint16], config: WindowConfig, batch_windows: int) -> dict[str, Any]:
    """Statistics of two batches of full windows and of the last one, and whole distributions of single positions."""
    plan = plan_windows(len(tokens) - 1, config)
    (first, second, *_, last) = batches(plan, batch_windows)
    found: dict[str, Any] = {}
    for name, windows in (("first", first), ("second", second), ("last", last)):
        stats = source.stats(tokens, windows)
        found |= {f"{name} p_target": stats.p_target, f"{name} entropy": stats.entropy}
        found[f"{name} sample"] = source.probabilities(tokens, windows.scoring(int(windows.positions()[0])))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("length", "stride", "rows"), SHAPES)
def test_a_model_of_ours(length: int, stride: int, rows: int, dtype: torch.dtype) -> None:
    """Many rows and few, a single query, 5 rows, which MKL gives other bits on 2 threads than on 1."""
    config = ModelConfig(
        vocab_size=500,
        layers=2,
        width=64,
        heads=2,
        kv_heads=1,
        mlp_hidden=96,
        bigram_slots=64,
        bigram_width=8,
        rope_dims=8,
        xsa_layers=1,
        value_layers=(1,),
    )
    source = TransformerSource(model_of(config), train_seq_len=0, batch_windows=rows, device=CPU, dtype=dtype)
    tokens = np.random.default_rng(1).integers(500, size=length + stride * (rows + 3), dtype=np.uint16)
    window = WindowConfig(seq_len=length, stride=stride)
    on_each_number_of_threads(lambda: said(source, tokens, window, rows))


def test_test_time_training() -> None:
    """The gradients of single numbers are sums that torch shares out from 32,768 terms on."""
    config = ModelConfig(
        vocab_size=100,
        layers=2,
        width=64,
        heads=2,
        kv_heads=2,
        mlp_hidden=64,
        bigram_slots=16,
        bigram_width=4,
        rope_dims=4,
        xsa_layers=2,
        value_layers=(1,),
    )
    tokens = np.random.default_rng(1).integers(100, size=2400, dtype=np.uint16)
    adapting = TttConfig(chunk=768, seq_len=256, batch=3, lr=0.01)

    def work() -> dict[str, Any]:
        settings: dict[str, Any] = {"train_seq_len": 0, "batch_windows": 8, "device": CPU, "dtype": torch.float32}
        source = AdaptingSource(model_of(config), adapting, **settings)
        return said(source, tokens, WindowConfig(seq_len=256, stride=64), 8)

    on_each_number_of_threads(work)


@pytest.mark.parametrize(("length", "stride", "rows"), [(48, 13, 60), (40, 1, 5)])
def test_a_hugging_face_model(length: int, stride: int, rows: int) -> None:
    """Several threads are inside it at once, and few rows have one thread."""
    library: Any = pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install ngram_eval[hf]"
    )
    from ngram_eval.models.hf.source import HfSource

    torch.manual_seed(0)
    config = library.GPT2Config(vocab_size=400, n_positions=64, n_embd=128, n_layer=2, n_head=2, eos_token_id=0)
    model = library.GPT2LMHeadModel(config).eval()
    tokens = np.random.default_rng(1).integers(400, size=length + stride * (rows + 70), dtype=np.uint16)
    window = WindowConfig(seq_len=length, stride=stride)
    on_each_number_of_threads(lambda: said(HfSource(model, batch_windows=rows), tokens, window, rows))


def test_the_softmax_over_a_large_vocabulary() -> None:
    """Of one position too: torch sums a single row of more than 32,768 on all threads."""
    size = 50_000
    logits = np.random.default_rng(2).normal(scale=3, size=(64, size)).astype(np.float32)
    source = CallableSource(lambda windows: logits[(windows.numpy() * 7) % 64], 40)
    tokens = np.random.default_rng(1).integers(size, size=60, dtype=np.uint16)

    def work() -> dict[str, Any]:
        found = said(source, tokens, WindowConfig(seq_len=8, stride=1), 40)
        alone = [Windows(at, at + 7, at + 8, 8) for at in np.arange(20)[:, None]]
        return {**found, "alone": [source.stats(tokens, one).entropy for one in alone]}

    on_each_number_of_threads(work)


@pytest.mark.parametrize(
    "flags",
    [
        ["--max-tokens", 700, "--stride", 64, "--batch-windows", 4],
        ["--max-tokens", 300, "--seq-len", 93, "--stride", 7, "--batch-windows", 15],
    ],
)
def test_the_evaluator(evaluate: Callable[..., Any], tmp_path: Path, flags: list[object]) -> None:
    """The embedded model; every float of the result, the sampled sums over the vocabulary, and the saved statistics."""

    def work() -> dict[str, Any]:
        scores = tmp_path / f"{torch.get_num_threads()}.npz"
        presets = ["--preset", "hashed", "--preset", "exact", "--buckets", 4096]
        runs = evaluate(*flags, *presets, "--save-scores", scores)
        keys = ("nats", "neural_nats", "vocabulary_sum", "val_bpb", "profile")
        found = {f"{name} {key}": runs[name][key] for name in ("hashed", "exact") for key in keys}
        with np.load(scores) as saved:
            return {**found, **{name: saved[name] for name in ("p_target", "entropy")}}

    on_each_number_of_threads(work)


def test_parts_depend_on_the_shape_alone() -> None:
    """None is so small that products of its rows go another way, all of them are the batch."""
    for length, scored, rows in SHAPES:
        windows = torch.arange(rows * length).view(rows, length)
        parts = in_parts(windows, scored)
        assert torch.equal(torch.cat(parts), windows)
        sizes = {len(part) for part in parts}
        assert max(sizes) - min(sizes) <= 1
        assert len(parts) == 1 or (min(sizes) * length >= 1024 and min(sizes) * scored >= 8)
        torch.set_num_threads(3)
        assert [len(part) for part in in_parts(windows, scored)] == [len(part) for part in parts]
    assert [len(part) for part in in_parts(torch.zeros(32, 257), 32)] == [4] * 8
    assert len(in_parts(torch.zeros(32, 257, device="meta"), 32)) == 1, "another device takes a batch whole"


def test_as_many_threads_work_as_torch_has() -> None:
    """Each with one of torch's; what the caller had is put back, after an error too."""
    together = threading.Barrier(3, timeout=60)

    def work(part: int) -> tuple[int, int, bool]:
        together.wait()  # nobody passes unless three are inside
        return part, torch.get_num_threads(), torch.is_inference_mode_enabled()

    torch.set_num_threads(3)
    assert side_by_side(work, range(6), CPU) == [(part, 1, True) for part in range(6)]
    assert torch.get_num_threads() == 3
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda part: 1 // part, range(3), CPU)
    assert torch.get_num_threads() == 3
    with one_thread():
        assert side_by_side(lambda _: threading.current_thread(), range(2), CPU) == [threading.current_thread()] * 2
    assert torch.get_num_threads() == 3
