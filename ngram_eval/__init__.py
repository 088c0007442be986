"""Eval-time n-gram memory for language models, fast and honest. `python -m ngram_eval.run` is the evaluator."""

from importlib.metadata import version

__version__ = version("ngram_eval")
