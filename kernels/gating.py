"""The gate of `ngram_eval.scorers.hashed.gate.GatedBackoff` for use inside kernels, in float64 like the original."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ngram_eval.config import GateConfig


def gate_numbers(gate: GateConfig) -> tuple[float, ...]:
    """The gate in 13 numbers: base, range, slope, then the centre of each order from 0 (unused) to 9."""
    weight = (gate.alpha_base, gate.alpha_range, gate.alpha_slope) if gate.alpha_range else (gate.alpha_fixed, 0.0, 0.0)
    return (*weight, 0.0, *gate.centres)


def gate_constants(gate: GateConfig, device: torch.device) -> Tensor:
    """`gate_numbers`, float64 (13,)."""
    return torch.tensor(gate_numbers(gate), dtype=torch.float64, device=device)


@triton.jit
def alpha(base: tl.tensor, span: tl.tensor, slope: tl.tensor, entropy: tl.tensor, centre: tl.tensor) -> tl.tensor:
    """Weight of the n-gram estimate, float64, for entropies (nats) and centres of matched orders of one shape."""
    argument = slope * (entropy.to(tl.float64) - centre)
    decay = tl.exp(-tl.abs(argument))  # of the negative side, so that nothing overflows
    sigmoid = tl.where(argument >= 0, 1.0, decay) / (1.0 + decay)
    return base + span * sigmoid
