"""Hugging Face models on the command line, from Python, and clear refusals."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")

from ngram_eval import evaluate as evaluate_api
from ngram_eval import preset
from ngram_eval.cli import audit
from ngram_eval.config import WindowConfig
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.evaluation.budget.measure import measure_window
from ngram_eval.evaluation.job import load_job
from ngram_eval.evaluation.settings import DataSettings, ModelSettings, Settings
from ngram_eval.models.hf.loading import digest, load_model, load_tokenizer
from ngram_eval.models.hf.source import HfSource
from ngram_eval.models.hf.tokenizer import HfTokenizer
from ngram_eval.text.reading import read_texts
from ngram_eval.text.shards import write_shard
from ngram_eval.text.windows import plan_windows
from tests.support.evaluator import Evaluate, fails
from tests.support.hf_models import KINDS, TEXT, save_gguf, save_gpt2, save_llama
from tests.support.hf_sources import by_hand, load
from tests.support.processes import finish, launch
from tests.support.torch_threads import torch_threads


@pytest.mark.parametrize("kind", KINDS)
def test_text_and_shards_give_the_same_result(
    models: dict[str, Path], evaluate: Evaluate, text_file: Path, tmp_path: Path, kind: str
) -> None:
    flags = ["--seq-len", 32, "--stride", 8, "--batch-windows", 3]
    flags += ["--preset", "hashed", "--preset", "exact", "--preset", "tilt", "--preset", "mixer-fast", "--groups", 4096]
    of_text = evaluate("--hf", models[kind], "--text", text_file, *flags)
    tokenizer = HfTokenizer.load(str(models[kind]))
    tokens = read_texts(tokenizer, [text_file]).tokens[:]
    write_shard(tmp_path / "data.bin", tokens)
    of_shards = evaluate("--hf", models[kind], "--data", tmp_path / "data.bin", *flags)
    positions = (len(tokens) - 1) // 32 * 32
    windows = plan_windows(positions, WindowConfig(seq_len=32, stride=8))
    p = by_hand(models[kind], tokens, windows, load(models[kind]).lead.tokens)[
        np.arange(positions), tokens[1 : positions + 1]
    ]
    for name, result in of_text.items():
        assert result["neural_source"] == "hf"
        assert result["neural_nats"] == pytest.approx(-np.log(p).sum(), rel=1e-6)
        spelt = tokenizer._spelling.join(tokens[: positions + 1].tolist())
        assert result["bytes"] == len(spelt) - (kind == "llama")
        assert result["vocabulary_sum"] == pytest.approx(1, abs=1e-6) or name == "hashed"
        assert result["unknown_targets"] == 0
        for key in ("nats", "neural_nats", "positions", "bytes", "vocabulary_sum", "hits_by_order"):
            assert of_shards[name][key] == result[key], (name, key)
    assert of_text["exact"]["val_bpb"] < of_text["exact"]["neural_bpb"], "the text repeats itself"


def test_the_python_function_gives_the_same(models: dict[str, Path], evaluate: Evaluate, text_file: Path) -> None:
    flags = ["--seq-len", 32, "--stride", 8, "--batch-windows", 3]
    expected = evaluate("--hf", models["llama"], "--text", text_file, "--preset", "exact", *flags)["exact"]
    model, tokenizer = load_model(str(models["llama"]), torch.float32), load_tokenizer(str(models["llama"]))
    tokens = tokenizer(TEXT, split_special_tokens=True)["input_ids"]
    window = WindowConfig(seq_len=32, stride=8)
    config = replace(preset("exact"), window=window)
    result = evaluate_api(model, tokens, config, tokenizer=tokenizer, batch_windows=3)
    for key in ("nats", "neural_nats", "positions", "bytes", "val_bpb", "vocabulary_sum", "hits_by_order"):
        assert getattr(result, key) == expected[key], key


def test_a_gguf_file(models: dict[str, Path], evaluate: Evaluate, text_file: Path, tmp_path: Path) -> None:
    """Tokenizer and weights of one file; the model says what it said before it was written."""
    model = save_gguf(models["gpt2"], tmp_path / "tiny.gguf")
    flags = ["--hf", tmp_path / "tiny.gguf", "--text", text_file, "--seq-len", 64, "--stride", 64, "--preset", "exact"]
    result = evaluate(*flags)["exact"]
    tokens = read_texts(HfTokenizer.load(str(models["gpt2"])), [text_file]).tokens[:]
    expected = evaluate_api(
        model,
        tokens,
        replace(preset("exact"), window=WindowConfig(seq_len=64, stride=64)),
        tokenizer=load_tokenizer(str(models["gpt2"])),
    )
    assert result["tokens"] == len(tokens)
    assert result["bytes"] == expected.bytes
    assert result["nats"] == pytest.approx(expected.nats, rel=1e-5)
    assert len(digest(str(tmp_path / "tiny.gguf"))) == 64


@pytest.mark.slow
def test_two_ranks_give_the_same_bits(
    models: dict[str, Path], evaluate: Evaluate, text_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "two.json"
    flags = ["--hf", models["llama"], "--text", text_file, "--seq-len", 32, "--stride", 8, "--batch-windows", 3]
    flags += ["--preset", "hashed", "--preset", "tilt"]
    code, _, err = finish(launch(2, *flags, "--json", out))
    assert code == 0, err
    for threads in (1, 2):
        with torch_threads(threads):
            one = evaluate(*flags)
        for two in json.loads(out.read_text())["runs"]:
            for key in ("nats", "neural_nats", "positions", "bytes", "hits_by_order", "vocabulary_sum"):
                assert two[key] == one[two["preset"]][key], (two["preset"], key, threads)


def test_the_audit_refutes_nothing_of_a_probability(
    models: dict[str, Path], text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bytes by the tokenizer's own decoder included."""
    flags = ["--hf", models["llama"], "--text", text_file, "--seq-len", 32, "--stride", 8, "--positions", 256]
    monkeypatch.setattr(sys, "argv", ["audit", *map(str, flags), "--samples", "8", "--preset", "exact"])
    with pytest.raises(SystemExit) as exit_info:
        audit.main()
    printed, problem = capsys.readouterr()
    assert exit_info.value.code == 0, printed + problem
    assert re.search(r"6 the text's bytes \(off\) +✓ 0 +✓ 0", printed)


def test_a_function_is_audited_on_the_tokens_of_a_model_s_tokenizer(
    models: dict[str, Path], text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "import numpy as np\n\ndef predict(past, state):\n    return np.full(1024, 1 / 1024)\n"
    (tmp_path / "f.py").write_text(source)
    flags = ["--hf", models["llama"], "--text", text_file, "--positions", 64, "--callable", tmp_path / "f.py:predict"]
    with pytest.raises(SystemExit) as exit_info:
        audit.main([str(flag) for flag in flags])
    printed, problem = capsys.readouterr()
    assert exit_info.value.code == 0, printed + problem
    assert "the decoder writes" not in printed
    assert "bits per byte" in printed


def test_two_texts_are_two_documents(models: dict[str, Path], evaluate: Evaluate, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("The quick brown fox. " * 9)
    flags = ["--hf", models["llama"], "--text", tmp_path / "a.txt", tmp_path / "b.txt", "--preset", "exact"]
    result = evaluate(*flags, "--seq-len", 16, "--stride", 16)["exact"]
    assert result["data"] == [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    assert result["positions"] == (result["tokens"] - 1) // 16 * 16


def test_the_published_byte_rule_is_not_for_these_tokenizers(
    models: dict[str, Path], evaluate: Evaluate, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--hf", models["gpt2"], "--text", text_file, "--seq-len", 32, "--stride", 32]
    assert list(evaluate(*flags)) == ["hashed", "exact"]
    assert "Left out pr890" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate(*flags, "--preset", "pr890")
    assert "give --byte-rule decoded" in capsys.readouterr().err
    assert evaluate(*flags, "--preset", "pr890", "--byte-rule", "decoded")["pr890"]["bytes"] > 1000


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hf", "{gpt2}"], "--hf needs something to score: --text FILE"),
        (["--hf", "{gpt2}", "--text", "{text}", "--data", "x.bin"], "--text and --data are both"),
        (["--hf", "{gpt2}", "--uniform", "--text", "{text}"], "--hf and --uniform are all neural sources"),
        (["--hf", "{gpt2}", "--text", "{text}", "--ttt", "legal"], "--ttt legal adapts a model of --artifact"),
        (["--hf", "./nowhere", "--text", "{text}"], "--hf is ./nowhere: no such folder or file"),
        (["--hf", "some/where/else", "--text", "{text}"], "no such folder or file"),
        (["--hf", "{text}", "--text", "{text}"], "a file: give the model's folder, a .gguf file"),
        (["--hf", "{empty}", "--text", "{text}"], "transformers can't load its tokenizer"),
        (["--hf", "{broken}", "--text", "{text}"], "transformers can't load its model"),
        (["--hf", "{shrunk}", "--text", "{text}"], "is outside the vocabulary of --hf"),
    ],
)
def test_bad_input_is_one_line(
    models: dict[str, Path],
    evaluate: Evaluate,
    text_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    save_gpt2(tmp_path / "broken")
    (tmp_path / "broken/model.safetensors").write_bytes(b"not weights")
    if "{shrunk}" in flags:
        save_llama(tmp_path / "shrunk", vocab_size=300)
    places = {name: tmp_path / name for name in ("empty", "broken", "shrunk")} | {"text": text_file, **models}
    with pytest.raises(SystemExit) as exit_info:
        evaluate(*(flag.format(**places) for flag in flags), "--seq-len", 32, "--preset", "exact")
    assert exit_info.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


@pytest.mark.slow
def test_the_hub_out_of_reach_is_told(text_file: Path) -> None:
    done = run_python(
        "import sys; from ngram_eval.run import main;"
        f"sys.argv = ['run', '--hf', 'nobody/no-such-model', '--text', {str(text_file)!r}]; main()",
        HF_HUB_OFFLINE="1",
    )
    assert done.returncode == 2, done.stderr
    assert "no such folder or file here, nor a copy of a model of the hub, which does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_transformers_it_is_named(text_file: Path, tmp_path: Path) -> None:
    done = run_python(
        "import sys; sys.modules['transformers'] = None\n"
        "from ngram_eval.run import main\n"
        f"sys.argv = ['run', '--hf', {str(tmp_path)!r}, '--text', {str(text_file)!r}]; main()"
    )
    assert done.returncode == 2, done.stderr
    assert "\nerror: --hf needs transformers, which can't be imported" in done.stderr
    assert "pip install ngram_eval[hf]" in done.stderr


def test_nothing_else_imports_transformers() -> None:
    done = run_python(
        "import sys, numpy as np, ngram_eval\n"
        "assert 'torch' not in sys.modules, 'a light import'\n"
        "import ngram_eval.run, ngram_eval.cli.audit, ngram_eval.cli.codec, ngram_eval.train\n"
        "logits = np.zeros((64, 8))\n"
        "from ngram_eval.config import EvalConfig, WindowConfig\n"
        "config = EvalConfig(scorer='exact', window=WindowConfig(seq_len=32, stride=32))\n"
        "ngram_eval.evaluate(logits, np.zeros(65, np.int64), config); ngram_eval.NgramMemory()\n"
        "assert 'transformers' not in sys.modules and 'tokenizers' not in sys.modules\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_digest_is_of_all_that_decides(models: dict[str, Path], tmp_path: Path) -> None:
    save_gpt2(tmp_path / "copy")
    (tmp_path / "copy/old.bin").mkdir()  # no file, for all its name
    assert digest(str(tmp_path / "copy")) == digest(str(models["gpt2"]))
    weights = tmp_path / "copy/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert digest(str(tmp_path / "copy")) != digest(str(models["gpt2"]))


def test_resumes_with_the_same_model_only(
    models: dict[str, Path], evaluate: Evaluate, text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_gpt2(tmp_path / "model")
    flags = ["--hf", tmp_path / "model", "--text", text_file, "--seq-len", 32, "--stride", 8, "--preset", "exact"]
    flags += ["--batch-windows", 2, "--checkpoint", tmp_path / "state", "--every", 100]
    done = evaluate(*flags)["exact"]
    again = evaluate(*flags, "--resume")["exact"]
    assert (again["nats"], again["resumed_positions"]) == (done["nats"], done["positions"])
    (tmp_path / "model/generation_config.json").write_text("{}")
    with pytest.raises(SystemExit):
        evaluate(*flags, "--resume")
    assert "neural source" in capsys.readouterr().err


def test_a_model_that_changes_while_it_is_in_use_is_named(
    models: dict[str, Path],
    evaluate: Evaluate,
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(models["gpt2"], tmp_path / "model"))
    flags = ["--hf", folder, "--text", text_file, "--seq-len", 32, "--stride", 8, "--preset", "exact"]
    evaluate(*flags)
    stats = HfSource.stats

    def changing(*arguments: Any) -> Any:
        os.utime(folder / "config.json", ns=(0, 0))
        return stats(*arguments)

    monkeypatch.setattr(HfSource, "stats", changing)
    assert f"{folder / 'config.json'} was changed while it was in use" in fails(capsys, evaluate, *flags)


@pytest.fixture
def forwarded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Windows of each forward pass of a model."""
    seen, forward = list[int](), HfSource.forward

    def counting(self: HfSource, tokens: NDArray[np.int64], last: int) -> Iterator[torch.Tensor]:
        seen.append(len(tokens))
        return forward(self, tokens, last)

    monkeypatch.setattr(HfSource, "forward", counting)
    return seen


def test_samples_and_a_second_preset_cost_no_forward_pass(
    models: dict[str, Path], evaluate: Evaluate, text_file: Path, forwarded: list[int]
) -> None:
    flags = ["--hf", models["gpt2"], "--text", text_file, "--seq-len", 32, "--stride", 8, "--preset", "hashed"]
    bare = evaluate(*flags, "--samples", 0)["hashed"]
    alone, found = len(forwarded), evaluate(*flags, "--preset", "exact")
    assert len(forwarded) == 2 * alone
    assert bare["vocabulary_sum"] is None
    assert found["exact"]["vocabulary_sum"] == pytest.approx(1)
    assert found["exact"]["neural_reused"] == found["exact"]["positions"]
    assert found["hashed"]["nats"] == bare["nats"]


def test_a_budget_times_forward_passes(models: dict[str, Path], text_file: Path, forwarded: list[int]) -> None:
    settings = Settings(data=DataSettings(text=(text_file,)), model=ModelSettings(hf=str(models["gpt2"])))
    config = preset("exact")
    config = replace(config, window=WindowConfig(seq_len=32, stride=8))
    _, windows = measure_window(load_job(settings, ALONE), config, 5)
    assert windows > 1
    assert sum(one == windows for one in forwarded) >= 5
