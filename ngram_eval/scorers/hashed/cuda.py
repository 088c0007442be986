"""The counts on a GPU, in CUDA (`csrc/cuda/hashed.h`): one launch scores the windows of a call in order."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ngram_eval.config import NgramConfig
from ngram_eval.extensions import load_cuda, stream_of, to_device
from ngram_eval.scorers.hashed.counts import Best, Matches, check_tokens, check_windows
from ngram_eval.scorers.hashed.on_device import DeviceCounts, unsigned
from ngram_eval.text.stream import Stream, Tokens


class CudaCounts(DeviceCounts):
    """`Counts` on the current CUDA device; `threads` is not used."""

    def __init__(self, config: NgramConfig, threads: int = 1) -> None:
        core, device = load_cuda()
        super().__init__(config, device)
        self._core = core.HashedTables(
            device=device.index or 0,
            min_order=config.min_order,
            max_order=config.max_order,
            buckets=config.buckets,
            min_count=config.min_count,
            context_lag=config.context_lag,
            target_backoff=config.target_backoff,
        )

    def update(self, tokens: Tokens, start: int, stop: int) -> None:
        check_tokens(tokens, start, stop)
        self._core.update(stream_of(self.device), self.tables, *self.send(tokens, start, stop), start, stop)

    def lookup(self, tokens: Tokens, start: int, stop: int) -> Matches:
        check_tokens(tokens, start, stop)
        shape = (len(self.config.orders), stop - start)
        contexts, fulls = (torch.empty(shape, dtype=torch.int32, device=self.device) for _ in range(2))
        sent = self.send(tokens, start, stop)
        self._core.lookup(stream_of(self.device), self.tables, *sent, start, stop, contexts, fulls)
        return Matches(unsigned(contexts), unsigned(fulls))

    def score_windows(self, tokens: Tokens, firsts: NDArray[np.int64], stops: NDArray[np.int64]) -> Best:
        check_windows(tokens, firsts, stops)
        order, context, full = best = self.matches(int((stops - firsts).sum()))
        self.score(tokens, firsts, stops, best=best)
        return Best(order.cpu().numpy(), unsigned(context), unsigned(full))

    def matches(self, positions: int) -> tuple[Tensor, Tensor, Tensor]:
        """Uninitialised tensors for the matches of `score`: order uint8, context and full int32, (positions,)."""
        order = torch.empty(positions, dtype=torch.uint8, device=self.device)
        context, full = (torch.empty(positions, dtype=torch.int32, device=self.device) for _ in range(2))
        return order, context, full

    def score(
        self,
        tokens: Stream,
        firsts: NDArray[np.int64],
        stops: NDArray[np.int64],
        *,
        best: tuple[Tensor, Tensor, Tensor],
        charges: tuple[Any, ...] | None = None,
    ) -> None:
        """Score the windows in order, each before it is counted; does not wait for the device.

        The matches are written to the tensors `best` (order uint8, context and full int32). With `charges` (gate,
        p_target, entropy, values, sums, hits, bad: see `device_scorer`), they are also charged for.
        """
        windows = np.flatnonzero(stops > firsts)
        if len(windows):
            sent = self.send(tokens, int(firsts[windows].min()), int(stops[windows].max()))
            bounds = to_device(np.stack([firsts, stops, np.cumsum(stops - firsts)]), self.device)
            self._core.score_windows(
                stream_of(self.device), self.tables, *sent, firsts, stops, bounds, best=best, charges=charges
            )
