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
