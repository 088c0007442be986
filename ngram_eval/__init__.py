"""Eval-time n-gram memory for language models, fast and honest. `python -m ngram_eval.run` is the evaluator.

From Python: `evaluate(model, tokens)`, `NgramMemory` and the types of their arguments; names are imported on first use.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ngram_eval.api import evaluate
    from ngram_eval.config import EvalConfig, preset
    from ngram_eval.decoding import MemoryBatch, NgramLogitsProcessor, NgramMemory
    from ngram_eval.errors import InputError
    from ngram_eval.evaluation.result import Result
    from ngram_eval.models.logits_source import CallableSource
    from ngram_eval.models.source import NeuralSource, Stats
    from ngram_eval.scorers.base import Vocabulary
    from ngram_eval.text.shards import read_shards, write_shard
    from ngram_eval.text.tokenizer import Tokenizer
    from ngram_eval.text.tokenizer_files import load_tokenizer
    from ngram_eval.text.windows import Windows

try:
    __version__ = version("ngram_eval")
except PackageNotFoundError:
    raise ImportError("ngram_eval is not installed in this Python: run `pip install -e .` in its folder") from None

__all__ = [
    "CallableSource",
    "EvalConfig",
    "InputError",
    "MemoryBatch",
    "NeuralSource",
    "NgramLogitsProcessor",
    "NgramMemory",
    "Result",
    "Stats",
    "Tokenizer",
    "Vocabulary",
    "Windows",
    "__version__",
    "evaluate",
    "load_tokenizer",
    "preset",
    "read_shards",
    "write_shard",
]
_HOMES = {
    "CallableSource": "ngram_eval.models.logits_source",
    "EvalConfig": "ngram_eval.config",
    "InputError": "ngram_eval.errors",
    "MemoryBatch": "ngram_eval.decoding",
    "NeuralSource": "ngram_eval.models.source",
    "NgramLogitsProcessor": "ngram_eval.decoding",
    "NgramMemory": "ngram_eval.decoding",
    "Result": "ngram_eval.evaluation.result",
    "Stats": "ngram_eval.models.source",
    "Tokenizer": "ngram_eval.text.tokenizer",
    "Vocabulary": "ngram_eval.scorers.base",
    "Windows": "ngram_eval.text.windows",
    "evaluate": "ngram_eval.api",
    "load_tokenizer": "ngram_eval.text.tokenizer_files",
    "preset": "ngram_eval.config",
    "read_shards": "ngram_eval.text.shards",
    "write_shard": "ngram_eval.text.shards",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
