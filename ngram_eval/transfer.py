"""Host arrays onto a device, without waiting for it."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """`array` on the device, on its way when this returns; on the CPU the array's own memory.

    To a GPU it goes from pinned memory, which torch keeps until it has been read. A copy from memory that may be paged
    out would wait for what the GPU is doing, or on some machines read it after this returned.
    """
    host = torch.from_numpy(array)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)
