"""GGUF files of the families that transformers reads, written as llama.cpp's converter lays them out.

The tensors' names are those of the `gguf` package, which is llama.cpp's own. What that converter does to weights is
done here: rotated pairs of a Llama's heads interleaved, GPT-2's matrices transposed, Gemma's norms with their 1.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ARCHITECTURES = {
    "bloom": "bloom",
    "falcon": "falcon",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gemma4_text": "gemma4",
    "gpt2": "gpt2",
    "gpt_oss": "gpt-oss",
    "lfm2": "lfm2",
    "llama": "llama",
    "mamba": "mamba",
    "minimax_m2": "minimax-m2",
    "mistral": "llama",
    "nemotron": "nemotron",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen2moe",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
}
"""The architecture that llama.cpp gives each family."""


def write_gguf(model: Any, tokenizer: dict[str, Any], to: Path, add_bos: bool | None = None) -> None:
    """Write a model and its byte-level tokenizer, the parsed tokenizer.json, in float32.

    `add_bos` is what the file says of it, if anything.
    """
    gguf = pytest.importorskip("gguf", reason="gguf is not installed: pip install ngram_eval[hf]")
    config = model.config
    writer = gguf.GGUFWriter(to, ARCHITECTURES[config.model_type])
    for key, value in _fields(config).items():
        kind = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        kind.get(type(value), writer.add_array)(f"{ARCHITECTURES[config.model_type]}.{key}", value)
    vocabulary = {**tokenizer["model"]["vocab"], **{one["content"]: one["id"] for one in tokenizer["added_tokens"]}}
    special = {one["content"] for one in tokenizer["added_tokens"]}
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(pieces)
    writer.add_token_types([3 if piece in special else 1 for piece in pieces])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    if add_bos is not None:
        writer.add_add_bos_token(add_bos)
    for name, values in _tensors(model, gguf).items():
        writer.add_tensor(name, np.ascontiguousarray(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _fields(config: Any) -> dict[str, Any]:
    """Settings by llama.cpp's names: what transformers reads from a file, asked of a configuration."""
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    known = {"gemma3_text": "gemma3", "gemma4_text": "gemma4"}.get(config.model_type, config.model_type)
    names: Any = GGUF_CONFIG_MAPPING
    found = {key: getattr(config, name, None) for key, name in names[known].items() if name}
    rope = getattr(config, "rope_parameters", None) or {}
    if "rope.freq_base" in found:
        found["rope.freq_base"] = rope.get("rope_theta", found["rope.freq_base"])
    if config.model_type == "lfm2":
        found["attention.layer_norm_rms_epsilon"] = config.norm_eps
        kinds = config.layer_types
        found["attention.head_count_kv"] = [
            config.num_key_value_heads if kind == "full_attention" else 0 for kind in kinds
        ]
    return {key: value for key, value in found.items() if value is not None}


def _tensors(model: Any, gguf: Any) -> dict[str, NDArray[np.float32]]:
    """A model's weights by llama.cpp's names, as it lays them out."""
    config = model.config
    architecture = ARCHITECTURES[config.model_type]
    (number,) = (key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    tied = {name for name in model._tied_weights_keys or ()} if config.tie_word_embeddings else set()
    found: dict[str, NDArray[np.float32]] = {}
    for name, tensor in model.state_dict().items():
        if name in tied:
            continue
        values = tensor.float().numpy()
        stem, dot, kind = name.replace("_bias", ".bias").rpartition(".")
        if kind not in ("weight", "bias"):
            stem, dot, kind = name, "", ""
        if "experts.gate_up_proj" in stem:  # one matrix for both here
            layer = stem.split(".")[2]
            end = kind or "weight"
            if config.model_type == "gpt_oss":
                gate, up = values[..., ::2], values[..., 1::2]
                if end == "weight":
                    gate, up = gate.swapaxes(1, 2), up.swapaxes(1, 2)
            else:
                gate, up = np.split(values, 2, axis=1)
            found[f"blk.{layer}.ffn_gate_exps.{end}"], found[f"blk.{layer}.ffn_up_exps.{end}"] = gate, up
            continue
        other = stem.replace("mlp.", "block_sparse_moe.").removeprefix("transformer.")
        known = names.get_name(stem) or names.get_name(other)
        assert known is not None, f"llama.cpp has no name for {name}"
        if not dot and "exps" in known:
            dot, kind = ".", "weight"
        found[f"{known}{dot}{kind}"] = _laid_out(values, known, kind, config)
    return found


def _laid_out(values: Any, name: str, kind: str, config: Any) -> Any:
    part = name.rpartition(".")[2]
    family = config.model_type
    if family in ("llama", "mistral") and part in ("attn_q", "attn_k"):  # the halves of rotated pairs interleaved
        heads = config.num_attention_heads if part == "attn_q" else config.num_key_value_heads
        return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    if family == "gpt2" and kind == "weight" and part in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"):
        return values.T
    if family in ("gemma2", "gemma3_text", "nemotron") and name.endswith("norm") and kind == "weight":
        return values + 1
    if family == "bloom" and part == "attn_qkv":  # queries, keys, values, each of all heads
        return values.reshape(config.n_head, 3, -1, *values.shape[1:]).swapaxes(0, 1).reshape(values.shape)
    if kind == "weight" and name.endswith(("ssm_conv1d", "shortconv.conv")):
        return values[:, 0]
    if part == "ffn_gate_inp_shexp":
        return values[0]
    if family == "gpt_oss" and part == "ffn_down_exps" and kind == "weight":
        return values.swapaxes(1, 2)
    return -np.exp(values) if part == "ssm_a" else values
