"""Neural sources of statistics that were computed earlier, by any model (`--scores`) or for an earlier preset."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from ngram_eval.config import WindowConfig
from ngram_eval.distributed.ranks import Ranks
from ngram_eval.errors import InputError
from ngram_eval.files import replacing
from ngram_eval.models.branches import Tree
from ngram_eval.models.saved_arrays import Floats, open_arrays
from ngram_eval.models.source import _LIGHT_BATCH, Asked, NeuralSource, NeuralStats, Stats, with_branches
from ngram_eval.text.npy import Header
from ngram_eval.text.stream import Stream
from ngram_eval.text.windows import Windows, batches, plan_windows

_CHECKED_AT_ONCE = 1 << 20


class SavedScores:
    """Statistics that any model computed earlier, indexed by position."""

    name = "scores"
    batch_windows = _LIGHT_BATCH
    gives_all = False
    vocab_size = 0

    def __init__(self, p_target: Floats, entropy: Floats, train_seq_len: int = 0) -> None:
        self.p_target, self.entropy, self.train_seq_len = p_target, entropy, train_seq_len
        self.settings: dict[str, str] = {}

    def stats(self, tokens: Stream, windows: Windows, whole: Asked | None = None) -> Stats:
        if whole is not None:
            self.probabilities(tokens, windows)
        spans = windows.spans()
        p_target = np.concatenate([self.p_target[first:stop] for first, stop in spans], dtype=np.float64)
        return Stats(p_target, np.concatenate([self.entropy[first:stop] for first, stop in spans], dtype=np.float32))

    def probabilities(self, tokens: Stream, windows: Windows) -> NoReturn:
        raise InputError(
            "--scores holds only the probability of each target, and the whole distribution is needed: "
            "give --artifact, --logits or --uniform"
        )


def load_scores(path: Path, lengths: tuple[int, ...], part: tuple[int, int] = (0, 1)) -> SavedScores:
    """The source of `p_target` and `entropy` (float32 or float64) in an .npz or .safetensors file.

    `lengths` are the acceptable lengths (N - 1 for N tokens). Raises `InputError` for any other file. With `part`
    (rank, world), only that rank's share of the values is checked.
    """
    arrays = open_arrays(path, "--scores")
    for name in ("p_target", "entropy"):
        if name not in arrays.headers:
            raise InputError(f"{path}: no array {name}; it needs p_target and entropy")
        shape, dtype = arrays.headers[name]
        if len(shape) != 1 or dtype not in (np.float32, np.float64):
            raise InputError(f"{path}: {name} is {dtype} of shape {shape}; give one dimension of float32 or float64")
        if shape[0] not in lengths:
            expected = " or ".join(f"{length:,}" for length in dict.fromkeys(lengths))
            raise InputError(
                f"{path}: {name} has {shape[0]:,} entries, the data needs {expected} "
                "(one less than its tokens); these scores are of another stream"
            )
    shape, dtype = arrays.headers.get("train_seq_len", Header((), np.dtype(np.int64)))
    if shape != () or dtype.kind != "i":
        raise InputError(f"{path}: train_seq_len is {dtype} of shape {shape}; give one integer, or leave it out")
    p_target, entropy = arrays.floats("p_target"), arrays.floats("entropy")
    _check_range(path, "p_target", p_target, 0.0, 1.0, part)
    _check_range(path, "entropy", entropy, -1e-3, 100.0, part)  # softmax rounding leaves tiny negatives
    train_seq_len = int(arrays.read("train_seq_len")) if "train_seq_len" in arrays.headers else 0
    return SavedScores(p_target, entropy, train_seq_len)


def _check_range(path: Path, name: str, values: Floats, low: float, high: float, part: tuple[int, int]) -> None:
    rank, world = part
    stop = len(values) * (rank + 1) // world
    for start in range(len(values) * rank // world, stop, _CHECKED_AT_ONCE):
        chunk = values[start : min(start + _CHECKED_AT_ONCE, stop)]
        bad = np.flatnonzero(~((chunk >= low) & (chunk <= high)))  # NaN compares false, so it is found too
        if len(bad):
            raise InputError(
                f"{path}: {name}[{start + bad[0]}] is {chunk[bad[0]]}, outside [{low:g}, {high:g}]; "
                "compute the scores again"
            )


_EXCHANGED_AT_ONCE = 1 << 20


class RememberingSource:
    """A source that keeps statistics by position, for the next preset and for `--save-scores`.

    Several windows with different contexts may score a position. The statistics of the first window are kept; those of
    other windows, and of windows of another length, are computed and not kept. A batch is answered from memory only if
    all of it is kept: a forward of a part of it might round differently. Whole distributions are kept
    at `samples`, whether or not they are wanted yet; a batch of which others are wanted is computed.
    """

    def __init__(self, source: NeuralSource, positions: int, seq_len: int, samples: Iterable[int] = ()) -> None:
        self._source, self._seq_len, self._samples = source, seq_len, np.array(sorted(samples))
        self.name, self.batch_windows, self.train_seq_len = source.name, source.batch_windows, source.train_seq_len
        self.settings, self.gives_all, self.vocab_size = source.settings, source.gives_all, source.vocab_size
        self.p_target = np.full(positions, np.nan)
        self.entropy = np.full(positions, np.nan, np.float32)
        self._window_start = np.full(positions, -1, np.int64)
        self._rows: dict[int, NDArray[np.float64]] = {}
        """Sampled position -> the whole distribution there, (V,)."""
        self.reused = 0
        """Positions answered from memory so far."""

    @property
    def original(self) -> NeuralSource:
        """The source, which may be asked about other tokens."""
        return self._source

    def stats(self, tokens: Stream, windows: Windows, whole: Asked | None = None) -> NeuralStats:
        if windows.seq_len != self._seq_len:
            return self._source.stats(tokens, windows, *(() if whole is None else (whole,)))
        positions = windows.positions()
        wanted = [] if whole is None else positions[whole].tolist()
        start = np.repeat(windows.start, windows.stop - windows.first)
        if (self._window_start[positions] == start).all() and self._rows.keys() >= set(wanted):
            self.reused += len(positions)
            rows = np.stack([self._rows[position] for position in wanted]) if wanted else None
            return Stats(self.p_target[positions], self.entropy[positions], rows)
        given = self._given(positions, whole)
        found = self._source.stats(tokens, windows, *((given,) if given.any() else ()))
        return self._keep(windows, whole, given, found)

    def path_stats(self, tokens: Stream, windows: Windows, whole: Asked | None, tree: Tree) -> NeuralStats:
        if windows.seq_len != self._seq_len:
            return with_branches(self._source, tokens, windows, whole, tree)
        given = self._given(windows.positions(), whole)
        found = with_branches(self._source, tokens, windows, given if given.any() else None, tree)
        return self._keep(windows, whole, given, found)

    def _given(self, positions: NDArray[np.int64], whole: Asked | None) -> Asked:
        """The positions whose whole distributions are asked of the source: those wanted, and the samples."""
        sampled = np.isin(positions, self._samples)
        return sampled if whole is None else sampled | whole

    def _keep(self, windows: Windows, whole: Asked | None, given: Asked, found: NeuralStats) -> NeuralStats:
        positions = windows.positions()
        unseen = self._window_start[positions] < 0
        keep = positions[unseen]
        self._window_start[keep] = np.repeat(windows.start, windows.stop - windows.first)[unseen]
        self.p_target[keep], self.entropy[keep] = found.p_target[unseen], found.entropy[unseen]
        if found.rows is None:
            return found
        kept = np.isin(positions, self._samples)
        self._rows |= {
            position: row.copy()
            for position, row in zip(positions[kept].tolist(), found.rows[kept[given]], strict=True)
        }
        rows = None if whole is None else found.rows[whole[given]]
        return Stats(found.p_target, found.entropy, rows, found.branches)

    def probabilities(self, tokens: Stream, windows: Windows) -> NDArray[np.float64]:
        return self._source.probabilities(tokens, windows)

    def save_all(self, path: Path, tokens: Stream, config: WindowConfig) -> None:
        """Write the statistics of all N - 1 positions; computes those after the cut, which no preset scores."""
        unknown = np.isnan(self.p_target)
        cut = int(unknown.argmax()) if unknown.any() else len(unknown)
        windows = plan_windows(len(unknown), replace(config, rescore_tail=False))
        after = windows[windows.stop > cut]
        for batch in batches(replace(after, first=np.maximum(after.first, cut)), self.batch_windows):
            self.stats(tokens, batch)
        save_scores(path, self.p_target, self.entropy, self.train_seq_len)

    def exchange(self, ranks: Ranks) -> None:
        """Give every rank the statistics of all ranks; the first window of a position is kept, as on one rank.

        Each rank sends and receives about 40 bytes per position, and the whole distributions at samples.
        """
        if ranks.world == 1:
            return
        for rows in ranks.gather(self._rows):
            self._rows |= rows
        unknown = np.iinfo(np.int64).max
        for low in range(0, len(self.p_target), _EXCHANGED_AT_ONCE):
            part = slice(low, low + _EXCHANGED_AT_ONCE)
            start, p_target, entropy = self._window_start[part], self.p_target[part], self.entropy[part]
            # One rank wins each position; the others add zeros to its bits.
            bid = np.where(start < 0, unknown, start * ranks.world + ranks.rank)
            winner = bid.copy()
            ranks.all_reduce(winner, "min")
            won = (bid == winner) & (start >= 0)
            p_bits, entropy_bits = np.where(won, p_target.view(np.int64), 0), np.where(won, entropy.view(np.int32), 0)
            ranks.all_reduce(p_bits, "sum")
            ranks.all_reduce(entropy_bits, "sum")
            known = winner < unknown
            p_target[known], entropy[known] = p_bits.view(np.float64)[known], entropy_bits.view(np.float32)[known]
            start[known] = winner[known] // ranks.world


def save_scores(path: Path, p_target: NDArray[np.float64], entropy: NDArray[np.float32], train_seq_len: int) -> None:
    """Write a file for `load_scores`, atomically: safetensors if the name ends in .safetensors, else .npz."""
    arrays: dict[str, NDArray[Any]] = {"p_target": p_target, "entropy": entropy}
    arrays["train_seq_len"] = np.array(train_seq_len, np.int64)
    with replacing(path) as file:
        if path.suffix == ".safetensors":
            file.write(save(arrays))
        else:
            np.savez(file, allow_pickle=False, **arrays)
