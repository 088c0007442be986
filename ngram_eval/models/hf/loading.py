"""Loads a model or a tokenizer from a folder, a GGUF file or, over the network, by its name on the hub.

No code is loaded: repositories with code of their own are refused, and pickled weights are read by
`torch.load(weights_only=True)`, as transformers does.
"""

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, TypeVar

import torch

from ngram_eval.errors import InputError, is_failure
from ngram_eval.files import file_sha256
from ngram_eval.models.hf.gguf_file import refuse_part, refuse_unread
from ngram_eval.models.hf.hub import check_name, hub_refusal

try:
    import transformers
    from transformers.utils.hub import cached_file
except ImportError as error:
    raise InputError(
        f"--hf needs transformers, which can't be imported ({error}): pip install ngram_eval[hf]"
    ) from error

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".json")
"""Suffixes of the files that define a model."""
_ADAPTER = "adapter_config.json"
_PREFIXES = ("_orig_mod.", "module.")
"""Prefixes that torch.compile and DistributedDataParallel put on the names of a model's weights."""
_DERIVED = re.compile(r"(^|\.)(rotary_emb\.inv_freq|position_ids|(attn|attention)\.(masked_)?bias|causal_mask)$")
"""Buffers in older checkpoints that a model makes itself: rotation angles, positions, causal masks."""
_COUNTS = re.compile(r"^(n|num)_(\w+_)?(layers?|experts?|blocks?)$|_layers$")
"""Fields of a config that say how many modules are made, one after another."""
_MOST_MODULES = 10_000
_NAMED = 4
"""Most weights that a refusal names."""

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
    check_name(name)
    return {"pretrained_model_name_or_path": name, "local_files_only": bool(hub_refusal())}


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


def reason_of(error: BaseException) -> str:
    """What another library says is wrong, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _load(name: str, what: str, load: Callable[..., Loaded], **settings: Any) -> Loaded:
    found = where(name)
    try:
        with quietly():
            return load(**found, trust_remote_code=False, **settings)
    except BaseException as error:  # loaders raise any type for a damaged file
        if not is_failure(error):
            raise
        reason = reason_of(error)
        if Path(name).exists():
            raise InputError(f"--hf {name}: transformers can't load its {what} ({reason})") from error
        raise InputError(
            f"--hf {name}: no such folder or file here, and the hub does not give it either ({reason}): "
            "check the name, or fetch the model where there is a network and give its folder"
        ) from error


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a folder, a GGUF file or a name on the hub; raises `InputError`."""
    return _load(name, "tokenizer", transformers.AutoTokenizer.from_pretrained)


def load_model(name: str, dtype: torch.dtype, prefix: str = "") -> Any:
    """The causal language model of a folder, file or name, in evaluation mode on the CPU; raises `InputError`.

    `prefix` is removed from the names of its weights. Weights that do not fit are refused: transformers would fill in
    random ones.
    """
    _refuse_adapter(name)
    refuse_part(name)
    _refuse_endless(_load(name, "config", transformers.AutoConfig.from_pretrained).to_dict(), name)
    renamed = {"key_mapping": {f"^{re.escape(prefix)}": ""}} if prefix else {}
    found: Any = _load(
        name,
        "model",
        transformers.AutoModelForCausalLM.from_pretrained,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # the report names them
        **renamed,
    )
    model, report = found
    _check_fit(name, report)
    refuse_unread(name, model)
    return model.eval().requires_grad_(False)


def _refuse_endless(config: dict[str, Any], name: str) -> None:
    """Raise `InputError` for more layers or experts than any model has: transformers would go on making them."""
    for field, value in config.items():
        if isinstance(value, dict):
            _refuse_endless(value, name)
        elif isinstance(value, int) and value > _MOST_MODULES and _COUNTS.search(field):
            raise InputError(f"--hf {name}: its config says {field} = {value}, which no model has; fetch it again")


def _check_fit(name: str, report: dict[str, Any]) -> None:
    """Raise `InputError`, naming them, for weights that a model lacks or has no place for."""
    missing, unexpected = (
        sorted(key for key in report[kind] if not _DERIVED.search(key)) for kind in ("missing_keys", "unexpected_keys")
    )
    misfits = {"it lacks": missing, "the model has no place for": unexpected}
    misfits["of another shape are"] = sorted(str(one[0]) for one in report["mismatched_keys"])
    found = "; ".join(f"{what} {_listed(keys)}" for what, keys in misfits.items() if keys)
    if not found:
        return
    remedy = "give the whole checkpoint, of this architecture"
    for prefix in _PREFIXES:
        if unexpected and all(key.startswith(prefix) for key in unexpected):
            remedy = f"a wrapper put {prefix!r} before their names: give --weights-prefix {prefix}"
    raise InputError(f"--hf {name}: its weights do not fit, and the rest would be random ({found}): {remedy}")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _refuse_adapter(name: str) -> None:
    """Raise `InputError` for an adapter (LoRA and the like), alone or beside its base model."""
    path = Path(name)
    if path.is_file():
        return
    if path.is_dir():
        found = (path / _ADAPTER).is_file()
    else:
        try:
            alone = bool(hub_refusal())
            kept = cached_file(name, _ADAPTER, _raise_exceptions_for_missing_entries=False, local_files_only=alone)
            found = kept is not None
        except OSError:  # no such name, or no network: loading the model tells
            return
    if found:
        raise InputError(
            f"--hf {name} has an adapter ({_ADAPTER}), which is not applied here: merge it into the weights (peft's "
            "merge_and_unload), save them, and give that folder"
        )


def digest(name: str) -> str:
    """The sha256 over the names and contents of the files of a model that has been loaded."""
    path = Path(name)
    if not path.exists():  # a name on the hub: its files are in the cache
        path = Path(str(cached_file(name, "config.json", local_files_only=True))).parent
    whole = hashlib.sha256()
    for file in files_of(path):
        whole.update(f"{file.name} {file_sha256(file)}\n".encode())
    return whole.hexdigest()


def files_of(path: Path) -> list[Path]:
    """The files of a model, in a folder or alone; none if nothing is there."""
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    return [one for one in inside if one.is_file() and one.suffix in _WEIGHTS]
