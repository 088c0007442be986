"""Where kernels run: a GPU, or Triton's interpreter on the CPU (`TRITON_INTERPRET=1`), which is slow and for tests."""

import torch
import triton
from triton.runtime.interpreter import InterpretedFunction

from ngram_eval.errors import InputError


@triton.jit
def _probe() -> None:
    pass


INTERPRETED = isinstance(_probe, InterpretedFunction)
"""Whether kernels run in the interpreter; decided by the environment when Triton is imported."""

FLOATS = {"enable_fp_fusion": False}
"""Launch option of every kernel that computes with floats: products and sums are rounded apart, as in C++ and numpy.
Triton 3.10 changes the default, which would change results.
"""


def kernel_device() -> torch.device:
    """The device whose memory kernels work on; raises `InputError` where there is none."""
    if INTERPRETED:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(
            f"--backend triton needs a GPU, and torch {torch.__version__} finds none: use --backend cpu, or set "
            "TRITON_INTERPRET=1 to run the kernels in Triton's interpreter (slow, for tests)"
        )
    return torch.device("cuda", torch.cuda.current_device())


def block(wanted: int, positions: int, interpreted: int) -> int:
    """Positions a program takes: `wanted` on a GPU. The interpreter pays per program and operation, not per element:
    there one program takes as many as there are, up to `interpreted`.
    """
    return min(triton.next_power_of_2(max(positions, 1)), interpreted) if INTERPRETED else wanted
