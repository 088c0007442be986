"""The transformer of PR #890 (REFERENCE: openai/parameter-golf#890), every part switchable by `ModelConfig`.

Evaluation and training share it. Shapes: B sequences, T positions, S scored positions (the last S of T), W width,
H heads of D dims, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ngram_eval.models.banded_attention import Band, banded_attention
from ngram_eval.models.cache import Cache
from ngram_eval.models.transformer_config import ModelConfig

AttentionKernel = Literal["fa3", "sdpa"]


_Rotation = tuple[Tensor, Tensor]
"""(cos, sin) of the rotary angles, each (T, d/2) float32."""


def attention_kernel(device: torch.device, dtype: torch.dtype) -> AttentionKernel:
    """FlashAttention-3 if it can run (installed, Hopper, half precision), else PyTorch's SDPA."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return "sdpa"
    if torch.cuda.get_device_capability(device)[0] != 9:
        return "sdpa"
    try:
        import flash_attn_interface  # noqa: F401
    except ImportError:
        return "sdpa"
    return "fa3"


def norm(x: Tensor) -> Tensor:
    """RMS norm without parameters, torch's default eps."""
    return F.rms_norm(x, (x.size(-1),))


class Linear(nn.Linear):
    """A linear layer without bias whose weight can be fake-quantised in the forward (see `ngram_eval.train.qat`)."""

    fake_quantise: Callable[[Tensor], Tensor] | None = None

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.fake_quantise is None else self.fake_quantise(self.weight)
        return F.linear(x, weight.to(x.dtype))


def bigram_slots(tokens: Tensor, slots: int, bos_id: int = -1) -> Tensor:
    """Row of the bigram hash table for each token (B, T) int64; only position 0 and `bos_id` use the last row."""
    rows = torch.full_like(tokens, slots - 1)
    rows[:, 1:] = (36313 * tokens[:, 1:]).bitwise_xor(27191 * tokens[:, :-1]) % (slots - 1)
    return rows if bos_id < 0 else rows.masked_fill(tokens == bos_id, slots - 1)


class ProjectedTable(nn.Module):
    """A narrow embedding table, projected to a wider output and multiplied by a learned scalar."""

    def __init__(self, rows: int, narrow: int, wide: int, scale: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(rows, narrow, dtype=dtype))
        self.proj = Linear(narrow, wide)
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, rows: Tensor) -> Tensor:
        return cast(Tensor, self.proj(F.embedding(rows, self.table).to(self.proj.weight.dtype))) * self.scale


def rope_angles(config: ModelConfig, positions: Tensor, length: int) -> _Rotation:
    """(cos, sin) of the angles of `positions` (T,), which are computed in the precision of these.

    The sequence's `length` sets the base.
    """
    d, base = config.rope_dims, config.rope_base
    if length > config.rope_train_len:
        base *= (length / config.rope_train_len) ** (d / (d - 2))
    frequency = base ** (-torch.arange(0, d, 2, device=positions.device, dtype=positions.dtype) / d)
    angle = torch.outer(positions, frequency)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, rotation: _Rotation) -> Tensor:
    """Partial RoPE of x (B, S, H, D) by the last S of the rotation's positions; dims i and i + d/2 are a pair."""
    cos, sin = (part[-x.size(1) :, None].to(x.dtype) for part in rotation)
    half = cos.size(-1)
    x1, x2, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([x1 * cos + x2 * sin, x2 * cos - x1 * sin, rest], dim=-1)


class Attention(nn.Module):
    """Causal self-attention with normed queries and keys, partial RoPE, query gain and XSA."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.layer = layer
        self.xsa = layer >= config.layers - config.xsa_layers
        self.q = Linear(config.width, config.width)
        self.k = Linear(config.width, config.kv_width)
        self.v = Linear(config.width, config.kv_width)
        self.out = Linear(config.width, config.width)
        self.q_gain = nn.Parameter(torch.full((config.heads,), float(config.q_gain)))
        self.kernel: AttentionKernel = "sdpa"

    def forward(
        self,
        x: Tensor,
        value: Tensor | None,
        rotation: _Rotation | None,
        scored: int,
        cache: Cache | None = None,
        band: Band | None = None,
    ) -> Tensor:
        """Output (B, S, W) at the last S = `scored` positions of x (B, T, W); value embedding (B, T, kv width).

        Positions in the cache come before those of x.
        """
        batch, positions, width = x.shape
        q = self.q(x[:, positions - scored :]).view(batch, scored, self.heads, self.head_dim)
        k = self.k(x).view(batch, positions, self.kv_heads, self.head_dim)
        v = self.v(x)
        v = (v if value is None else v + value).view(batch, positions, self.kv_heads, self.head_dim)
        q, k = norm(q), norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        q = q * self.q_gain.to(q.dtype)[:, None]
        keys, values = (k, v) if cache is None else cache.extend(self.layer, k, v)
        # Autocast computes norms in float32 on GPUs; FlashAttention wants everything in the values' half precision.
        q, keys = q.to(v.dtype), keys.to(v.dtype)
        y = self._attend(q, keys, values) if band is None else banded_attention(q, keys, values, band)
        if self.xsa:
            own = F.normalize(v[:, positions - scored :], dim=-1)
            own = own.repeat_interleave(self.heads // self.kv_heads, dim=2)
            y = y - (y * own).sum(dim=-1, keepdim=True) * own
        return cast(Tensor, self.out(y.reshape(batch, scored, width)))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of the last S positions to all T, (B, S, H, D)."""
        scored, positions = q.size(1), k.size(1)
        if self.kernel == "fa3":
            from flash_attn_interface import flash_attn_func

            result = flash_attn_func(q, k, v, causal=True)  # aligns the last query with the last key
            return cast(Tensor, result[0] if isinstance(result, tuple) else result)
        mask = None
        if scored < positions:
            mask = torch.ones(scored, positions, dtype=torch.bool, device=q.device).tril(positions - scored)
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=self.heads != self.kv_heads,
        )
        return y.transpose(1, 2)


class Mlp(nn.Module):
    """Two layers with a squared leaky ReLU between."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.slope = config.leaky_slope
        self.up = Linear(config.width, config.mlp_hidden)
        self.down = Linear(config.mlp_hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.down(F.leaky_relu(self.up(x), self.slope).square()))


class Block(nn.Module):
    """One transformer block."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.norm_scale = 1 / math.sqrt(layer + 1) if config.layer_norm_scale else 1.0
        self.attn = Attention(config, layer)
        self.mlp = Mlp(config)
        self.attn_scale = nn.Parameter(torch.ones(config.width))
        self.mlp_scale = nn.Parameter(torch.ones(config.width))
        mix = torch.zeros(2, config.width)
        mix[0] = 1
        self.mix = nn.Parameter(mix) if config.input_mix else None
        self.gate_weight = nn.Parameter(torch.zeros(config.width)) if config.depth_gate else None
        self.gate_bias = nn.Parameter(torch.tensor(2.0)) if config.depth_gate else None

    def forward(
        self,
        x: Tensor,
        x0: Tensor,
        value: Tensor | None,
        rotation: _Rotation | None,
        scored: int,
        cache: Cache | None = None,
        band: Band | None = None,
    ) -> Tensor:
        """Output (B, S, W) at the last S = `scored` positions of x and x0 (B, T, W)."""
        if self.mix is not None:
            mix = self.mix.to(x.dtype)
            x = mix[0] * x + mix[1] * x0
        attended = self.attn(self.norm_scale * norm(x), value, rotation, scored, cache, band)
        x_in = x[:, x.size(1) - scored :]
        x = x_in + self.attn_scale.to(x.dtype) * attended
        x = x + self.mlp_scale.to(x.dtype) * self.mlp(self.norm_scale * norm(x))
        if self.gate_weight is not None and self.gate_bias is not None:
            gate = torch.sigmoid(x_in.detach() @ self.gate_weight.to(x.dtype) + self.gate_bias.to(x.dtype))
            x = x_in + gate[..., None] * (x - x_in)
        return x


class Transformer(nn.Module):
    """Tokens (B, T) int64 -> logits (B, S, V)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dtype: torch.dtype = getattr(torch, config.table_dtype)
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.width, dtype=dtype))
        self.bigram = (
            ProjectedTable(config.bigram_slots, config.bigram_width, config.width, 0.05, dtype)
            if config.bigram_slots
            else None
        )
        self.smear = nn.Parameter(torch.zeros(config.width)) if config.smear_gate else None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.skip_weights = nn.Parameter(torch.ones(config.layers // 2, config.width)) if config.unet_skips else None
        self.value = (
            ProjectedTable(config.vocab_size, config.value_width, config.kv_width, 0.1, dtype)
            if config.value_layers
            else None
        )
        self.value_scales = nn.Parameter(torch.ones(len(config.value_layers))) if config.value_layers else None
        self.mtp = nn.ModuleList(Linear(config.width, config.vocab_size) for _ in range(config.mtp_heads))
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        if self.embedding.is_meta:
            return  # nothing to fill, and torch would import for seconds
        nn.init.normal_(self.embedding, std=self.config.table_init_std)
        for module in self.modules():
            if isinstance(module, Linear) and min(module.weight.shape) >= 64:
                nn.init.orthogonal_(module.weight)
        for table in (self.bigram, self.value):
            if table is not None:
                table.proj.weight /= math.sqrt(2 * self.config.layers)
        if self.value is not None:
            nn.init.normal_(self.value.table, std=0.01)
        for block in self.blocks:
            nn.init.zeros_(cast(Block, block).attn.out.weight)
            nn.init.zeros_(cast(Block, block).mlp.down.weight)
        for head in self.mtp:
            nn.init.zeros_(cast(Linear, head).weight)

    def use_attention(self, kernel: AttentionKernel) -> None:
        """Choose the attention kernel of every layer (see `attention_kernel`)."""
        for block in self.blocks:
            cast(Block, block).attn.kernel = kernel

    def hidden(
        self,
        tokens: Tensor,
        last: int | None = None,
        length: int | None = None,
        cache: Cache | None = None,
        band: Band | None = None,
    ) -> Tensor:
        """Normed output (B, S, W) of the last S = `last` positions (all by default).

        Earlier positions pass through every block except the last, where only their keys and values are needed.
        `length` is the sequence length that sets the RoPE base (T by default): a window that is cut short keeps the
        base of its full length. As attention is causal, its missing right part need not be computed. With a `band` each
        position sees only that, T may be any number, and the band's window sets the base.
        """
        config = self.config
        positions = tokens.size(1)
        scored = positions if last is None else last
        if not 1 <= scored <= positions:
            raise ValueError(f"last is {scored}: the sequences have {positions} positions")
        # Tables may have a lower precision than the activations; autocast lowers precision inside the linear layers.
        working = cast(Block, self.blocks[0]).attn.q.weight.dtype
        x = F.embedding(tokens, self.embedding).to(working)
        if self.bigram is not None:
            slots = tokens if cache is None else torch.cat([cache.tokens, tokens], dim=1)
            x = x + self.bigram(bigram_slots(slots, config.bigram_slots, config.bos_id)[:, -positions:])
        x = norm(x)
        embedded = x
        if self.smear is not None:
            gate = torch.sigmoid(self.smear).to(x.dtype)
            before = F.pad(x[:, :-1], (0, 0, 1, 0)) if cache is None else torch.cat([cache.embedded, x[:, :-1]], dim=1)
            if config.bos_id >= 0:
                before = before.masked_fill((tokens == config.bos_id)[..., None], 0)
            x = (1 - gate) * x + gate * before
        x0 = x
        value = self.value(tokens) if self.value is not None else None
        rotation = None
        if config.rope_dims:
            if cache is None:
                precision = torch.float32 if band is None else torch.float64  # of positions beyond a window
                seen = torch.arange(positions, device=tokens.device, dtype=precision)
            else:
                seen = cache.positions(positions)
            rotation = rope_angles(config, seen, length or (band.window if band else len(seen)))
        skips: list[Tensor] = []
        half = config.layers // 2
        for layer, block in enumerate(self.blocks):
            if self.skip_weights is not None and layer >= half and skips:
                x = x + self.skip_weights[layer - half].to(x.dtype) * skips.pop()
            added = None
            if value is not None and self.value_scales is not None and layer in config.value_layers:
                added = self.value_scales[config.value_layers.index(layer)].to(value.dtype) * value
            is_last = layer == config.layers - 1
            x = block(x, x0, added, rotation, scored if is_last else positions, cache, band)
            if self.skip_weights is not None and layer < half:
                skips.append(x)
        if cache is not None:
            cache.filled += positions
            cache.tokens, cache.embedded = tokens[:, -1:], embedded[:, -1:]
        return norm(x)

    def _softcap(self, logits: Tensor) -> Tensor:
        cap = self.config.logit_softcap
        return cap * torch.tanh(logits.float() / cap) if cap else logits.float()

    def logits(self, hidden: Tensor) -> Tensor:
        """Softcapped logits (..., V) float32 of the output of `hidden`."""
        return self._softcap(self.uncapped_logits(hidden))

    def uncapped_logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) before the softcap, in the precision of the matrix product."""
        return F.linear(hidden, self.embedding.to(hidden.dtype))

    def mtp_logits(self, hidden: Tensor) -> list[Tensor]:
        """Logits of the multi-token-prediction heads; head k at position t predicts x[t + k + 2]."""
        return [self._softcap(head(hidden)) for head in self.mtp]

    def forward(self, tokens: Tensor, last: int | None = None, length: int | None = None) -> Tensor:
        """Logits (B, S, V) float32 of the last S positions; arguments as for `hidden`."""
        return self.logits(self.hidden(tokens, last, length))


def parameter_count(model: nn.Module) -> int:
    """Number of scalars in the model's parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
