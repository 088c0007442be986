"""A tokenizer.json, read by the tokenizers library: no model and no transformers are needed."""

from pathlib import Path
from typing import Any

from ngram_eval.errors import InputError, refusing
from ngram_eval.files import read_input
from ngram_eval.structured import parse
from ngram_eval.text.spelling import Spelling
from ngram_eval.text.spelt_tokenizer import SpeltTokenizer
from ngram_eval.text.stream import MAX_VOCABULARY
from ngram_eval.text.tokenizer import MOST_MODEL_BYTES

_REMEDY = "fetch the tokenizer again"


def read_definition(file: Path) -> bytes:
    """The JSON of a tokenizer.json; raises `InputError` for anything else.

    And for numbers of tokens that no vocabulary has: libraries make lists as long as the largest.
    """
    content = read_input(file, _REMEDY, MOST_MODEL_BYTES)
    found = parse(content, file, _REMEDY)
    try:
        vocabulary = found["model"]["vocab"]
        numbers = [*(vocabulary.values() if isinstance(vocabulary, dict) else ())]
        largest = max([*numbers, *(one["id"] for one in found.get("added_tokens", ()))], default=0)
    except (LookupError, TypeError, AttributeError):  # another layout, of which the library says what is wrong
        return content
    if largest >= MAX_VOCABULARY:
        raise InputError(f"{file} has a token of number {largest:,}: at most {MAX_VOCABULARY:,} tokens are supported")
    return content


def load_tokenizer_json(file: Path) -> SpeltTokenizer:
    """The tokenizer of a tokenizer.json, and of the tokenizer_config.json beside it if there is one.

    A document starts with the BOS token that the latter names, else with its EOS token; without it, with the special
    token that the encoder puts before a text, or the only one that there is. Raises `InputError`.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise InputError(
            f"--tokenizer {file} needs the tokenizers library, which can't be imported ({error}): "
            "pip install ngram_eval[hf]"
        ) from error
    content = read_definition(file)
    with refusing(file, "is not a tokenizer of the tokenizers library", _REMEDY):
        backend = tokenizers.Tokenizer.from_str(content.decode())
    starts = _named_starts(file.with_name("tokenizer_config.json"), backend)
    with refusing(file, "can't cut a text", _REMEDY):
        around = list(backend.encode("a").ids)
    if not starts:
        special = [token for token, one in backend.get_added_tokens_decoder().items() if one.special]
        starts = [token for token in around[:1] if token in special] or special[: len(special) == 1]
    return SpeltTokenizer(Spelling(backend, starts, starts, str(file)), starts, around, str(file))


def _named_starts(config: Path, backend: Any) -> list[int]:
    """The BOS and EOS tokens that a tokenizer_config.json names."""
    if not config.exists():
        return []
    found = parse(read_input(config, _REMEDY, MOST_MODEL_BYTES), config, _REMEDY)
    starts = []
    for name in ("bos_token", "eos_token"):
        value = found.get(name) if isinstance(found, dict) else None
        content = value.get("content") if isinstance(value, dict) else value
        if content is not None:
            with refusing(config, f"names {content!r} as {name}, which is no text", _REMEDY):
                token = backend.token_to_id(content)
            if token is None:
                raise InputError(f"{config} names {content!r} as {name}, which is no token of the tokenizer: {_REMEDY}")
            starts.append(token)
    return starts
