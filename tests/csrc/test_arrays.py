"""What `_core` is given for an array: each argument of each function is checked before it is read."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ngram_eval
from ngram_eval import _core

TOKENS = np.array([1, 2, 1, 2], np.uint16)
ROWS = np.full((4, 5), 0.2)
ENTROPY = np.ones(4, np.float32)
EVIDENCE = (np.zeros((4, 3, 40), np.uint8), np.zeros(4, np.uint8))


def exact() -> _core.ExactModel:
    return _core.ExactModel(max_order=3, chain=True, tilt="off", tilt_factor=1.0, tilt_confidence=0.0)


def hashed() -> _core.HashedCounts:
    return _core.HashedCounts(
        min_order=2, max_order=3, buckets=64, min_count=1, context_lag=0, target_backoff=False, threads=1
    )


RANK = {"rank": np.arange(5, dtype=np.uint32)}


def mixer(rank: NDArray[np.uint32]) -> _core.Mixer:
    sizes = {"hashed": 3, "sets": 1, "matches": 1, "exact_order": 0, "runs": 0, "cells": 0, "groups": 64}
    return _core.Mixer(rank=rank, surfaces=[b"a"] * 5, weight=0.1, **sizes)


def ppmd() -> _core.Ppmd:
    gate = {"sure_above": 0.9, "weight": 0.9, "weight_sure": 0.1}
    return _core.Ppmd(surfaces=[b"a"] * 5, bare=[b"a"] * 5, max_order=3, target_gate=False, marginal=True, **gate)


MADE: dict[str, Callable[[], Any]] = {
    "ExactModel": exact,
    "HashedCounts": hashed,
    "Mixer": lambda: mixer(**RANK),
    "Ppmd": ppmd,
    "RangeEncoder": _core.RangeEncoder,
}
BASE = {"base": ROWS, "entropy": ENTROPY}
RECALLED = {"evidence": EVIDENCE[0], "depth": EVIDENCE[1]}
SPAN = {"start": 0, "stop": 3}
CALLS: dict[str, dict[str, Any]] = {
    "ExactModel.append": {"tokens": TOKENS},
    "ExactModel.score": {"tokens": TOKENS, **BASE, "together": False},
    "ExactModel.distribution": {"base": ROWS[0], "entropy": 1.0},
    "ExactModel.distribution_after": {"tokens": TOKENS, "base": ROWS[0], "entropy": 1.0},
    "ExactModel.distributions": {"tokens": TOKENS, **BASE},
    "ExactModel.check": {"tokens": TOKENS, **BASE},
    "ExactModel.score_recalled": {"tokens": TOKENS, **RECALLED, **BASE, "together": False},
    "ExactModel.distribution_recalled": {**RECALLED, "base": ROWS[0][:4], "entropy": 1.0},
    "ExactModel.load_learned": exact().learned(),
    "HashedCounts.update": {"tokens": TOKENS, **SPAN},
    "HashedCounts.lookup": {"tokens": TOKENS, **SPAN},
    "HashedCounts.score_windows": {"tokens": TOKENS, "firsts": np.array([0, 1]), "stops": np.array([1, 3])},
    "Mixer.__init__": RANK,
    "Mixer.append": {"tokens": TOKENS},
    "Mixer.score": {"tokens": TOKENS, "base": ROWS},
    "Mixer.score_paths": {"tokens": TOKENS, "branches": np.full((4, 3), 0.5)},
    "Mixer.decisions": {"tokens": TOKENS, "base": ROWS},
    "Mixer.distribution": {"base": ROWS[0]},
    "Mixer.evidence": {"token": 1, "base": ROWS[0]},
    "Mixer.begin": {"base": ROWS[0]},
    "Mixer.load_learned": mixer(**RANK).learned(),
    "Ppmd.append": {"tokens": TOKENS},
    "Ppmd.score": {"tokens": TOKENS, "p": np.full(4, 0.2), "rows": ROWS},
    "Ppmd.distribution": {"base": ROWS[0]},
    "RangeEncoder.bits": {"bits": np.array([0, 1], np.uint8), "ones": np.array([0.5, 0.5])},
    "RangeEncoder.symbols": {"tokens": TOKENS, "rows": ROWS},
}
"""Arguments that each function accepts; of `load_learned`, the arrays of its one argument."""


def misaligned(array: NDArray[Any]) -> NDArray[Any]:
    room = np.empty(array.nbytes + 1, np.uint8)
    moved: NDArray[Any] = room[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def strided(array: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(array, 2, axis=-1)[..., ::2]


DAMAGES: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "misaligned": misaligned,
    "not contiguous": strided,
    "bytes swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "another dtype": lambda array: array.astype(np.int16),
    "a dimension more": lambda array: array[None, None, None],
    "no dimension": lambda array: np.array(1, array.dtype),
}


def call(name: str, arguments: dict[str, Any]) -> None:
    kind, method = name.split(".")
    if method == "__init__":
        mixer(**arguments)
    elif method == "load_learned":
        MADE[kind]().load_learned(arguments)
    else:
        getattr(MADE[kind](), method)(**arguments)


def test_the_cases_are_all_functions_of_the_extension_that_take_arrays() -> None:
    stub = ast.parse((Path(ngram_eval.__file__).parent / "_core.pyi").read_text())
    assert CALLS.keys() == {
        f"{kind.name}.{method.name}"
        for kind in ast.walk(stub)
        if isinstance(kind, ast.ClassDef)
        for method in kind.body
        if isinstance(method, ast.FunctionDef) and "NDArray" in ast.unparse(method.args)
    }


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", CALLS)
def test_an_array_of_another_form_is_refused_not_read(name: str, damage: str) -> None:
    call(name, CALLS[name])
    for argument, array in CALLS[name].items():
        if not isinstance(array, np.ndarray) or (array.itemsize == 1 and damage == "bytes swapped"):
            continue
        if argument in ("depth", "bits") and damage == "misaligned":
            continue  # bytes lie anywhere
        with pytest.raises(ValueError, match=argument if "learned" not in name else "not|like"):
            call(name, {**CALLS[name], argument: DAMAGES[damage](array)})
