"""JSON of files into the frozen dataclasses that it was written from, every field of its type.

msgspec builds them: it takes slotted dataclasses as they are and runs their checks, is strict (true is no 1 and "1" no
number), says where a value is wrong, and is one wheel that needs nothing else. pydantic would be five, and slower to
import. The text itself is read by json: names of files that are not UTF-8 are half surrogate pairs in it, which
msgspec's own reader refuses.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from ngram_eval.errors import InputError

MOST_BYTES = 1 << 26
"""Of a file of JSON: results of a hundred presets have less."""

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]
"""A number of tokens, bytes or positions; two of them add up in 64 bits."""
Size = Annotated[int, msgspec.Meta(ge=1, le=(1 << 62) - 1)]
"""The same of what can't be empty."""

T = TypeVar("T")


def parse(text: bytes, source: object, remedy: str) -> Any:
    """What JSON says; raises `InputError`, naming `source`, for anything else, NaN and infinite numbers too."""
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} is not JSON ({error}): {remedy}") from error


def build(found: Any, kind: type[T], source: object, remedy: str, *, whole: bool = True) -> T:
    """What `parse` gave as one of `kind`; raises `InputError` where a value is of another type or out of range.

    With `whole` it also refuses fields that are not in `kind`: they would have meant something to who wrote them.
    """
    try:
        built = msgspec.convert(found, kind, str_keys=True, dec_hook=_special)
        if whole and (unknown := _unknown(found, msgspec.to_builtins(built, str_keys=True, enc_hook=str))):
            raise ValueError(f"this version does not know {unknown!r}")
    except (ValueError, OverflowError, RecursionError) as error:  # msgspec's own are ValueErrors
        raise InputError(f"{source} is damaged, or of another version ({error}): {remedy}") from error
    return built


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def _special(kind: type[Any], value: Any) -> Any:
    """The one type of ours that JSON and msgspec have not."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"{value!r} is no {kind.__name__}")


def _unknown(found: Any, known: Any) -> str | None:
    """The first name in `found` that `known`, the same tree built and taken apart again, has not."""
    if isinstance(found, dict):
        for name, value in found.items():
            if name not in known:
                return str(name)
            if unknown := _unknown(value, known[name]):
                return f"{name}.{unknown}"
    elif isinstance(found, list):
        return next(filter(None, map(_unknown, found, known)), None)
    return None
