"""The memory of a decoding loop, copied, pickled, and kept in a file."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ngram_eval import NgramMemory
from ngram_eval.errors import InputError
from ngram_eval.scorers.base import Vocabulary
from tests.test_decoding import METHODS, VOCABULARY, stream


@pytest.mark.parametrize("again", [copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))])
@pytest.mark.parametrize("method", METHODS)
def test_a_memory_is_pickled_and_deep_copied_with_what_it_learned(method: str, again: Callable[[Any], Any]) -> None:
    tokens, rows = stream()
    memory = NgramMemory(METHODS[method], vocabulary=VOCABULARY)
    assert len(again(memory)) == 0
    memory.observe(tokens[:40], np.concatenate([rows[:1], rows[:39]]))
    other = again(memory)
    assert (other.distribution(rows[50]) == memory.distribution(rows[50])).all()
    assert other.tokens.tolist() == memory.tokens.tolist()
    other.observe(tokens[40:60], rows[39:59])
    assert len(memory) == 40


@pytest.mark.parametrize("method", METHODS)
def test_a_memory_is_kept_without_what_it_learned(method: str, tmp_path: Path) -> None:
    tokens, rows = stream()
    config = METHODS[method]
    memory, counted = (NgramMemory(config, vocabulary=VOCABULARY) for _ in range(2))
    memory.observe(tokens, np.concatenate([rows[:1], rows]))
    counted.observe(tokens)
    assert memory.save(tmp_path / "a.ngm") == (tmp_path / "a.ngm").stat().st_size
    loaded = NgramMemory.load(tmp_path / "a.ngm", config, vocabulary=VOCABULARY)
    assert loaded.tokens.tolist() == tokens.tolist()
    assert (loaded.distribution(rows[0]) == counted.distribution(rows[0])).all()
    with pytest.raises(InputError, match="is a memory of a vocabulary of 12 tokens, and here are 4"):
        NgramMemory.load(tmp_path / "a.ngm", config, vocabulary=Vocabulary(4, None, neural=True))
    with pytest.raises(InputError, match="needs the size of its vocabulary"):
        NgramMemory().save(tmp_path / "b.ngm")
