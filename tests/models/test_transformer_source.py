"""A transformer as a neural source: what it says of targets, and where it runs."""

import math
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ngram_eval.errors import InputError
from ngram_eval.models import transformer_source as forward
from ngram_eval.models.transformer import (
    Transformer,
    attention_kernel,
)
from ngram_eval.models.transformer_source import TransformerSource, choose_device, choose_dtype, target_stats
from ngram_eval.text.windows import Windows
from tests.support.slow_transformer import SMALL, close, random_model, random_tokens, slow_forward


def test_target_stats() -> None:
    rng = np.random.default_rng(0)
    logits = 20 * rng.standard_normal((3, 5, 40))
    targets = rng.integers(40, size=(3, 5))
    log_p, entropy, _ = target_stats(torch.tensor(logits), torch.tensor(targets))
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    close(log_p, np.log(np.take_along_axis(p, targets[..., None], -1))[..., 0])
    close(entropy, -(p * np.log(p)).sum(-1))
    assert log_p.dtype == entropy.dtype == torch.float32


def source_of(model: Transformer) -> TransformerSource:
    cpu = torch.device("cpu")
    return TransformerSource(model, train_seq_len=0, batch_windows=4, device=cpu, dtype=torch.float32)


@pytest.mark.parametrize("at_once", [1 << 25, 5 * SMALL.vocab_size, 1])
@pytest.mark.parametrize(("length", "scored"), [(16, 16), (16, 3), (9, 4), (1, 1)])
def test_model_source(monkeypatch: pytest.MonkeyPatch, length: int, scored: int, at_once: int) -> None:
    """Windows of 16 positions, whole or cut short, logits in one part or in many."""
    monkeypatch.setattr(forward, "_LOGITS_AT_ONCE", at_once)
    model = random_model(replace(SMALL, rope_train_len=8))
    tokens = np.random.default_rng(3).integers(SMALL.vocab_size, size=60, dtype=np.uint16)
    start = np.array([0, 7, 20])
    windows = Windows(start, start + length - scored, start + length, 16)
    stats = source_of(model).stats(tokens, windows)
    p_target, entropy = [], []
    for begin in start:
        logits = slow_forward(model, tokens[begin : begin + length].tolist(), 16)[0][-scored:]
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        targets = tokens[begin + length - scored + 1 : begin + length + 1]
        p_target.append(p[np.arange(scored), targets])
        entropy.append(-(p * np.log(p)).sum(-1))
    close(stats.p_target, np.concatenate(p_target), 1e-4)
    close(stats.entropy, np.concatenate(entropy), 1e-4)
    assert stats.p_target.dtype == np.float64
    assert stats.entropy.dtype == np.float32


def test_full_batches_are_compiled_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = []

    def traced(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        traces.append(graph)
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **kwargs: compile_(function, backend=traced, **kwargs))
    model, cpu = random_model(SMALL), torch.device("cpu")
    compiled = TransformerSource(
        model, train_seq_len=0, batch_windows=4, device=cpu, dtype=torch.float32, compiled=True
    )
    tokens = np.random.default_rng(3).integers(SMALL.vocab_size, size=80, dtype=np.uint16)
    start = np.arange(0, 32, 4)
    for rows, length, traces_then in ((3, 16, 0), (4, 16, 1), (4, 9, 1), (4, 16, 1)):
        windows = Windows(start[:rows], start[:rows] + length - 4, start[:rows] + length, 16)
        assert (compiled.stats(tokens, windows).entropy == source_of(model).stats(tokens, windows).entropy).all()
        assert len(traces) == traces_then
    assert compiled.settings["compiled"] == "full batches"


def test_bfloat16_stays_close() -> None:
    model = random_model(SMALL).float()
    tokens = np.random.default_rng(3).integers(SMALL.vocab_size, size=60, dtype=np.uint16)
    windows = Windows(np.array([0]), np.array([4]), np.array([16]), 16)
    exact = source_of(model).stats(tokens, windows)
    cpu = torch.device("cpu")
    narrow = TransformerSource(model, train_seq_len=0, batch_windows=4, device=cpu, dtype=torch.bfloat16)
    assert narrow.settings == {"device": "cpu", "dtype": "bfloat16", "attention": "sdpa"}
    close(narrow.stats(tokens, windows).entropy, exact.entropy, 0.2)


def test_flash_attention_gets_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for FlashAttention-3, which needs a Hopper GPU: half precision, last query aligned with last key."""

    def flash_attn_func(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
        assert q.dtype == k.dtype == v.dtype == torch.bfloat16
        assert causal
        groups = q.size(2) // k.size(2)
        k, v = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)
        scores = torch.einsum("bshd,bthd->bhst", q.float(), k.float()) / math.sqrt(q.size(-1))
        hidden = torch.ones(q.size(1), k.size(1)).triu(k.size(1) - q.size(1) + 1).bool()
        weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
        return torch.einsum("bhst,bthd->bshd", weights, v.float()).to(q.dtype)

    # Autocast on GPUs, unlike on CPUs, computes norms in float32.
    monkeypatch.setattr(
        "ngram_eval.models.transformer.norm", lambda x: torch.nn.functional.rms_norm(x.float(), (x.size(-1),))
    )
    monkeypatch.setitem(sys.modules, "flash_attn_interface", SimpleNamespace(flash_attn_func=flash_attn_func))
    model = random_model(replace(SMALL, kv_heads=2)).float()
    tokens = random_tokens(2, 9)
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(tokens, last=4)
        model.use_attention("fa3")
        close(model(tokens, last=4), expected, 0.2)


def test_flash_attention_is_for_hopper_in_half_precision() -> None:
    assert attention_kernel(torch.device("cpu"), torch.bfloat16) == "sdpa"
    assert attention_kernel(torch.device("cuda"), torch.float32) == "sdpa"


def test_choosing_device_and_dtype() -> None:
    cpu = choose_device("cpu")
    assert cpu.type == "cpu"
    assert choose_dtype("auto", cpu) == torch.float32
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert choose_dtype("float16", cpu) == torch.float16
    if not torch.cuda.is_available():
        assert choose_device("auto") == cpu


def test_a_gpu_without_a_number_is_this_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The `set_device` of torch takes none without: a stand-in for a GPU."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(device.index))
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    assert [choose_device(name, 3) for name in ("cuda", "cuda:1")] == [torch.device("cuda:3"), torch.device("cuda:1")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto", 2) == torch.device("cuda:2")
    assert chosen == [3, 1, 2]


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "cpu:x"])
def test_unusable_devices_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="device is"):
        choose_device(name)
