"""Hugging Face models as neural sources, and the same by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ngram_eval.models.hf.lead import lead_of_model
from ngram_eval.models.hf.loading import load_model
from ngram_eval.models.hf.source import HfSource, load_hf_source
from ngram_eval.text.windows import Windows


def load(folder: Path, **changes: Any) -> HfSource:
    """The model's source on the CPU."""
    arguments = {"device": "cpu", "local_rank": 0, "dtype": "float32", "batch_windows": 3, **changes}
    return load_hf_source(str(folder), lead_of_model(str(folder)), **arguments)


def by_hand(folder: Path, tokens: Any, windows: Windows, lead: Sequence[int]) -> np.ndarray[Any, Any]:
    """(positions, V): a forward for each position by itself, of its window's tokens up to it."""
    model = load_model(str(folder), torch.float32)
    rows = []
    for start, first, stop in zip(windows.start, windows.first, windows.stop, strict=True):
        for position in range(first, stop):
            given = tokens[start : position + 1].tolist()
            if tokens[start : start + len(lead)].tolist() != list(lead):
                given = [*lead, *given]
            with torch.inference_mode():
                rows.append(torch.softmax(model(torch.tensor([given])).logits[0, -1].double(), dim=-1).numpy())
    return np.array(rows)
