"""The hub, asked without transformers, whose import takes seconds and which tries each file for 23 seconds."""

from functools import cache
from pathlib import Path

from ngram_eval.errors import InputError

try:
    from huggingface_hub import constants, get_session, try_to_load_from_cache
except ImportError as error:
    raise InputError(
        f"--hf needs transformers, which can't be imported ({error}): pip install ngram_eval[hf]"
    ) from error

_PATIENCE = 3.0
"""Seconds for the hub to answer."""


@cache
def hub_refusal() -> str:
    """Why the hub can't be reached, asked once a process; empty if it answers."""
    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception as error:  # the library below is another one in each version of the hub's
        return f"{type(error).__name__}: {error}"
    return ""


def check_name(name: str) -> None:
    """Raise `InputError` for a name that is neither a path here nor a model that can be had."""
    path = Path(name)
    if path.exists():
        return
    if path.suffix == ".gguf" or path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise InputError(f"--hf is {name}: no such folder or file; check the path")
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except ValueError as error:
        raise InputError(f"--hf is {name}: no such folder or file, and no name of the hub ({error})") from error
    if not isinstance(cached, str) and hub_refusal():
        raise InputError(
            f"--hf {name}: no such folder or file here, nor a copy of a model of the hub, which does not answer "
            f"({hub_refusal()}): check the name, or fetch the model where there is a network and give its folder"
        )
