"""Weights that do not fit are refused by name; never a number of random weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")

from safetensors.torch import load_file, save_file

from ngram_eval.errors import InputError
from ngram_eval.models.hf.loading import load_model
from tests.support import gguf_files
from tests.support.evaluator import Evaluate
from tests.support.hf_models import save_gguf, save_gpt2, save_llama

Weights = dict[str, torch.Tensor]


def rewritten(folder: Path, change: Callable[[Weights], Weights]) -> str:
    """The tiny Llama with other weights."""
    save_llama(folder)
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return str(folder)


def prefixed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + name: one for name, one in weights.items()}


def refusal(name: str, **more: Any) -> str:
    with pytest.raises(InputError) as refused:
        load_model(name, torch.float32, **more)
    return str(refused.value)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_a_wrapper_s_prefix_is_named_and_taken_off_when_asked(tmp_path: Path, prefix: str) -> None:
    name = rewritten(tmp_path, prefixed(prefix))
    assert f"give weights_prefix {prefix}" in refusal(name)
    found = load_model(name, torch.float32, prefix).state_dict()
    for key, one in load_file(tmp_path / "model.safetensors").items():
        assert torch.equal(found[key.removeprefix(prefix)], one), key
    assert "it lacks" in refusal(name, prefix="other.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {k: v for k, v in w.items() if "layers.1.mlp" not in k}, "it lacks model.layers.1.mlp.down_proj"),
        (lambda w: {k: v for k, v in w.items() if k != "lm_head.weight"}, "it lacks lm_head.weight"),
        (
            lambda w: {**w, "model.layers.2.mlp.bias": torch.zeros(3)},
            "the model has no place for model.layers.2.mlp.bias",
        ),
        (lambda w: {**w, "model.norm.weight": torch.zeros(3)}, "of another shape are model.norm.weight"),
        (lambda w: {}, "and 17 more"),
    ],
)
def test_missing_and_unexpected_weights_are_named(tmp_path: Path, change: Any, message: str) -> None:
    assert message in refusal(rewritten(tmp_path, change))


def test_what_a_model_makes_itself_may_be_there_or_not(tmp_path: Path) -> None:
    """GPT-2's head is tied; older checkpoints hold masks and angles."""
    save_gpt2(tmp_path / "gpt2")
    weights = load_file(tmp_path / "gpt2/model.safetensors")
    assert "lm_head.weight" not in weights
    weights["transformer.h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    weights["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(weights, tmp_path / "gpt2/model.safetensors", metadata={"format": "pt"})
    load_model(str(tmp_path / "gpt2"), torch.float32)
    angles = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    load_model(rewritten(tmp_path / "llama", lambda weights: weights | angles), torch.float32)


def test_a_part_of_a_split_gguf(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only the head lies in the other part, which transformers would take for tied."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed: pip install ngram_eval[hf]")
    plain = gguf.GGUFWriter.add_tensor
    path = tmp_path / "tiny.gguf"
    with monkeypatch.context() as patch:
        patch.setattr(
            gguf.GGUFWriter,
            "add_tensor",
            lambda self, name, one, **more: None if name.startswith("blk.1.") else plain(self, name, one, **more),
        )
        save_gguf(models["gpt2"], path)
        assert "it lacks model.layers.1." in refusal(str(path))
        ends = gguf.GGUFWriter.write_header_to_file
        patch.setattr(
            gguf.GGUFWriter,
            "write_header_to_file",
            lambda self: (self.add_uint16("split.count", 2), ends(self)),
        )
        save_gguf(models["gpt2"], path)
    assert "is one of 2 parts of a model" in refusal(str(path))


UNREAD = (
    ("llama.rope.freq_base", 500_000.5, None),  # read, so it is the model's
    ("llama.rope.scaling.type", "yarn", "llama.rope.scaling.type = yarn, and transformers reads none"),
    ("llama.attention.sliding_window", 32, "llama.attention.sliding_window = 32, and transformers does not read it"),
    ("llama.attention.head_count_kv", 4, "other shapes"),
    ("llama.something.new", 1, "llama.something.new = 1, and transformers does not read it"),
    ("llama.attention.sliding_window", 0, None),
    ("llama.vocab_size", 400, None),
)


@pytest.mark.parametrize(("key", "value", "found"), UNREAD)
def test_what_a_gguf_says_and_transformers_does_not_read(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: Any, found: str | None
) -> None:
    """The model would load, and score as another one."""
    pytest.importorskip("gguf", reason="gguf is not installed: pip install ngram_eval[hf]")
    fields = gguf_files._fields
    monkeypatch.setattr(gguf_files, "_fields", lambda config: fields(config) | {key.removeprefix("llama."): value})
    path = tmp_path / "tiny.gguf"
    save_gguf(models["gpt2"], path)
    if found is None:
        load_model(str(path), torch.float32)
    else:
        assert found in refusal(str(path))


def test_a_gguf_s_tensor_that_transformers_does_not_read(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Llama 3.1's scaled rotations, for one."""
    pytest.importorskip("gguf", reason="gguf is not installed: pip install ngram_eval[hf]")
    tensors = gguf_files._tensors
    scaled = {"rope_freqs.weight": np.ones(4, np.float32)}
    monkeypatch.setattr(gguf_files, "_tensors", lambda *arguments: tensors(*arguments) | scaled)
    path = tmp_path / "tiny.gguf"
    save_gguf(models["gpt2"], path)
    assert "transformers does not read its tensors rope_freqs.weight" in refusal(str(path))


@pytest.mark.parametrize("beside", [False, True])
def test_an_adapter_is_not_left_out(tmp_path: Path, beside: bool) -> None:
    if beside:
        save_llama(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"}))
    assert "has an adapter (adapter_config.json), which is not applied here: merge it" in refusal(str(tmp_path))


def test_on_the_command_line(
    models: dict[str, Path], evaluate: Evaluate, text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = rewritten(tmp_path / "renamed", prefixed("_orig_mod."))
    flags = ["--text", text_file, "--seq-len", 32, "--stride", 32, "--preset", "exact"]
    with pytest.raises(SystemExit) as exit_info:
        evaluate("--hf", name, *flags)
    assert exit_info.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.endswith("give --weights-prefix _orig_mod.")
    found = evaluate("--hf", name, "--weights-prefix", "_orig_mod.", *flags)["exact"]
    assert "weights named without _orig_mod." in capsys.readouterr().out
    assert found["neural_settings"]["weights_prefix"] == "weights named without _orig_mod."
    assert found["nats"] == evaluate("--hf", models["llama"], *flags)["exact"]["nats"]
