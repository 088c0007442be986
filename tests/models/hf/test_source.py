"""Hugging Face models: statistics as the model's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")

from ngram_eval.config import WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.models import logits_source as forwarded
from ngram_eval.models.hf import source as hf_source
from ngram_eval.models.hf.loading import load_model
from ngram_eval.models.hf.source import HfSource
from ngram_eval.models.hf.tokenizer import HfTokenizer
from ngram_eval.models.logits_source import Lead
from ngram_eval.text.windows import batches, plan_windows
from tests.support.evaluator import Evaluate
from tests.support.hf_models import KINDS, TEXT
from tests.support.hf_sources import by_hand, load


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stride", [3, 16])
def test_statistics_are_the_model_s(models: dict[str, Path], kind: str, stride: int) -> None:
    """One forward a position, of the window up to it, led by BOS where the tokenizer leads texts by it."""
    tokenizer = HfTokenizer.load(str(models[kind]))
    tokens = np.append(np.array([tokenizer.start_id], np.uint16), tokenizer.tokens_of(TEXT[:300]))[:57]
    tokens[32] = tokenizer.start_id  # a window that starts with BOS by itself
    source = load(models[kind])
    assert source.lead == (Lead() if kind == "gpt2" else Lead((1,), "<s>"))
    windows = plan_windows(48, WindowConfig(seq_len=16, stride=stride))
    expected = by_hand(models[kind], tokens, windows, source.lead.tokens)
    targets = tokens[windows.positions() + 1]
    at = 0
    for batch in batches(windows, 3):
        stats, rows = source.stats(tokens, batch), source.probabilities(tokens, batch)
        here = slice(at, at := at + batch.scored)
        np.testing.assert_allclose(rows, expected[here], atol=2e-6)
        assert (stats.p_target == rows[np.arange(len(rows)), targets[here]]).all(), "bit for bit"
        entropy = -(expected[here] * np.log(expected[here])).sum(axis=1)
        np.testing.assert_allclose(stats.entropy, entropy, rtol=1e-5)
    assert at == 48


@pytest.mark.parametrize("kind", KINDS)
def test_logits_in_parts_are_the_logits(models: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory holds a few windows, or less than a window."""
    tokenizer = HfTokenizer.load(str(models[kind]))
    tokens = tokenizer.tokens_of(TEXT)[:200]
    (first, *_, last) = batches(plan_windows(144, WindowConfig(seq_len=24, stride=8)), 5)
    whole = load(models[kind])
    size = whole.vocab_size
    for windows in (first, last):
        expected = whole.probabilities(tokens, windows)
        for logits, softmax in ((2 * 8 * size, 3 * size), (3 * size, size), (1, 1)):
            monkeypatch.setattr(hf_source, "_LOGITS_AT_ONCE", logits)
            monkeypatch.setattr(forwarded, "_SOFTMAX_AT_ONCE", softmax)
            source = load(models[kind])
            np.testing.assert_allclose(source.probabilities(tokens, windows), expected, atol=1e-6)
            np.testing.assert_allclose(
                source.stats(tokens, windows).p_target, whole.stats(tokens, windows).p_target, atol=1e-6
            )
        monkeypatch.undo()


def test_whole_distributions_come_from_the_forward_of_their_batch(models: dict[str, Path]) -> None:
    """Of all its positions or of some."""
    tokens = HfTokenizer.load(str(models["llama"])).tokens_of(TEXT)[:200]
    source, forwards = load(models["llama"]), []
    model = source._model
    model.register_forward_hook(lambda *_: forwards.append(1))
    _, batch, *_ = batches(plan_windows(144, WindowConfig(seq_len=24, stride=8)), 5)
    rows = source.probabilities(tokens, batch)
    assert len(forwards) == 2, "one to see that the model is causal"
    positions = batch.positions()
    some = np.isin(positions, positions[[0, 9, 10, 39]])
    stats = source.stats(tokens, batch, some)
    assert len(forwards) == 3
    assert stats.rows is not None
    assert (stats.rows == rows[some]).all()
    assert (rows[np.arange(len(rows)), tokens[positions + 1]] == stats.p_target).all()


def test_windows_longer_than_the_model_s_positions_are_refused(
    models: dict[str, Path], evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    for kind, most, message in (
        ("gpt2", 64, "a window has 65 tokens, and the model 64 positions; give at most 64"),
        ("llama", 95, "a window, with <s> before it, has 97 tokens, and the model 96 positions; give at most 95"),
    ):
        flags = ["--hf", models[kind], "--text", tmp_path / "a.txt", "--preset", "hashed", "--stride", 32]
        assert evaluate(*flags, "--seq-len", most)["hashed"]["positions"] >= most
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            evaluate(*flags, "--seq-len", most + 1)
        assert exit_info.value.code == 2
        assert message in capsys.readouterr().err


def test_nan_weights_are_told(models: dict[str, Path]) -> None:
    source = load(models["gpt2"])
    with torch.no_grad():
        source._model.transformer.wte.weight[7] = float("nan")
    tokens = np.full(40, 7, np.uint16)
    (windows,) = batches(plan_windows(16, WindowConfig(seq_len=16, stride=16)), 5)
    with pytest.raises(InputError, match="position 0 are NaN"):
        source.stats(tokens, windows)
    with pytest.raises(InputError, match="position 0 are NaN"):
        source.probabilities(tokens, windows)


def test_a_model_in_training_mode_is_refused(models: dict[str, Path]) -> None:
    model = load_model(str(models["gpt2"]), torch.float32).train()
    with pytest.raises(InputError, match="GPT2LMHeadModel, is in training mode"):
        HfSource(model, batch_windows=1)


def test_positions_that_begin_after_the_pad_are_fewer() -> None:
    """RoBERTa's are 2 fewer than its configuration says."""
    transformers: Any = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.RobertaConfig(vocab_size=50, max_position_embeddings=34, is_decoder=True, **sizes)
    model = transformers.RobertaForCausalLM(config).eval()
    tokens = np.arange(3, 43, dtype=np.uint16)
    source = HfSource(model, batch_windows=1)
    (fits,) = batches(plan_windows(32, WindowConfig(seq_len=32, stride=32)), 1)
    assert len(source.stats(tokens, fits).p_target) == 32
    (longer,) = batches(plan_windows(33, WindowConfig(seq_len=33, stride=33)), 1)
    with pytest.raises(InputError, match="a window has 33 tokens, and the model 32 positions"):
        source.stats(tokens, longer)
