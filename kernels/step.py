"""One forward batch in four launches: logits → statistics; buckets; lookups, gate, blend, sums; counts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ngram_eval.config import EvalConfig
from ngram_eval.kernels.gating import gate_constants
from ngram_eval.kernels.stats import neural_stats
from ngram_eval.kernels.windows import AT_ONCE, DeviceTotals, Listed, new_totals, score_listed


@dataclass(frozen=True, kw_only=True)
class FusedStep:
    """Scores one batch after another from buffers of fixed size; nothing is allocated and nothing waits.

    So a CUDA graph can capture a call: then fill `logits`, `targets`, `listed` and `tokens` in place and replay.
    """

    config: EvalConfig
    tables: Tensor
    """(orders, 2, buckets) int32; counted into."""
    logits: Tensor
    """(n, V), before the softcap: of the n scored positions of the batch, window after window."""
    targets: Tensor
    """(n,), any integer dtype."""
    listed: Listed
    """The same positions; `rows` within `charges.sums`."""
    tokens: Tensor
    """The whole stream, uint16, or int32 holding uint32 bits."""
    charges: DeviceTotals
    """What has been charged; sums are added to."""
    ids: Tensor
    gate: Tensor
    p_target: Tensor
    entropy: Tensor
    softcap: float

    @classmethod
    def allocate(
        cls, config: EvalConfig, tables: Tensor, logits: Tensor, tokens: Tensor, *, windows: int, softcap: float
    ) -> "FusedStep":
        """Buffers for batches of as many positions as `logits` has rows, and sums for `windows` windows."""
        count, device = len(logits), tables.device
        if count > AT_ONCE:
            raise ValueError(f"{count} positions: {AT_ONCE} are scored at once")
        positions, before, rows = torch.zeros((3, count), dtype=torch.int64, device=device)
        return cls(
            config=config,
            tables=tables,
            logits=logits,
            targets=torch.zeros(count, dtype=torch.int64, device=device),
            listed=Listed(positions, before, rows),
            tokens=tokens,
            charges=new_totals(windows, device),
            ids=torch.zeros((len(config.ngram.orders), 2, count), dtype=torch.int32, device=device),
            gate=gate_constants(config.gate, device),
            p_target=torch.zeros(count, dtype=torch.float64, device=device),
            entropy=torch.zeros(count, dtype=torch.float32, device=device),
            softcap=softcap,
        )

    def __call__(self) -> None:
        """Charge and count the batch in the buffers."""
        neural_stats(self.logits, self.targets, self.p_target, self.entropy, softcap=self.softcap)
        score_listed(
            self.tables,
            self.tokens,
            0,
            self.listed,
            self.ids,
            self.config.ngram,
            gate=self.gate,
            stats=(self.p_target, self.entropy),
            charges=self.charges,
        )
