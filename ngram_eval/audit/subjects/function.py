"""A function of the past (`--callable`), which gives the probability of each token to be the next."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ngram_eval.audit.claim import Claim
from ngram_eval.audit.subject import AGAIN, Drawn, Glimpse, Subject, Sums, Trace
from ngram_eval.bpb import NotAProbability
from ngram_eval.errors import InputError
from ngram_eval.text.stream import Tokens

Probabilities = Callable[[NDArray[np.integer], dict[str, Any]], ArrayLike]
"""(past tokens, state) -> the probability of each token to be the next. `state` starts empty."""

KEPT = 64
"""Last positions of a pass whose distributions are kept."""
_DRAWN = 256
"""Tokens that are drawn."""


class _Pass(NamedTuple):
    trace: Trace
    rows: dict[int, NDArray[np.float64]]
    """Distributions of the last positions, and of those asked for."""


@dataclass(frozen=True, kw_only=True)
class FunctionSubject(Subject):
    """A third party's function. It gets only the past, in memory that does not hold the future.

    Passes are remembered, for a call may take milliseconds: one scores the text, a second one, from which the samples'
    distributions are taken, must repeat it.
    """

    name: str
    function: Probabilities
    """The function itself, or what asks it in a process of its own."""
    restart: Callable[[], None] = lambda: None
    """Called before each pass: a process of its own starts anew."""
    _passes: dict[bytes, _Pass] = field(default_factory=dict)
    _again: dict[bytes, _Pass] = field(default_factory=dict)

    @property
    def past_only(self) -> bool:
        return True

    def vocab_size(self, tokens: Tokens) -> int:
        return len(next(self._run(tokens[:2])))

    def score(self, tokens: Tokens) -> Trace:
        return self._pass(self._passes, tokens, np.zeros(0, np.int64)).trace

    def glimpses(self, tokens: Tokens, samples: NDArray[np.int64]) -> Iterator[Glimpse]:
        known = self._passes.get(_digest(tokens))
        if known is None or not set(samples.tolist()) <= known.rows.keys():
            known = self._pass(self._again, tokens, samples)
        for position in samples.tolist():
            yield Glimpse(position, known.rows[position], None, None)

    def foretold(self, tokens: Tokens, positions: NDArray[np.int64]) -> NDArray[np.float64] | None:
        known = self._again.get(_digest(tokens))
        return None if known is None else known.trace.values[positions]

    def draw(self, tokens: Tokens, rng: np.random.Generator) -> Drawn:
        given = min(len(tokens), KEPT)
        text, state, shown = np.append(tokens[:given], np.zeros(_DRAWN, tokens.dtype)), dict[str, Any](), []
        self.restart()
        for position in range(len(text) - 1):
            values = self._ask(_locked(text[: position + 1].copy()), state, int(tokens.max()))
            if position + 1 >= given:
                if not (values >= 0).all() or values.sum() <= 0:
                    raise NotAProbability(f"what is shown at position {position} can't be drawn from")
                share = values / values.sum()
                text[position + 1] = rng.choice(len(share), p=share)
                shown.append(float(share[text[position + 1]]))
        return Drawn(text, given - 1, np.array(shown))

    def variants(self) -> dict[str, tuple[Subject, float]]:
        return {"the same again": (replace(self, _passes=self._again), AGAIN)}

    def _pass(self, kept: dict[bytes, _Pass], tokens: Tokens, wanted: NDArray[np.int64]) -> _Pass:
        """The pass over a stream, remembered in `kept`."""
        key, asked = _digest(tokens), set(wanted.tolist())
        if key in kept and asked <= kept[key].rows.keys():
            return kept[key]
        asked |= set(range(max(len(tokens) - 1 - KEPT, 0), len(tokens) - 1))
        values, totals, least, rows = [], [], [], {}
        for position, row in enumerate(self._run(tokens)):
            values.append(float(row[tokens[position + 1]]))
            totals.append(float(row.sum()))
            least.append(float(row.min()))
            if position in asked:
                rows[position] = row
        sums = Sums(np.array(totals), np.array(least))
        kept[key] = _Pass(Trace(np.arange(len(values)), np.array(values), None, Claim(), sums), rows)
        return kept[key]

    def _run(self, tokens: Tokens) -> Iterator[NDArray[np.float64]]:
        past, state = np.zeros_like(tokens), dict[str, Any]()
        shown, largest = _locked(past.view()), int(tokens.max())
        self.restart()
        for position in range(len(tokens) - 1):
            past[position] = tokens[position]
            yield self._ask(shown[: position + 1], state, largest)

    def _ask(self, past: NDArray[np.integer], state: dict[str, Any], largest: int) -> NDArray[np.float64]:
        position = len(past) - 1
        try:
            values = as_array(self.function(past, state))
        except Exception as error:
            raise InputError(
                f"--callable {self.name} raised {type(error).__name__} at position {position}: {error}"
            ) from error
        if values.ndim != 1 or len(values) <= largest:
            raise InputError(
                f"--callable {self.name} gave an array of shape {values.shape} at position {position}: give one "
                f"probability for each token, at least {largest + 1}"
            )
        if (values <= 0).all() and values.any():
            raise InputError(
                f"--callable {self.name} gave nothing above 0 at position {position}, as log-probabilities are: give "
                "probabilities, their exp()"
            )
        return values


def as_array(values: Any) -> NDArray[np.float64]:
    """Numbers of any make, in float64; a tensor may require grad, be on a device, be bfloat16."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.array(values, np.float64)


def load_function(name: str) -> FunctionSubject:
    """The function named `module:function` or `path/file.py:function`; raises `InputError` if there is none.

    Modules are found in the working folder too, as with `python -m`.
    """
    module_name, _, function_name = name.rpartition(":")
    try:
        module = _import_file(Path(module_name)) if module_name.endswith(".py") else _import_module(module_name)
        function = getattr(module, function_name)
    except (ImportError, AttributeError, ValueError, OSError, SyntaxError) as error:
        raise InputError(
            f"--callable is {name!r} ({error}): give module:function, with its folder on PYTHONPATH, or "
            "path/file.py:function"
        ) from error
    if not callable(function):
        raise InputError(f"--callable is {name!r}, a {type(function).__name__}: give a function (past_tokens, state)")
    return FunctionSubject(name=name, function=function)


def _import_module(name: str) -> Any:
    if str(Path.cwd()) not in sys.path and "" not in sys.path:  # a console script does not look where it is called
        sys.path.insert(0, str(Path.cwd()))
    return import_module(name)


def _import_file(path: Path) -> Any:
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _locked(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def _digest(tokens: Tokens) -> bytes:
    return hashlib.sha256(tokens.tobytes()).digest()
