"""Drafts change the number of forward passes, and never the text."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")

from ngram_eval import NgramMemory
from ngram_eval.errors import InputError
from ngram_eval.integrations.drafts import NgramDrafts
from ngram_eval.models.hf.loading import load_model
from ngram_eval.scorers.base import Vocabulary
from tests.support.hf_models import save_llama

PROMPT = torch.tensor([[5, 6, 7, 8, 9, 5, 6, 7, 8, 9, 5, 6]])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("llama")
    save_llama(folder, positions=256)
    return load_model(str(folder), torch.float32)


@pytest.mark.parametrize("settings", [{}, {"repetition_penalty": 1.3}, {"eos_token_id": 7}])
def test_the_text_is_that_of_greedy_decoding(model: Any, settings: dict[str, Any]) -> None:
    options = {"max_new_tokens": 60, "do_sample": False, "pad_token_id": 0} | settings
    plain = model.generate(PROMPT, **options)
    drafts = NgramDrafts()
    assert model.generate(PROMPT, custom_generate=drafts, **options).tolist() == plain.tolist()
    new = plain.shape[1] - PROMPT.shape[1]
    assert drafts.forwards + drafts.accepted >= new
    assert drafts.forwards <= new


def test_a_text_that_is_known_takes_few_forward_passes(model: Any) -> None:
    """The memory has seen what the model will say."""
    plain = model.generate(PROMPT, max_new_tokens=60, do_sample=False, pad_token_id=0)
    memory = NgramMemory()
    memory.observe(plain[0].numpy())
    drafts = NgramDrafts(memory, tokens=12)
    again = model.generate(PROMPT, max_new_tokens=60, do_sample=False, pad_token_id=0, custom_generate=drafts)
    assert again.tolist() == plain.tolist()
    assert drafts.forwards < 30
    assert len(memory) == plain.shape[1], "the given memory is not changed"


def test_what_is_not_greedy_is_refused(model: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="greedy"):
        model.generate(PROMPT, max_new_tokens=3, do_sample=True, custom_generate=NgramDrafts())
    with pytest.raises(InputError, match="2 sequences"):
        model.generate(PROMPT.repeat(2, 1), max_new_tokens=3, do_sample=False, custom_generate=NgramDrafts())
    with pytest.raises(InputError, match="give exact"):
        NgramDrafts(NgramMemory("mixer", vocabulary=Vocabulary(9, [b"a"] * 9, neural=True)))


def test_a_continuation_is_of_what_came_before() -> None:
    memory = NgramMemory()
    assert len(memory.continuation(5, 50)) == 0
    memory.observe(np.tile(np.arange(10), 6))
    assert memory.continuation(4, 50).tolist() == [0, 1, 2, 3]
    assert len(memory) == 60
