"""How long does a call take on the device? By CUDA events on a GPU, by the host's clock in a dry run.

`bench.py` and `cuda.py` take their times with it.
"""

import time
from collections.abc import Callable

import torch

_HOLD_CYCLES = 4_000_000
"""About 2 ms of a GPU's clock: what the host needs to enqueue a few hundred operations."""


def seconds(call: Callable[[], object], rounds: int, device: torch.device) -> list[float]:
    """Seconds of each of `rounds` calls, after one that compiles.

    On a GPU each starts with an empty L2 cache, and with everything enqueued before it runs, so that waits of the host
    do not count: the GPU is first held for as long as that takes.
    """
    call()
    if device.type != "cuda":
        return [_on_host(call) for _ in range(rounds)]
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    eviction = torch.empty(2 * max(cache, 1 << 26), dtype=torch.uint8, device=device)
    found = []
    for _ in range(rounds):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        torch.cuda._sleep(_HOLD_CYCLES)
        eviction.zero_()
        start.record()
        call()
        stop.record()
        torch.cuda.synchronize(device)
        found.append(start.elapsed_time(stop) / 1e3)
    return found


def _on_host(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
