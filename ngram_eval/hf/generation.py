"""An n-gram memory on `transformers.generate`: each step's distribution is the blend, normalised."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LogitsProcessor

from ngram_eval.errors import InputError
from ngram_eval.memory import NgramMemory


class _Row(NamedTuple):
    """One sequence of the batch after a step."""

    tokens: NDArray[np.int64]
    memory: NgramMemory
    probabilities: NDArray[np.float64]
    """The model's distribution of its next token."""


class NgramLogitsProcessor(LogitsProcessor):
    """Blends a memory into the scores of every sequence of a batch; what comes out are log-probabilities.

    Each sequence has a memory of its own, which begins as a copy of `memory` and observes its prompt, then every token
    generated. In beam search a memory goes where its beam goes: a beam that splits in two has it copied. `generate`
    applies temperature, top-k and top-p after it, to the blend. Tokens that a processor before it forbade (a score of
    minus infinity) stay forbidden, and the others share their probability.

    Not for assisted generation, which asks for several tokens of one sequence at once and takes some back; scores that
    do not continue a step before begin a new generation.
    """

    def __init__(self, memory: NgramMemory | None = None, *, pad_token_id: int | None = None) -> None:
        """`memory` (default: an empty one) is not changed; `pad_token_id` is left out where a prompt begins with it."""
        self._memory = NgramMemory() if memory is None else memory
        self._pad = pad_token_id
        self._rows: list[_Row] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) log-probabilities like `scores`, for sequences (B, T); raises `InputError` for NaN."""
        sequences: NDArray[np.int64] = input_ids.cpu().numpy()
        probabilities: NDArray[np.float64] = torch.softmax(scores.double(), dim=-1).cpu().numpy()
        if np.isnan(probabilities).any():
            raise InputError("the model's scores are NaN, or all minus infinity: there is nothing to blend with")
        memories = self._advanced(sequences)
        self._rows = [_Row(*row) for row in zip(sequences, memories, probabilities, strict=True)]
        blended = np.array([row.memory.distribution(row.probabilities) for row in self._rows])
        blended[torch.isneginf(scores).cpu().numpy()] = 0.0
        blended /= blended.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):  # the logarithm of 0 is meant
            return torch.from_numpy(np.log(blended)).to(scores.device, scores.dtype)

    def _advanced(self, sequences: NDArray[np.int64]) -> list[NgramMemory]:
        """The memory of each sequence."""
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
        """Which row of the step before each sequence continues by one token; None where some continues none."""
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
