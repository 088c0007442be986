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
    """What `alpha` reads: `gate_numbers`, float64 (13,)."""
    return torch.tensor(gate_numbers(gate), dtype=torch.float64, device=device)


@triton.jit
def alpha(gate: tl.tensor, entropy: tl.tensor, order: tl.tensor, valid: tl.tensor) -> tl.tensor:
    """Weight of the n-gram estimate, float64, for entropies (nats) and matched orders of one shape."""
    centre = tl.load(gate + 3 + order, mask=valid, other=0.0)
    argument = tl.load(gate + 2) * (entropy.to(tl.float64) - centre)
    decay = tl.exp(-tl.abs(argument))  # of the negative side, so that nothing overflows
    sigmoid = tl.where(argument >= 0, 1.0, decay) / (1.0 + decay)
    return tl.load(gate) + tl.load(gate + 1) * sigmoid
