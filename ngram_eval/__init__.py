"""Eval-time n-gram memory for language models, fast and honest. `python -m ngram_eval.run` is the evaluator.

From Python: `evaluate(model, tokens)` and `NgramMemory`; each is imported when it is first asked for.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ngram_eval.api import evaluate as evaluate
    from ngram_eval.config import EvalConfig as EvalConfig
    from ngram_eval.config import preset as preset
    from ngram_eval.decoding import NgramLogitsProcessor as NgramLogitsProcessor
    from ngram_eval.decoding import NgramMemory as NgramMemory

try:
    __version__ = version("ngram_eval")
except PackageNotFoundError:
    raise ImportError("ngram_eval is not installed in this Python: run `pip install -e .` in its folder") from None

_HOMES = {
    "EvalConfig": "ngram_eval.config",
    "NgramLogitsProcessor": "ngram_eval.decoding",
    "NgramMemory": "ngram_eval.decoding",
    "evaluate": "ngram_eval.api",
    "preset": "ngram_eval.config",
}


def __getattr__(name: str) -> Any:
    """The public names, from where they live."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
