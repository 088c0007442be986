"""The exact model with counts on a GPU (`csrc/cuda/exact.h`) and weights, learned in stream order, on the host."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import ExactConfig
from ngram_eval.errors import InputError
from ngram_eval.extensions import load_cuda
from ngram_eval.scorers.exact.cpu import CpuModel
from ngram_eval.text.stream import Tokens

# Chosen by benchmarks/results/gpu_h200.md. The table is 35 to 70 % full; there, adding and finding with 4 threads is
# within 6 % of the fastest. 2 threads find 20 % fewer keys at 70 %; 8 find 25 % fewer at 35 % (and count up to 4 %
# faster). The latency of launches bounds a batch: batches of 4,096 positions count 1.8 times as fast as batches of
# 1,024, and take 10 MB of memory instead of 2.5.
LANES = 4
"""Threads that read a bucket of the table together: 4 slots are two sectors of 32 bytes."""
BATCH = 4096
"""Positions that are counted together; each is compared with all others."""
_AT_ONCE = 1 << 14
_EVIDENCE = np.dtype(
    [(name, np.uint64) for name in ("total", "novel_total")]
    + [(name, np.uint32) for name in ("distinct", "run", "count", "novel", "recent", "padding")]
)
_COLUMNS = ("total", "novel_total", "distinct", "run", "count", "novel", "recent")


class CudaModel:
    """`ngram_eval.scorers.exact.model.ExactModel` without a tilt, whose hint is a search over the host's counts."""

    def __init__(
        self, max_order: int, config: ExactConfig, threads: int = 1, *, lanes: int = LANES, batch: int = BATCH
    ) -> None:
        if config.tilt != "off":
            raise InputError(f"--tilt {config.tilt} and --backend cuda: hints need counts on the host: --backend cpu")
        core, device = load_cuda()
        self._counts = core.ExactCounts(device=device.index or 0, max_order=max_order, lanes=lanes, batch=batch)
        self._weights = CpuModel(max_order, config)
        self._newest, self._largest = 0, -1

    def append(self, tokens: Tokens) -> None:
        self._counts.append(tokens)
        self._follow(tokens)

    def score(
        self, tokens: Tokens, base: NDArray[np.float64], entropy: NDArray[np.float32], *, together: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        self._weights.check(tokens, base, entropy)  # before anything is counted
        n, shared = len(tokens), base.ndim == 2 and len(base) == 1
        if together:
            self._counts.rewind()
            evidence, order = self._counts.peek(tokens)
            p = self._weights.score_recalled(tokens, evidence, order, base, entropy, together=True)
            self.append(tokens)
            return p, order
        p, order = np.empty(n), np.empty(n, np.uint8)
        for start in range(0, n, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            evidence, order[part] = self._counts.append_recalling(tokens[part])
            below = base if shared else base[part]
            p[part] = self._weights.score_recalled(
                tokens[part], evidence, order[part], below, entropy[part], together=False
            )
        self._follow(tokens)
        return p, order

    def distribution(self, base: NDArray[np.float64], entropy: float) -> NDArray[np.float64]:
        return self.distribution_after(np.empty(0, np.uint16), base, entropy)

    def distribution_after(self, tokens: Tokens, base: NDArray[np.float64], entropy: float) -> NDArray[np.float64]:
        largest = max(self._largest, int(tokens.max(initial=0)))
        if largest >= len(base):
            raise ValueError(f"rows of {len(base)} probabilities, but token {largest} was counted")
        self._counts.rewind()
        if len(tokens):
            self._counts.peek(tokens)
            self._weights.follow(int(tokens[-1]))
        p = np.empty(len(base))
        for start in range(0, len(base), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            evidence, depth = self._counts.peek_each(start, len(base[part]))
            p[part] = self._weights.distribution_recalled(evidence, depth, base[part], entropy)
        self._weights.follow(self._newest)
        return p

    def distributions(
        self, tokens: Tokens, base: NDArray[np.float64], entropy: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        if base.ndim != 2:
            raise ValueError("distributions need whole base distributions, (n, V) or (1, V)")
        rows = np.broadcast_to(base, (len(tokens), base.shape[1]))
        found = np.empty(rows.shape)
        for i in range(len(tokens)):
            row = np.ascontiguousarray(rows[i])
            found[i] = self.distribution(row, float(entropy[i]))
            self.score(tokens[i : i + 1], row[None], entropy[i : i + 1], together=False)
        return found

    def evidence(self, token: int) -> NDArray[np.uint64]:
        self._counts.rewind()
        found, depth = self._counts.peek_each(token, 1)
        rows = found.view(_EVIDENCE).reshape(-1)[: depth[0]]
        return np.stack([rows[name].astype(np.uint64) for name in _COLUMNS], axis=1)

    def learned(self) -> dict[str, NDArray[Any]]:
        return self._weights.learned()

    def load_learned(self, learned: dict[str, NDArray[Any]]) -> None:
        self._weights.load_learned(learned)

    def size(self) -> dict[str, int]:
        """As `ExactModel.size`, with the `slots` of the table; `bytes` are of the GPU's memory."""
        size: dict[str, int] = self._counts.size()
        return size

    def _follow(self, tokens: Tokens) -> None:
        if len(tokens):
            self._newest, self._largest = int(tokens[-1]), max(self._largest, int(tokens.max()))
            self._weights.follow(self._newest)
