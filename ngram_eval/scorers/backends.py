"""The list of backends, with what each can do.

`reference` is the specification, slow and readable; every other backend equals it exactly. Modules are imported on
demand, so a backend that is not used costs nothing.
"""

from importlib import import_module
from typing import Any, Literal, NamedTuple

from ngram_eval.errors import InputError
from ngram_eval.extensions import require_extension

Family = Literal["hashed", "exact", "mixer", "ppmd"]
"""A subpackage of `ngram_eval.scorers`."""


class Backend(NamedTuple):
    """The classes of one backend, per family, in the module with the backend's name; None if there is none."""

    hashed: str
    exact: str | None = None
    mixer: str | None = None
    ppmd: str | None = None
    tilt: bool = False
    """Whether its exact counts find the hint of a tilt."""
    on_device: bool = False
    """Whether hashed tables are in a GPU's memory, and the neural statistics come from the kernels there."""


BACKENDS = {
    "reference": Backend("ReferenceCounts", "ReferenceModel", "ReferenceMixer", "ReferencePpmd", tilt=True),
    "cpu": Backend("CpuCounts", "CpuModel", "CpuMixer", "CpuPpmd", tilt=True),
    "triton": Backend("TritonCounts", on_device=True),
    "cuda": Backend("CudaCounts", "CudaModel", on_device=True),
}
"""Backend name, which is also the name of its modules -> what it can do."""

ON_DEVICE = tuple(name for name, backend in BACKENDS.items() if backend.on_device)


def resolve_backend(name: str) -> str:
    """The backend called `name`; `auto` is `cpu`.

    Raises `InputError` for an unknown name, and for `cpu` if the C++ extension is not built.
    """
    if name in ("auto", "cpu"):
        require_extension()
        return "cpu"
    if name not in BACKENDS:
        raise InputError(f"--backend is {name!r}: choose from auto, {', '.join(BACKENDS)}")
    return name


def load_backend(name: str, family: Family) -> Any:
    """The class of a backend's memory; raises `InputError`, with the remedy, if there is none or it can't be loaded."""
    backend = resolve_backend(name)
    class_name = getattr(BACKENDS[backend], family)
    if class_name is None:
        able = [other for other, one in BACKENDS.items() if getattr(one, family)]
        what = {"exact": "exact counts", "ppmd": "byte mixture"}.get(family, family)
        raise InputError(f"--backend {name} has no {what}: choose {' or '.join(able)}, or another --preset")
    try:
        module = import_module(f"ngram_eval.scorers.{family}.{backend}")
    except ImportError as error:
        raise InputError(
            f"--backend {name} can't be loaded ({error}): reinstall with `pip install -e .`, "
            "or choose --backend reference"
        ) from error
    return getattr(module, class_name)
