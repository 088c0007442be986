"""The evaluator as a function: from any model, tokens and a configuration to a result, as `--json` writes it."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ngram_eval.config import EvalConfig, preset
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.errors import InputError
from ngram_eval.evaluation.evaluate import evaluate_all
from ngram_eval.evaluation.job import Input, Job, load_kept
from ngram_eval.evaluation.result import Result
from ngram_eval.evaluation.settings import HardwareSettings, Settings
from ngram_eval.files import Unchanged, file_sha256
from ngram_eval.models.logits_source import CallableSource, Lead
from ngram_eval.models.saved_logits import SavedLogits
from ngram_eval.models.source import NeuralSource
from ngram_eval.results.notebook import NotebookResult
from ngram_eval.scorers.backends import resolve_backend
from ngram_eval.scorers.make import check_backend, check_source
from ngram_eval.text.samples import SAMPLES
from ngram_eval.text.shards import TokenStream
from ngram_eval.text.stream import Tokens
from ngram_eval.text.tokenizer import TextTokenizer, check_vocabulary
from ngram_eval.timing import Stopwatch

_LARGEST = (1 << 32) - 1

Model = Callable[[Any], Any] | NeuralSource | NDArray[np.floating]
"""The models that `evaluate` takes."""


def evaluate(
    model: Model,
    tokens: ArrayLike,
    config: EvalConfig | str = "exact",
    *,
    tokenizer: Any = None,
    lead: str = "auto",
    batch_windows: int = 32,
    backend: str = "auto",
    threads: int | None = None,
    samples: int = SAMPLES,
    memory: str | Path | Sequence[str | Path] = (),
) -> Result:
    """Score `tokens` by a model with an n-gram memory, as `python -m ngram_eval.run` does.

    Positions after the last whole window are left out.

    Args:
        model: A `transformers.PreTrainedModel`, run on its own device and in its own precision; a `torch.nn.Module` or
            any function that takes windows of tokens, a tensor (B, T) int64 on the module's device or on the CPU, and
            returns logits or log-probabilities (B, T, V), a tensor or an array (see `ngram_eval.CallableSource`); an
            array (N - 1, V) of logits or log-probabilities, whose row p predicts token p + 1; or a
            `ngram_eval.NeuralSource`.
        tokens: (N,) integers; token p + 1 is predicted from tokens up to p.
        config: An `EvalConfig`, or the name of a preset.
        tokenizer: The tokenizer of the tokens, for bits per byte: a `transformers` tokenizer, or
            `ngram_eval.load_tokenizer(path)`.
        lead: Tokens put before every window that does not begin with them, for every model that is run here: auto,
            those that a `transformers` tokenizer puts before a text; none; or their names or numbers, separated by
            commas.
        batch_windows: Windows of one forward pass.
        backend: Backend of the count tables, as on the command line.
        threads: Threads of the count tables, as on the command line.
        samples: Positions at which the sum over the vocabulary is computed, if the model gives whole distributions.
        memory: Files of kept memories (.ngm) that are counted before the first token, one after another.

    Returns:
        The result of one preset, as in `--json`; `dataclasses.asdict` makes it a dictionary. A notebook shows its table
        and charts.

    Raises:
        InputError: If arguments are invalid or do not fit together.
    """
    method = preset(config) if isinstance(config, str) else config
    stream = _stream(tokens)
    counted = _tokenizer(tokenizer)
    source = _source(model, stream, counted, lead, batch_windows)
    check_source(method, source)
    if source.vocab_size:
        check_vocabulary(stream, source.vocab_size, "the model")
    if counted is not None:
        check_vocabulary(stream, counted.vocab_size, "the tokenizer")
        counted.check(stream)
    memories = [Path(one) for one in ([memory] if isinstance(memory, str | Path) else memory)]
    hardware = HardwareSettings(backend=backend, threads=threads, batch_windows=batch_windows)
    settings = Settings(hardware=hardware, samples=samples)
    settings.check_numbers()
    name = config if isinstance(config, str) else method.scorer
    check_backend(name, method, resolve_backend(backend))
    job = Job(
        settings=settings,
        ranks=ALONE,
        stream=TokenStream(stream, (), len(stream)),
        tokenizer=counted,
        manifest=None,
        source=source,
        backend=resolve_backend(backend),
        files=Unchanged(memories),
        kept=load_kept(memories, counted, source.vocab_size),
    )
    given = Input("data", "tokens", stream.nbytes, hashlib.sha256(stream.tobytes()).hexdigest())
    inputs = [given, *(Input("memory", str(path), path.stat().st_size, file_sha256(path)) for path in memories)]
    (result,) = evaluate_all(job, {name: method}, inputs, None, clock=Stopwatch())
    return NotebookResult.of(result)


def _stream(tokens: ArrayLike) -> Tokens:
    found = np.asarray(tokens)
    if found.ndim != 1 or found.dtype.kind not in "iu" or len(found) < 2:
        raise InputError(f"tokens are {found.dtype} of shape {found.shape}: give at least two integers, (N,)")
    if found.min() < 0 or found.max() > _LARGEST:
        raise InputError(f"tokens range from {found.min()} to {found.max()}: give 0 to {_LARGEST}")
    return found.astype(np.uint16) if found.max() < 1 << 16 else found.astype(np.uint32)


def _is_transformers(thing: object, name: str) -> bool:
    """Whether `thing` is of the class `name` of transformers; does not import transformers."""
    return any(
        base.__name__ == name and base.__module__.partition(".")[0] == "transformers" for base in type(thing).__mro__
    )


def _tokenizer(tokenizer: Any) -> TextTokenizer | None:
    if tokenizer is None or hasattr(tokenizer, "target_bytes"):
        ours: TextTokenizer | None = tokenizer
        return ours
    if not _is_transformers(tokenizer, "PreTrainedTokenizerBase"):
        raise InputError(
            f"tokenizer is a {type(tokenizer).__name__}: give one of transformers, or of ngram_eval.load_tokenizer"
        )
    from ngram_eval.models.hf.tokenizer import HfTokenizer  # needs transformers

    return HfTokenizer(tokenizer)


def _lead(given: str, tokenizer: TextTokenizer | None) -> Lead:
    own = getattr(tokenizer, "hf", None)
    if own is not None:
        from ngram_eval.models.hf.lead import lead_of  # needs transformers

        return lead_of(own, given)
    if given in ("auto", "none"):
        return Lead()
    tokens = given.split(",")
    if not all(one.isdecimal() for one in tokens):
        raise InputError(f"lead is {given!r}: without a transformers tokenizer give auto, none, or numbers of tokens")
    return Lead(tuple(map(int, tokens)), given)


def _source(
    model: Model, stream: Tokens, tokenizer: TextTokenizer | None, lead: str, batch_windows: int
) -> NeuralSource:
    if isinstance(model, np.ndarray):
        if model.ndim != 2 or model.dtype.kind != "f" or len(model) != len(stream) - 1:
            raise InputError(
                f"the logits are {model.dtype} of shape {model.shape}: give floats ({len(stream) - 1:,}, vocabulary)"
            )
        return SavedLogits(model, "the logits")
    if _is_transformers(model, "PreTrainedModel"):
        from ngram_eval.models.hf.source import HfSource  # needs transformers

        return HfSource(model, lead=_lead(lead, tokenizer), batch_windows=batch_windows)
    if callable(model):
        return CallableSource(model, batch_windows, _lead(lead, tokenizer))
    if not hasattr(model, "stats"):
        raise InputError(f"model is a {type(model).__name__}: give a model, a function of windows, or logits")
    return model
