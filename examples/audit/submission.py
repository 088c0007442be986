"""A stand-in for what is submitted, as small as it can be: put your own in its place."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sentencepiece
import torch
from torch import Tensor
from torch.nn import functional as F

TOKENIZER = Path(__file__).parents[2] / "ngram_eval" / "assets" / "tokenizer.model"
SETTINGS = SimpleNamespace(vocab_size=1024, train_seq_len=64, eval_stride=32)


class Model(torch.nn.Module):
    """One causal layer with random weights: logits of the next token."""

    def __init__(self, vocab_size: int, width: int = 16) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = torch.nn.Parameter(torch.randn(vocab_size, width, generator=generator))

    def forward_logits(self, tokens: Tensor) -> Tensor:
        x = F.rms_norm(self.embedding[tokens], self.embedding.shape[1:])
        x = x + F.scaled_dot_product_attention(x, x, x, is_causal=True)
        return 5 * torch.tanh(F.linear(x, self.embedding) / 5)


def per_token_loss(model: Model, tokens: Tensor) -> Tensor:
    """The loss of tokens 1, 2, ..., each block of a sequence's length by itself."""
    found = []
    for begin in range(0, len(tokens) - 1, SETTINGS.train_seq_len):
        part = tokens[begin : begin + SETTINGS.train_seq_len + 1]
        found.append(F.cross_entropy(model.forward_logits(part[None, :-1])[0], part[1:], reduction="none"))
    return torch.cat(found)


def byte_tables(vocab_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """(bytes of each token, whether a space comes before it, whether it is no text)."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZER))
    sizes, spaced, none = (
        torch.zeros(vocab_size),
        torch.zeros(vocab_size, dtype=torch.bool),
        torch.ones(vocab_size).bool(),
    )
    for token in range(model.vocab_size()):
        if model.is_control(token) or model.is_unknown(token) or model.is_unused(token):
            continue
        piece = model.id_to_piece(token)
        none[token], spaced[token] = False, piece.startswith("▁")
        sizes[token] = 1 if model.is_byte(token) else len(piece.removeprefix("▁").encode())
    return sizes, spaced, none


def eval_val_sliding(
    args: Any,
    base_model: Model,
    rank: int,
    world_size: int,
    device: torch.device,
    val_tokens: Tensor,
    base_bytes_lut: Tensor,
    has_leading_space_lut: Tensor,
    is_boundary_token_lut: Tensor,
    stride: int,
    batch_seqs: int = 32,
) -> tuple[float, float]:
    """(mean loss, bits per byte): overlapping windows, of which each adds the tokens that are new in it."""
    seq_len, count = args.train_seq_len, len(val_tokens) - 1
    starts = [start for start in range(0, count, stride) if start + seq_len - stride < count]
    nats = size = charged = torch.zeros((), dtype=torch.float64)
    for at in range(0, len(starts), batch_seqs):
        rows = starts[at : at + batch_seqs]
        x, y = (torch.zeros(len(rows), seq_len, dtype=torch.int64, device=device) for _ in range(2))
        for row, start in enumerate(rows):
            length = min(seq_len, count - start)
            x[row, :length] = val_tokens[start : start + length]
            y[row, :length] = val_tokens[start + 1 : start + length + 1]
        with torch.inference_mode():
            logits = base_model.forward_logits(x)
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(y.shape)
        for row, start in enumerate(rows):
            stop = min(seq_len, count - start)
            new = slice(0 if start == 0 else seq_len - stride, stop)
            nats = nats + loss[row, new].to(torch.float64).sum()
            target, before = y[row, new], x[row, new]
            spaces = has_leading_space_lut[target] & ~is_boundary_token_lut[before]
            size = size + (base_bytes_lut[target] + spaces).double().sum()
            charged = charged + len(target)
    return float(nats / charged), float(nats / size) / math.log(2)


class Counter:
    """Counts tokens: what is charged depends on its state."""

    def __init__(self, vocab_size: int = 1024) -> None:
        self.counts = [1] * vocab_size
        self.total = vocab_size

    def charge(self, token: int) -> float:
        """Nats of a token, which is then counted."""
        nats = math.log(self.total / self.counts[token])
        self.counts[token] += 1
        self.total += 1
        return nats
