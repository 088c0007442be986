"""The architecture of a transformer (openai/parameter-golf PR #890); each part is a field."""

import math
from dataclasses import dataclass
from typing import Literal

from ngram_eval.errors import InputError

TableDtype = Literal["bfloat16", "float32"]


MAX_LAYERS = 1024


MAX_SIZE = 1 << 24
"""Largest width, vocabulary, ...: larger than any model's, and small enough that no product of two overflows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The architecture; defaults are PR #890's 33,055,836 parameters."""

    vocab_size: int = 1024
    """Pieces in the tokenizer."""
    layers: int = 11
    """Transformer blocks."""
    width: int = 512
    """Width of the residual stream."""
    heads: int = 8
    """Query heads."""
    kv_heads: int = 8
    """Key/value heads; divides `heads`."""
    mlp_hidden: int = 1792
    """Hidden units of the MLP."""
    leaky_slope: float = 0.5
    """Negative slope before the MLP's square."""
    logit_softcap: float = 30.0
    """c in c * tanh(z / c); 0 turns it off."""
    table_dtype: TableDtype = "bfloat16"
    """Precision in which embedding tables are kept."""
    table_init_std: float = 0.005
    """Standard deviation of the initial token embedding."""

    bigram_slots: int = 4096
    """Rows of the bigram hash embedding; 0 turns it off."""
    bigram_width: int = 128
    """Columns of the bigram hash embedding."""
    smear_gate: bool = True
    """Mix each input with the one before it."""
    bos_id: int = -1
    """Token that starts a document; bigram hash and smear gate do not look back over it. -1: they do (PR #890)."""
    unet_skips: bool = True
    """Add outputs of the first half of the blocks to inputs of the second half, the last one first."""
    input_mix: bool = True
    """Start each block from a learned mix of the residual stream and the network's input x0."""
    layer_norm_scale: bool = True
    """Scale the normed inputs of layer l by 1/sqrt(l + 1)."""

    rope_dims: int = 16
    """Number of leading dims of each head that are rotated."""
    rope_base: float = 10000.0
    """Base of the rotation frequencies."""
    rope_train_len: int = 1024
    """For longer sequences, the base is multiplied by (length / rope_train_len)^(d / (d - 2))."""
    q_gain: float = 1.5
    """Initial gain of the queries, per head."""
    xsa_layers: int = 11
    """Number of last layers that subtract from each head's output its projection on the position's own value (XSA)."""

    value_layers: tuple[int, ...] = (9, 10)
    """Layers that add the token's value embedding to v; empty turns it off."""
    value_width: int = 128
    """Columns of the value embedding."""

    mtp_heads: int = 0
    """Multi-token-prediction heads (training only; never exported)."""
    depth_gate: bool = False
    """Per-block gate on depth: x_in + sigmoid(w . stopgrad(x_in) + b) (x_out - x_in)."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "layers", "width", "heads", "kv_heads", "mlp_hidden", "rope_train_len"):
            if getattr(self, name) < 1:
                raise InputError(f"model {name} is {getattr(self, name)}: give at least 1")
        for name in ("bigram_slots", "xsa_layers", "mtp_heads", "rope_dims"):
            if getattr(self, name) < 0:
                raise InputError(f"model {name} is {getattr(self, name)}: give 0 to turn it off, or more")
        for name, part in (("bigram_width", self.bigram_slots), ("value_width", self.value_layers)):
            if part and getattr(self, name) < 1:
                raise InputError(f"model {name} is {getattr(self, name)}: give at least 1")
        for name in (
            *("vocab_size", "width", "mlp_hidden", "rope_train_len"),
            *("bigram_slots", "bigram_width", "value_width", "mtp_heads"),
        ):
            if getattr(self, name) > MAX_SIZE:
                raise InputError(f"model {name} is {getattr(self, name)}: give at most {MAX_SIZE}")
        if self.layers > MAX_LAYERS:
            raise InputError(f"model layers is {self.layers}: give at most {MAX_LAYERS}")
        for name in ("leaky_slope", "q_gain"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"model {name} is {getattr(self, name)}: give a finite number")
        for name in ("logit_softcap", "table_init_std"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"model {name} is {getattr(self, name)}: give a finite number >= 0")
        if not 1 <= self.rope_base < math.inf:
            raise InputError(f"model rope_base is {self.rope_base}: give a finite number >= 1")
        if self.width % self.heads or self.heads % self.kv_heads:
            raise InputError(
                f"model width {self.width}, heads {self.heads}, kv_heads {self.kv_heads}: "
                "each must divide the one before"
            )
        if self.rope_dims > self.head_dim or self.rope_dims % 2 or self.rope_dims == 2:
            raise InputError(f"model rope_dims is {self.rope_dims}: give 0 or an even number from 4 to {self.head_dim}")
        if self.bigram_slots == 1:
            raise InputError("model bigram_slots is 1: give 0 (off) or at least 2, one is kept for position 0")
        if not -1 <= self.bos_id < self.vocab_size:
            raise InputError(f"model bos_id is {self.bos_id}: give a token below {self.vocab_size}, or -1 for none")
        if any(not 0 <= layer < self.layers for layer in self.value_layers):
            raise InputError(f"model value_layers is {self.value_layers}: layers are 0 to {self.layers - 1}")
        if len(set(self.value_layers)) < len(self.value_layers):
            raise InputError(f"model value_layers is {self.value_layers}: name each layer once")
        if self.table_dtype not in ("bfloat16", "float32"):
            raise InputError(f"model table_dtype is {self.table_dtype!r}: choose bfloat16 or float32")

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.width // self.heads

    @property
    def kv_width(self) -> int:
        """Width of all keys, and of all values."""
        return self.kv_heads * self.head_dim
