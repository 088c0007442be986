"""The neural source that runs a Hugging Face causal language model over windows."""

import inspect
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ngram_eval.errors import InputError
from ngram_eval.models.hf.loading import load_model, reason_of
from ngram_eval.models.logits_source import Lead, LogitsSource
from ngram_eval.models.side_by_side import in_parts, side_by_side
from ngram_eval.models.transformer_source import choose_device, choose_dtype

_LOGITS_AT_ONCE = 1 << 27
"""Most logits of one forward (512 MiB in float32)."""


class HfSource(LogitsSource):
    """`ngram_eval.models.source.NeuralSource` of a `PreTrainedModel`, run on the model's own device.

    If the model's `forward` takes `logits_to_keep`, logits are computed only at scored positions. On the CPU
    several threads call the model at once.
    """

    name = "hf"

    def __init__(self, model: Any, *, batch_windows: int, lead: Lead | None = None, **settings: str) -> None:
        """`settings` are further ones for the result.

        Raises `InputError` for a model in training mode, or with too large a vocabulary.
        """
        if model.training:
            raise InputError(f"the model, a {type(model).__name__}, is in training mode: call its eval() first")
        self._model = model
        config = model.config.get_text_config()
        head = model.get_output_embeddings()
        vocab_size = int(config.vocab_size if head is None else head.weight.shape[0])
        self.most_positions, self.dtype = _positions(model), model.dtype
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        about = {
            "model": type(model).__name__,
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
        }
        super().__init__(vocab_size, batch_windows, {**about, **settings}, lead or Lead())
        try:
            with torch.inference_mode():
                self._logits(torch.zeros((1, 1), dtype=torch.int64, device=model.device), None)
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:  # which of them, each model has its own
            raise InputError(
                f"the model, a {type(model).__name__}, can't be run on tokens alone ({reason_of(error)}): give a "
                "language model of text"
            ) from error

    def forward(self, tokens: NDArray[np.int64], last: int) -> Iterator[Tensor]:
        """Forward as many windows at once as their logits allow.

        If one window's logits are too many, its trunk is run again for each part of them.
        """
        length = tokens.shape[1]
        each = (last if self._keeps else length) * self.vocab_size
        step = _LOGITS_AT_ONCE // each
        device = self._model.device
        if step or not self._keeps:
            keep = last if self._keeps else None
            for row in range(0, len(tokens), max(1, step)):
                inputs = torch.from_numpy(tokens[row : row + max(1, step)]).to(device)
                parts = side_by_side(lambda part: self._logits(part, keep)[:, -last:], in_parts(inputs, last), device)
                yield (parts[0] if len(parts) == 1 else torch.cat(parts)).flatten(0, 1)
            return
        positions = torch.arange(length - last, length, device=device)
        for row in range(len(tokens)):
            inputs = torch.from_numpy(tokens[row : row + 1]).to(device)
            for part in positions.split(max(1, _LOGITS_AT_ONCE // self.vocab_size)):
                (logits,) = side_by_side(partial(self._logits, inputs), [part], device)
                yield logits.flatten(0, 1)

    def _logits(self, inputs: Tensor, keep: int | Tensor | None) -> Tensor:
        kept = {} if keep is None else {"logits_to_keep": keep}
        logits: Tensor = self._model(input_ids=inputs, use_cache=False, **kept).logits
        return logits


def _positions(model: Any) -> int:
    """Most positions of a window, 0 if there is no limit."""
    named = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0)
    tables: list[int] = [
        one.num_embeddings - one.padding_idx - 1  # RoBERTa and kin number positions from there on
        for name, one in model.named_modules()
        if name.endswith("position_embeddings") and getattr(one, "padding_idx", None) is not None
    ]
    return min((one for one in (named, *tables) if one > 0), default=0)


def load_hf_source(
    name: str, lead: Lead, *, prefix: str = "", device: str, local_rank: int, dtype: str, batch_windows: int
) -> HfSource:
    """The source of a folder, a GGUF file or a name on the hub; other arguments as on the command line."""
    chosen = choose_device(device, local_rank)
    model = load_model(name, choose_dtype(dtype, chosen), prefix).to(chosen)
    settings = {"weights_prefix": f"weights named without {prefix}"} if prefix else {}
    return HfSource(model, batch_windows=batch_windows, lead=lead, **settings)
