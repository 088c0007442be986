"""parameter-golf's `eval_val_sliding`, as an evaluator: its totals, or the losses of tokens that it adds up.

`evaluate` sees the losses on their way through `F.cross_entropy`; which of them are added follows from the windows. The
mean that the function says is given too: the audit refutes it if it is not that of the losses.
"""

from unittest import mock

import torch
from submission import SETTINGS, Model, byte_tables, eval_val_sliding
from torch.nn import functional as F

torch.set_num_threads(1)
MODEL, TABLES, DEVICE = Model(SETTINGS.vocab_size).eval(), byte_tables(SETTINGS.vocab_size), torch.device("cpu")


@torch.inference_mode()
def totals(tokens):
    stream = torch.from_numpy(tokens)
    return eval_val_sliding(SETTINGS, MODEL, 0, 1, DEVICE, stream, *TABLES, SETTINGS.eval_stride)


def evaluate(tokens):
    seen, original = [], F.cross_entropy
    with mock.patch.object(F, "cross_entropy", lambda *a, **k: seen.append(original(*a, **k)) or seen[-1]):
        loss, bpb = totals(tokens)
    length, stride, count = SETTINGS.train_seq_len, SETTINGS.eval_stride, len(tokens) - 1
    nats, positions = [], []
    for row, losses in enumerate(torch.cat([one.flatten() for one in seen]).view(-1, length)):
        end = min(row * stride + length, count)
        first = 0 if row == 0 else row * stride + length - stride
        nats.append(losses[first - row * stride : end - row * stride])
        positions.append(torch.arange(first, end))
    return {"nats": torch.cat(nats), "positions": torch.cat(positions), "loss": loss, "bpb": bpb}
