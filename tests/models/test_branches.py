"""Branches on paths: what the mixer makes of them is what it makes of whole distributions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ngram_eval.config import MixerConfig
from ngram_eval.models.banded_source import BandedSource
from ngram_eval.models.branches import Tree
from ngram_eval.models.logits_source import CallableSource
from ngram_eval.models.path_sums import PathSums
from ngram_eval.models.saved_scores import RememberingSource
from ngram_eval.models.source import NeuralSource, UniformSource, statistics, with_branches
from ngram_eval.models.transformer_source import TransformerSource
from ngram_eval.scorers.mixer.model import make_mixer, unspelt
from ngram_eval.text.stream import Tokens
from ngram_eval.text.windows import Windows
from tests.support.slow_transformer import SMALL, random_model

VOCAB = 23
TREE = Tree(np.random.default_rng(1).permutation(VOCAB).astype(np.uint32))


def rows(n: int, vocab: int, seed: int) -> NDArray[np.float64]:
    """Distributions with impossible tokens."""
    rng = np.random.default_rng(seed)
    drawn = np.exp(rng.choice([0.0, 1.0, 12.0], size=(n, 1)) * rng.standard_normal((n, vocab)))
    drawn[rng.random((n, vocab)) < 0.3] = 0.0
    drawn[:, 0] += 1e-9
    result: NDArray[np.float64] = drawn / drawn.sum(axis=1, keepdims=True)
    return result


@given(vocab=st.integers(2, 70), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_products_of_branches_are_probabilities(vocab: int, seed: int) -> None:
    """On every token's path."""
    tree, (row,) = Tree(np.random.default_rng(seed).permutation(vocab).astype(np.uint32)), rows(1, vocab, seed)
    targets = np.arange(vocab)
    branches = tree.branches(np.tile(row, (vocab, 1)), targets)
    low, mid, high = tree.borders(targets)
    right = tree.rank[:, None] >= mid
    taken = np.where(high - low > 0, np.where(right, branches, 1 - branches), 1.0)
    np.testing.assert_allclose(taken.prod(axis=1), row, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("vocab", [2, 23, 64])
def test_the_mixer_takes_branches_as_rows_to_the_bit(backend: str, vocab: int) -> None:
    spelt, base = unspelt(vocab), rows(60, vocab, 5)
    tokens = np.random.default_rng(2).integers(vocab, size=60).astype(np.uint16)
    whole, paths = (make_mixer(backend, MixerConfig(groups=1 << 8), spelt, neural=True) for _ in range(2))
    p, order = whole.score(tokens, base)
    p_paths, order_paths = paths.score_paths(tokens, Tree(spelt.rank).branches(base, tokens))
    assert (p == p_paths).all()
    assert (order == order_paths).all()


@pytest.mark.parametrize(
    ("branches", "message"),
    [
        (np.full((3, 2), 0.5), r"\(n, D\) with n = 3 and D = 3"),
        (np.full((2, 3), 0.5), r"\(n, D\)"),
        (np.full((3, 3), 0.5, np.float32), "float64"),
        (np.full((3, 3), 1.5), "from 0 to 1"),
        (np.full((3, 3), np.nan), "from 0 to 1"),
    ],
)
def test_other_branches_are_refused(branches: NDArray[np.float64], message: str) -> None:
    mixer = make_mixer("cpu", MixerConfig(groups=4), unspelt(8), neural=True)
    with pytest.raises(ValueError, match=message):
        mixer.score_paths(np.zeros(3, np.uint16), branches)


def model(windows: torch.Tensor) -> torch.Tensor:
    """Logits that depend on a position's token alone."""
    table = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(3))
    return table[windows]


@pytest.mark.parametrize("remembered", [False, True])
@pytest.mark.parametrize("source", [CallableSource(model, 4), UniformSource(VOCAB)], ids=lambda one: one.name)
def test_sources_give_the_branches_of_their_rows(source: NeuralSource, remembered: bool) -> None:
    tokens: Tokens = np.random.default_rng(4).integers(VOCAB, size=41).astype(np.uint16)
    windows = Windows(np.array([0, 10, 20]), np.array([5, 15, 25]), np.array([15, 25, 35]), 15)
    asked = RememberingSource(source, 40, 15) if remembered else source
    some = np.arange(windows.scored) % 7 == 0
    found = with_branches(asked, tokens, windows, some, TREE)
    whole = statistics(source, tokens, windows, rows=True)
    assert whole.rows is not None
    np.testing.assert_array_equal(found.rows, whole.rows[some])
    np.testing.assert_array_equal(found.branches, TREE.branches(whole.rows, windows.targets(tokens)))
    np.testing.assert_array_equal(found.p_target, whole.p_target)
    np.testing.assert_array_equal(found.entropy, whole.entropy)
    part = found.part(slice(10, 20)).branches
    np.testing.assert_array_equal(part, TREE.branches(whole.rows, windows.targets(tokens))[10:20])
    if remembered:
        positions = windows.positions()
        np.testing.assert_array_equal(asked.p_target[positions], whole.p_target)  # type: ignore[attr-defined]


def test_kernel_and_torch_agree() -> None:
    """Within what the kernel promises, and the mixer's charges with them."""
    pytest.importorskip("triton")
    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    logits = 3 * torch.randn(40, VOCAB, generator=torch.Generator().manual_seed(6))
    targets = torch.arange(40) % VOCAB
    one, other = (PathSums(TREE, device, use_kernels=use) for use in (False, True))
    found = [sums.stats(logits.to(device), targets.to(device)) for sums in (one, other)]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=5e-5, atol=1e-9)
    charged = []
    for _, _, branches in found:
        mixer = make_mixer("cpu", MixerConfig(groups=1 << 8), unspelt(VOCAB), neural=True)
        charged.append(mixer.score_paths(targets.numpy().astype(np.uint16), branches.cpu().numpy())[0])
    np.testing.assert_allclose(charged[0], charged[1], rtol=2e-4)


@pytest.mark.parametrize("banded", [False, True])
def test_a_transformer_gives_the_branches_of_its_rows(banded: bool) -> None:
    """Bit for bit, in one forward, with statistics that are those of `stats`."""
    tokens = np.random.default_rng(3).integers(SMALL.vocab_size, size=41, dtype=np.uint16)
    of = BandedSource if banded else TransformerSource
    source = of(random_model(SMALL), train_seq_len=0, batch_windows=4, device=torch.device("cpu"), dtype=torch.float32)
    windows = Windows(np.array([0, 8, 16]), np.array([8, 16, 24]), np.array([16, 24, 32]), 16)
    tree = Tree(np.random.default_rng(1).permutation(SMALL.vocab_size).astype(np.uint32))
    some = np.arange(windows.scored) % 7 == 0
    found = with_branches(source, tokens, windows, some, tree)
    whole = statistics(source, tokens, windows, rows=True)
    assert whole.rows is not None
    np.testing.assert_array_equal(found.rows, whole.rows[some])
    np.testing.assert_array_equal(found.branches, tree.branches(whole.rows, windows.targets(tokens)))
    np.testing.assert_array_equal(found.p_target, whole.p_target)
    np.testing.assert_array_equal(found.entropy, whole.entropy)
