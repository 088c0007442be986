"""The second form of neural statistics: of the decisions on each target's path, the probabilities of going right.

The tokens of a vocabulary, in some order, are the leaves of a balanced binary tree. A node parts the ranks [low, high)
at mid = (low + high + 1) // 2; a token's path has at most D = ⌈log₂ V⌉ decisions. The mixer needs no more of a
distribution than these, which are D numbers a position in place of V.
"""

import numpy as np
from numpy.typing import NDArray

_SUMS_AT_ONCE = 1 << 20
"""Most prefix sums held at a time (8 MiB)."""


class Tree:
    """A balanced binary tree over a vocabulary of 2 tokens or more."""

    def __init__(self, rank: NDArray[np.uint32]) -> None:
        """`rank` (V,) is the place of each token among the leaves."""
        self.rank = rank.astype(np.int64)
        self.order: NDArray[np.int64] = np.argsort(self.rank)
        """The tokens by rank, (V,)."""
        self.depth = (len(rank) - 1).bit_length()
        """D, decisions of the longest path."""

    def borders(self, targets: NDArray[np.integer]) -> NDArray[np.int64]:
        """(low, mid, high) of the nodes on the paths to targets (n,), (3, n, D).

        Where a path has ended before, all three are its leaf's.
        """
        leaf = self.rank[targets]
        low, high = np.zeros_like(leaf), np.full_like(leaf, len(self.rank))
        borders = np.empty((3, len(leaf), self.depth), np.int64)
        for depth in range(self.depth):
            mid = (low + high + 1) // 2
            open_ = high - low > 1
            right = open_ & (leaf >= mid)
            borders[:, :, depth] = low, np.where(open_, mid, low), np.where(open_, high, low)
            low, high = np.where(right, mid, low), np.where(open_ & ~right, mid, high)
        return borders

    def branches(self, rows: NDArray[np.float64], targets: NDArray[np.integer]) -> NDArray[np.float64]:
        """Probability of the right branch at each node on the paths to targets (n,), (n, D), of distributions (n, V).

        It is 1/2 where a node has no probability, and where a path has ended. Bit for bit what the mixer itself makes
        of `rows`: sums over ranks in order, in float64.
        """
        found, borders = np.full((len(rows), self.depth), 0.5), self.borders(targets)
        step = max(1, _SUMS_AT_ONCE // len(self.order))
        for row in range(0, len(rows), step):
            part = slice(row, row + step)
            below = np.zeros((len(rows[part]), len(self.order) + 1))
            np.cumsum(rows[part, self.order], axis=1, out=below[:, 1:])
            low, mid, high = (np.take_along_axis(below, border[part], axis=1) for border in borders)
            whole = high - low
            np.divide(high - mid, whole, out=found[part], where=whole > 0)
        return found
