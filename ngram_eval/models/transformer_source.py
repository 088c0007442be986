"""The neural source that runs a model: windows → logits → the target's probability and the entropy."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ngram_eval.errors import InputError
from ngram_eval.extensions import to_device
from ngram_eval.models.branches import Tree
from ngram_eval.models.path_sums import PathSums
from ngram_eval.models.side_by_side import Outcome, in_parts, side_by_side
from ngram_eval.models.source import Asked, NeuralStats, Stats, all_rows, nan_statistics
from ngram_eval.models.transformer import Transformer, attention_kernel
from ngram_eval.text.stream import Stream
from ngram_eval.text.windows import Windows

_LOGITS_AT_ONCE = 1 << 25
"""Most logits held at a time (128 MiB in float32); on the CPU each thread holds at most an eighth."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The torch device called `name`; `auto` is this rank's GPU if there is one, else the CPU.

    `cuda` is this rank's GPU too. A GPU becomes the current device, on which kernels run. Raises `InputError` for a
    device that torch can't use.
    """
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        name = f"cuda:{local_rank}"
    elif name == "auto":
        name = "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device is {name!r}: torch can't use it ({reason}); try auto or cpu") from error
    return device


def check_kernels_run_on(device: torch.device, backend: str) -> None:
    """Raise `InputError` unless the kernels of the backend, one of `ON_DEVICE`, run on `device`."""
    from ngram_eval.extensions import load_cuda
    from ngram_eval.kernels.runtime import kernel_device  # needs Triton, which not every machine has

    needed = load_cuda()[1] if backend == "cuda" else kernel_device()
    if needed.type != device.type:
        raise InputError(f"--device is {device}, but --backend {backend} runs on {needed}: choose that device")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision of the matrix products; `auto` is bfloat16 on GPUs (as published) and float32 elsewhere."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return DTYPES[name]


def target_stats(logits: Tensor, targets: Tensor, whole: Tensor | slice = slice(0)) -> tuple[Tensor, Tensor, Tensor]:
    """(log-probability of the target, entropy in nats, log-probabilities of the whole vocabulary where asked).

    Float32 (n,), (n,) and (asked, V), of logits (n, V), targets (n,) and `whole` (n,) bool, which asks.
    """
    log_p = torch.log_softmax(logits.float(), dim=-1)
    entropy = torch.special.entr(log_p.exp()).sum(dim=-1)  # 0 where p is 0
    return log_p.gather(-1, targets[..., None]).squeeze(-1), entropy, log_p[whole]


class DeviceStats:
    """`NeuralStats` on the device that computed them; copied to the host on demand."""

    def __init__(
        self, device_p_target: Tensor, device_entropy: Tensor, rows: NDArray[np.float64] | None = None
    ) -> None:
        """`rows` are on the host."""
        self.device_p_target, self.device_entropy, self.rows = device_p_target, device_entropy, rows
        self.branches = None

    def part(self, entries: slice) -> "DeviceStats":
        """The statistics of some of the positions, without `rows`: scorers on a device need none."""
        return DeviceStats(self.device_p_target[entries], self.device_entropy[entries])

    @cached_property
    def p_target(self) -> NDArray[np.float64]:
        """(positions,), on the host."""
        copied: NDArray[np.float64] = self.device_p_target.cpu().numpy()
        return copied

    @cached_property
    def entropy(self) -> NDArray[np.float32]:
        """(positions,) in nats, on the host."""
        copied: NDArray[np.float32] = self.device_entropy.cpu().numpy()
        return copied


class TransformerSource:
    """`ngram_eval.models.source.NeuralSource` of a transformer; computes logits only at scored positions.

    With `use_kernels`, `ngram_eval.kernels.stats` reduces the logits, and the statistics stay on the device.
    With `compiled`, full batches of full windows run through `torch.compile`, and all others uncompiled: this needs one
    compilation, and the number of ranks does not decide which way a position is computed.
    """

    name = "artifact"
    gives_all = True

    def __init__(
        self,
        model: Transformer,
        *,
        train_seq_len: int,
        batch_windows: int,
        device: torch.device,
        dtype: torch.dtype,
        use_kernels: bool = False,
        compiled: bool = False,
    ) -> None:
        self._use_kernels = use_kernels
        self.train_seq_len, self.batch_windows = train_seq_len, batch_windows
        self.device, self.dtype = device, dtype
        self.vocab_size = model.config.vocab_size
        kernel = attention_kernel(device, dtype)
        self.settings = {
            "device": str(device),
            "dtype": str(dtype).removeprefix("torch."),
            "attention": kernel,
        }
        if compiled:
            self.settings["compiled"] = "full batches"
        self._model = model.to(device)
        self._model.use_attention(kernel)
        self._compiled: Callable[..., Tensor] | None = None
        self._has_compiled = False
        if compiled:
            self._compiled = torch.compile(self._model.hidden, dynamic=False, fullgraph=True)

    @torch.inference_mode()
    def stats(self, tokens: Stream, windows: Windows, whole: Asked | None = None) -> NeuralStats:
        """As `NeuralSource.stats`; raises `InputError` for NaN, unless the statistics stay on the device."""
        if self._use_kernels:
            return self._forward(tokens, windows, whole, self._stats_on_device, at_once=True)[0]
        parts = chain.from_iterable(self._forward(tokens, windows, whole, self._target_stats))
        log_p, entropy, rows = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
        if np.isnan(entropy).any() or np.isnan(log_p).any():
            raise nan_statistics(int(windows.positions()[np.flatnonzero(np.isnan(entropy) | np.isnan(log_p))[0]]))
        return Stats(
            np.exp(log_p.astype(np.float64)), entropy, None if whole is None else np.exp(rows.astype(np.float64))
        )

    @torch.inference_mode()
    def path_stats(self, tokens: Stream, windows: Windows, whole: Asked | None, tree: Tree) -> NeuralStats:
        """As `PathSource.path_stats`, in one forward; raises `InputError` for NaN."""
        sums = PathSums(tree, self.device)

        def of(hidden: Tensor, targets: Tensor, wanted: Tensor) -> list[tuple[Tensor, ...]]:
            found = list[tuple[Tensor, ...]]()
            for part in self._parts(len(hidden)):
                logits = self._logits(hidden[part])
                rows = torch.log_softmax(logits[wanted[part].to(logits.device)].float(), dim=-1)
                found.append((*sums.stats(logits, targets[part]), rows))
            return found

        parts = chain.from_iterable(self._forward(tokens, windows, whole, of))
        p_target, entropy, branches, rows = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
        if (bad := np.isnan(entropy) | np.isnan(p_target) | np.isnan(branches).any(axis=1)).any():
            raise nan_statistics(int(windows.positions()[bad][0]))
        return Stats(p_target, entropy, None if whole is None else np.exp(rows.astype(np.float64)), branches)

    def probabilities(self, tokens: Stream, windows: Windows) -> NDArray[np.float64]:
        """As `NeuralSource.probabilities`."""
        return all_rows(self, tokens, windows)

    def _autocast(self) -> AbstractContextManager[object]:
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)

    def _forward(
        self,
        tokens: Stream,
        windows: Windows,
        whole: Asked | None,
        use: Callable[[Tensor, Tensor, Tensor], Outcome],
        *,
        at_once: bool = False,
    ) -> list[Outcome]:
        """What `use` makes of (last hidden states, targets, what `whole` says), part after part.

        They are (positions, width), (positions,) and (positions,), of scored positions only; the parts are those of
        `side_by_side`, or with `at_once` all of them are one.
        """
        length, scored = int((windows.stop - windows.start)[0]), int((windows.stop - windows.first)[0])
        # The published code pads a window that the end cuts short on the right. Attention is causal, so the padding
        # has no effect: leaving it out and keeping the RoPE base of the full length gives the same logits.
        base = int(windows.start.min())
        read = tokens[base : int(windows.start.max()) + length + 1]
        rows = read[windows.start[:, None] - base + np.arange(length + 1)].astype(np.int64)  # (B, length + 1)
        sequences = to_device(rows, self.device)
        full = len(windows) == self.batch_windows and length == windows.seq_len
        cut = [sequences] if at_once else in_parts(sequences, scored)
        asked = torch.from_numpy(np.zeros(windows.scored, np.bool_) if whole is None else whole)
        parts = list(zip(cut, asked.split([len(part) * scored for part in cut]), strict=True))
        compiled = self._compiled if full else None

        def of(mine: tuple[Tensor, Tensor]) -> Outcome:
            part, wanted = mine
            # Of parts of two sizes one is compiled, as of batches.
            forward = self._model.hidden if compiled is None or len(part) < len(cut[0]) else compiled
            with self._autocast():
                hidden = forward(part[:, :-1], last=scored, length=windows.seq_len)
            return use(hidden.flatten(0, 1), part[:, -scored:].flatten(), wanted)

        if compiled is not None and len(parts) > 1 and not self._has_compiled:
            side_by_side(of, parts[:1], self.device)  # one thread compiles, all run it
            self._has_compiled = True
        return side_by_side(of, parts, self.device)

    def _target_stats(self, hidden: Tensor, targets: Tensor, whole: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [
            target_stats(self._logits(hidden[part]), targets[part], whole[part]) for part in self._parts(len(hidden))
        ]

    def _logits(self, hidden: Tensor) -> Tensor:
        with self._autocast():
            return self._model.logits(hidden)

    def _stats_on_device(self, hidden: Tensor, targets: Tensor, whole: Tensor) -> DeviceStats:
        from ngram_eval.kernels.stats import neural_stats  # needs Triton, which not every machine has

        p_target = torch.empty(len(hidden), dtype=torch.float64, device=self.device)
        entropy = torch.empty(len(hidden), dtype=torch.float32, device=self.device)
        rows = []
        for part in self._parts(len(hidden)):
            with self._autocast():
                logits = self._model.uncapped_logits(hidden[part])
            cap = self._model.config.logit_softcap
            neural_stats(logits, targets[part], p_target[part], entropy[part], softcap=cap)
            if whole[part].any():
                rows.append(torch.log_softmax(self._logits(hidden[part][whole[part]]), dim=-1))
        return DeviceStats(
            p_target, entropy, np.exp(torch.cat(rows).cpu().numpy().astype(np.float64)) if rows else None
        )

    def _parts(self, rows: int) -> Iterator[slice]:
        """Slices of the rows whose logits fit into memory together."""
        most = _LOGITS_AT_ONCE // 8 if self.device.type == "cpu" else _LOGITS_AT_ONCE
        at_once = max(1, most // self._model.config.vocab_size)
        for row in range(0, rows, at_once):
            yield slice(row, row + at_once)


def load_transformer_source(
    path: Path,
    *,
    device: str,
    local_rank: int,
    dtype: str,
    of: Callable[..., TransformerSource] = TransformerSource,
    **others: Any,
) -> TransformerSource:
    """The source of an artifact; `device` and `dtype` as on the command line. Raises `InputError`.

    `others` are arguments of its class `of`.
    """
    from ngram_eval.models import artifact  # not at the top: running a model needs no zstandard or safetensors

    model, train_seq_len = artifact.load(path)
    chosen = choose_device(device, local_rank)
    return of(model, train_seq_len=train_seq_len, device=chosen, dtype=choose_dtype(dtype, chosen), **others)
