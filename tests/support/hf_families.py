"""Every family that transformers maps to causal language models, each as a small random model, saved and scored.

What is scored must be what one forward says, with a lead before it and without, must not change with any later token,
and must count every byte of the text once.

`python -m tests.support.hf_families docs/models.md` tries all of them, and writes what came of it into that page.
"""

import json
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from ngram_eval import evaluate
from ngram_eval.config import EvalConfig, WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.models.hf.loading import load_model, quietly
from ngram_eval.models.hf.source import HfSource
from ngram_eval.text.windows import batches, plan_windows
from tests.support.gguf_files import ARCHITECTURES, write_gguf
from tests.support.hf_models import TEXT
from tests.support.hf_tokenizers import byte_level, wrapped

VOCABULARY = 360
"""Of the byte-level tokenizer that all of them are given."""
LENGTH = 24
_MOST = 20_000_000
"""Parameters of the largest model that is tried."""
_SMALL: dict[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "emb_dim", "word_embed_proj_dim"), 32
    ),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "num_decoder_attention_heads", "num_encoder_attention_heads"), 4),
    **dict.fromkeys(("num_decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "n_inner", "dff"), 64),
    **dict.fromkeys(("ffn_hidden_size", "moe_intermediate_size", "shared_expert_intermediate_size", "d_ff"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts", "n_group", "topk_group"), 1),
    **dict.fromkeys(("head_dim", "v_head_dim", "kv_channels", "attention_head_dim", "global_head_dim"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "index_head_dim", "index_n_heads"), 16),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len"), 64),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1),
}
_OWN: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "mamba2": {"head_dim": 16},
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 8},
    "granitemoehybrid": {"mamba_n_heads": 8, "mamba_d_head": 8},
}
"""Settings of single families, where the small ones do not go together."""

_IN_GGUF: dict[str, dict[str, Any]] = {
    "falcon": {"ffn_hidden_size": 128},
    "gpt2": {"n_inner": None, "n_positions": 1024, "max_position_embeddings": 1024},
    "lfm2": {"block_auto_adjust_ff_dim": False},
    "qwen2_moe": {"moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632},
    "qwen3": {"head_dim": 128},
    "qwen3_moe": {"moe_intermediate_size": 768, "norm_topk_prob": True},
}
"""Settings that transformers takes from no GGUF file: as it has them without one."""


class Tried(NamedTuple):
    """What came of a family."""

    verdict: str
    """scored, refused, or not tried: why."""
    reason: str = ""


@contextmanager
def _silence() -> Iterator[None]:
    with warnings.catch_warnings(), quietly():
        warnings.simplefilter("ignore")
        yield


def families() -> list[str]:
    """All of them, by the names of their configurations."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def _known(config: Any) -> dict[str, Any]:
    """The small settings that a configuration has."""
    known = {*config.to_dict(), *config.attribute_map}
    found = {name: value for name, value in _SMALL.items() if name in known}
    if "kv_lora_rank" in known:  # latent attention has no groups of heads
        found["num_key_value_heads"] = _SMALL["num_attention_heads"]
    return found | _OWN.get(config.model_type, {})


def _has_text(config: Any) -> bool:
    return hasattr(getattr(config, "text_config", None), "to_dict")


def small_model(family: str, **own: Any) -> Any:
    """A random model of the family, or the reason why there is none; `own` settings come before the small ones."""
    import transformers

    library: Any = transformers  # some of it has no types
    kind: Any = library.CONFIG_MAPPING[family]
    default = kind()
    config = kind(
        **_known(default) | own, **({"text_config": _known(default.text_config)} if _has_text(default) else {})
    )
    with torch.device("meta"):
        size = sum(one.numel() for one in library.AutoModelForCausalLM.from_config(config).parameters())
    if size > _MOST:
        return f"{size:,} parameters at the smallest settings known here"
    torch.manual_seed(0)
    return library.AutoModelForCausalLM.from_config(config).eval()


def try_family(family: str, folder: Path) -> Tried:
    """Save a small model, load it and score tokens; what is scored must be what the model says by itself."""
    with _silence():
        try:
            model = small_model(family)
            if isinstance(model, str):
                return Tried("not tried", model)
            if family != "xmod":  # which needs a language to be chosen, as whoever loads it is told
                _logits(model, np.ones(LENGTH))
            model.save_pretrained(folder)
        except Exception as error:  # of transformers: the settings here are not for it
            return Tried(
                "not tried", f"{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"
            )
    return try_loading(str(folder))


def try_gguf(family: str, file: Path) -> Tried:
    """Write a small model as a GGUF file, load it and score tokens; it must be the model that was written."""
    with _silence():
        model = small_model(family, **_IN_GGUF.get(family, {}))
    write_gguf(model, json.loads(wrapped(byte_level(False)).backend_tokenizer.to_str()), file)
    return try_loading(str(file), model)


def try_loading(name: str, original: Any = None) -> Tried:
    """Load a model and score tokens; what is scored must be what the model says, and `original` if given."""
    tokenizer = wrapped(byte_level(False))
    text = TEXT.encode("ascii", "ignore").decode()  # the tokens end where a character does
    tokens = np.array(tokenizer(text, add_special_tokens=False)["input_ids"][: LENGTH + 1], np.uint16)
    try:
        loaded = load_model(name, torch.float32)
        config = EvalConfig(scorer="exact", window=WindowConfig(seq_len=LENGTH, stride=LENGTH))
        alone, led = (evaluate(loaded, tokens, config, tokenizer=tokenizer, lead=one) for one in ("none", "<s>"))
        (windows,) = batches(plan_windows(LENGTH, config.window), 1)
        found = HfSource(loaded, batch_windows=1).stats(tokens, windows).p_target
    except InputError as error:
        return Tried("refused", str(error).removeprefix(f"--hf {name}: "))
    whole = _logits(loaded, tokens[:-1])
    if original is not None:
        np.testing.assert_allclose(whole, _logits(original, tokens[:-1]), atol=1e-5)
    expected = torch.softmax(whole.double(), dim=-1).numpy()[np.arange(LENGTH), tokens[1:]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(alone.neural_nats, -np.log(expected).sum(), rtol=1e-6)
    after = torch.log_softmax(_logits(loaded, np.append(tokenizer.bos_token_id, tokens[:-1]))[1:].double(), dim=-1)
    np.testing.assert_allclose(led.neural_nats, -after.numpy()[np.arange(LENGTH), tokens[1:]].sum(), rtol=1e-6)
    assert alone.bytes == led.bytes == len(tokenizer.decode(tokens[1:]).encode())
    for cut in (1, LENGTH // 2, LENGTH - 1):
        other = np.append(tokens[:cut], np.arange(3, 3 + LENGTH - cut))
        np.testing.assert_allclose(_logits(loaded, other)[:cut], whole[:cut], atol=1e-5)
    return Tried("scored")


def _logits(model: Any, tokens: Any) -> torch.Tensor:
    """What the model itself says of one window, (T, V)."""
    with torch.inference_mode(), _silence():
        logits: torch.Tensor = model(input_ids=torch.tensor(tokens[None].astype(np.int64)), use_cache=False).logits
    return logits[0].float()


def as_list(tried: dict[str, Tried], files: dict[str, Tried]) -> str:
    """The list of docs/models.md: of families, and of their GGUF files."""
    import transformers

    def those(verdict: str, containing: str = "", among: dict[str, Tried] = tried) -> str:
        return ", ".join(
            sorted(name for name, one in among.items() if one.verdict == verdict and containing in one.reason)
        )

    used = f"transformers {transformers.__version__} and torch {torch.__version__.partition('+')[0]}"
    ahead = "refused, since they see later tokens unless their configuration says `is_decoder`"
    alone = those("refused", "can't")
    lines = [
        f"scored as the model itself says, and unchanged by any later token: {those('scored')};",
        f"{ahead}: {those('refused', 'is not causal')};",
        f"refused, since they can't be loaded or run by themselves: {alone};",
        f"not tried, since no small model of them could be made: {those('not tried')};",
        f"as GGUF files, laid out as llama.cpp does, the model that was written: {those('scored', among=files)};",
        f"as GGUF files, refused, since transformers does not read all of them: {those('refused', among=files)}.",
    ]
    listed = [textwrap.fill(f"- {one}", 120, subsequent_indent="  ", break_on_hyphens=False) for one in lines]
    return f"With {used}, a small random model of each family, saved, loaded and scored:\n\n" + "\n".join(listed)


def main() -> None:
    """Try all, print a line for each, and write the list into the page that is named."""
    tried, files = {}, {}
    for family in families():
        with TemporaryDirectory() as folder:
            tried[family] = try_family(family, Path(folder))
            if family in ARCHITECTURES:
                files[family] = try_gguf(family, Path(folder) / "model.gguf")
        print(f"{family}: {tried[family].verdict} {tried[family].reason} {files.get(family, '')}", flush=True)
    page = Path(sys.argv[1])
    before, rest = page.read_text().split("writes this list -->\n")
    page.write_text(
        f"{before}writes this list -->\n\n{as_list(tried, files)}\n\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    )


if __name__ == "__main__":
    main()
