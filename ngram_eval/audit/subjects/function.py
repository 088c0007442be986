"""A function of the past (`--callable`), which gives the probability of each token to be the next."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ngram_eval.audit.claim import Claim
from ngram_eval.audit.evaluator.process import Limits, Place, Process
from ngram_eval.audit.precision import SAME
from ngram_eval.audit.subject import Drawn, Glimpse, Subject, Sums, Trace
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

    Passes are remembered, for a call may take milliseconds: one scores the text, and its samples' distributions are
    kept; a second one must repeat a part of it.
    """

    name: str
    function: Probabilities
    """The function itself, or what asks it in a process of its own; a pass begins with a past of one token."""
    _passes: dict[bytes, _Pass] = field(default_factory=dict)
    _again: dict[bytes, _Pass] = field(default_factory=dict)

    @property
    def past_only(self) -> bool:
        return True

    def vocab_size(self, tokens: Tokens) -> int:
        return len(next(self._run(tokens[:2])))

    def score(self, tokens: Tokens, wanted: NDArray[np.int64] | None = None) -> Trace:
        return self._pass(self._passes, tokens, () if wanted is None else wanted.tolist()).trace

    def glimpses(self, tokens: Tokens, samples: NDArray[np.int64]) -> Iterator[Glimpse]:
        rows = self._pass(self._passes, tokens, samples.tolist()).rows
        for position in samples.tolist():
            yield Glimpse(position, rows[position], None, None)

    def foretold(self, tokens: Tokens, positions: NDArray[np.int64]) -> NDArray[np.float64] | None:
        return self._pass(self._again, tokens, ()).trace.values[positions]

    def draw(self, tokens: Tokens, rng: np.random.Generator) -> Drawn:
        given = min(len(tokens), KEPT)
        text, state, shown = np.append(tokens[:given], np.zeros(_DRAWN, tokens.dtype)), dict[str, Any](), []
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
        return {"the same again": (replace(self, _passes=self._again), SAME)}

    def _pass(self, kept: dict[bytes, _Pass], tokens: Tokens, wanted: Iterable[int]) -> _Pass:
        """The pass over a stream, remembered in `kept`."""
        key, asked = _digest(tokens), set(wanted)
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
        for position in range(len(tokens) - 1):
            past[position] = tokens[position]
            yield self._ask(shown[: position + 1], state, largest)

    def _ask(self, past: NDArray[np.integer], state: dict[str, Any], largest: int) -> NDArray[np.float64]:
        position = len(past) - 1
        try:
            values = as_array(self.function(past, state))
        except InputError:
            raise
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


def function_in_process(name: str, hidden: Sequence[Path], limits: Limits) -> tuple[FunctionSubject, Process]:
    """(the function named `module:function` or `path/file.py:function`, the process that it runs in).

    There it finds nothing of this package, no frame that holds the text, and none of the `hidden` files. Raises
    `InputError` if there is no such function. The caller closes the process.
    """
    process = Process(Place.of(name, hidden, "--callable"), limits)

    def ask(past: NDArray[np.integer], state: dict[str, Any]) -> NDArray[np.float64]:
        return process.predict(int(past[-1]), first=len(past) == 1)

    return FunctionSubject(name=name, function=ask), process


def _locked(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def _digest(tokens: Tokens) -> bytes:
    return hashlib.sha256(tokens.tobytes()).digest()
