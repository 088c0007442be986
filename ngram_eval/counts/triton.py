"""The counts on a GPU, in Triton (`ngram_eval.kernels`); under `TRITON_INTERPRET=1` in Triton's interpreter, slowly."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ngram_eval.config import NgramConfig
from ngram_eval.counts import Best, Matches, Stream, Tokens, around, check_span, check_windows
from ngram_eval.counts.reference import read_targets
from ngram_eval.kernels.runtime import kernel_device
from ngram_eval.kernels.tables import empty_tables, lookup, update
from ngram_eval.kernels.windows import AT_ONCE, Listed, score_listed
from ngram_eval.transfer import to_device


class Launch(NamedTuple):
    """Windows that are scored together."""

    entries: slice
    """Where their positions lie in the list of all windows' positions."""
    tokens: Tensor
    base: int
    listed: Listed
    one_window: bool

    def score(self, tables: Tensor, config: NgramConfig, **results: Any) -> None:
        """`score_listed` of these windows; `results` as there."""
        shape = (len(config.orders), 2, len(self.listed.positions))
        ids = torch.empty(shape, dtype=torch.int32, device=tables.device)
        score_listed(tables, self.tokens, self.base, self.listed, ids, config, one_window=self.one_window, **results)


class TritonCounts:
    """`ngram_eval.counts.Counts` on the current CUDA device; `threads` is not used.

    Of the stream, each call sends the tokens it needs to the device, so that streams may be larger than its memory.
    """

    def __init__(self, config: NgramConfig, threads: int = 1) -> None:
        self.config = config
        self.device = kernel_device()
        self.tables = empty_tables(config, self.device)

    def update(self, tokens: Tokens, start: int, stop: int) -> None:
        check_span(tokens, start, stop)
        update(self.tables, *self._send(tokens, start, stop), start, stop, self.config)

    def lookup(self, tokens: Tokens, start: int, stop: int) -> Matches:
        check_span(tokens, start, stop)
        shape = (len(self.config.orders), stop - start)
        contexts, fulls = (torch.empty(shape, dtype=torch.int32, device=self.device) for _ in range(2))
        lookup(self.tables, *self._send(tokens, start, stop), start, contexts, fulls, self.config)
        return Matches(_unsigned(contexts), _unsigned(fulls))

    def score_windows(self, tokens: Tokens, firsts: NDArray[np.int64], stops: NDArray[np.int64]) -> Best:
        check_windows(tokens, firsts, stops)
        scored = int((stops - firsts).sum())
        order = torch.empty(scored, dtype=torch.uint8, device=self.device)
        context, full = (torch.empty(scored, dtype=torch.int32, device=self.device) for _ in range(2))
        for launch in self.launches(tokens, firsts, stops):
            best = (order[launch.entries], context[launch.entries], full[launch.entries])
            launch.score(self.tables, self.config, best=best)
        return Best(order.cpu().numpy(), _unsigned(context), _unsigned(full))

    def launches(
        self, tokens: Stream, firsts: NDArray[np.int64], stops: NDArray[np.int64], at_once: int = AT_ONCE
    ) -> Iterator[Launch]:
        """The windows' positions in the parts that are scored at once: whole windows with at most `at_once` positions
        together, or a single window. Rows of the parts count the windows from 0.
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
                    *self._send(tokens, int(positions.min()), int(positions.max()) + 1),
                    Listed(*on_device),
                    one_window=last == window + 1,
                )
            window, entry = last, entry + len(positions)

    def lookup_targets(self, tokens: Tokens, position: int, vocab: int) -> Matches:
        def read(row: int, table: int, buckets: NDArray[np.int64]) -> NDArray[np.uint32]:
            return _unsigned(self.tables[row, table, torch.from_numpy(buckets).to(self.device)])

        return read_targets(read, tokens, position, vocab, self.config)

    def state(self) -> NDArray[np.uint32]:
        """A copy of the tables, or in the interpreter the tables themselves."""
        return _unsigned(self.tables)

    def load_state(self, state: NDArray[np.uint32]) -> None:
        if state.shape != self.tables.shape or state.dtype != np.uint32:
            raise ValueError(f"state is {state.dtype} {state.shape}, the tables are uint32 {tuple(self.tables.shape)}")
        self.tables.copy_(torch.from_numpy(np.ascontiguousarray(state).view(np.int32)))

    def _send(self, tokens: Stream, start: int, stop: int) -> tuple[Tensor, int]:
        """`around`, on the device."""
        read, base = around(tokens, start, stop, self.config)
        part = np.array(read)  # a copy: torch takes no read-only memory maps
        signed = part.view(np.int32) if part.dtype == np.uint32 else part
        return to_device(signed, self.device), base


def _unsigned(counts: Tensor) -> NDArray[np.uint32]:
    host: NDArray[np.int32] = counts.cpu().numpy()
    return host.view(np.uint32)
