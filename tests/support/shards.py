"""Shards in the raw."""

import numpy as np

from ngram_eval.text.shards import MAGIC
from ngram_eval.text.stream import Tokens


def header(count: int, version: int = 1, magic: int = MAGIC) -> bytes:
    words = np.zeros(256, "<i4")
    words[:3] = magic, version, count
    return words.tobytes()


def u16(*values: int) -> Tokens:
    return np.array(values, np.uint16)
