"""The common part of the GPU backends: tables in a tensor that the host can read and replace."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ngram_eval.config import NgramConfig
from ngram_eval.extensions import to_device
from ngram_eval.kernels.tables import empty_tables
from ngram_eval.scorers.hashed.counts import Matches, around
from ngram_eval.scorers.hashed.reference import read_targets
from ngram_eval.text.stream import Stream, Tokens


class DeviceCounts:
    """Tables on a device, int32 read as uint32: [i, 0] context counts, [i, 1] full counts of order min_order + i.

    Each call sends the tokens that it needs to the device, so streams may be larger than the device's memory.
    """

    def __init__(self, config: NgramConfig, device: torch.device) -> None:
        self.config, self.device, self.tables = config, device, empty_tables(config, device)

    def lookup_targets(self, tokens: Tokens, position: int, vocab: int) -> Matches:
        def read(row: int, table: int, buckets: NDArray[np.int64]) -> NDArray[np.uint32]:
            return unsigned(self.tables[row, table, torch.from_numpy(buckets).to(self.device)])

        return read_targets(read, tokens, position, vocab, self.config)

    def state(self) -> NDArray[np.uint32]:
        """A copy of the tables; if the device is the host, the tables themselves."""
        return unsigned(self.tables)

    def load_state(self, state: NDArray[np.uint32]) -> None:
        if state.shape != self.tables.shape or state.dtype != np.uint32:
            raise ValueError(f"state is {state.dtype} {state.shape}, the tables are uint32 {tuple(self.tables.shape)}")
        self.tables.copy_(torch.from_numpy(np.ascontiguousarray(state).view(np.int32)))

    def send(self, tokens: Stream, start: int, stop: int) -> tuple[Tensor, int]:
        """`ngram_eval.scorers.hashed.counts.around` on the device: uint16, or int32 with the bits of uint32."""
        read, base = around(tokens, start, stop, self.config)
        part = np.array(read)  # a copy: torch takes no read-only memory maps
        signed = part.view(np.int32) if part.dtype == np.uint32 else part
        return to_device(signed, self.device), base


def unsigned(counts: Tensor) -> NDArray[np.uint32]:
    """int32 counts of a device as the host's uint32."""
    host: NDArray[np.int32] = counts.cpu().numpy()
    return host.view(np.uint32)
