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
        """The whole distributions of the positions that were asked for, in order, (asked, V); None if none was."""

    @property
    def branches(self) -> NDArray[np.float64] | None:
        """What a `Tree`'s paths need of the distributions, (positions, D), if they were asked for; else None."""

    def part(self, entries: slice) -> "NeuralStats":
        """The statistics of some of the positions, with their `rows` if those of every position are here."""


class Stats(NamedTuple):
    """`NeuralStats` in this process's memory."""

    p_target: NDArray[np.float64]
    entropy: NDArray[np.float32]
    rows: NDArray[np.float64] | None = None
    branches: NDArray[np.float64] | None = None

    def part(self, entries: slice) -> "Stats":
        """As `NeuralStats.part`."""
        rows = None if self.rows is None or len(self.rows) < len(self.p_target) else self.rows[entries]
        branches = None if self.branches is None else self.branches[entries]
        return Stats(self.p_target[entries], self.entropy[entries], rows, branches)


def nan_statistics(position: int) -> InputError:
    """The error for a model whose statistics at `position` are NaN or not a probability."""
    return InputError(
        f"the model's statistics at position {position} are NaN or not a probability, so nothing can be charged: its "
        "logits hold NaN or infinity there; check the artifact, or try --dtype float32"
    )


Asked = NDArray[np.bool_]
"""(positions,), true where something is wanted."""


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

    def stats(self, tokens: Stream, windows: Windows, whole: Asked | None = None) -> NeuralStats:
        """Statistics of the scored positions of `windows`, all of one shape (see `windows.Grid`).

        `whole` says, of each of these positions, whether its whole distribution is wanted in `rows`. It is given only
        where `gives_all` is true and some are wanted. In a row the target's entry equals `p_target`, bit for bit if the
        statistics are on the host.
        """

    def probabilities(self, tokens: Stream, windows: Windows) -> NDArray[np.float64]:
        """The whole distributions at the scored positions of `windows`, (positions, V).

        The target's entry equals `p_target` of `stats` on the host, bit for bit on one machine. Raises `InputError`
        unless `gives_all`.
        """


@runtime_checkable
class PathSource(Protocol):
    """A source that makes branches where its logits are, without whole distributions on the host."""

    def path_stats(self, tokens: Stream, windows: Windows, whole: Asked | None, tree: Tree) -> NeuralStats:
        """As `NeuralSource.stats`, with `branches`."""


def with_branches(
    source: NeuralSource, tokens: Stream, windows: Windows, whole: Asked | None, tree: Tree
) -> NeuralStats:
    """The source's statistics with `branches`, and with the rows that `whole` asks for."""
    if isinstance(source, PathSource):
        return source.path_stats(tokens, windows, whole, tree)
    stats = statistics(source, tokens, windows, rows=True)
    assert stats.rows is not None, "they were asked for"
    branches = tree.branches(stats.rows, windows.targets(tokens))
    return Stats(stats.p_target, stats.entropy, None if whole is None else stats.rows[whole], branches)


def statistics(source: NeuralSource, tokens: Stream, windows: Windows, *, rows: bool) -> NeuralStats:
    """The source's statistics, with the whole distributions of all positions if `rows` is true."""
    return source.stats(tokens, windows, np.ones(windows.scored, np.bool_)) if rows else source.stats(tokens, windows)


def all_rows(source: NeuralSource, tokens: Stream, windows: Windows) -> NDArray[np.float64]:
    """`NeuralSource.probabilities` of a source whose `stats` gives rows."""
    rows = statistics(source, tokens, windows, rows=True).rows
    assert rows is not None, "they were asked for"
    return rows


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

    def stats(self, tokens: Stream, windows: Windows, whole: Asked | None = None) -> Stats:
        scored, size = windows.scored, self.vocab_size
        entropy = np.full(scored, math.log(size), np.float32)
        rows = None if whole is None else np.broadcast_to(np.full(size, 1 / size), (int(whole.sum()), size))
        return Stats(np.full(scored, 1 / size), entropy, rows)

    def probabilities(self, tokens: Stream, windows: Windows) -> NDArray[np.float64]:
        return all_rows(self, tokens, windows)
