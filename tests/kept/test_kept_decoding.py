"""The memory of a decoding loop, copied, pickled, and kept in a file."""

import copy
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ngram_eval import NgramMemory
from ngram_eval.cli import memory as command
from ngram_eval.config import preset
from ngram_eval.errors import InputError
from ngram_eval.evaluation.job import memory_job
from ngram_eval.evaluation.settings import ModelSettings, Settings
from ngram_eval.kept import file as kept_file
from ngram_eval.scorers.base import Vocabulary
from ngram_eval.text.kept import kept_of
from ngram_eval.text.samples import entropy_of
from tests.test_decoding import METHODS, VOCABULARY, V, stream


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
def test_a_copy_counts_nothing_again(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, rows = stream()
    memory = NgramMemory(METHODS[method], vocabulary=VOCABULARY)
    memory.observe(tokens)
    monkeypatch.setattr(NgramMemory, "observe", None)
    assert (copy.deepcopy(memory).distribution(rows[0]) == memory.distribution(rows[0])).all()


@pytest.mark.parametrize("name", ["exact", "mixer"])
def test_a_memory_begins_with_the_weights_of_its_model_and_method(name: str, tmp_path: Path) -> None:
    tokens, rows = stream()
    path, learned, config = tmp_path / "a.ngm", tmp_path / "learned.ngm", preset(name)
    kept = kept_of(tokens, None, V)
    kept_file.write(path, kept, "none")
    command.main(
        ["learn", str(path), "--uniform", "--preset", name, "--out", str(learned), "--quiet"], "ngram-eval memory"
    )
    vocabulary = Vocabulary(V, None, neural=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counted, loaded = (
            NgramMemory.load(one, config, vocabulary=vocabulary, uniform=True) for one in (path, learned)
        )
    assert not (loaded.distribution(rows[0]) == counted.distribution(rows[0])).all()
    for one in (counted, loaded):
        one.observe(tokens[-1:])
    job = memory_job(Settings(model=ModelSettings(uniform=True)), kept_file.read(learned), None, "it")
    scored = job.scorer(config)
    assert (loaded.distribution(rows[0]) == scored.distribution(tokens[-1:], 0, rows[0], entropy_of(rows[0]))).all()
    for other in ({"config": config}, {"config": replace(config, byte_rule="piece"), "uniform": True}):
        with pytest.warns(UserWarning, match=f"holds weights, none of {name} beside .* only counted; give artifact="):
            one = NgramMemory.load(learned, vocabulary=vocabulary, **other)
        one.observe(tokens[-1:])
        assert (one.distribution(rows[0]) == counted.distribution(rows[0])).all()


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
