"""Windows are led by what the tokenizer of the model puts before a text, whichever way the model is given."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")

from tokenizers import processors

from ngram_eval import evaluate as evaluate_api
from ngram_eval import preset
from ngram_eval.config import WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.models.hf.lead import lead_of, lead_of_model
from ngram_eval.models.hf.loading import load_model, load_tokenizer
from ngram_eval.models.hf.tokenizer import HfTokenizer
from ngram_eval.models.logits_source import Lead
from ngram_eval.text.reading import read_texts
from ngram_eval.text.shards import write_shard
from ngram_eval.text.windows import batches, plan_windows
from tests.support.evaluator import Evaluate
from tests.support.hf_models import TEXT, save_gguf, save_gpt2
from tests.support.hf_sources import by_hand, load

WINDOW = WindowConfig(seq_len=32, stride=32)
FLAGS = ["--seq-len", 32, "--stride", 32, "--preset", "exact"]


def test_what_the_tokenizer_puts_before_a_text(models: dict[str, Path]) -> None:
    assert lead_of_model(str(models["gpt2"])) == Lead((), "none")
    assert lead_of_model(str(models["llama"])) == Lead((1,), "<s>")
    assert lead_of_model(str(models["llama"]), "none") == Lead()
    assert lead_of_model(str(models["llama"]), "</s>, 1") == Lead((2, 1), "</s> <s>")
    with pytest.raises(InputError, match="lead has '<bos>', which is no token of the model"):
        lead_of_model(str(models["llama"]), "<bos>")


def test_two_tokens_before_a_text_lead_every_window(tmp_path: Path) -> None:
    save_gpt2(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    pair = [("A", 34), ("B", 35)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("A B $0", special_tokens=pair)
    tokenizer.save_pretrained(tmp_path)
    names = " ".join(tokenizer.convert_ids_to_tokens([34, 35]))
    assert lead_of(tokenizer) == Lead((34, 35), names)
    tokens = HfTokenizer.load(str(tmp_path)).tokens_of(TEXT)[:80]
    tokens[16:18] = 34, 35  # a window that begins with them
    source, windows = load(tmp_path), plan_windows(64, WindowConfig(seq_len=16, stride=16))
    assert source.settings["lead"] == f"lead: {names}"
    (batch,) = batches(windows, 4)
    np.testing.assert_allclose(
        source.probabilities(tokens, batch), by_hand(tmp_path, tokens, windows, (34, 35)), atol=2e-6
    )


@pytest.mark.parametrize(("add_bos", "lead"), [(None, ()), (False, ()), (True, (0,))])
def test_a_gguf_s_own_word_on_bos(
    models: dict[str, Path], tmp_path: Path, add_bos: bool | None, lead: tuple[int, ...]
) -> None:
    pytest.importorskip("gguf", reason="gguf is not installed: pip install ngram_eval[hf]")
    path = tmp_path / "tiny.gguf"
    save_gguf(models["gpt2"], path, add_bos)
    assert lead_of_model(str(path)).tokens == lead


def test_however_the_model_is_given_its_windows_are_led(
    models: dict[str, Path], evaluate: Evaluate, text_file: Path, tmp_path: Path
) -> None:
    """By text, by tokens with the SentencePiece model of the data, from Python, and wrapped."""
    expected = evaluate("--hf", models["llama"], "--text", text_file, *FLAGS)["exact"]
    assert expected["neural_settings"]["lead"] == "lead: <s>"
    tokens = read_texts(HfTokenizer.load(str(models["llama"])), [text_file]).tokens[:]
    write_shard(tmp_path / "data.bin", tokens)
    by_data = ["--hf", models["llama"], "--data", tmp_path / "data.bin", "--tokenizer"]
    by_data += [models["llama"] / "tokenizer.model", *FLAGS]
    assert evaluate(*by_data)["exact"]["nats"] == expected["nats"]
    unled = evaluate(*by_data, "--lead", "none")["exact"]
    assert unled["neural_settings"]["lead"] == "lead: none"
    assert unled["nats"] != expected["nats"]

    class Wrapped(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, windows: torch.Tensor) -> Any:
            return self.model(windows)

    model, tokenizer = load_model(str(models["llama"]), torch.float32), load_tokenizer(str(models["llama"]))
    config = replace(preset("exact"), window=WINDOW)
    for one in (model, Wrapped(model).eval()):
        found = evaluate_api(one, tokens, config, tokenizer=tokenizer)
        assert found.nats == pytest.approx(expected["nats"], rel=1e-6), type(one)
        assert evaluate_api(one, tokens, config, tokenizer=tokenizer, lead="none").nats == pytest.approx(
            unled["nats"], rel=1e-6
        )
    assert evaluate_api(Wrapped(model).eval(), tokens, config, lead="1").nats == pytest.approx(
        expected["nats"], rel=1e-6
    )
    with pytest.raises(InputError, match="without a transformers tokenizer"):
        evaluate_api(model, tokens, config, lead="<s>")


def test_a_model_without_a_tokenizer_needs_to_be_told(
    models: dict[str, Path], evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(models["llama"] / name, tmp_path / "bare" / name)
    write_shard(tmp_path / "data.bin", np.arange(3, 200, dtype=np.uint16))
    flags = ["--hf", tmp_path / "bare", "--data", tmp_path / "data.bin", *FLAGS]
    flags += ["--tokenizer", models["llama"] / "tokenizer.model"]
    with pytest.raises(SystemExit) as exit_info:
        evaluate(*flags)
    assert exit_info.value.code == 2
    assert "give --lead none if nothing" in capsys.readouterr().err
    assert evaluate(*flags, "--lead", "none")["exact"]["neural_settings"]["lead"] == "lead: none"


def test_a_lead_outside_the_vocabulary_is_refused(models: dict[str, Path]) -> None:
    model = load_model(str(models["llama"]), torch.float32)
    with pytest.raises(InputError, match="the lead holds token 4096, and the model has 448 tokens"):
        evaluate_api(model, np.arange(80), replace(preset("exact"), window=WINDOW), lead="4096")
