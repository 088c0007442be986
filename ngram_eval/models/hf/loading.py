"""Loads a model or a tokenizer from a folder, a GGUF file or, over the network, by its name on the hub.

No code is loaded: repositories with code of their own are refused, and pickled weights are read by
`torch.load(weights_only=True)`, as transformers does.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, TypeVar

import torch

from ngram_eval.errors import InputError
from ngram_eval.files import file_sha256

try:
    import transformers
    from transformers.utils.hub import cached_file
except ImportError as error:
    raise InputError(
        f"--hf needs transformers, which can't be imported ({error}): pip install ngram_eval[hf]"
    ) from error

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".json")
"""Suffixes of the files that define a model."""

Loaded = TypeVar("Loaded")


def where(name: str) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a folder, a GGUF file or a name on the hub; raises `InputError`."""
    path = Path(name)
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError(f"--hf is {name}, a file: give the model's folder, a .gguf file or a name on the hub")
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name, "local_files_only": True}
    if path.is_dir():
        return {"pretrained_model_name_or_path": name, "local_files_only": True}
    if path.suffix == ".gguf" or path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise InputError(f"--hf is {name}: no such folder or file; check the path")
    return {"pretrained_model_name_or_path": name, "local_files_only": False}


@contextmanager
def quietly() -> Iterator[None]:
    """Switch off transformers' progress bars and notes; errors are still raised."""
    logging: Any = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):  # some bars come from other libraries
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _load(name: str, what: str, load: Callable[..., Loaded], **settings: Any) -> Loaded:
    found = where(name)
    try:
        with quietly():
            return load(**found, trust_remote_code=False, **settings)
    except Exception as error:  # loaders raise any type for a damaged file
        if isinstance(error, MemoryError):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if found["local_files_only"]:
            raise InputError(f"--hf {name}: transformers can't load its {what} ({reason})") from error
        raise InputError(
            f"--hf {name}: no such folder or file here, and the hub does not give it either ({reason}): "
            "check the name, or fetch the model where there is a network and give its folder"
        ) from error


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a folder, a GGUF file or a name on the hub; raises `InputError`."""
    return _load(name, "tokenizer", transformers.AutoTokenizer.from_pretrained)


def load_model(name: str, dtype: torch.dtype) -> Any:
    """The causal language model of a folder, file or name, in evaluation mode on the CPU; raises `InputError`."""
    model: Any = _load(name, "model", transformers.AutoModelForCausalLM.from_pretrained, dtype=dtype)
    return model.eval().requires_grad_(False)


def digest(name: str) -> str:
    """The sha256 over the names and contents of the files of a model that has been loaded."""
    path = Path(name)
    if not path.exists():  # a name on the hub: its files are in the cache
        path = Path(str(cached_file(name, "config.json", local_files_only=True))).parent
    files = [path] if path.is_file() else sorted(one for one in path.iterdir() if one.suffix in _WEIGHTS)
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.name} {file_sha256(file)}\n".encode())
    return whole.hexdigest()
