"""The neural source that forwards each position once: chunks of the stream, with attention in a band.

A chunk of C scored positions is forwarded together with the L positions before it, the lead-in, and every position sees
the last L. Chunks lie on one grid of the stream, [0, L), [L, L + C), [L + C, L + 2 C) ..., and each is forwarded alone:
its bits depend on the stream, not on strides, batches, ranks or the order of calls.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ngram_eval.extensions import to_device
from ngram_eval.models.banded_attention import Band, BandKernel, band_kernel
from ngram_eval.models.branches import Tree
from ngram_eval.models.side_by_side import side_by_side
from ngram_eval.models.source import Asked, NeuralStats, Stats, nan_statistics
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.models.transformer_source import DeviceStats, TransformerSource
from ngram_eval.text.stream import Stream, Tokens
from ngram_eval.text.windows import Windows

_CHUNKS_AT_ONCE = 8
"""Chunks of a batch of windows at the default stride; on the CPU torch's threads share them."""
_DEFAULT_STRIDE = 32
_ROWS_AT_ONCE = 256
"""Rows of logits at once on the CPU. Their product may have other bits for another number of rows, so it is fixed."""
_KEPT_BYTES = 1 << 28
"""Memory of the hidden states that are kept for further questions, besides those of the last call."""
_CHUNK_BYTES = {"cpu": 1 << 30, "cuda": 1 << 33}
"""Memory that a chunk of the default size may take: on the CPU each thread has one."""
_LEAD_INS = 8
"""C / L by default: a scored position costs 9 / 8 forwards."""
_FEWEST = 1024
"""Smallest default C."""


def default_chunk(config: ModelConfig, length: int, device: torch.device) -> int:
    """C for windows of `length`: 8 times that, or what fits 1 GiB (on a GPU 8 GiB); it depends on nothing else."""
    floats = 4 * (12 + config.layers // 2) * config.width + 8 * config.mlp_hidden  # bytes of a position, about
    chunk = max(_LEAD_INS * length, _FEWEST)
    while chunk > _FEWEST and (chunk + length) * floats > _CHUNK_BYTES.get(device.type, 1 << 30):
        chunk //= 2
    return chunk


class _Job(NamedTuple):
    """A chunk to forward."""

    first: int
    """First scored position."""
    tokens: Tokens
    """The lead-in's, the scored positions', and the last target."""
    length: int
    """Positions that each sees."""


class _Chunk(NamedTuple):
    """What was computed of a chunk's scored positions."""

    job: _Job
    hidden: Tensor
    """Last hidden states, (scored, W)."""
    said: Tensor
    """Of every target the log-probability, float32, or with kernels the probability, float64, (scored,)."""
    entropy: Tensor
    """In nats, (scored,) float32."""


class BandedSource(TransformerSource):
    """`ngram_eval.models.source.NeuralSource` of a transformer that sees, at every position, the last `seq_len`.

    It keeps the hidden states of the newest chunks: whole distributions, and batches that end inside a chunk,
    cost no second forward. With `compiled`, chunks of C positions run through `torch.compile`, and those that the ends
    of the stream cut short do not.
    """

    def __init__(
        self,
        model: Transformer,
        *,
        chunk: int | None = None,
        sinks: int = 0,
        kernel: BandKernel | None = None,
        train_seq_len: int,
        batch_windows: int,
        device: torch.device,
        compiled: bool = False,
        **others: Any,
    ) -> None:
        """`others` as for `TransformerSource`; `default_chunk` and `band_kernel` say what is not given."""
        if chunk is None:
            chunk = default_chunk(model.config, train_seq_len, device)
        batch_windows = max(batch_windows, _CHUNKS_AT_ONCE * chunk // _DEFAULT_STRIDE)
        super().__init__(
            model, train_seq_len=train_seq_len, batch_windows=batch_windows, device=device, compiled=compiled, **others
        )
        self.chunk, self._sinks = chunk, sinks
        self._kernel = kernel or band_kernel(self.device, self.dtype, sinks, compiled=compiled)
        self.settings |= {
            "forward": "banded",
            "chunk": f"chunks of {chunk}",
            "sinks": f"{sinks or 'no'} sinks",
            "attention": "flex, blocks where a chunk is cut short" if self._kernel == "flex" else self._kernel,
        }
        if compiled:
            self.settings["compiled"] = "full chunks"
        self._kept: dict[int, _Chunk] = {}
        self._spare = _KEPT_BYTES // (4 * chunk * model.config.width)

    @torch.inference_mode()
    def stats(self, tokens: Stream, windows: Windows, whole: Asked | None = None) -> NeuralStats:
        """As `TransformerSource.stats`."""
        positions, at = windows.positions(), list(self._at(tokens, windows))
        found = [(chunk, to_device(rows, self.device)) for chunk, rows in at]
        said = torch.cat([chunk.said[rows] for chunk, rows in found])
        entropy = torch.cat([chunk.entropy[rows] for chunk, rows in found])
        asked = None if whole is None else self._whole(at, whole)
        if self._use_kernels:
            return DeviceStats(said, entropy, asked)
        if bool((bad := said.isnan() | entropy.isnan()).any()):
            raise nan_statistics(int(positions[bad.cpu().numpy()][0]))
        return Stats(np.exp(said.cpu().numpy().astype(np.float64)), entropy.cpu().numpy(), asked)

    def path_stats(self, tokens: Stream, windows: Windows, whole: Asked | None, tree: Tree) -> NeuralStats:
        """As `PathSource.path_stats`, of whole distributions."""
        stats = self.stats(tokens, windows, np.ones(windows.scored, np.bool_))
        assert stats.rows is not None, "they were asked for"
        branches = tree.branches(stats.rows, windows.targets(tokens))
        return Stats(stats.p_target, stats.entropy, None if whole is None else stats.rows[whole], branches)

    def _whole(self, at: list[tuple[_Chunk, NDArray[np.int64]]], whole: Asked) -> NDArray[np.float64]:
        """The whole distributions where `whole` asks for them, (asked, V), of positions `at` chunks and rows of these.

        Logits are computed again, of parts as large as before: they have the same bits.
        """
        bounds = np.cumsum([len(rows) for _, rows in at])[:-1]
        wanted = [(chunk, rows[one]) for (chunk, rows), one in zip(at, np.split(whole, bounds), strict=True)]
        asked = [
            (chunk.hidden[part], rows[mine] - part.start)
            for chunk, rows in wanted
            for part in self._parts(len(chunk.hidden))
            if (mine := (part.start <= rows) & (rows < part.stop)).any()
        ]

        def log_p(job: tuple[Tensor, NDArray[np.int64]]) -> Tensor:
            return torch.log_softmax(self._logits(job[0]), dim=-1)[to_device(job[1], self.device)]

        found = torch.cat(side_by_side(log_p, asked, self.device)).cpu().numpy()
        distributions: NDArray[np.float64] = np.exp(found.astype(np.float64))
        return distributions

    def _at(self, tokens: Stream, windows: Windows) -> Iterator[tuple[_Chunk, NDArray[np.int64]]]:
        """Each chunk of the windows' scored positions, and the rows of these in it, (positions,), ascending."""
        length, positions = windows.seq_len, windows.positions()
        index = np.where(positions < length, 0, (positions - length) // self.chunk + 1)
        chunks = self._computed(tokens, np.unique(index).tolist(), length)
        # A rescored tail repeats positions; runs that ascend keep the order.
        bounds = [0, *(np.flatnonzero((np.diff(index) != 0) | (np.diff(positions) <= 0)) + 1).tolist(), len(index)]
        for first, stop in pairwise(bounds):
            chunk = chunks[int(index[first])]
            yield chunk, positions[first:stop] - chunk.job.first

    def _computed(self, tokens: Stream, wanted: Iterable[int], length: int) -> dict[int, _Chunk]:
        """The chunks of these indices; those that are not kept are forwarded."""
        chunks, missing = dict[int, _Chunk](), dict[int, _Job]()
        for index in wanted:
            first = length + (index - 1) * self.chunk if index else 0
            stop = min(first + (self.chunk if index else length), len(tokens) - 1)
            job = _Job(first, tokens[max(first - length, 0) : stop + 1], length)
            known = self._kept.get(index)
            if known is not None and known.job.first == first and np.array_equal(known.job.tokens, job.tokens):
                chunks[index] = known
            else:
                missing[index] = job
        first_compiled = [] if self._has_compiled else [i for i, job in missing.items() if self._compiles(job)][:1]
        for indices in (first_compiled, [i for i in missing if i not in first_compiled]):  # one thread compiles
            if indices:
                done = side_by_side(self._run, [missing[i] for i in indices], self.device)
                chunks |= dict(zip(indices, done, strict=True))
        self._has_compiled |= bool(first_compiled)
        others = [(index, chunk) for index, chunk in self._kept.items() if index not in chunks]
        self._kept = dict(others[max(len(others) - self._spare, 0) :]) | chunks
        return chunks

    def _compiles(self, job: _Job) -> bool:
        return self._compiled is not None and len(job.tokens) - 1 == job.length + self.chunk

    def _run(self, job: _Job) -> _Chunk:
        """Forward a chunk."""
        job = job._replace(tokens=job.tokens.copy())  # kept, while the caller's may change
        sequence = to_device(job.tokens.astype(np.int64)[None], self.device)
        scored = sequence.size(1) - 1 - min(job.first, job.length)
        forward: Callable[..., Tensor] = self._model.hidden
        kernel: BandKernel = "blocks" if self._kernel == "flex" else self._kernel
        if self._compiled is not None and self._compiles(job):
            forward, kernel = self._compiled, self._kernel
        with self._autocast():
            hidden = forward(sequence[:, :-1], last=scored, band=Band(job.length, self._sinks, kernel))[0]
        targets, none = sequence[0, -scored:], torch.zeros(scored, dtype=torch.bool)  # `_whole` gives whole ones
        if self._use_kernels:
            stats = self._stats_on_device(hidden, targets, none)
            return _Chunk(job, hidden, stats.device_p_target, stats.device_entropy)
        log_p, entropy, _ = map(torch.cat, zip(*self._target_stats(hidden, targets, none), strict=True))
        return _Chunk(job, hidden, log_p, entropy)

    def _parts(self, rows: int) -> Iterator[slice]:
        if self.device.type != "cpu":
            return super()._parts(rows)
        return (slice(row, min(row + _ROWS_AT_ONCE, rows)) for row in range(0, rows, _ROWS_AT_ONCE))
