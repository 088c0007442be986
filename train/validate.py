"""The loss on held-out text by the evaluator's own rules: equal to the neural model alone in `ngram_eval.run`.

Windows do not overlap (stride = seq_len), which is the fastest way to score every position once. A sliding evaluation,
with more context, gives a lower loss.
"""

from dataclasses import dataclass

import torch

from ngram_eval.bpb import as_nats, bits_per_byte, fixed_point, nats_of
from ngram_eval.config import WindowConfig
from ngram_eval.distributed.ranks import Ranks
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_source import TransformerSource, choose_dtype
from ngram_eval.text.stream import Tokens
from ngram_eval.text.tokenizer import Tokenizer
from ngram_eval.text.windows import batches, plan_windows, target_count

_TOKENS_AT_ONCE = 1 << 14
"""Positions of one forward."""


@dataclass(frozen=True, slots=True)
class Score:
    """The loss on the text."""

    nats: float
    """Mean nats per token."""
    bpb: float | None
    """Bits per byte; None without a tokenizer."""

    def __str__(self) -> str:
        return f"{self.nats:.4f} nats a token" + ("" if self.bpb is None else f", {self.bpb:.4f} bits per byte")


class Validation:
    """Held-out tokens that models can be scored on."""

    def __init__(
        self, tokens: Tokens, tokenizer: Tokenizer | None, *, seq_len: int, device: torch.device, ranks: Ranks
    ) -> None:
        """Raises `InputError` if there are fewer tokens than one sequence and its last target."""
        self._tokens, self._device, self._ranks = tokens, device, ranks
        self.targets = target_count(len(tokens), seq_len)
        self._config = WindowConfig(seq_len=seq_len, stride=seq_len)
        self._bytes = None
        if tokenizer is not None:
            self._bytes = int(tokenizer.target_bytes(tokens, 0, self.targets, "decoded").sum())

    def score(self, model: Transformer) -> Score:
        """Score the text. Every rank must call this; each scores a share."""
        at_once = max(1, _TOKENS_AT_ONCE // self._config.seq_len)
        dtype = choose_dtype("auto", self._device)
        source = TransformerSource(model, train_seq_len=0, batch_windows=at_once, device=self._device, dtype=dtype)
        windows = plan_windows(self.targets, self._config)
        rank, world = self._ranks.rank, self._ranks.world
        mine = windows[len(windows) * rank // world : len(windows) * (rank + 1) // world]
        units = sum(
            fixed_point(nats_of(source.stats(self._tokens, batch).p_target)) for batch in batches(mine, at_once)
        )
        nats = as_nats(sum(self._ranks.gather(units)))
        return Score(nats / self.targets, None if self._bytes is None else bits_per_byte(nats, self._bytes))
