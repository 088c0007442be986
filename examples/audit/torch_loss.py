"""A torch function (tokens) -> per-token loss, as an evaluator."""

import torch
from submission import SETTINGS, Model, per_token_loss

torch.set_num_threads(1)
MODEL = Model(SETTINGS.vocab_size).eval()


@torch.inference_mode()
def evaluate(tokens):
    return per_token_loss(MODEL, torch.from_numpy(tokens))
