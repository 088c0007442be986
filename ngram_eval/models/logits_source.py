"""Neural sources that get logits from a model of any kind: a function, a module, a Hugging Face model."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ngram_eval.errors import InputError
from ngram_eval.models.side_by_side import side_by_side
from ngram_eval.models.source import Asked, Stats, all_rows, nan_statistics
from ngram_eval.text.stream import Stream
from ngram_eval.text.windows import Windows

_SOFTMAX_AT_ONCE = 1 << 25
"""Most logits whose softmax is held at once (128 MiB in float32)."""
_SOFTMAX_A_THREAD = 1 << 21
"""Most logits whose softmax one thread of the CPU holds at a time (8 MiB in float32)."""
_CAUSAL = 2.0**-16
"""Largest change of a logit, as a share of the largest logit, that is rounding and not sight of a later token."""

Part = tuple[NDArray[np.int64], Tensor, Tensor]
"""Entries among the scored positions, their logits (n, V), their targets (n,)."""


class Lead(NamedTuple):
    """Tokens put before every window that does not begin with them; they take positions of the model's context."""

    tokens: tuple[int, ...] = ()
    names: str = "none"
    """The same in words."""


def _target_stats(logits: Tensor, targets: Tensor, whole: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(log-probability of the target, entropy in nats, log-probabilities of the whole vocabulary where asked).

    Float64 (n,), float32 (n,) and float64 (asked, V), of logits (n, V), targets (n,) and `whole` (n,) bool, which asks.
    Powers are added up in float64: over a large vocabulary a sum in float32 is off by 1e-5.
    """
    below = logits.float() - logits.float().amax(dim=-1, keepdim=True)
    powers = below.exp()
    total = powers.sum(dim=-1, keepdim=True, dtype=torch.float64)
    log_p = below.gather(-1, targets[:, None]).double() - total.log()
    rows = below[whole].double() - total[whole].log()
    mean = powers.mul_(below.clamp_(min=-1e4)).sum(dim=-1, keepdim=True) / total  # 0, not NaN, where p is 0
    return log_p.squeeze(-1), (total.log() - mean).squeeze(-1).float(), rows


class LogitsSource:
    """`ngram_eval.models.source.NeuralSource` of a model that gives logits; subclasses define `forward`.

    Before the first window with more than one scored position is used, the model must show that it is causal.
    """

    name: str
    train_seq_len = 0
    gives_all = True
    most_positions = 0
    """Most positions of a window with its lead; 0: no limit."""
    dtype = torch.float32
    """Precision of the model, whose rounding may differ where only a later token does."""

    def __init__(self, vocab_size: int, batch_windows: int, settings: dict[str, str], lead: Lead) -> None:
        """`settings` name the model first; the lead is added to them."""
        self.vocab_size, self.batch_windows, self.lead = vocab_size, batch_windows, lead
        self.settings = {**settings, "lead": f"lead: {lead.names}"}
        self._causal = False

    def forward(self, tokens: NDArray[np.int64], last: int) -> Iterator[Tensor]:
        """Logits of the `last` last positions of each row of tokens (B, T), in order, in pieces of shape (n, V)."""
        raise NotImplementedError

    @torch.inference_mode()
    def stats(self, tokens: Stream, windows: Windows, whole: Asked | None = None) -> Stats:
        """As `NeuralSource.stats`; raises `InputError` for NaN, and for windows that are too long."""
        asked = np.zeros(windows.scored, np.bool_) if whole is None else whole
        log_p, entropy = np.empty(windows.scored), np.empty(windows.scored, np.float32)
        place, rows = np.cumsum(asked) - 1, np.empty((np.count_nonzero(asked), self.vocab_size))
        for entries, logits, targets in self.logits(tokens, windows):
            step = max(1, _SOFTMAX_A_THREAD // self.vocab_size if logits.device.type == "cpu" else len(logits))
            here = asked[entries]
            taken = targets.to(logits.device), torch.from_numpy(here)
            parts = list(zip(*(one.split(step) for one in (logits, *taken)), strict=True))
            found = side_by_side(lambda part: _target_stats(*part), parts, logits.device)
            log_p[entries], entropy[entries], all_log_p = (
                torch.cat(part).cpu().numpy() for part in zip(*found, strict=True)
            )
            rows[place[entries[here]]] = np.exp(all_log_p)
        if np.isnan(entropy).any() or np.isnan(log_p).any():
            raise nan_statistics(int(windows.positions()[np.flatnonzero(np.isnan(entropy) | np.isnan(log_p))[0]]))
        return Stats(np.exp(log_p), entropy, None if whole is None else rows)

    def probabilities(self, tokens: Stream, windows: Windows) -> NDArray[np.float64]:
        """As `NeuralSource.probabilities`."""
        return all_rows(self, tokens, windows)

    def logits(self, tokens: Stream, windows: Windows) -> Iterator[Part]:
        """Logits of all scored positions in parts."""
        self._check_fits(windows.seq_len)
        length, scored = int((windows.stop - windows.start)[0]), int((windows.stop - windows.first)[0])
        base = int(windows.start.min())
        read = tokens[base : int(windows.start.max()) + length + 1]
        rows = read[windows.start[:, None] - base + np.arange(length + 1)].astype(np.int64)  # (B, length + 1)
        lead = np.array(self.lead.tokens, np.int64)
        led = (rows[:, : len(lead)] == lead).all(axis=1) if length >= len(lead) else np.zeros(len(rows), np.bool_)
        for group in (np.flatnonzero(led), np.flatnonzero(~led)):  # rows of a group have equally many tokens
            if len(group) == 0:
                continue
            inputs, targets = rows[group, :-1], rows[group, -scored:].ravel()
            if not led[group[0]]:
                inputs = np.concatenate([np.broadcast_to(lead, (len(group), len(lead))), inputs], axis=1)
            self._check_causal(inputs[0], scored)
            entries = (group[:, None] * scored + np.arange(scored)).ravel()
            at = 0
            for logits in self._checked(inputs, scored):
                step = max(1, _SOFTMAX_AT_ONCE // self.vocab_size)
                for part in logits.split(step):
                    here = slice(at, at + len(part))
                    yield entries[here], part, torch.from_numpy(targets[here])
                    at = here.stop

    def _checked(self, inputs: NDArray[np.int64], scored: int) -> Iterator[Tensor]:
        """As `forward`; raises `InputError` for another vocabulary."""
        for logits in self.forward(inputs, scored):
            if logits.shape[-1] != self.vocab_size:
                raise InputError(f"{self.name} gave {logits.shape[-1]} logits a position, not {self.vocab_size}")
            yield logits.cpu() if logits.device.type == "mps" else logits  # which has no float64

    def _check_causal(self, window: NDArray[np.int64], scored: int) -> None:
        """Raise `InputError` for a model whose logits at scored positions depend on a later token.

        `window` (T,) is forwarded beside itself with another last token: its earlier logits must stay the same, up to
        the rounding of the model's precision.
        """
        last = min(scored, _SOFTMAX_AT_ONCE // (2 * self.vocab_size))
        if self._causal or last < 2:
            return
        other = window.copy()
        other[-1] = next((token for token in window if token != window[-1]), (window[-1] + 1) % self.vocab_size)
        found = torch.cat([part.float().cpu() for part in self._checked(np.stack([window, other]), last)])
        a, b = found.reshape(2, last, -1)[:, :-1]
        largest = float(torch.where(a.isfinite(), a, 0).abs().max())
        off = float(torch.where(a == b, 0, (a - b).abs()).nan_to_num(0).max())  # NaN is refused where it is scored
        if off > max(_CAUSAL, 4 * torch.finfo(self.dtype).eps) * largest:
            raise InputError(
                f"the model, a {next(iter(self.settings.values()))}, is not causal: with another last token of a "
                f"window, logits before it change by up to {off:.2g}, so it has seen the tokens that it predicts; give "
                "a causal language model"
            )
        self._causal = True

    def _check_fits(self, seq_len: int) -> None:
        """Raise `InputError` for a lead or a length of windows that the model does not take."""
        if self.lead.tokens and max(self.lead.tokens) >= self.vocab_size:
            raise InputError(
                f"the lead holds token {max(self.lead.tokens)}, and the model has {self.vocab_size} tokens: give "
                "--lead auto, none, or tokens of the model"
            )
        needed = seq_len + len(self.lead.tokens)
        if self.most_positions and needed > self.most_positions:
            lead = f", with {self.lead.names} before it," if self.lead.tokens else ""
            raise InputError(
                f"--seq-len is {seq_len}: a window{lead} has {needed:,} tokens, and the model {self.most_positions:,} "
                f"positions; give at most {self.most_positions - needed + seq_len:,}"
            )


class CallableSource(LogitsSource):
    """A function of windows, (B, T) int64 -> logits or log-probabilities (B, T, V), or of the last positions only.

    It gets a tensor, a `torch.nn.Module` on its own device and any other function on the CPU. It returns the logits, a
    tuple that begins with them, or an object with the attribute `logits`, in any form that `torch.as_tensor` takes.

    The function is called by one thread at a time, with all threads that torch has, so its bits may depend on their
    number (`torch.set_num_threads(1)` prevents that). What is computed from its answer does not depend on it.
    """

    name = "callable"

    def __init__(self, function: Callable[[Any], Any], batch_windows: int, lead: Lead | None = None) -> None:
        """Call the function with the tokens 0, 0; raises `InputError` if the result has another form.

        A numpy table would take a tensor of one token for a number.
        """
        self._function = function
        self._device = torch.device("cpu")
        if isinstance(function, nn.Module):
            if function.training:
                raise InputError(f"the module, a {type(function).__name__}, is in training mode: call its eval() first")
            self._device = next((one.device for one in function.parameters()), self._device)
            self.dtype = next((one.dtype for one in function.parameters() if one.is_floating_point()), self.dtype)
        settings = {"function": getattr(function, "__qualname__", type(function).__qualname__)}
        super().__init__(0, batch_windows, settings, lead or Lead())
        with torch.inference_mode():
            self.vocab_size = int(self._answers(np.zeros((1, 2), np.int64), 1).shape[-1])

    def forward(self, tokens: NDArray[np.int64], last: int) -> Iterator[Tensor]:
        """The whole batch at once."""
        yield self._answers(tokens, last).flatten(0, 1)

    def _answers(self, tokens: NDArray[np.int64], last: int) -> Tensor:
        answer = self._function(torch.from_numpy(tokens).to(self._device))
        answer = getattr(answer, "logits", answer[0] if isinstance(answer, tuple) else answer)
        logits = torch.as_tensor(answer)
        if logits.ndim != 3 or len(logits) != len(tokens) or not last <= logits.shape[1] <= tokens.shape[1]:
            raise InputError(
                f"{self.settings['function']} gave {tuple(logits.shape)} for windows of shape {tokens.shape}: give "
                "logits (windows, positions, vocabulary)"
            )
        return logits[:, -last:]
