"""Training sequences from token shards: streamed, each once per epoch, the same for any number of ranks."""

import numpy as np
from numpy.typing import NDArray

from ngram_eval.errors import InputError
from ngram_eval.text.stream import Stream
from ngram_eval.text.tokenizer import check_vocabulary


class Batches:
    """Batch n of a run, for any n, so a run can resume from the number of its next batch alone.

    An epoch visits every sequence once; sequences after the last full batch are dropped. In stream order (PR #890),
    sequence i of every epoch begins at i * seq_len. Shuffled, each epoch cuts the stream at a new offset and visits its
    sequences in a new order.
    """

    def __init__(self, stream: Stream, *, vocab_size: int, seq_len: int, batch: int, shuffle: bool, seed: int) -> None:
        """Raises `InputError` for a stream that is too short; tokens are checked against the vocabulary when read."""
        self._stream, self._vocab_size, self._seq_len, self._batch = stream, vocab_size, seq_len, batch
        self._shuffle, self._seed = shuffle, seed
        slack = seq_len - 1 if shuffle else 0
        self._sequences = max(0, len(stream) - 1 - slack) // seq_len
        self.per_epoch = self._sequences // batch
        """Number of batches in an epoch."""
        if not self.per_epoch:
            raise InputError(
                f"{len(stream)} training tokens: a batch of {batch} sequences of {seq_len} needs "
                f"{seq_len * batch + slack + 1}; give more text, or a smaller --batch or --seq-len"
            )
        self._epoch = -1
        self._starts: NDArray[np.int64] = np.zeros(0, np.int64)

    def rows(self, n: int, rows: slice) -> NDArray[np.int64]:
        """The sequences `rows` of batch n, each with its last target, (sequences, seq_len + 1).

        Raises `InputError` for a token outside the vocabulary.
        """
        epoch, i = divmod(n, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._starts = epoch, self._order(epoch)
        chosen = self._starts[i * self._batch : (i + 1) * self._batch][rows]
        return np.stack([self._sequence(start) for start in chosen.tolist()])

    def _sequence(self, start: int) -> NDArray[np.int64]:
        tokens = self._stream[start : start + self._seq_len + 1]
        check_vocabulary(tokens, self._vocab_size, "--vocab-size", first=start)
        return tokens.astype(np.int64)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """First positions of an epoch's sequences, in the order in which they are visited."""
        if not self._shuffle:
            return np.arange(self._sequences, dtype=np.int64) * self._seq_len
        rng = np.random.default_rng((self._seed, epoch))
        offset = int(rng.integers(self._seq_len))
        return rng.permutation(self._sequences) * self._seq_len + offset
