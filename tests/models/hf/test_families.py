"""Small random models of every family: each is scored as it says itself, without the future, or refused."""

from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")

from tests.support.gguf_files import ARCHITECTURES
from tests.support.hf_families import families, try_family, try_gguf

SCORED = ("gemma3_text", "gpt2", "gpt_neox", "llama", "mamba", "mixtral", "qwen3")
LOOKING_AHEAD = ("bert", "roberta", "xlnet")


@pytest.mark.parametrize("family", SCORED)
def test_families_of_today_are_scored(family: str, tmp_path: Path) -> None:
    assert try_family(family, tmp_path).verdict == "scored"


@pytest.mark.parametrize("family", LOOKING_AHEAD)
def test_models_that_look_ahead_are_refused(family: str, tmp_path: Path) -> None:
    tried = try_family(family, tmp_path)
    assert tried.verdict == "refused"
    assert "is not causal" in tried.reason


@pytest.mark.slow
@pytest.mark.parametrize("family", families())
def test_every_family_is_scored_or_refused(family: str, tmp_path: Path) -> None:
    """A wrong number fails within."""
    tried = try_family(family, tmp_path)
    if tried.verdict == "not tried":
        pytest.skip(tried.reason)
    assert tried.verdict in ("scored", "refused")


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(ARCHITECTURES))
def test_every_gguf_file_is_the_model_that_was_written_or_refused(family: str, tmp_path: Path) -> None:
    tried = try_gguf(family, tmp_path / "model.gguf")
    refused = {"gemma4_text", "gpt_oss", "phi3"}
    assert tried.verdict == ("refused" if family in refused else "scored"), tried.reason
