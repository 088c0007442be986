"""The neural base: a transformer that gets one token after another.

Writer and reader run the same forwards: with windows, first the known tokens of a window together, then each new token
alone, with kept keys and values (`cache.Cache`); banded, each token alone and once, with those of the last `seq_len`
(`cache.Ring`). No forward holds a token that the reader does not know yet, or another number of tokens than the
reader's, so results do not depend on how kernels treat padding. It runs on the CPU in float32 on one thread: the same
build of torch on the same kind of processor gives the same bits. `probe` checks this.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ngram_eval.codec.base import UniformBase
from ngram_eval.codec.method import Forward
from ngram_eval.config import WindowConfig
from ngram_eval.models import artifact
from ngram_eval.models.banded_attention import Band
from ngram_eval.models.cache import Cache, Ring
from ngram_eval.models.source import nan_statistics
from ngram_eval.models.transformer import Transformer
from ngram_eval.text.stream import Tokens

_PROBE_STRIDES = 2


class SteppedModel:
    """`ngram_eval.codec.base.Base` of a transformer, over the windows of `ngram_eval.text.windows.plan_windows`.

    One difference: a last window with fewer than `stride` positions is not moved back to see more context, since a
    reader does not know that it is the last. Banded, every position sees the last `seq_len`, as in one chunk of
    `ngram_eval.models.banded_source` over the whole text. The first token gets 1 / V: there is nothing to run the model
    on.
    """

    def __init__(self, model: Transformer, window: WindowConfig, forward: Forward = "windows") -> None:
        self._model, self._window, self._forward = model, window, forward
        self.vocab_size = model.config.vocab_size
        self._known: list[int] = []
        banded = forward == "banded"
        self._cache = Ring(model.config, Band(window.seq_len)) if banded else Cache(model.config, window.seq_len)

    def next(self) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        if not self._known:
            return UniformBase(self.vocab_size).next()
        with torch.inference_mode():
            hidden = self._model.hidden(self._fresh(), last=1, length=self._window.seq_len, cache=self._cache)
            log_p = torch.log_softmax(self._model.logits(hidden[0]), dim=-1)  # (1, V)
            entropy: NDArray[np.float32] = torch.special.entr(log_p.exp()).sum(dim=-1).numpy()
            row: NDArray[np.float64] = log_p.double().exp().numpy()
        if np.isnan(row).any():
            raise nan_statistics(len(self._known) - 1)
        return row, entropy

    def _fresh(self) -> torch.Tensor:
        """The tokens that the cache lacks, (1, T): the newest, or the whole content of a window that starts here."""
        newest, length, stride = len(self._known) - 1, self._window.seq_len, self._window.stride
        if self._forward == "windows" and newest >= length and (newest - length) % stride == 0:
            self._cache = Cache(self._model.config, length)
            return torch.tensor([self._known[newest + stride - length :]])
        return torch.tensor([self._known[-1:]])

    def push(self, token: int) -> None:
        self._known.append(token)

    def rows(self, tokens: Tokens) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        rows, entropies = np.empty((len(tokens), self.vocab_size)), np.empty(len(tokens), np.float32)
        for i, token in enumerate(tokens.tolist()):
            rows[i : i + 1], entropies[i : i + 1] = self.next()
            self.push(token)
        return rows, entropies


def load_model(path: Path) -> Transformer:
    """The model of an artifact. Every tensor gets its own memory: matrix products may depend on alignment."""
    model, _ = artifact.load(path)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def probe(model: Transformer, window: WindowConfig, forward: Forward = "windows") -> bytes:
    """8 bytes of a digest of the model's output on a fixed text: equal if the arithmetic is equal."""
    base = SteppedModel(model, window, forward)
    steps = window.seq_len + _PROBE_STRIDES * window.stride + 1
    tokens = np.arange(1, steps + 1, dtype=np.uint64) ** 2 * 2654435761 >> 7
    digest = hashlib.sha256()
    for token in (tokens % base.vocab_size).tolist():
        row, entropy = base.next()
        digest.update(row.tobytes() + entropy.tobytes())
        base.push(token)
    return digest.digest()[:8]
