"""The exact model in C++ (`csrc/exact/model.h`), on one or two threads."""

import math

from ngram_eval import _core
from ngram_eval.config import ExactConfig


class CpuModel(_core.ExactModel):
    """`ngram_eval.scorers.exact.model.ExactModel` in C++. With threads to spare one counts ahead of the other."""

    def __init__(self, max_order: int, config: ExactConfig, threads: int = 1) -> None:
        super().__init__(
            max_order=max_order,
            chain=config.chain,
            tilt=config.tilt,
            tilt_factor=math.exp(config.tilt_beta),
            tilt_confidence=config.tilt_confidence,
            threads=threads,
        )
