"""Training sequences from token shards: streamed, each once an epoch, and the same for any number of ranks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ngram_eval.counts import Tokens
from ngram_eval.errors import InputError
from ngram_eval.tokens import check_vocabulary, read_shards


class Corpus:
    """Token arrays end to end. Shards are mapped, and read only where a batch asks."""

    def __init__(self, parts: Sequence[Tokens], vocab_size: int) -> None:
        """Raises `InputError` for a token outside the vocabulary, in the first part now, in others when first read."""
        self._parts, self._vocab_size = list(parts), vocab_size
        self._bounds = np.cumsum([0, *map(len, self._parts)])
        self._checked: set[int] = set()
        if self._parts:
            self._part(0)

    @classmethod
    def of_shards(cls, patterns: Sequence[str], vocab_size: int) -> "Corpus":
        """The stream of the shards that `patterns` name (see `read_shards`), in sorted order."""
        paths = read_shards(patterns, max_tokens=1).paths  # every header is checked here, and no token kept
        return cls([read_shards([str(path)]).tokens for path in paths], vocab_size)

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def _part(self, i: int) -> Tokens:
        if i not in self._checked:
            check_vocabulary(self._parts[i], self._vocab_size, "--vocab-size")
            self._checked.add(i)
        return self._parts[i]

    def read(self, start: int, stop: int) -> NDArray[np.int64]:
        """Tokens [start, stop), which may lie in several parts."""
        first = int(np.searchsorted(self._bounds, start, side="right")) - 1
        pieces = []
        for i in range(first, len(self._parts)):
            begin = int(self._bounds[i])
            if begin >= stop:
                break
            pieces.append(self._part(i)[max(start - begin, 0) : stop - begin].astype(np.int64))
        return np.concatenate(pieces)


class Batches:
    """Batch n of a run, for any n: what has been read is told by one number, so a run resumes where it stopped.

    An epoch visits every sequence once; what is left of it after the last full batch is dropped. In stream order
    (PR #890) sequence i of every epoch begins at i * seq_len. Shuffled, each epoch cuts the stream at a new offset and
    visits its sequences in a new order.
    """

    def __init__(self, stream: Corpus, *, seq_len: int, batch: int, shuffle: bool, seed: int) -> None:
        self._stream, self._seq_len, self._batch = stream, seq_len, batch
        self._shuffle, self._seed = shuffle, seed
        slack = seq_len - 1 if shuffle else 0
        self._sequences = max(0, len(stream) - 1 - slack) // seq_len
        self.per_epoch = self._sequences // batch
        """Batches of an epoch."""
        if not self.per_epoch:
            raise InputError(
                f"{len(stream)} training tokens: a batch of {batch} sequences of {seq_len} needs "
                f"{seq_len * batch + slack + 1}; give more text, or a smaller --batch or --seq-len"
            )
        self._epoch = -1
        self._starts: NDArray[np.int64] = np.zeros(0, np.int64)

    def rows(self, n: int, rows: slice) -> NDArray[np.int64]:
        """Some sequences of batch n, each with its last target: (sequences, seq_len + 1)."""
        epoch, i = divmod(n, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._starts = epoch, self._order(epoch)
        chosen = self._starts[i * self._batch : (i + 1) * self._batch][rows]
        return np.stack([self._stream.read(start, start + self._seq_len + 1) for start in chosen.tolist()])

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """First positions of an epoch's sequences, in the order of their visit."""
        if not self._shuffle:
            return np.arange(self._sequences, dtype=np.int64) * self._seq_len
        rng = np.random.default_rng((self._seed, epoch))
        offset = int(rng.integers(self._seq_len))
        return rng.permutation(self._sequences) * self._seq_len + offset
