"""GGUF files: what they say of a model, and whether transformers has read all of it.

transformers passes over settings and tensors of a file that it does not know. The model then loads and
scores as another one: with other rotations, or without its sliding window.
"""

import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ngram_eval.errors import InputError, refusing

_WHOLE = "give the model's folder as transformers writes it"
_SEEN_IN_SHAPES = {
    "attention.value_length",
    "context_length",
    "expert_feed_forward_length",
    "expert_shared_feed_forward_length",
    "feed_forward_length",
    "tensor_data_layout",
    "vocab_size",
}
"""Settings that the shapes of the weights repeat, or that no number depends on."""
_NAMED = 4


def gguf_field(name: str, field: str) -> Any:
    """The value of a field of a GGUF file; None if it has none, or if `name` is not a GGUF file."""
    found = _reader(name)
    known = None if found is None else found.get_field(field)
    return None if known is None else known.contents()


def _reader(name: str) -> Any:
    path = Path(name)
    if path.suffix != ".gguf" or not path.is_file() or find_spec("gguf") is None:
        return None
    from gguf import GGUFReader

    with refusing(f"--hf {name}", "is not a whole GGUF file", "fetch it again"):
        return GGUFReader(path)


def refuse_part(name: str) -> None:
    """Raise `InputError` for a part of a split GGUF: transformers may tie what it lacks."""
    count = gguf_field(name, "split.count")
    if count not in (None, 0, 1):
        raise InputError(
            f"--hf {name} is one of {count} parts of a model: join them (llama-gguf-split --merge) and give the whole"
        )


def refuse_unread(name: str, model: Any) -> None:
    """Raise `InputError`, naming it, for what a GGUF file holds and the model that was loaded from it does not."""
    reader = _reader(name)
    if reader is None:
        return
    if unread := sorted(_unread_tensors(reader, model)):
        more = f" and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
        raise InputError(
            f"--hf {name}: transformers does not read its tensors {', '.join(unread[:_NAMED])}{more}: {_WHOLE}"
        )
    if differing := sorted(_other_shapes(model)):
        raise InputError(
            f"--hf {name}: its weights have other shapes than the configuration that transformers reads from it says "
            f"({', '.join(differing[:_NAMED])}): {_WHOLE}"
        )
    architecture = reader.get_field("general.architecture").contents()
    said = _said(model.config)
    for key, field in reader.fields.items():
        setting = key.removeprefix(f"{architecture}.")
        if setting == key or setting in _SEEN_IN_SHAPES:
            continue
        value = field.contents()
        if not _same(value, said.get(setting)):
            read = f"reads {said[setting]}" if said.get(setting) is not None else "does not read it"
            raise InputError(f"--hf {name}: it says {key} = {value}, and transformers {read}: {_WHOLE}")


def _unread_tensors(reader: Any, model: Any) -> Iterator[str]:
    from transformers import modeling_gguf_pytorch_utils

    library: Any = modeling_gguf_pytorch_utils  # has no types
    architecture = reader.get_field("general.architecture").contents()
    processor = library.TENSOR_PROCESSORS.get(architecture, library.TensorProcessor)(config=model.config.to_dict())
    known = {*library.get_gguf_hf_weights_map(model, processor), "output.weight"}
    return (one.name for one in reader.tensors if not {one.name, one.name.removesuffix(".weight")} & known)


def _other_shapes(model: Any) -> Iterator[str]:
    with torch.device("meta"):
        expected = type(model)(model.config).state_dict()
    return (name for name, one in model.state_dict().items() if name in expected and one.shape != expected[name].shape)


def _same(value: Any, read: Any) -> bool:
    """Whether a setting of the file is what was read, or says nothing that could have been."""
    if read is None:
        return not value or value == "none"
    if isinstance(value, list):
        return bool(value == read or max(value) == read)
    if isinstance(value, float):
        return math.isclose(value, read, rel_tol=1e-6)
    return bool(value == read)


def _said(config: Any) -> dict[str, Any]:
    """What a configuration says, by llama.cpp's names of settings."""

    def one(*names: str) -> Any:
        return next((found for name in names if (found := getattr(config, name, None)) is not None), None)

    heads, width = one("num_attention_heads"), one("hidden_size")
    head = one("head_dim") or (width // heads if heads else None)
    rope = one("rope_parameters") or {}
    whole, local = rope.get("full_attention", rope), rope.get("sliding_attention", {})
    kinds = one("layer_types") or []
    epsilon = one("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_eps", "norm_epsilon")
    slides = [kind == "sliding_attention" for kind in kinds]
    return {
        "attention.head_count": heads,
        "attention.head_count_kv": one("num_key_value_heads", "num_kv_heads") or heads,
        "attention.key_length": one("global_head_dim") or head,
        "attention.key_length_swa": head,
        "attention.layer_norm_epsilon": epsilon,
        "attention.layer_norm_rms_epsilon": epsilon,
        "attention.sliding_window": one("sliding_window"),
        "attention.sliding_window_pattern": slides or None,
        "attn_logit_softcapping": one("attn_logit_softcapping"),
        "block_count": one("num_hidden_layers"),
        "embedding_length": width,
        "expert_count": one("num_experts", "num_local_experts", "n_routed_experts"),
        "expert_gating_func": {"softmax": 1, "sigmoid": 2}.get(one("scoring_func")),
        "expert_used_count": one("num_experts_per_tok"),
        "expert_weights_norm": one("norm_topk_prob"),
        "final_logit_softcapping": one("final_logit_softcapping"),
        "logit_scale": one("logit_scale"),
        "rope.dimension_count": head and int(head * whole.get("partial_rotary_factor", 1)),
        "rope.freq_base": whole.get("rope_theta"),
        "rope.freq_base_swa": local.get("rope_theta"),
        "rope.scaling.factor": whole.get("factor"),
        "rope.scaling.original_context_length": whole.get("original_max_position_embeddings"),
        "rope.scaling.type": whole.get("rope_type", "none").replace("default", "none"),
        "shortconv.l_cache": one("conv_L_cache"),
        "ssm.conv_kernel": one("conv_kernel"),
        "ssm.inner_size": one("intermediate_size"),
        "ssm.state_size": one("state_size"),
        "ssm.time_step_rank": one("time_step_rank"),
        "use_parallel_residual": one("use_parallel_residual"),
    }
