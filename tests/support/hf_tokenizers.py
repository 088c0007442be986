"""Small tokenizers of every kind that the tokenizers library has, trained here."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.support.hf_models import TEXT

SCHEMES = ("first", "always", "never")
"""Where Metaspace puts a space: before a text, also after every special token in it, nowhere."""
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _trainer(model: str, vocab_size: int, names: list[str], **more: Any) -> Any:
    from tokenizers import trainers

    kind = getattr(trainers, "BpeTrainer" if model == "BPE" else f"{model}Trainer")
    return kind(vocab_size=vocab_size, special_tokens=names, show_progress=False, **more)


def byte_level(prefix: bool, words: bool = True) -> Any:
    """Byte-level BPE; with `prefix` a space is put before a text, without `words` tokens may reach over several."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=words)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator([TEXT], _trainer("BPE", 360, ["<s>", "</s>"], initial_alphabet=alphabet))
    return made


def metaspace(scheme: str, model: str = "BPE", fallback: bool = True, own_decoder: bool = False) -> Any:
    """SentencePiece's kind; `own_decoder` is Metaspace's instead of Llama's sequence."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    unknown = {} if model == "Unigram" else {"unk_token": "<unk>"}
    made = Tokenizer(getattr(models, model)(**unknown))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    strip = [] if scheme == "never" else [decoders.Strip(" ", 1, 0)]
    llama = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    own = [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme)]
    made.decoder = decoders.Sequence(own if own_decoder else llama)
    names = ["<unk>", "<s>", "</s>", *(BYTES if fallback else [])]
    more = {"unk_token": "<unk>"} if model == "Unigram" else {}
    made.train_from_iterator(TEXT.splitlines(), _trainer(model, len(names) + 150, names, **more))
    definition = json.loads(made.to_str())
    definition["added_tokens"] = [one for one in definition["added_tokens"] if one["content"] in names[:3]]
    if model != "WordLevel":
        definition["model"]["byte_fallback"] = fallback
    return Tokenizer.from_str(json.dumps(definition))


def pieces(model: str) -> Any:
    """WordPiece, WordLevel, or BPE with suffixes, as they come: text is lost, whatever it is."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    made = Tokenizer(getattr(models, model)(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    more: dict[str, str] = {}
    if model == "WordPiece":
        made.decoder = decoders.WordPiece()
    if model == "BPE":
        made.decoder, more = decoders.BPEDecoder(), {"end_of_word_suffix": "</w>"}
    made.train_from_iterator([TEXT], _trainer(model, 200, ["<unk>", "<s>", "</s>"], **more))
    return made


MADE: dict[str, Callable[[], Any]] = {
    "byte-level": lambda: byte_level(False),
    "byte-level, prefix space": lambda: byte_level(True),
    **{
        f"{model}, Metaspace {scheme}{', bytes' if fallback else ''}{', own decoder' if own else ''}": partial(
            metaspace, scheme, model, fallback, own
        )
        for model in ("BPE", "Unigram")
        for scheme in SCHEMES
        for fallback in (True, False)
        for own in (True, False)
    },
}
"""Name -> a new `tokenizers.Tokenizer` that spells its text without loss where it has the characters."""


def wrapped(made: Any, **named: str) -> Any:
    """As transformers has it."""
    from transformers import PreTrainedTokenizerFast

    names: dict[str, str] = {"bos_token": "<s>", "eos_token": "</s>", **named}
    kind: Any = PreTrainedTokenizerFast
    return kind(tokenizer_object=made, **names)
