"""The CUDA extension, if it was built (`NGRAM_EVAL_CUDA=1`), and the GPU that it runs on."""

from importlib import import_module
from typing import Any

import torch

from ngram_eval.errors import InputError


def load_cuda() -> tuple[Any, torch.device]:
    """(the extension, the device whose memory it works on); raises `InputError` where one of them is missing.

    A build for the host (see docs/gpu.md), which tests use, works on the host's memory.
    """
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


def stream_of(device: torch.device) -> int:
    """The handle of torch's current stream: launches follow its own."""
    return int(torch.cuda.current_stream(device).cuda_stream) if device.type == "cuda" else 0
