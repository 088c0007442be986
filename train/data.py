"""Training sequences from a token stream."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ngram_eval.counts import Tokens
from ngram_eval.errors import InputError


def batches(tokens: Tokens, seq_len: int, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (inputs, targets), each (batch, seq_len) int64.

    Each epoch cuts the stream at a new random offset and visits every sequence once, in a new order; what is left of
    an epoch after the last full batch is dropped.
    """
    if len(tokens) < seq_len * (batch + 1) + 1:
        raise InputError(
            f"{len(tokens)} training tokens: a batch of {batch} sequences of {seq_len} needs "
            f"{seq_len * (batch + 1) + 1}; give more text, or a smaller --batch or --seq-len"
        )
    rng = np.random.default_rng(seed)
    while True:
        offset = int(rng.integers(seq_len))
        starts = rng.permutation((len(tokens) - 1 - offset) // seq_len) * seq_len + offset
        for i in range(0, len(starts) - batch + 1, batch):
            rows = np.stack([tokens[s : s + seq_len + 1] for s in starts[i : i + batch]]).astype(np.int64)
            sequences = torch.from_numpy(rows)
            yield sequences[:, :-1], sequences[:, 1:]
