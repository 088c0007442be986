"""Keys and values kept between forwards: of a window (`Cache`), or of a band of an endless sequence (`Ring`)."""

import torch
from torch import Tensor

from ngram_eval.models.banded_attention import Band
from ngram_eval.models.transformer_config import ModelConfig


class Cache:
    """Keys, values and newest token of a window, for its later positions; `Transformer.hidden` reads and extends it."""

    def __init__(self, config: ModelConfig, positions: int) -> None:
        """Room for `positions` positions of one sequence, in float32 on the CPU."""
        shape = (config.layers, 1, positions, config.kv_heads, config.head_dim)
        self._keys, self._values = torch.empty(shape), torch.empty(shape)
        self.filled = 0
        """Positions seen."""
        self.tokens = torch.zeros(1, 0, dtype=torch.int64)
        """The newest token, (1, 1); (1, 0) at first."""
        self.embedded = torch.zeros(1, 1, config.width)
        """The newest token's embedding before the smear gate, (1, 1, W); zero at first."""

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys k and values v (1, T, H, D); returns the layer's (keys, values) that the newest position sees.

        These are all from the window's start.
        """
        stop = self.filled + k.size(1)
        self._keys[layer, :, self.filled : stop], self._values[layer, :, self.filled : stop] = k, v
        return self._keys[layer, :, :stop], self._values[layer, :, :stop]

    def positions(self, fresh: int) -> Tensor:
        """The positions seen and `fresh` new ones, for `rope_angles`."""
        return torch.arange(self.filled + fresh, dtype=torch.float32)


class Ring(Cache):
    """Keys and values of the positions of a `Band`, of one sequence without end; it takes one position at a time.

    The newest position overwrites the oldest but for the sinks: attention does not ask for an order.
    """

    def __init__(self, config: ModelConfig, band: Band) -> None:
        super().__init__(config, band.window + band.sinks)
        self._band = band

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        window, sinks = self._band.window, self._band.sinks
        slot = self.filled if self.filled < sinks else sinks + (self.filled - sinks) % window
        self._keys[layer, :, slot : slot + 1], self._values[layer, :, slot : slot + 1] = k, v
        return self._keys[layer, :, : self.filled + 1], self._values[layer, :, : self.filled + 1]

    def positions(self, fresh: int) -> Tensor:
        """The newest position alone, in float64: in float32 the angles of two neighbours differ less and less."""
        return torch.tensor([self.filled], dtype=torch.float64)
