"""Another build of the C++ extension beside today's: each in a process of its own, since two do not fit into one."""

import importlib
import importlib.util
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any


def extension(build: Path | None) -> Any:
    """The module of a build (`_core….so`), or today's; in this process."""
    if build is None:
        return importlib.import_module("ngram_eval._core")
    spec = importlib.util.spec_from_file_location("_core", build)
    assert spec is not None
    assert spec.loader is not None
    core = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(core)
    return core


def process_apart() -> ProcessPoolExecutor:
    """A new process that does what it is handed, one call after the other."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
