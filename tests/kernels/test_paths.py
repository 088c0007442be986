"""The kernel of path sums against float64, and the tree's own sums against the mixer's."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ngram_eval.kernels.paths import path_stats
from ngram_eval.kernels.runtime import INTERPRETED, kernel_device
from ngram_eval.models.branches import Tree

DEVICE = kernel_device()
NAN = float("nan")
APPROXIMATE = 0.0 if INTERPRETED else 3e-5
"""What a GPU's approximate exp and softcap add, relative to a mass."""
POISON = -7.0


def tree_of(vocab: int) -> Tree:
    return Tree(np.random.default_rng(vocab).permutation(vocab).astype(np.uint32))


def run(logits: Tensor, targets: Tensor, tree: Tree, softcap: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """(p_target, entropy, branches) from poisoned buffers."""
    found = (
        torch.full((len(logits),), POISON, dtype=torch.float64, device=DEVICE),
        torch.full((len(logits),), POISON, device=DEVICE),
        torch.full((len(logits), tree.depth), POISON, dtype=torch.float64, device=DEVICE),
    )
    order, rank = (torch.from_numpy(one.astype(np.int32)).to(DEVICE) for one in (tree.order, tree.rank))
    path_stats(logits.to(DEVICE), targets.to(DEVICE), order, rank, *found, softcap=softcap)
    p_target, entropy, branches = (one.cpu() for one in found)
    return p_target, entropy, branches


@pytest.mark.parametrize(
    ("dtype", "rows", "vocab", "softcap"),
    [
        (torch.float32, 9, 2, 0.0),
        (torch.float32, 31, 1000, 30.0),
        (torch.bfloat16, 16, 1024, 0.0),
        (torch.float16, 6, 4097, 30.0),
        (torch.bfloat16, 2, 49_152, 30.0),
        (torch.float32, 1, 131_072, 0.0),
    ],
)
def test_paths_against_float64(dtype: torch.dtype, rows: int, vocab: int, softcap: float) -> None:
    """A branch is off by at most 2e-5 of itself, as its mass and its node's are by 1e-5 each, besides what the rows'
    prefix sums, to which it is compared, lose: 1e-13 of the whole distribution.
    """
    generator = torch.Generator().manual_seed(rows + vocab)
    logits = (4 * torch.randn(rows, vocab, generator=generator)).to(dtype)
    targets, tree = torch.randint(0, vocab, (rows,), generator=generator), tree_of(vocab)
    p_target, entropy, branches = run(logits, targets, tree, softcap)
    z = logits.double()
    log_p = torch.log_softmax(softcap * torch.tanh(z / softcap) if softcap else z, dim=1)
    torch.testing.assert_close(p_target.log(), log_p.gather(1, targets[:, None])[:, 0], rtol=0, atol=1e-5 + APPROXIMATE)
    exact_entropy = torch.special.entr(log_p.exp()).sum(dim=1)
    torch.testing.assert_close(entropy.double(), exact_entropy, rtol=0, atol=2e-5 + APPROXIMATE)
    whole = log_p.exp().numpy()
    exact = tree.branches(whole, targets.numpy())
    low, _, high = tree.borders(targets.numpy())
    below = np.concatenate([np.zeros((rows, 1)), whole[:, tree.order].cumsum(axis=1)], axis=1)
    node = np.take_along_axis(below, high, 1) - np.take_along_axis(below, low, 1)
    lost = 1e-13 / np.maximum(node, 1e-300)
    off = np.abs(branches.numpy() - exact)
    assert (off <= (2e-5 + APPROXIMATE) * np.minimum(exact, 1) + lost).all()


def test_impossible_tokens_and_ended_paths() -> None:
    """A subtree without probability, and decisions after a leaf, are even."""
    tree = Tree(np.arange(5, dtype=np.uint32))  # paths of 0, 1: three decisions; of 2, 3, 4: two
    logits = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0], [float("-inf")] * 4 + [2.0]])
    _, _, branches = run(logits, torch.tensor([4, 0]), tree)
    assert branches[0, 2] == 0.5
    assert branches[1].tolist() == [1.0, 0.5, 0.5]


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("row", [[NAN, 0.0, 0.0], [float("-inf")] * 3, [0.0, float("inf"), 0.0]], ids=str)
def test_what_is_not_a_distribution_is_nan(row: list[float]) -> None:
    p_target, entropy, branches = run(torch.tensor([[1.0, 2.0, 3.0], row]), torch.tensor([0, 0]), tree_of(3))
    for found in (p_target, entropy, branches.sum(dim=1)):
        assert torch.isnan(found).tolist() == [False, True]


def test_other_shapes_are_refused() -> None:
    logits, targets, tree = torch.zeros(4, 8, device=DEVICE), torch.zeros(4, dtype=torch.int64, device=DEVICE), 8
    p_target, entropy = torch.zeros(4, dtype=torch.float64, device=DEVICE), torch.zeros(4, device=DEVICE)
    order, branches = torch.zeros(tree, dtype=torch.int32, device=DEVICE), torch.zeros(4, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="order is"):
        path_stats(logits, targets, order.long(), order, p_target, entropy, branches)
    with pytest.raises(ValueError, match="branches is"):
        path_stats(logits, targets, order, order, p_target, entropy, branches[:, :2])
