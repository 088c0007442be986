"""The hashed scorer on a GPU: counts, gate, blend and sums stay there until the end.

In a batch, the logits' statistics take one launch (`transformer_source`); the rest takes three for every 1024 positions
(`TritonScorer`), or two (`CudaScorer`). The host waits for the device only in `tally` and sampled `distribution`s, so
the stages of the result overlap: each shows the time that the host spent in it.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ngram_eval.bpb import Tally, from_limbs
from ngram_eval.config import EvalConfig
from ngram_eval.distributed.prefill import scan
from ngram_eval.distributed.ranks import Ranks
from ngram_eval.extensions import to_device
from ngram_eval.kernels.gating import gate_constants, gate_numbers
from ngram_eval.kernels.score_windows import AT_ONCE, NO_POSITION, DeviceTotals, new_totals
from ngram_eval.models.source import NeuralStats, nan_statistics
from ngram_eval.models.transformer_source import DeviceStats
from ngram_eval.scorers.base import Explanation, Scorer
from ngram_eval.scorers.hashed.cuda import CudaCounts
from ngram_eval.scorers.hashed.gate import GatedBackoff
from ngram_eval.scorers.hashed.scorer import count_positions, explain_hashed
from ngram_eval.scorers.hashed.triton import TritonCounts
from ngram_eval.text.stream import Stream
from ngram_eval.text.windows import Windows


class DeviceCharged:
    """`ngram_eval.scorers.base.Charged` on the device; copied to the host on demand."""

    order = weight = None

    def __init__(self, device_values: Tensor) -> None:
        self.device_values = device_values

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """(positions,), on the host."""
        copied: NDArray[np.float64] = self.device_values.cpu().numpy()
        return copied


class DeviceScorer(Scorer):
    """`ngram_eval.scorers.base.Scorer` of PR #890's family, for any kernels that count and charge."""

    window_wise = True
    on_device = True

    counts: TritonCounts | CudaCounts

    def __init__(self, config: EvalConfig) -> None:
        self._blend = GatedBackoff(config.gate)
        self._totals = new_totals(0, self.counts.device)
        self._sums: list[Tensor] = []

    def charge(
        self, tokens: Stream, windows: Windows, stats: tuple[Tensor, Tensor], totals: DeviceTotals, values: Tensor
    ) -> None:
        """Score the windows, then count them.

        `stats` are p_target float64 and entropy float32 of their positions; the float64 charges are written to
        `values`. Nats are added to rows of `totals.sums`, no matter which.
        """
        raise NotImplementedError

    def prefill(self, tokens: Stream, start: int, stop: int, advance: Callable[[int], None]) -> None:
        count_positions(self.counts, tokens, start, stop, advance)

    def scan(self, ranks: Ranks) -> None:
        scan(self.counts.tables, ranks)

    def score(self, tokens: Stream, windows: Windows, stats: NeuralStats) -> DeviceCharged:
        p_target, entropy = self._on_device(stats)
        sums = new_totals(len(windows), self.counts.device).sums
        values = torch.empty_like(p_target)
        totals = DeviceTotals(sums, self._totals.hits, self._totals.bad)
        self.charge(tokens, windows, (p_target, entropy), totals, values)
        self._sums.append(sums)
        return DeviceCharged(values)

    def distribution(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        return self._blend.distribution(self.counts, tokens, position, probabilities, entropy)

    def given_target(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        return self._blend.given_target(self.counts, tokens, position, probabilities, entropy)

    def explain(
        self, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float, target: int
    ) -> Explanation:
        return explain_hashed(self.counts, self._blend, tokens, position, entropy, target)

    def tally(self) -> Tally:
        """The sums of everything charged; raises `InputError` if the neural statistics of a position were NaN."""
        bad = int(self._totals.bad)
        if bad != NO_POSITION:
            raise nan_statistics(bad)
        sums = torch.cat([self._totals.sums, *self._sums]).sum(dim=0).tolist()
        hits = self._totals.hits.tolist()
        return Tally(
            nats=from_limbs(*sums[:2]),
            neural_nats=from_limbs(*sums[2:]),
            positions=sum(hits),
            hits_by_order={order: found for order, found in enumerate(hits) if order and found},
        )

    def _on_device(self, stats: NeuralStats) -> tuple[Tensor, Tensor]:
        if isinstance(stats, DeviceStats):
            return stats.device_p_target, stats.device_entropy
        p_target, entropy = np.asarray(stats.p_target, np.float64), np.asarray(stats.entropy, np.float32)
        return to_device(p_target, self.counts.device), to_device(entropy, self.counts.device)


class TritonScorer(DeviceScorer):
    """Three launches for every `at_once` positions (`ngram_eval.kernels.score_windows`)."""

    counts: TritonCounts

    def __init__(self, config: EvalConfig, at_once: int = AT_ONCE) -> None:
        self.counts = TritonCounts(config.ngram)
        super().__init__(config)
        self._at_once = at_once
        self._gate = gate_constants(config.gate, self.counts.device)

    def charge(
        self, tokens: Stream, windows: Windows, stats: tuple[Tensor, Tensor], totals: DeviceTotals, values: Tensor
    ) -> None:
        p_target, entropy = stats
        for launch in self.counts.launches(tokens, windows.first, windows.stop, self._at_once):
            launch.score(
                self.counts.tables,
                self.counts.config,
                gate=self._gate,
                stats=(p_target[launch.entries], entropy[launch.entries]),
                totals=totals,
                values=values[launch.entries],
            )


class CudaScorer(DeviceScorer):
    """Two launches per batch: one matches and counts all windows, one charges for them (`csrc/cuda/hashed.h`)."""

    counts: CudaCounts

    def __init__(self, config: EvalConfig) -> None:
        self.counts = CudaCounts(config.ngram)
        super().__init__(config)
        self._gate = gate_numbers(config.gate)

    def charge(
        self, tokens: Stream, windows: Windows, stats: tuple[Tensor, Tensor], totals: DeviceTotals, values: Tensor
    ) -> None:
        best = self.counts.matches(len(values))
        self.counts.score(tokens, windows.first, windows.stop, best=best, charges=(self._gate, *stats, values, *totals))
