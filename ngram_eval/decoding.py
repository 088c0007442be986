"""An n-gram memory for any decoding loop: it turns a model's distribution into a blended one.

    memory = NgramMemory()
    memory.observe(prompt)                      # counts
    for ...:
        p = softmax(model(...))                 # (V,)
        token = sample(memory.distribution(p))  # sums to 1, as p does
        memory.observe([token], p[None])        # counts and learns

The memory is the evaluator's own scorer: a token's probability equals the evaluator's, bit for bit.
"""

import copy
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ngram_eval.bpb import check_charges
from ngram_eval.config import EvalConfig, preset
from ngram_eval.errors import InputError
from ngram_eval.evaluation.job import load_learned
from ngram_eval.evaluation.learning import learned_before
from ngram_eval.evaluation.settings import ModelSettings
from ngram_eval.kept import file as kept_file
from ngram_eval.kept.coding import Coding
from ngram_eval.models.source import Stats
from ngram_eval.scorers.base import Vocabulary
from ngram_eval.scorers.exact.scorer import ExactScorer
from ngram_eval.scorers.make import make_scorer
from ngram_eval.text.kept import kept_of
from ngram_eval.text.samples import entropy_of
from ngram_eval.text.stream import MAX_VOCABULARY, Tokens
from ngram_eval.text.tokenizer import TextTokenizer
from ngram_eval.text.windows import Windows

if TYPE_CHECKING:
    from torch import Tensor

_ROOM = 1 << 10
"""Initial capacity, in tokens."""

_SUM = 1e-3
"""Largest accepted error of the sum of a given distribution, as of a half-precision softmax."""

_LIKELY = 0.3
"""Least probability of a drafted token: verifying one that is refused costs a part of a forward pass."""


class NgramMemory:
    """The counts of one sequence, and their blend with a model's distribution.

    `config` is an `EvalConfig` or a preset's name, of a method that charges probabilities (exact, tilt, mixer): hashed
    scores are not a distribution to draw from. Its windows have no effect here. The mixer needs the `vocabulary`.

    Threads may share a memory: its calls run one at a time.
    """

    def __init__(
        self, config: EvalConfig | str = "exact", *, vocabulary: Vocabulary | None = None, backend: str = "cpu"
    ) -> None:
        """Make an empty memory.

        Raises `InputError` if the method's values do not sum to 1, or if the vocabulary or the backend is missing.
        """
        self.config = preset(config) if isinstance(config, str) else config
        if not self.config.normalised:
            raise InputError(
                "this method's values over the vocabulary do not sum to 1, so they are not a distribution: give "
                "exact, tilt or mixer"
            )
        if self.config.scorer == "mixer" and vocabulary is None:
            raise InputError(
                "the mixer needs the bytes of tokens: give vocabulary=Vocabulary(size, surfaces, neural=True)"
            )
        self._vocabulary, self._backend = vocabulary, backend
        self._scorer = make_scorer(backend, self.config, vocabulary=vocabulary)
        self._room: Tokens = np.zeros(_ROOM, np.uint32)
        self._length = 0
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        path: Path | str,
        config: EvalConfig | str = "exact",
        *,
        vocabulary: Vocabulary | None = None,
        backend: str = "cpu",
        artifact: Path | str | None = None,
        hf: str | None = None,
        uniform: bool = False,
    ) -> "NgramMemory":
        """The memory that has counted the text of a kept memory's file (.ngm); arguments as for an empty one.

        `artifact`, `hf` or `uniform` name the model beside which it will be used, as flags do: of a file of
        `ngram-eval memory learn` it then begins with the weights of that model and this method, as `run` does. A file
        whose weights are all of others is loaded with a `UserWarning`.

        Raises `InputError` for a file that is damaged, or of a larger vocabulary than the one given.
        """
        memory, kept = cls(config, vocabulary=vocabulary, backend=backend), kept_file.read(Path(path))
        if vocabulary is not None:
            kept.check(None, vocabulary.size, str(path))
        memory.observe(kept.tokens)
        model = ModelSettings(artifact=None if artifact is None else Path(artifact), hf=hf, uniform=uniform)
        if learned := learned_before(kept, memory.config, model, str(path)):
            load_learned(memory._scorer, learned, str(path))
        return memory

    def save(
        self,
        path: Path | str,
        *,
        tokenizer: TextTokenizer | None = None,
        vocab_size: int | None = None,
        coding: Coding = "exact",
    ) -> int:
        """Keep all tokens observed in a file (.ngm), as `ngram-eval memory build` does; returns its bytes.

        What was learned besides the counts is not kept. The vocabulary is the `tokenizer`'s, which loading then checks
        against the data's, or of `vocab_size` tokens. Raises `InputError` without any, and where nothing was observed.
        """
        if vocab_size is None and self._vocabulary is not None:
            vocab_size = self._vocabulary.size
        return kept_file.write(Path(path), kept_of(self.tokens, tokenizer, vocab_size), coding).size

    def __repr__(self) -> str:
        return f"<NgramMemory: {self.config.scorer}, {self._length:,} tokens observed, backend {self._backend}>"

    def __len__(self) -> int:
        """Number of tokens observed."""
        return self._length

    @property
    def tokens(self) -> Tokens:
        """All tokens observed, (N,) uint32; a view."""
        with self._lock:
            return self._tokens()

    def observe(self, tokens: ArrayLike, probabilities: ArrayLike | None = None) -> NDArray[np.float64]:
        """Count the next tokens (n,), and learn from them; returns what each was charged, (n,).

        `probabilities` (n, V) are the model's distributions before each token. Without them, tokens are only counted:
        the weights of the blend do not change, and nothing is returned, (0,). The very first token of a memory has no
        context: it is only counted, and charged what the model gives it. Raises `InputError` for arrays of another
        form.
        """
        found = np.asarray(tokens)
        if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
            raise InputError(f"tokens are {found.dtype} of shape {found.shape}: give one integer per token, (n,)")
        rows = None if probabilities is None else _rows(probabilities, len(found))
        limit = MAX_VOCABULARY if rows is None else rows.shape[1]
        if found.size and (found.min() < 0 or found.max() >= limit):
            raise InputError(f"tokens range from {found.min()} to {found.max()}: they must be in [0, {limit:,})")
        with self._lock:
            return self._observe(found, rows)

    def _observe(self, found: NDArray[np.integer], rows: NDArray[np.float64] | None) -> NDArray[np.float64]:
        first, stop = max(self._length - 1, 0), self._length + len(found) - 1
        skipped = int(self._length == 0)  # the first token is not a target
        self._append(found)
        if rows is None:
            if stop > first:
                self._scorer.prefill(self._tokens(), first, stop, lambda counted: None)
            return np.empty(0)
        alone: NDArray[np.float64] = rows[np.arange(skipped), found[:skipped]]
        if stop <= first:
            return alone
        rows = rows[skipped:]
        targets = found[skipped:]
        entropy = np.array([entropy_of(row) for row in rows], np.float32)
        window = Windows(np.array([0]), np.array([first]), np.array([stop]), stop)
        stats = Stats(rows[np.arange(len(rows)), targets], entropy, rows if self.config.needs_rows else None)
        return np.append(alone, self._scorer.score(self._tokens(), window, stats).values)

    def distribution(self, probabilities: ArrayLike) -> NDArray[np.float64]:
        """The blend of the memory with the model's distribution (V,) of the next token, (V,). Changes nothing.

        It sums to 1 as `probabilities` do, up to rounding. Raises `InputError` unless these are a distribution.
        """
        row: NDArray[np.float64] = _rows(np.asarray(probabilities)[None], 1)[0]
        entropy = entropy_of(row)
        with self._lock:
            position = self._length - 1
            if position < 0:
                return row
            blended = self._scorer.distribution(self._tokens(), position, row, entropy)
        check_charges(blended, lambda: np.full(len(blended), position), whose="the blend")
        return blended

    def top(self, count: int, probabilities: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The `count` most probable next tokens by `distribution`, the most probable first, and their probabilities.

        Of equals, the token with the lower number comes first. Raises `InputError` as `distribution` does.
        """
        blended = self.distribution(probabilities)
        best = np.lexsort((np.arange(len(blended)), -blended))[: max(count, 0)]
        return best, blended[best]

    def continuation(self, count: int, vocabulary: int) -> Tokens:
        """The `count` tokens that the memory by itself thinks most probable next, one after another, (<= count,).

        They end before the first that it gives less than 0.3. Only `exact` can be asked; changes nothing. Raises
        `InputError` for another method.
        """
        if not isinstance(self._scorer, ExactScorer):
            raise InputError(f"a memory of {self.config.scorer} can't be asked beyond its next token: give exact")
        uniform = np.full(vocabulary, 1 / vocabulary)
        drafted: NDArray[np.uint32] = np.zeros(0, np.uint32)
        with self._lock:
            while self._length and len(drafted) < count:
                blended = self._scorer.distribution_after(self._tokens(), drafted, uniform, float(np.log(vocabulary)))
                best = int(blended.argmax())
                if blended[best] < _LIKELY:
                    break
                drafted = np.append(drafted, np.uint32(best))
        return drafted

    def copy(self) -> "NgramMemory":
        """An independent copy, which continues as this memory would.

        What `exact` and `mixer` hold on the host is copied as it lies; bytes, and a GPU, count all tokens again.
        """
        if self.config.scorer not in ("exact", "mixer") or self._backend not in ("cpu", "reference"):
            restore, arguments = self.__reduce__()
            return restore(*arguments)
        other: NgramMemory = object.__new__(NgramMemory)
        with self._lock:
            shared = {name: value for name, value in vars(self).items() if name != "_lock"}
            vars(other).update(shared, _scorer=copy.deepcopy(self._scorer), _room=self._tokens().copy())
        other._lock = threading.Lock()
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> "NgramMemory":
        return self.copy()

    def __reduce__(self) -> tuple[Callable[..., "NgramMemory"], tuple[Any, ...]]:
        """For pickle: tokens and weights, from which the counts are made again."""
        with self._lock:
            tokens, learned = self._tokens().copy(), self._scorer.learned()
        return _restored, (self.config, self._vocabulary, self._backend, tokens, learned)

    def _tokens(self) -> Tokens:
        return self._room[: self._length]

    def _append(self, tokens: NDArray[np.integer]) -> None:
        needed = self._length + len(tokens)
        if needed > len(self._room):
            grown: Tokens = np.zeros(max(needed, 2 * len(self._room)), np.uint32)
            grown[: self._length] = self._tokens()
            self._room = grown
        self._room[self._length : needed] = tokens
        self._length = needed


def _restored(
    config: EvalConfig, vocabulary: Vocabulary | None, backend: str, tokens: Tokens, learned: dict[str, NDArray[Any]]
) -> NgramMemory:
    """The memory that has observed `tokens` and learned this from them."""
    memory = NgramMemory(config, vocabulary=vocabulary, backend=backend)
    memory.observe(tokens)
    if len(tokens) > 1:
        memory._scorer.load_learned(learned)
    return memory


def _rows(probabilities: ArrayLike, count: int) -> NDArray[np.float64]:
    """The distributions as (count, V) float64; raises `InputError` for anything else."""
    rows = np.ascontiguousarray(probabilities, np.float64)
    if rows.ndim != 2 or len(rows) != count or rows.shape[1] == 0:
        raise InputError(f"probabilities have the shape {rows.shape}: give one distribution per token, ({count}, V)")
    sums = rows.sum(axis=1)
    if not (rows >= 0).all() or not (np.abs(sums - 1) <= _SUM).all():
        raise InputError(
            f"probabilities must not be negative and must sum to 1, and they range from {rows.min()} to {rows.max()} "
            f"and sum to {sums[np.argmax(np.abs(sums - 1))]}: give softmax(logits), not the logits"
        )
    return rows


class MemoryBatch:
    """The memories of B sequences, asked and advanced in one call, on threads."""

    def __init__(self, memories: Sequence[NgramMemory], threads: int | None = None) -> None:
        """`threads`: of this batch; by default as many as the process may use, at most one a memory."""
        self.memories = list(memories)
        self._threads = min(threads or len(os.sched_getaffinity(0)), max(len(self.memories), 1))

    def distribution(self, probabilities: ArrayLike) -> NDArray[np.float64]:
        """The blend of each sequence's memory with the model's distribution of its next token, (B, V) to (B, V)."""
        rows = self._one_each(probabilities)
        return np.array(self._on_all(NgramMemory.distribution, rows)).reshape(rows.shape)

    def observe(self, tokens: ArrayLike, probabilities: ArrayLike | None = None) -> list[NDArray[np.float64]]:
        """Count each sequence's next tokens, (B, n), and learn; `probabilities` (B, n, V) as `NgramMemory.observe`."""
        given = self._one_each(tokens)
        if probabilities is None:
            return self._on_all(NgramMemory.observe, given)
        return self._on_all(NgramMemory.observe, given, self._one_each(probabilities))

    def _one_each(self, given: ArrayLike) -> NDArray[Any]:
        found = np.asarray(given)
        if found.ndim < 2 or len(found) != len(self.memories):
            raise InputError(f"an array of shape {found.shape} for {len(self.memories)} memories: give a row for each")
        return found

    def _on_all(self, call: Callable[..., NDArray[np.float64]], *arguments: NDArray[Any]) -> list[NDArray[np.float64]]:
        if self._threads == 1:
            return list(map(call, self.memories, *arguments))
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(call, self.memories, *arguments))


class _Row(NamedTuple):
    """One sequence of the batch after a step."""

    tokens: NDArray[np.int64]
    memory: NgramMemory
    probabilities: NDArray[np.float64]
    """The model's distribution of the next token."""


class NgramLogitsProcessor:
    """Blends a memory into the scores of every sequence of a batch; returns log-probabilities.

    Each sequence has its own memory, which begins as a copy of `memory` and observes its prompt, then every generated
    token. In beam search a memory follows its beam, and is copied when the beam splits. `generate` applies temperature,
    top-k and top-p afterwards, to the blend. Tokens that an earlier processor forbade (a score of minus infinity) stay
    forbidden, and the other tokens share their probability.

    It does not support assisted generation, which asks for several tokens of one sequence at once and takes some back.
    Scores that do not continue the previous step begin a new generation.
    """

    def __init__(self, memory: NgramMemory | None = None, *, pad_token_id: int | None = None) -> None:
        """`memory` (default: an empty one) is not changed; `pad_token_id` is skipped at the start of a prompt."""
        self._memory = NgramMemory() if memory is None else memory
        self._pad = pad_token_id
        self._rows: list[_Row] = []

    def __call__(self, input_ids: "Tensor", scores: "Tensor") -> "Tensor":
        """Log-probabilities (B, V) like `scores`, for sequences (B, T); raises `InputError` for NaN."""
        import torch

        sequences: NDArray[np.int64] = input_ids.cpu().numpy()
        probabilities: NDArray[np.float64] = torch.softmax(scores.double(), dim=-1).cpu().numpy()
        if np.isnan(probabilities).any():
            raise InputError("the model's scores are NaN, or all minus infinity: there is nothing to blend with")
        memories = self._advanced(sequences)
        self._rows = [_Row(*row) for row in zip(sequences, memories, probabilities, strict=True)]
        blended = MemoryBatch(memories).distribution(probabilities)
        blended[torch.isneginf(scores).cpu().numpy()] = 0.0
        blended /= blended.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):  # the logarithm of 0 is intended
            return torch.from_numpy(np.log(blended)).to(scores.device, scores.dtype)

    def _advanced(self, sequences: NDArray[np.int64]) -> list[NgramMemory]:
        """The memory of each sequence, advanced by its newest token."""
        parents = self._parents(sequences)
        if parents is None:
            return [self._begun(sequence) for sequence in sequences]
        # A parent with several children gives its memory to the last of them and copies of it to the others.
        uses = [parents.count(index) for index in range(len(self._rows))]
        memories = []
        for sequence, parent in zip(sequences, parents, strict=True):
            row = self._rows[parent]
            uses[parent] -= 1
            memory = row.memory.copy() if uses[parent] else row.memory
            memory.observe(sequence[-1:], row.probabilities[None])
            memories.append(memory)
        return memories

    def _parents(self, sequences: NDArray[np.int64]) -> list[int] | None:
        """The row of the previous step that each sequence continues by one token; None if one continues none."""
        if len(sequences) != len(self._rows) or sequences.shape[1] != len(self._rows[0].tokens) + 1:
            return None
        before = {row.tokens.tobytes(): index for index, row in reversed(list(enumerate(self._rows)))}
        parents = []
        for index, sequence in enumerate(sequences):
            known = np.ascontiguousarray(sequence[:-1])
            parent = index if np.array_equal(known, self._rows[index].tokens) else before.get(known.tobytes())
            if parent is None:
                return None
            parents.append(parent)
        return parents

    def _begun(self, sequence: NDArray[np.int64]) -> NgramMemory:
        """The memory of a prompt."""
        memory = self._memory.copy()
        start = 0
        while self._pad is not None and start < len(sequence) and sequence[start] == self._pad:
            start += 1
        memory.observe(sequence[start:])
        return memory
