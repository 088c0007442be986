"""The neural source of logits that any model computed earlier (`--logits`)."""

import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ngram_eval.errors import InputError, refusing
from ngram_eval.files import Unchanged, open_input
from ngram_eval.models.source import Asked, Stats, all_rows
from ngram_eval.text.npy import NOT_NPY, npy_header
from ngram_eval.text.stream import Stream
from ngram_eval.text.windows import Windows


class SavedLogits:
    """Whole distributions that any model computed earlier: logits or log-probabilities, (positions, V)."""

    name = "logits"
    batch_windows = 64
    train_seq_len = 0
    gives_all = True

    def __init__(self, logits: NDArray[np.floating], path: Path | str, file: Unchanged | None = None) -> None:
        """`file`: what `logits` are mapped from."""
        self.logits, self.vocab_size, self._path, self._file = logits, logits.shape[1], path, file or Unchanged()
        self.settings: dict[str, str] = {}

    def _log_probs(self, windows: Windows) -> NDArray[np.float64]:
        self._file.check()  # the system kills who reads a mapping beyond the end of its file
        rows = np.concatenate([self.logits[first:stop] for first, stop in windows.spans()]).astype(np.float64)
        top = rows.max(axis=1, keepdims=True)
        if not np.isfinite(top).all():
            raise InputError(
                f"{self._path}: the row of position {windows.positions()[~np.isfinite(top[:, 0])][0]} holds NaN or "
                "infinity, or no finite number: compute the logits again"
            )
        log_probs: NDArray[np.float64] = rows - top - np.log(np.exp(rows - top).sum(axis=1, keepdims=True))
        return log_probs

    def stats(self, tokens: Stream, windows: Windows, whole: Asked | None = None) -> Stats:
        log_p = self._log_probs(windows)
        p = np.exp(log_p)
        entropy = -(p * np.maximum(log_p, -1e4)).sum(axis=1)  # 0, not NaN, where p is 0
        targets = np.concatenate([tokens[first + 1 : stop + 1] for first, stop in windows.spans()])
        rows = None if whole is None else p[whole]
        return Stats(p[np.arange(len(p)), targets], entropy.astype(np.float32), rows)

    def probabilities(self, tokens: Stream, windows: Windows) -> NDArray[np.float64]:
        return all_rows(self, tokens, windows)


def load_logits(path: Path, lengths: tuple[int, ...]) -> SavedLogits:
    """Map an .npy of logits or log-probabilities: float16, float32 or float64, (N - 1, V) for a stream of N tokens.

    `lengths` are the acceptable numbers of rows. Raises `InputError` for any other file.
    """
    with open_input(path, "check --logits") as file, refusing(path, *NOT_NPY):
        (shape, dtype), by_column = npy_header(file)
        start, size = file.tell(), os.fstat(file.fileno()).st_size
    if len(shape) != 2 or dtype.kind != "f" or shape[1] < 1 or shape[0] < 1:
        raise InputError(f"{path}: holds {dtype} of shape {shape}; give one array of floats, (positions, vocabulary)")
    if size != start + math.prod(shape) * dtype.itemsize:
        raise InputError(f"{path}: {size:,} bytes are not the {dtype} of shape {shape} of its header; write it again")
    mapped = Unchanged([path])
    logits = np.memmap(path, dtype, "r", offset=start, shape=shape, order="F" if by_column else "C")
    if len(logits) not in lengths:
        expected = " or ".join(f"{length:,}" for length in dict.fromkeys(lengths))
        raise InputError(
            f"{path}: {len(logits):,} rows, the data needs {expected} (one less than its tokens); "
            "these logits are of another stream"
        )
    return SavedLogits(logits, path, mapped)
