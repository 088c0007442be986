"""Neural sources: a language model's statistics of each target, for any model.

`ngram_eval.models.transformer_source` holds the source that runs a model; the sources here need no torch.
"""

import math
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ngram_eval.errors import InputError
from ngram_eval.models.branches import Tree
from ngram_eval.text.stream import Stream
from ngram_eval.text.windows import Windows


class NeuralStats(Protocol):
    """Neural statistics of scored positions, window after window, on the host or on a device."""

    @property
    def p_target(self) -> NDArray[np.float64]:
        """Probability of the target, (positions,)."""

    @property
    def entropy(self) -> NDArray[np.float32]:
        """Entropy of the distribution in nats, (positions,)."""

    @property
    def rows(self) -> NDArray[np.float64] | None:
        """The whole distributions, (positions, V), for scorers that need them (`EvalConfig.needs_rows`); else None."""

    @property
    def branches(self) -> NDArray[np.float64] | None:
        """What a `Tree`'s paths need of the distributions, (positions, D), for scorers with a tree; else None."""

    def part(self, entries: slice) -> "NeuralStats":
        """The statistics of some of the positions."""


class Stats(NamedTuple):
    """`NeuralStats` in this process's memory."""

    p_target: NDArray[np.float64]
    entropy: NDArray[np.float32]
    rows: NDArray[np.float64] | None = None
    branches: NDArray[np.float64] | None = None

    def part(self, entries: slice) -> "Stats":
        """The statistics of some of the positions."""
        rows = None if self.rows is None else self.rows[entries]
        branches = None if self.branches is None else self.branches[entries]
        return Stats(self.p_target[entries], self.entropy[entries], rows, branches)


def nan_statistics(position: int) -> InputError:
    """The error for a model whose statistics at `position` are NaN or not a probability."""
    return InputError(
        f"the model's statistics at position {position} are NaN or not a probability, so nothing can be charged: its "
        "logits hold NaN or infinity there; check the artifact, or try --dtype float32"
    )


class NeuralSource(Protocol):
    """A source of neural statistics."""

    name: str
    """Name of the source in the result."""
    batch_windows: int
    """Windows of one call."""
    train_seq_len: int
    """Sequence length the model was trained on, 0 if unknown; the stream is cut to a multiple of it."""
    settings: dict[str, str]
    """Further settings for the result, such as device and precision."""
    gives_all: bool
    """Whether it gives whole distributions, not just the target's probability."""
    vocab_size: int
    """V of the distributions, 0 unless `gives_all`."""

    def stats(self, tokens: Stream, windows: Windows) -> NeuralStats:
        """Statistics of the scored positions of `windows`, all of one shape (see `windows.Grid`); without `rows`."""

    def probabilities(self, tokens: Stream, windows: Windows) -> NDArray[np.float64]:
        """The whole distributions at the scored positions of `windows`, (positions, V).

        The target's entry equals `p_target` of `stats` on the host, bit for bit on one machine. Raises `InputError`
        unless `gives_all`.
        """


@runtime_checkable
class PathSource(Protocol):
    """A source that makes branches without whole distributions on the host."""

    def path_stats(self, tokens: Stream, windows: Windows, tree: Tree) -> NeuralStats:
        """`NeuralSource.stats` with `branches`."""


def statistics(
    source: NeuralSource, tokens: Stream, windows: Windows, *, rows: bool, tree: Tree | None = None
) -> NeuralStats:
    """The source's statistics, with the whole distributions if `rows` is true, with branches if there is a tree."""
    if tree is not None and isinstance(source, PathSource):
        return source.path_stats(tokens, windows, tree)
    stats = source.stats(tokens, windows)
    if not rows and tree is None:
        return stats
    whole = source.probabilities(tokens, windows)
    branches = None if tree is None else tree.branches(whole, windows.targets(tokens))
    return Stats(stats.p_target, stats.entropy, whole if rows else None, branches)


_LIGHT_BATCH = 1 << 15


class UniformSource:
    """1 / V for every token: the n-gram memory alone."""

    name = "uniform"
    batch_windows = _LIGHT_BATCH
    train_seq_len = 0
    gives_all = True

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.settings: dict[str, str] = {}

    def stats(self, tokens: Stream, windows: Windows) -> Stats:
        scored = windows.scored
        entropy = np.full(scored, math.log(self.vocab_size), np.float32)
        return Stats(np.full(scored, 1 / self.vocab_size), entropy)

    def probabilities(self, tokens: Stream, windows: Windows) -> NDArray[np.float64]:
        row = np.full(self.vocab_size, 1 / self.vocab_size)
        return np.broadcast_to(row, (windows.scored, self.vocab_size))
