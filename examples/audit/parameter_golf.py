"""parameter-golf's `eval_val_sliding`, as an evaluator: its totals, or the losses of tokens that it adds up.

`evaluate` sees the losses leave `F.cross_entropy`, and which of them are turned into float64 to be added: a slice of a
window's row, whose place in memory says which. So any rule of windows is read as it is, whatever it repeats or leaves
out, and test-time training between them. The mean that the function says is given too: the audit refutes it if it is
not that of the losses. Put in place of `submission` the module of the record, whose model is on the CPU.
"""

import copy
from unittest import mock

import torch
from submission import SETTINGS, Model, byte_tables, eval_val_sliding
from torch.nn import functional as F

torch.set_num_threads(1)
MODEL, TABLES, DEVICE = Model(SETTINGS.vocab_size).eval(), byte_tables(SETTINGS.vocab_size), torch.device("cpu")


def totals(tokens):
    model = copy.deepcopy(MODEL)  # it may be trained on the way
    return eval_val_sliding(
        SETTINGS, model, 0, 1, DEVICE, torch.from_numpy(tokens), *TABLES, stride=SETTINGS.eval_stride
    )


def evaluate(tokens):
    length, stride = SETTINGS.train_seq_len, SETTINGS.eval_stride
    nats, positions, windows = [], [], []  # windows: (number of the first, losses of a batch of them)
    cross_entropy, to = F.cross_entropy, torch.Tensor.to

    def seen(*given, **settings):
        losses = cross_entropy(*given, **settings)
        if losses.ndim:  # not a mean to train on
            windows.append((windows[-1][0] + windows[-1][1].numel() // length if windows else 0, losses))
        return losses

    def added(tensor, *given, **settings):
        if torch.float64 in given and windows and tensor.untyped_storage().data_ptr() == windows[-1][1].data_ptr():
            row, first = divmod(tensor.storage_offset(), length)
            nats.append(tensor.detach().clone())
            positions.append((windows[-1][0] + row) * stride + first + torch.arange(len(tensor)))
        return to(tensor, *given, **settings)

    with mock.patch.object(F, "cross_entropy", seen), mock.patch.object(torch.Tensor, "to", added):
        loss, bpb = totals(tokens)
    return {"nats": torch.cat(nats), "positions": torch.cat(positions), "loss": loss, "bpb": bpb}
