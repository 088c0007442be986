"""A small token stream, and what is known of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.published import Totals, evaluate


@dataclass(frozen=True)
class Stream:
    """A token stream on disk with neural statistics of every position."""

    shard: Path
    scores: Path
    tokens: NDArray[np.uint16]
    p_target: NDArray[np.float64]
    entropy: NDArray[np.float32]

    def published(self, **arguments: Any) -> Totals:
        """What the independent implementation finds."""
        return evaluate(self.tokens.tolist(), self.p_target.tolist(), self.entropy.tolist(), **arguments)


def phrases() -> tuple[NDArray[np.uint16], np.random.Generator]:
    """(3,000 tokens below 50 in which phrases come back, the generator that drew them)."""
    rng = np.random.default_rng(7)
    known = [rng.integers(0, 50, rng.integers(3, 14)) for _ in range(40)]
    return np.concatenate([known[i] for i in rng.integers(0, 40, 600)])[:3000].astype(np.uint16), rng
