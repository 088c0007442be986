"""Tiny Hugging Face models of random weights, with tokenizers trained here: byte-level BPE and SentencePiece."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.gguf_files import write_gguf

TEXT = (
    "The quick brown fox jumps over the lazy dog. The lazy dog, näive as ever, did not mind: déjà vu! 東京 → 🦊\n"
    "\tif fox in dogs:\r\n\t\treturn  [fox  for fox in dogs]\n\n"
    "A text may say <|endoftext|>, <s> or </s>, and mean it. The quick brown fox jumps over the lazy dog again.\n"
) * 6
KINDS = ("gpt2", "llama")


def save_gpt2(folder: Path, positions: int = 64) -> None:
    """Byte-level BPE of 400 tokens, no BOS before a text; learned positions, at most 64."""
    pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    library: Any = transformers  # some of it has no types
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([TEXT], trainer)
    tokenizer = library.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = library.GPT2Config(
        vocab_size=400, n_positions=positions, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    library.GPT2LMHeadModel(config).save_pretrained(folder)


def save_llama(folder: Path, vocab_size: int = 448, positions: int = 96) -> None:
    """SentencePiece BPE of 400 pieces and bytes, BOS and a space before every text; more rows than pieces."""
    pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")
    import sentencepiece
    import transformers

    library: Any = transformers
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT.splitlines()),
            model_writer=file,
            vocab_size=400,
            model_type="bpe",
            byte_fallback=True,
            character_coverage=0.98,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            minloglevel=2,
        )
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings: dict[str, Any] = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    library.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    torch.manual_seed(1)
    config = library.LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
    )
    library.LlamaForCausalLM(config).save_pretrained(folder)


def save_gguf(folder: Path, to: Path, add_bos: bool | None = None) -> Any:
    """A Llama with the byte-level tokenizer of `folder`, as llama.cpp writes them; returns the model."""
    import transformers

    library: Any = transformers
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    torch.manual_seed(2)
    config = library.LlamaConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    model = library.LlamaForCausalLM(config).eval()
    write_gguf(model, tokenizer, to, add_bos)
    return model


def saved(folder: Path) -> dict[str, Path]:
    """The folder of a model of each kind."""
    save_gpt2(folder / "gpt2")
    save_llama(folder / "llama")
    return {kind: folder / kind for kind in KINDS}
