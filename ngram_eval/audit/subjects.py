"""The kinds of subjects: a scorer over a neural source, a function of the past, a file of probabilities."""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ngram_eval.audit.claim import Claim
from ngram_eval.audit.subject import Change, Glimpse, NotApplicable, Subject, Trace
from ngram_eval.bpb import Tally, as_nats
from ngram_eval.config import EvalConfig, GateConfig
from ngram_eval.distributed.prefill import prefill_stop
from ngram_eval.errors import InputError
from ngram_eval.evaluation.engine import count_bytes
from ngram_eval.models.saved_arrays import open_arrays
from ngram_eval.models.saved_logits import SavedLogits
from ngram_eval.models.saved_scores import RememberingSource
from ngram_eval.models.source import Asked, NeuralSource, NeuralStats, statistics
from ngram_eval.scorers.base import Scorer
from ngram_eval.scorers.make import windows_at_once
from ngram_eval.text.samples import cut, entropy_of
from ngram_eval.text.stream import Stream, Tokens
from ngram_eval.text.tokenizer import TextTokenizer
from ngram_eval.text.windows import Plan, Windows, batches, plan_windows, share, target_count


class SharedSource:
    """A neural source that computes its statistics once per stream, for all subjects of an audit."""

    def __init__(self, source: NeuralSource, batch_windows: int | None = None) -> None:
        self._source = source
        self.name, self.settings, self.train_seq_len = source.name, source.settings, source.train_seq_len
        self.gives_all, self.vocab_size = source.gives_all, source.vocab_size
        self.batch_windows = batch_windows or source.batch_windows
        self._stats: dict[object, RememberingSource] = {}
        self._probabilities: dict[object, NDArray[np.float64]] = {}
        self._last: tuple[Stream | None, bytes] = None, b""

    def stats(self, tokens: Stream, windows: Windows, whole: Asked | None = None) -> NeuralStats:
        key = (self._digest(tokens), windows.seq_len)
        if key not in self._stats:
            self._stats[key] = RememberingSource(self._source, len(tokens) - 1, windows.seq_len)
        return self._stats[key].stats(tokens, windows, whole)

    def probabilities(self, tokens: Stream, windows: Windows) -> NDArray[np.float64]:
        if windows.scored > 1:  # too large to keep
            return self._source.probabilities(tokens, windows)
        key = (self._digest(tokens), int(windows.start[0]), int(windows.first[0]))
        if key not in self._probabilities:
            self._probabilities[key] = self._source.probabilities(tokens, windows)
        return self._probabilities[key]

    def _digest(self, tokens: Stream) -> bytes:
        if tokens is not self._last[0]:  # all batches ask for the same stream, which may be long
            self._last = tokens, hashlib.sha256(tokens[:].tobytes()).digest()
        return self._last[1]


MakeScorer = Callable[[str, EvalConfig, NeuralSource], Scorer]
"""(backend, configuration, neural source) -> a new scorer."""


_EXACTLY, _ROUNDING, _BATCHES = 0.0, 1e-9, 1e-4


_OTHER_BATCH = 7


@dataclass(frozen=True, kw_only=True)
class ScorerSubject(Subject):
    """Any `Scorer`, with its neural source."""

    name: str
    make: MakeScorer
    config: EvalConfig
    source: NeuralSource
    tokenizer: TextTokenizer | None = None
    backend: str = "cpu"
    world: int = 1
    others: dict[str, tuple[NeuralSource, float]] = field(default_factory=dict)
    """Copies of the source that keep no statistics, made by `other_sources`."""
    remembers: bool = True
    """Whether it has an n-gram memory, described by the configuration and the backend."""

    @property
    def source_is_given(self) -> bool:
        return self.source.name in ("scores", "logits")

    def expected(self, tokens: Tokens) -> int:
        return target_count(len(tokens), max(self.config.window.seq_len, self.source.train_seq_len))

    def _windows(self, tokens: Tokens) -> Windows:
        return plan_windows(self.expected(tokens), self.config.window)

    def score(self, tokens: Tokens) -> Trace:
        config, windows, plan = self.config, self._windows(tokens), Plan(self.expected(tokens), self.config.window)
        positions, values, neural = [], [], []
        tally = Tally()
        for rank in range(self.world):
            rows = share(plan, rank, self.world, self.source.batch_windows)
            scorer = self.make(self.backend, config, self.source)
            scorer.prefill(tokens, 0, prefill_stop(plan, rows, config.ngram), lambda counted: None)
            for batch in batches(windows[rows.start : rows.stop], windows_at_once(config, self.source)):
                stats = statistics(self.source, tokens, batch, rows=self.config.needs_rows)
                charged = scorer.score(tokens, batch, stats).values
                if len(charged) != batch.scored:
                    raise ValueError(f"{self.name} gave {len(charged)} values for {batch.scored} positions")
                values.append(charged)
                neural.append(stats.p_target)
                positions.append(batch.positions())
                if self.tokenizer is not None:
                    count_bytes(tally, tokens, self.tokenizer, batch, config.byte_rule)
            tally += scorer.tally()
        claim = Claim(
            positions=tally.positions, nats=as_nats(tally.nats), bytes=tally.bytes if self.tokenizer else None
        )
        return Trace(np.concatenate(positions), np.concatenate(values), np.concatenate(neural), claim)

    def glimpses(self, tokens: Tokens, samples: NDArray[np.int64]) -> Iterator[Glimpse]:
        if not self.source.gives_all:
            raise NotApplicable("only the target's probability is known: give --artifact, --logits or --uniform")
        windows = self._windows(tokens)
        for batch in batches(windows, self.source.batch_windows):
            self.source.stats(tokens, batch)  # kept, so that parts of any shape can be read below
        scorer = self.make(self.backend, self.config, self.source)
        for looks, part in cut(windows, samples, scorer.window_wise):
            for position in looks:
                yield self._glimpse(scorer, tokens, windows, position)
            if samples[-1] in looks:
                return
            for batch in batches(part, windows_at_once(self.config, self.source)):
                past = tokens[: int(batch.stop.max()) + 1].copy()
                scorer.score(past, batch, statistics(self.source, tokens, batch, rows=self.config.needs_rows))

    def _glimpse(self, scorer: Scorer, tokens: Tokens, windows: Windows, position: int) -> Glimpse:
        blind = np.append(tokens[: position + 1], tokens[position])  # a repeated token in the target's place
        (neural,) = self.source.probabilities(blind, windows.scoring(position))
        entropy = entropy_of(neural)
        values = scorer.distribution(blind, position, neural, entropy)
        given = {}
        raised = values / np.maximum(neural, np.finfo(np.float64).tiny)
        for target in (int(np.argmin(raised)), int(np.argmax(raised)), int(np.argmax(values))):
            blind[-1] = target
            given[target] = scorer.given_target(blind, position, neural, entropy)
        return Glimpse(position, values, neural, _largest_change(given))

    def without_memory(self) -> Subject:
        config = self.config
        if not self.remembers:
            raise NotApplicable("it has no memory")
        if config.scorer == "hashed":
            gate = GateConfig(alpha_base=0, alpha_range=0, alpha_fixed=0)
            return replace(self, config=replace(config, gate=gate))
        if config.scorer == "mixer" or config.exact.chain:
            raise NotApplicable("its weights are learned and can't be set from outside")
        return replace(self, config=replace(config, exact=replace(config.exact, tilt="fixed", tilt_beta=0.0)))

    @property
    def buckets(self) -> int:
        if self.remembers and self.config.scorer == "hashed":
            return self.config.ngram.buckets
        return self.config.mixer.groups if self.remembers and self.config.scorer == "mixer" else super().buckets

    def with_buckets(self, buckets: int) -> "ScorerSubject":
        if self.config.scorer == "mixer":
            return replace(self, config=replace(self.config, mixer=replace(self.config.mixer, groups=buckets)))
        return replace(self, config=replace(self.config, ngram=replace(self.config.ngram, buckets=buckets)))

    def variants(self) -> dict[str, tuple[Subject, float]]:
        found: dict[str, tuple[Subject, float]] = {
            name: (replace(self, source=source), tolerance) for name, (source, tolerance) in self.others.items()
        }
        if self.remembers and self.backend != "reference":
            found["the reference"] = (replace(self, backend="reference"), _ROUNDING)
        if not self.config.learns_online:  # a scorer that does is never split over ranks
            for world in (2, 3):
                found[f"{world} ranks"] = (replace(self, world=world), _ROUNDING)
        return found


def other_sources(source: NeuralSource) -> dict[str, tuple[NeuralSource, float]]:
    """Variants of the source that must give the same number: name -> (source, nats a position it may differ by)."""
    return {
        "the same again": (SharedSource(source), _EXACTLY),
        f"batches of {_OTHER_BATCH} windows": (SharedSource(source, _OTHER_BATCH), _BATCHES),
    }


def _largest_change(given: dict[int, NDArray[np.float64]]) -> Change:
    """The largest difference between the values that two targets give to a third token."""
    (base, first), *rest = given.items()
    largest = Change(base, (base, base), (float(first[base]),) * 2)
    for target, values in rest:
        difference = np.abs(values - first)
        difference[[base, target]] = 0
        token = int(np.argmax(difference))
        if difference[token] > abs(largest.values[1] - largest.values[0]):
            largest = Change(token, (base, target), (float(first[token]), float(values[token])))
    return largest


Probabilities = Callable[[NDArray[np.integer], dict[str, Any]], ArrayLike]
"""(past tokens, state) -> the probability of each token to be the next. `state` starts empty."""


@dataclass(frozen=True, kw_only=True)
class CallableSubject(Subject):
    """A third party's function. It gets only the past, in memory that does not hold the future."""

    name: str
    function: Probabilities

    def _run(self, tokens: Tokens) -> Iterator[NDArray[np.float64]]:
        past, state = np.zeros_like(tokens), dict[str, Any]()
        shown = past.view()
        shown.flags.writeable = False
        for position in range(len(tokens) - 1):
            past[position] = tokens[position]
            yield self._ask(shown[: position + 1], state, int(tokens.max()))

    def _ask(self, past: NDArray[np.integer], state: dict[str, Any], largest: int) -> NDArray[np.float64]:
        try:
            values = np.array(self.function(past, state), np.float64)
        except Exception as error:
            raise InputError(
                f"--callable {self.name} raised {type(error).__name__} at position {len(past) - 1}: {error}"
            ) from error
        if values.ndim != 1 or len(values) <= largest:
            raise InputError(
                f"--callable {self.name} gave an array of shape {values.shape} at position {len(past) - 1}: give one "
                f"probability for each token, at least {largest + 1}"
            )
        return values

    def score(self, tokens: Tokens) -> Trace:
        targets = tokens[1:].tolist()
        values = [float(one[target]) for one, target in zip(self._run(tokens), targets, strict=True)]
        return Trace(np.arange(len(values)), np.array(values), None, Claim())

    def glimpses(self, tokens: Tokens, samples: NDArray[np.int64]) -> Iterator[Glimpse]:
        wanted = set(samples.tolist())
        for position, values in enumerate(self._run(tokens[: samples[-1] + 2])):
            if position in wanted:
                yield Glimpse(position, values, None, None)

    def variants(self) -> dict[str, tuple[Subject, float]]:
        return {"the same again": (self, _EXACTLY)}


def load_callable(name: str) -> CallableSubject:
    """The function named `module:function`; raises `InputError` if there is none."""
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"--callable is {name!r} ({error}): give module:function, with its folder on PYTHONPATH"
        ) from error
    if not callable(function):
        raise InputError(f"--callable is {name!r}, a {type(function).__name__}: give a function (past_tokens, state)")
    return CallableSubject(name=name, function=function)


@dataclass(frozen=True, kw_only=True)
class ClaimedSubject(Subject):
    """Claimed charges from a file, with the logits of the distributions that they are claimed to be from."""

    name: str
    positions: NDArray[np.int64]
    values: NDArray[np.float64]
    logits: SavedLogits | None
    tokens: Tokens
    """The stream that they belong to."""
    whole: int
    """Number of positions of a whole evaluation."""

    def expected(self, tokens: Tokens) -> int:
        return self.whole

    def score(self, tokens: Tokens) -> Trace:
        if not np.array_equal(tokens, self.tokens):
            raise NotApplicable("a file of claims can't be computed again")
        return Trace(self.positions, self.values, None, Claim())

    def glimpses(self, tokens: Tokens, samples: NDArray[np.int64]) -> Iterator[Glimpse]:
        if self.logits is None:
            raise NotApplicable("only the targets' values are claimed: give the distributions with --logits")
        for position in samples.tolist():
            at = np.array([position])
            (values,) = self.logits.probabilities(tokens, Windows(at, at, at + 1, 1))
            yield Glimpse(position, values, None, None)


def load_claimed(path: Path, logits: SavedLogits | None, tokens: Tokens, seq_len: int, subset: bool) -> ClaimedSubject:
    """Read an .npz or .safetensors file with the charges `p` and their `positions` (default: 0, 1, 2, ...).

    A whole evaluation has all positions, or those of all whole sequences. Raises `InputError` for any other file.
    """
    arrays = open_arrays(path, "--claimed")
    if "p" not in arrays.headers:
        raise InputError(f"{path}: no array p, the probabilities that positions were charged with")
    for name, (shape, dtype) in arrays.headers.items():
        if name not in ("p", "positions"):
            continue
        if math.prod(shape) > 2 * len(tokens) + (1 << 20):  # some charge a tail often
            raise InputError(f"{path}: {name} is {dtype} of shape {shape}; the data has {len(tokens) - 1:,} positions")
        if dtype.kind not in ("f" if name == "p" else "iu"):  # before it is read: a string can be a gigabyte
            raise InputError(f"{path}: {name} is {dtype} of shape {shape}; give numbers")
    values = arrays.read("p")
    positions = arrays.read("positions") if "positions" in arrays.headers else np.arange(len(values))
    if values.ndim != 1 or values.dtype.kind != "f" or len(values) == 0 or not (values >= 0).all():
        raise InputError(f"{path}: p is {values.dtype} of shape {values.shape}; give one float >= 0 a position")
    if positions.shape != values.shape or positions.dtype.kind not in "iu":
        raise InputError(
            f"{path}: positions is {positions.dtype} of shape {positions.shape}; give one integer for each p"
        )
    if positions.min() < 0 or positions.max() >= len(tokens) - 1:
        raise InputError(
            f"{path}: positions reach from {positions.min()} to {positions.max()}; the data has {len(tokens) - 1:,}"
        )
    end = int(positions.max()) + 1
    return ClaimedSubject(
        name=path.name,
        positions=positions.astype(np.int64),
        values=values.astype(np.float64),
        logits=logits,
        tokens=tokens,
        whole=end if subset or end == (len(tokens) - 1) // seq_len * seq_len else len(tokens) - 1,
    )
