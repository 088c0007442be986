"""Legal test-time training: the model keeps learning from text after it has been scored (PR #890's history).

The stream is divided into chunks of 65,536 positions. A window that begins in chunk c is scored by the model adapted on
chunks 0 to c - 1, each once and in order. All their targets come before the window, so every position is scored by a
model that has only seen tokens before the window, and no position is scored again after the model was adapted on it.
The published code did the latter for its headline, and a variant adapted on the whole text before scoring it; no option
here does either.

The model of a window depends only on the tokens before it, not on batches, ranks or the order of calls; a rank that
begins later first adapts on everything before its stretch.
"""

import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ngram_eval.errors import InputError
from ngram_eval.extensions import to_device
from ngram_eval.models.side_by_side import one_thread
from ngram_eval.models.source import Asked, NeuralStats, Stats, all_rows
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_source import TransformerSource, choose_device, choose_dtype
from ngram_eval.text.stream import Stream, Tokens
from ngram_eval.text.windows import Windows

_TOKENS_A_STEP = 4 * 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class TttConfig:
    """How the model is adapted; the defaults are the published recipe, AdamW without weight decay."""

    chunk: int = 65_536
    """Positions of a chunk."""
    seq_len: int = 2048
    """Positions of a training sequence; divides `chunk`."""
    batch: int = 4
    """Sequences of a step."""
    lr: float = 1e-4
    """Learning rate."""
    blocks: int = 2
    """Number of last blocks that are adapted whole; in the others only scales, mixes and query gains are adapted."""

    def __post_init__(self) -> None:
        for name in ("chunk", "seq_len", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"test-time training's {name} is {getattr(self, name)}: give at least 1")
        if self.chunk % self.seq_len:
            raise InputError(
                f"test-time training's seq_len is {self.seq_len}: it must divide the chunk of {self.chunk}"
            )
        if not 0 < self.lr < float("inf"):
            raise InputError(f"test-time training's lr is {self.lr}: give a finite rate above 0")
        if self.blocks < 0:
            raise InputError(f"test-time training's blocks is {self.blocks}: give at least 0")


def adapted_parameters(model: Transformer, blocks: int) -> dict[str, nn.Parameter]:
    """The parameters to adapt, by name.

    These are the last `blocks` blocks; all vectors, scalars, mixes and skip weights of the other blocks and of the
    model itself; the tables of tokens, bigrams and values; and the bigram projection.
    """
    first = model.config.layers - blocks

    def chosen(name: str, parameter: nn.Parameter) -> bool:
        if name.startswith("blocks.") and int(name.split(".")[1]) >= first:
            return True
        return not name.endswith(".weight") or name == "bigram.proj.weight"

    return {name: parameter for name, parameter in model.named_parameters() if chosen(name, parameter)}


class AdaptingSource:
    """`ngram_eval.models.source.NeuralSource` of a model that is adapted during the evaluation."""

    name = "artifact"
    gives_all = True

    def __init__(
        self,
        model: Transformer,
        config: TttConfig,
        *,
        train_seq_len: int,
        batch_windows: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Take over the model and convert it to float32, since bfloat16 tables would round small steps away."""
        self._config, self._device, self._dtype = config, device, dtype
        self._model = model.float()
        self._source = TransformerSource(
            self._model, train_seq_len=train_seq_len, batch_windows=batch_windows, device=device, dtype=dtype
        )
        self.train_seq_len, self.batch_windows = train_seq_len, batch_windows
        self.vocab_size = self._source.vocab_size
        ttt = {f"ttt_{name}": str(value) for name, value in asdict(config).items()}
        self.settings = {**self._source.settings, "ttt": "legal", **ttt}
        self._adapted = adapted_parameters(self._model, config.blocks)
        self._initial = {name: parameter.detach().clone() for name, parameter in self._adapted.items()}
        self._tokens: Stream | None = None
        self._begin()

    def stats(self, tokens: Stream, windows: Windows, whole: Asked | None = None) -> NeuralStats:
        """As `NeuralSource.stats`; consecutive windows, batch after batch, are the fastest."""
        parts, at = list[NeuralStats](), 0
        for run in self._runs(tokens, windows):
            mine = () if whole is None else (whole[at : at + run.scored],)
            parts.append(self._source.stats(tokens, run, *mine))
            at += run.scored
        if len(parts) == 1:
            return parts[0]
        rows = [part.rows for part in parts if part.rows is not None]
        p_target, entropy = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("p_target", "entropy")
        )
        return Stats(p_target, entropy, np.concatenate(rows) if rows else None)

    def probabilities(self, tokens: Stream, windows: Windows) -> NDArray[np.float64]:
        """As `NeuralSource.probabilities`."""
        return all_rows(self, tokens, windows)

    def _runs(self, tokens: Stream, windows: Windows) -> Iterator[Windows]:
        """The windows in runs that begin in one chunk; the model is put in the state for each run before its yield."""
        chunks = windows.start // self._config.chunk
        bounds = [0, *(np.flatnonzero(np.diff(chunks)) + 1).tolist(), len(windows)]
        for first, stop in pairwise(bounds):
            self._prepare(tokens, int(chunks[first]))
            yield windows[first:stop]

    def _prepare(self, tokens: Stream, chunks: int) -> None:
        """Put the model in the state after adapting on the first `chunks` chunks of these tokens."""
        if tokens is not self._tokens:
            if any(self._digest(tokens, i) != digest for i, digest in enumerate(self._digests[:chunks])):
                self._begin()  # another text
            self._tokens = tokens
        if chunks == len(self._digests) - 1 and self._before is not None:
            self._step_back(*self._before)
        elif chunks < len(self._digests):
            self._begin()
        while len(self._digests) < chunks:
            self._adapt(tokens, len(self._digests))

    @torch.no_grad()
    def _begin(self) -> None:
        """Reset the model to its initial weights."""
        for name, parameter in self._adapted.items():
            parameter.copy_(self._initial[name])
        self._optimizer = torch.optim.AdamW(self._adapted.values(), lr=self._config.lr, weight_decay=0.0)
        self._digests: list[bytes] = []
        self._before: tuple[dict[str, Tensor], dict[str, Any]] | None = None

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        weights = {name: parameter.detach().clone() for name, parameter in self._adapted.items()}
        return weights, deepcopy(self._optimizer.state_dict())

    @torch.no_grad()
    def _step_back(self, weights: dict[str, Tensor], optimizer: dict[str, Any]) -> None:
        """Undo the last chunk: a batch may reach into the next chunk, and its earlier part may be needed again."""
        for name, parameter in self._adapted.items():
            parameter.copy_(weights[name])
        self._optimizer.load_state_dict(optimizer)
        self._digests.pop()
        self._before = None

    def _span(self, tokens: Stream, chunk: int) -> Tokens:
        """The tokens of a chunk and its last target."""
        size = self._config.chunk
        return tokens[chunk * size : (chunk + 1) * size + 1]

    def _digest(self, tokens: Stream, chunk: int) -> bytes:
        return hashlib.sha256(self._span(tokens, chunk).tobytes()).digest()

    def _adapt(self, tokens: Stream, chunk: int) -> None:
        """Adapt the model in one pass over a chunk that has been scored."""
        self._before = self._state()
        config = self._config
        span = self._span(tokens, chunk).astype(np.int64)
        starts = range(0, config.chunk, config.seq_len)
        rows = np.stack([span[start : start + config.seq_len + 1] for start in starts])
        # The caller may be in inference mode; tensors made in it could never be trained.
        threads = one_thread() if self._device.type == "cpu" else nullcontext()  # sums of gradients depend on them
        with threads, torch.inference_mode(False), torch.enable_grad():
            self._train(True)
            for first in range(0, len(rows), config.batch):
                sequences = to_device(rows[first : first + config.batch], self._device)
                loss = self._loss(sequences[:, :-1], sequences[:, 1:])
                loss.backward()
                self._optimizer.step()
                self._optimizer.zero_grad()
            self._train(False)
        self._digests.append(self._digest(tokens, chunk))

    def _train(self, on: bool) -> None:
        for parameter in self._adapted.values():
            parameter.requires_grad_(on and parameter.numel() > 0)

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        with nullcontext() if self._dtype == torch.float32 else torch.autocast(self._device.type, self._dtype):
            logits = self._model(inputs)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def load_adapting_source(path: Path, *, device: str, local_rank: int, dtype: str, batch_windows: int) -> AdaptingSource:
    """The adapting source of an artifact; raises `InputError`.

    Sequences are as long as in training, and a step has as many tokens as published.
    """
    from ngram_eval.models import artifact  # as in `transformer_source`

    model, train_seq_len = artifact.load(path)
    chosen = choose_device(device, local_rank)
    length = train_seq_len or 2048
    config = TttConfig(seq_len=length, batch=max(1, _TOKENS_A_STEP // length))
    return AdaptingSource(
        model,
        config,
        train_seq_len=train_seq_len,
        batch_windows=batch_windows,
        device=chosen,
        dtype=choose_dtype(dtype, chosen),
    )
