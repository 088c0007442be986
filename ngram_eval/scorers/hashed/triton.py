"""The counts on a GPU, in Triton (`ngram_eval.kernels`); `TRITON_INTERPRET=1` uses Triton's slow interpreter."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ngram_eval.config import NgramConfig
from ngram_eval.extensions import to_device
from ngram_eval.kernels.runtime import kernel_device
from ngram_eval.kernels.score_windows import AT_ONCE, Listed, score_listed
from ngram_eval.kernels.tables import lookup, update
from ngram_eval.scorers.hashed.counts import Best, Matches, check_tokens, check_windows
from ngram_eval.scorers.hashed.on_device import DeviceCounts, unsigned
from ngram_eval.text.stream import Stream, Tokens


class Launch(NamedTuple):
    """Windows that are scored together."""

    entries: slice
    """Their positions' places in the list of all windows' positions."""
    tokens: Tensor
    base: int
    listed: Listed
    one_window: bool

    def score(self, tables: Tensor, config: NgramConfig, **results: Any) -> None:
        """Run `score_listed` on these windows; `results` are its arguments."""
        shape = (len(config.orders), 2, len(self.listed.positions))
        ids = torch.empty(shape, dtype=torch.int32, device=tables.device)
        score_listed(tables, self.tokens, self.base, self.listed, ids, config, one_window=self.one_window, **results)


class TritonCounts(DeviceCounts):
    """`Counts` on the current CUDA device; `threads` is not used."""

    def __init__(self, config: NgramConfig, threads: int = 1) -> None:
        super().__init__(config, kernel_device())

    def update(self, tokens: Tokens, start: int, stop: int) -> None:
        check_tokens(tokens, start, stop)
        update(self.tables, *self.send(tokens, start, stop), start, stop, self.config)

    def lookup(self, tokens: Tokens, start: int, stop: int) -> Matches:
        check_tokens(tokens, start, stop)
        shape = (len(self.config.orders), stop - start)
        contexts, fulls = (torch.empty(shape, dtype=torch.int32, device=self.device) for _ in range(2))
        lookup(self.tables, *self.send(tokens, start, stop), start, contexts, fulls, self.config)
        return Matches(unsigned(contexts), unsigned(fulls))

    def score_windows(self, tokens: Tokens, firsts: NDArray[np.int64], stops: NDArray[np.int64]) -> Best:
        check_windows(tokens, firsts, stops)
        scored = int((stops - firsts).sum())
        order = torch.empty(scored, dtype=torch.uint8, device=self.device)
        context, full = (torch.empty(scored, dtype=torch.int32, device=self.device) for _ in range(2))
        for launch in self.launches(tokens, firsts, stops):
            best = (order[launch.entries], context[launch.entries], full[launch.entries])
            launch.score(self.tables, self.config, best=best)
        return Best(order.cpu().numpy(), unsigned(context), unsigned(full))

    def launches(
        self, tokens: Stream, firsts: NDArray[np.int64], stops: NDArray[np.int64], at_once: int = AT_ONCE
    ) -> Iterator[Launch]:
        """The windows in parts that are scored at once: whole windows with at most `at_once` positions, or one window.

        Rows of the parts count the windows from 0.
        """
        lengths = stops - firsts
        ends = np.cumsum(lengths)
        window, entry = 0, 0
        while window < len(firsts):
            last = max(int(np.searchsorted(ends, entry + at_once, side="right")), window + 1)
            length = lengths[window:last]
            before = np.repeat(ends[window:last] - length - entry, length)
            row = np.repeat(np.arange(window, last), length)
            positions = np.arange(len(before)) - before + np.repeat(firsts[window:last], length)
            if len(positions):
                on_device = to_device(np.stack([positions, before, row]), self.device)
                yield Launch(
                    slice(entry, entry + len(positions)),
                    *self.send(tokens, int(positions.min()), int(positions.max()) + 1),
                    Listed(*on_device),
                    one_window=last == window + 1,
                )
            window, entry = last, entry + len(positions)
