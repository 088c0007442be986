"""Attention in a band: a position sees the last `window` positions, itself included, and the first `sinks` of all.

Shapes: B sequences, T positions, S queries (the last S of T), H heads of D dims.
"""

from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

BandKernel = Literal["blocks", "fa3", "fa2", "flex"]

_BLOCKS_A_WINDOW = 8
"""Blocks of queries in the length of a window: the fastest of 1 to 32 on one core (docs/forward_once.md)."""


class Band(NamedTuple):
    """What a position sees, and who computes it."""

    window: int
    """Positions that a position sees, itself included."""
    sinks: int = 0
    """First positions of the sequence that stay visible to all later ones."""
    kernel: BandKernel = "blocks"


def band_kernel(device: torch.device, dtype: torch.dtype, sinks: int, *, compiled: bool) -> BandKernel:
    """The kernel for a device.

    FlashAttention-3 or -2 if it can run (installed, half precision, no sinks), else `flex_attention` in compiled code
    on GPUs, else blocks of PyTorch's SDPA, which run everywhere.
    """
    if device.type != "cuda":
        return "blocks"
    if sinks == 0 and dtype in (torch.bfloat16, torch.float16):
        major = torch.cuda.get_device_capability(device)[0]
        if major == 9 and _installed("flash_attn_interface"):
            return "fa3"
        if major >= 8 and _installed("flash_attn"):
            return "fa2"
    return "flex" if compiled else "blocks"


def _installed(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def banded_attention(q: Tensor, k: Tensor, v: Tensor, band: Band) -> Tensor:
    """Attention of the last S positions, (B, S, H, D); keys and values (B, T, H or fewer heads, D)."""
    if band.kernel in ("fa3", "fa2"):
        flash: Any = __import__("flash_attn_interface" if band.kernel == "fa3" else "flash_attn")
        result = flash.flash_attn_func(q, k, v, causal=True, window_size=(band.window - 1, 0))
        return cast(Tensor, result[0] if isinstance(result, tuple) else result)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return (_flex if band.kernel == "flex" else _blocks)(q, k, v, band).transpose(1, 2)


def _flex(q: Tensor, k: Tensor, v: Tensor, band: Band) -> Tensor:
    """`flex_attention`: compiled it skips what the band hides; uncompiled it holds all S x T scores."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    scored, positions = q.size(2), k.size(2)

    def visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        here = query + (positions - scored)
        return (key <= here) & ((key > here - band.window) | (key < band.sinks))

    mask = create_block_mask(visible, None, None, scored, positions, device=str(q.device))
    return flex_attention(q, k, v, block_mask=mask, enable_gqa=q.size(1) != k.size(1))


def _blocks(q: Tensor, k: Tensor, v: Tensor, band: Band) -> Tensor:
    """Queries in blocks of b, each with its own keys and the `window` before them: no mask is larger than that.

    The first window + sinks positions see all before them.
    """
    window, sinks = band.window, band.sinks
    scored, positions = q.size(2), k.size(2)
    offset, front = positions - scored, min(positions, window + sinks)
    done, parts = offset, []
    if offset < front:
        parts.append(_attend(q[:, :, : front - offset], k[:, :, :front], v[:, :, :front], _causal(q, offset, front)))
        done = front
    block = max(1, window // _BLOCKS_A_WINDOW)
    for size in (block, (positions - done) % block):
        count = (positions - done) // size if size else 0
        if not count:
            continue
        stop = done + count * size
        queries = q[:, :, done - offset : stop - offset].unflatten(2, (count, size)).transpose(1, 2)
        row, key = torch.arange(size, device=q.device)[:, None], torch.arange(window + size, device=q.device)
        mask = (row < key) & (key <= row + window)
        keys, values = (_spread(of, done - window, stop, size, band) for of in (k, v))
        if sinks:
            mask = F.pad(mask, (sinks, 0), value=True)
        y = _attend(queries.flatten(0, 1), keys, values, mask)
        parts.append(y.unflatten(0, (q.size(0), count)).transpose(1, 2).flatten(2, 3))
        done = stop
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _spread(x: Tensor, start: int, stop: int, size: int, band: Band) -> Tensor:
    """Keys or values of every block, (B x blocks, H, sinks + window + size, D), a view where nothing forbids one."""
    spread = x[:, :, start:stop].unfold(2, band.window + size, size).permute(0, 2, 1, 4, 3)
    if band.sinks:
        sinks = x[:, None, :, : band.sinks].expand(-1, spread.size(1), -1, -1, -1)
        spread = torch.cat([sinks, spread], dim=3)
    return spread.flatten(0, 1)


def _causal(q: Tensor, offset: int, front: int) -> Tensor | None:
    """The mask of the queries offset to front over the keys before front; None where it is square."""
    if not offset:
        return None
    return torch.ones(front - offset, front, dtype=torch.bool, device=q.device).tril(offset)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=q.size(1) != k.size(1)
    )
