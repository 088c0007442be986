"""The harness's own tasks with a memory: what it adds is what the blend says, and every likelihood is a probability."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install ngram_eval[lm-eval]")

from lm_eval.api.instance import Instance

from ngram_eval import NgramMemory
from ngram_eval.assets import asset
from ngram_eval.errors import InputError
from ngram_eval.integrations.lm_eval import NgramLM
from ngram_eval.kept import file as kept_file
from ngram_eval.models.hf.loading import load_model, load_tokenizer
from ngram_eval.models.hf.tokenizer import HfTokenizer
from ngram_eval.text.kept import kept_of
from ngram_eval.text.tokenizer import Tokenizer
from tests.support.hf_models import TEXT, save_gpt2

SENTENCE = TEXT[:300]
TASK = """
task: repeats
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: bits_per_byte
  - metric: byte_perplexity
  - metric: word_perplexity
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpt2")
    save_gpt2(path)
    return path


def model(folder: Path, **arguments: Any) -> NgramLM:
    return NgramLM(pretrained=str(folder), device="cpu", batch_size=2, **arguments)


def asked(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, one, index) for index, one in enumerate(arguments)]


def by_hand(folder: Path, tokens: list[int], known: list[int]) -> float:
    """Log-likelihood of `tokens` after their first, by a memory that has observed `known`, in one window."""
    network = load_model(str(folder), torch.float32)
    with torch.inference_mode():
        rows = torch.softmax(network(torch.tensor([tokens[:-1]])).logits[0].double(), dim=-1).numpy()
    memory = NgramMemory()
    memory.observe([*known, tokens[0]])
    return float(
        np.log([memory.observe([token], row[None]) for token, row in zip(tokens[1:], rows, strict=True)]).sum()
    )


def test_a_continuation_is_charged_what_the_memory_says(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    context, more = "The quick brown fox. The quick", " brown fox"
    (found, _), (again, _) = model(folder).loglikelihood(asked("loglikelihood", (context, more), (context, more)))
    whole = tokenizer(context + more)["input_ids"]
    length = len(tokenizer(more)["input_ids"])
    expected = by_hand(folder, whole, []) - by_hand(folder, whole[:-length], [])
    assert found == pytest.approx(expected, rel=1e-5)
    assert found == again, "a memory of its own for each"


def test_all_next_tokens_together_have_the_probability_1(folder: Path) -> None:
    one = model(folder, memory="tilt")
    logits = one._model_call(torch.tensor([[5, 6, 7, 5, 6], [9, 9, 9, 9, 9]]))
    assert logits.shape == (2, 5, 400)
    np.testing.assert_allclose(np.exp(logits.numpy()).sum(axis=-1), 1, rtol=1e-9)


def test_a_text_that_memories_begin_with(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "known.txt").write_text(SENTENCE)
    known = load_tokenizer(str(folder))(SENTENCE)["input_ids"]
    request = asked("loglikelihood_rolling", (SENTENCE[:60],))
    (found,) = model(folder, text=str(tmp_path / "known.txt")).loglikelihood_rolling(request)
    tokens = load_tokenizer(str(folder))(SENTENCE[:60])["input_ids"]
    assert found == pytest.approx(by_hand(folder, [0, *tokens], known), rel=1e-5)
    assert found > model(folder).loglikelihood_rolling(request)[0]


def test_a_kept_memory_is_the_text_that_it_keeps(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "known.txt").write_text(SENTENCE)
    known = np.array(load_tokenizer(str(folder))(SENTENCE)["input_ids"], np.uint16)
    kept_file.write(tmp_path / "known.ngm", kept_of(known, HfTokenizer.load(str(folder))), "exact")
    request = asked("loglikelihood_rolling", (SENTENCE[:60],))
    by_text, by_file = (
        model(folder, **{name: str(tmp_path / f"known.{ending}")}).loglikelihood_rolling(request)
        for name, ending in (("text", "txt"), ("kept", "ngm"))
    )
    assert by_file == by_text
    kept_file.write(tmp_path / "other.ngm", kept_of(known, Tokenizer.load(asset("tokenizer.model"))), "none")
    with pytest.raises(InputError, match="is a memory of another tokenizer"):
        model(folder, kept=str(tmp_path / "other.ngm"))


def test_one_memory_goes_along_the_text_where_windows_slide(folder: Path) -> None:
    request = asked("loglikelihood_rolling", (TEXT[:800],))
    (apart,) = model(folder).loglikelihood_rolling(request)
    (along,) = model(folder, rolling="sliding", stride=16).loglikelihood_rolling(request)
    assert along > apart


def test_generation_is_blended(folder: Path) -> None:
    request = asked("generate_until", ("fox dog fox dog fox", {"until": ["\n\n"], "max_gen_toks": 5}))
    (text,) = model(folder).generate_until(request)
    assert "dog" in text


@pytest.mark.slow
def test_the_command_line_runs_a_task_over_a_local_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps({"text": SENTENCE}) + "\n")
    (tmp_path / "repeats.yaml").write_text(TASK.format(data=tmp_path / "data.jsonl"))
    command = [sys.executable, "-m", "ngram_eval.integrations.lm_eval", "--model", "ngram", "--tasks", "repeats"]
    command += ["--include_path", str(tmp_path), "--device", "cpu", "--batch_size", "1"]
    found = {}
    for kind, arguments in {"harness": "", "sliding": ",rolling=sliding"}.items():
        out = tmp_path / kind
        given = ["--model_args", f"pretrained={folder},memory=exact{arguments}", "--output_path", str(out)]
        subprocess.run([*command, *given], check=True, capture_output=True, cwd=tmp_path)
        (path,) = out.rglob("*.json")
        found[kind] = json.loads(path.read_text())["results"]["repeats"]["bits_per_byte,none"]
    assert 0 < found["sliding"] < found["harness"]
