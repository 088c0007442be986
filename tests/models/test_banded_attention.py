"""Attention in a band against a dense mask, and against a transformer that is slow and in float64."""

import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ngram_eval.models import banded_attention as module
from ngram_eval.models.banded_attention import Band, band_kernel, banded_attention
from ngram_eval.models.cache import Ring
from ngram_eval.models.transformer import rope_angles
from tests.support.slow_transformer import SMALL, close, random_model, random_tokens, slow_forward


def dense(q: Tensor, k: Tensor, v: Tensor, band: Band) -> Tensor:
    """The same with a mask of all queries over all keys."""
    query = torch.arange(k.size(1) - q.size(1), k.size(1))[:, None]
    key = torch.arange(k.size(1))
    visible = (key <= query) & ((key > query - band.window) | (key < band.sinks))
    k, v = (x.repeat_interleave(q.size(2) // k.size(2), 2) for x in (k, v))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible).transpose(1, 2)


def random_heads(batch: int, positions: int, scored: int, kv_heads: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """(q, k, v) of 4 and `kv_heads` heads of 4 dims, float64."""
    torch.manual_seed(positions)
    q = torch.randn(batch, scored, 4, 4, dtype=torch.float64)
    k, v = torch.randn(2, batch, positions, kv_heads, 4, dtype=torch.float64)
    return q, k, v


@settings(max_examples=40, deadline=None)
@given(
    window=st.integers(1, 40),
    sinks=st.integers(0, 9),
    scored=st.integers(1, 90),
    before=st.integers(0, 50),
    batch=st.integers(1, 3),
)
def test_blocks_are_a_dense_mask(window: int, sinks: int, scored: int, before: int, batch: int) -> None:
    band, heads = Band(window, sinks), random_heads(batch, before + scored, scored)
    close(banded_attention(*heads, band), dense(*heads, band), 1e-12)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("sinks", [0, 3])
def test_flex_attention_is_a_dense_mask(sinks: int) -> None:
    """Uncompiled, on the CPU: compiled on a GPU it takes the same mask."""
    heads = random_heads(1, 70, 40)
    band = Band(16, sinks, "flex")
    close(banded_attention(*heads, band), dense(*heads, band), 1e-6)


@pytest.mark.parametrize(("kernel", "name"), [("fa3", "flash_attn_interface"), ("fa2", "flash_attn")])
def test_flash_attention_is_told_the_window(
    monkeypatch: pytest.MonkeyPatch, kernel: module.BandKernel, name: str
) -> None:
    """A stand-in for FlashAttention, which needs a GPU; its window counts the positions before the query."""

    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, causal: bool, window_size: tuple[int, int]) -> Tensor:
        assert causal
        assert window_size[1] == 0
        return dense(q, k, v, Band(window_size[0] + 1))

    monkeypatch.setitem(sys.modules, name, SimpleNamespace(flash_attn_func=flash_attn_func))
    heads = random_heads(2, 70, 40)
    close(banded_attention(*heads, Band(16, 0, kernel)), dense(*heads, Band(16)), 1e-12)


def test_who_computes_a_band(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu, half = torch.device("cpu"), torch.device("cuda"), torch.bfloat16
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(module, "_installed", lambda name: False)
    assert band_kernel(cpu, half, 0, compiled=True) == "blocks"
    assert band_kernel(gpu, half, 0, compiled=False) == "blocks"
    assert band_kernel(gpu, half, 0, compiled=True) == "flex"
    monkeypatch.setattr(module, "_installed", lambda name: True)
    assert band_kernel(gpu, half, 0, compiled=True) == "fa3"
    assert band_kernel(gpu, half, 4, compiled=True) == "flex"
    assert band_kernel(gpu, torch.float32, 0, compiled=False) == "blocks"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert band_kernel(gpu, half, 0, compiled=False) == "fa2"


@pytest.mark.parametrize("changes", [{}, {"kv_heads": 2, "rope_train_len": 8}, {"layers": 1, "value_layers": (0,)}])
@pytest.mark.parametrize("sinks", [0, 3])
def test_a_banded_forward_is_the_slow_one(changes: dict[str, int], sinks: int) -> None:
    model, tokens = random_model(replace(SMALL, **changes)), random_tokens(1, 22)  # type: ignore[arg-type]
    expected = slow_forward(model, tokens[0].tolist(), 8, Band(8, sinks))[0]
    for last in (22, 14, 3):
        close(model.logits(model.hidden(tokens, last, band=Band(8, sinks)))[0], expected[-last:], 1e-4)


@pytest.mark.parametrize("sinks", [0, 3])
def test_a_ring_is_a_band_without_end(sinks: int) -> None:
    """Position by position, with room for the band alone."""
    model, tokens = random_model(SMALL).float(), random_tokens(1, 20)
    expected = slow_forward(model, tokens[0].tolist(), 5, Band(5, sinks))[0]
    ring = Ring(model.config, Band(5, sinks))
    for at in range(20):
        hidden = model.hidden(tokens[:, at : at + 1], length=5, cache=ring)
        close(model.logits(hidden)[0, 0], expected[at], 2e-3)


def test_a_ring_says_the_same_far_into_a_stream() -> None:
    """After as many tokens as layers look back, what was before is forgotten, and only angles could differ."""
    model, tokens, said = random_model(SMALL).float(), random_tokens(1, 30), []
    for before in (0, 10_000_000):
        ring = Ring(model.config, Band(5))
        ring.filled = before
        for at in range(30):
            hidden = model.hidden(tokens[:, at : at + 1], length=5, cache=ring)
        said.append(model.logits(hidden))
    close(said[0], said[1], 2e-3)


def test_angles_stay_exact_far_into_a_stream() -> None:
    """The angle between two neighbours, at the beginning and after ten million positions."""
    far = 10_000_000
    neighbours = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for positions, exact in ((neighbours, True), (neighbours + far, True), ((neighbours + far).float(), False)):
        cos, sin = rope_angles(SMALL, positions, 8)
        turned = torch.atan2(sin[1], cos[1]) - torch.atan2(sin[0], cos[0])
        turned = (turned + math.pi) % (2 * math.pi) - math.pi
        expected = SMALL.rope_base ** (-torch.arange(0, SMALL.rope_dims, 2) / SMALL.rope_dims)
        assert torch.allclose(turned, expected, atol=1e-5) == exact
