"""Text made into shards, and out of them again."""

from pathlib import Path
from typing import Any

import numpy as np

from ngram_eval.text.manifest import Manifest
from ngram_eval.text.prepare import PrepareConfig, prepare
from ngram_eval.text.shards import read_shards
from ngram_eval.text.tokenizer import Tokenizer
from tests.support.places import SAMPLE_PATH

SAMPLE = SAMPLE_PATH.read_text(encoding="utf-8")
AWKWARD = "  two  spaces\r\n\ttab \n\n\n東京 🙂 e\u0301 é\u00a0ﬁ <s> <unk> \0\u2028 no end "


def run(out: Path, *inputs: object, **options: Any) -> Manifest:
    return prepare(PrepareConfig(inputs=tuple(map(str, inputs)), out=out, **options), "the command")


def contents(out: Path, model: Path, name: str = "tokens") -> list[str]:
    """The documents in the shards, decoded."""
    tokenizer = Tokenizer.load(model)
    tokens = read_shards([str(out / f"{name}_*.bin")]).tokens[:]
    starts = np.flatnonzero(tokens == tokenizer.start_id)
    assert starts[0] == 0
    return [tokenizer.decode(part.tolist()) for part in np.split(tokens, starts[1:])]
