"""The loss on held-out text, by the evaluator's own rules: what `ngram_eval.run` says of the neural model alone.

Windows do not overlap (stride = seq_len): the cheapest pass that scores every position once. A sliding evaluation, with
more context, gives less.
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
    """What the text costs."""

    nats: float
    """Mean a token."""
    bpb: float | None
    """Bits per byte; None without a tokenizer, which knows the bytes."""

    def __str__(self) -> str:
        return f"{self.nats:.4f} nats a token" + ("" if self.bpb is None else f", {self.bpb:.4f} bits per byte")


class Validation:
    """Held-out tokens, scored as often as asked."""

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
        """Score the text; every rank must call, each does its share."""
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
