"""Loads the compiled extensions `_core` (C++) and `_cuda`, or explains what is missing; copies arrays to a device."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ngram_eval.errors import InputError

if TYPE_CHECKING:  # torch takes seconds to import, and count tables on one rank do not need it
    import torch


def require_extension() -> None:
    """Raise `InputError` unless `_core` can be imported, before any work is done."""
    try:
        import ngram_eval._core  # noqa: F401
    except ImportError as error:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise InputError(
            f"the C++ extension ngram_eval._core is not built for this Python {python} ({error}): run "
            "`pip install -e .` in the checkout (needs a C++20 compiler), or give --backend reference, which is slow"
        ) from error


def load_cuda() -> tuple[Any, "torch.device"]:
    """(`_cuda`, the device whose memory it works on); raises `InputError` if one of them is missing.

    A build for the host, which tests use (see docs/gpu.md), works on the host's memory.
    """
    import torch

    try:
        core = import_module("ngram_eval._cuda")
    except ImportError as error:
        raise InputError(
            f"--backend cuda is not part of this installation ({error}): build it where nvcc is, with "
            f"NGRAM_EVAL_CUDA=1 pip install -e ., or choose --backend triton or cpu"
        ) from error
    if core.on_host:
        return core, torch.device("cpu")
    problem = core.problem()
    if problem:
        raise InputError(f"--backend cuda found no GPU ({problem}): use --backend cpu")
    if not torch.cuda.is_available():
        raise InputError(
            f"--backend cuda needs a torch that uses the GPU, and torch {torch.__version__} does not: install a CUDA "
            "build of torch, or use --backend cpu"
        )
    return core, torch.device("cuda", torch.cuda.current_device())


def stream_of(device: "torch.device") -> int:
    """The handle of torch's current stream, so that launches run after torch's own."""
    import torch

    return int(torch.cuda.current_stream(device).cuda_stream) if device.type == "cuda" else 0


def to_device(array: NDArray[Any], device: "torch.device") -> "torch.Tensor":
    """`array` on the device; the copy may still be running. On the CPU the tensor shares the array's memory.

    A GPU copies from pinned memory, which torch keeps until it has been read. A copy from pageable memory would wait
    for the GPU's work, or on some machines read the array after this has returned.
    """
    import torch

    host = torch.from_numpy(array)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)
