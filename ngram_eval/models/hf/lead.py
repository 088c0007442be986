"""What a model expects before every window: the tokens that its tokenizer puts before every text."""

from typing import Any

from ngram_eval.errors import InputError
from ngram_eval.models.hf.gguf_file import gguf_field
from ngram_eval.models.hf.loading import load_tokenizer
from ngram_eval.models.logits_source import Lead


def lead_of(tokenizer: Any, given: str = "auto") -> Lead:
    """The lead of a `transformers` tokenizer; `given` as `--lead`. Raises `InputError` for a name it does not have."""
    if given == "auto":
        return _named(_put_before(tokenizer), tokenizer)
    names = [] if given == "none" else [one.strip() for one in given.split(",")]
    return _named([int(name) if name.isdecimal() else _token(name, tokenizer) for name in names], tokenizer)


def lead_of_model(name: str, given: str = "auto", tokenizer: Any = None) -> Lead:
    """The lead of a folder, a GGUF file or a name on the hub, whose own tokenizer is loaded unless it is given."""
    if given == "none":
        return Lead()
    try:
        own = load_tokenizer(name) if tokenizer is None else tokenizer
    except InputError as error:
        raise InputError(f"{error}: what it puts before a text is unknown; give --lead none if nothing") from error
    adds = gguf_field(name, "tokenizer.ggml.add_bos_token")
    if given != "auto" or adds is None:
        return lead_of(own, given)
    if adds and own.bos_token_id is None:
        raise InputError(f"--hf {name} puts BOS before a text and does not say which token it is: give --lead TOKEN")
    return _named([own.bos_token_id] if adds else [], own)


def _put_before(tokenizer: Any) -> list[int]:
    """The tokens that a tokenizer puts before the text "a"."""
    whole, bare = (tokenizer("a", add_special_tokens=one)["input_ids"] for one in (True, False))
    for at in range(len(whole) - len(bare) + 1):
        if whole[at : at + len(bare)] == bare:
            return list(whole[:at])
    raise InputError(
        f"the tokenizer, a {type(tokenizer).__name__}, cuts 'a' into {bare} alone and {whole} with special tokens: "
        "what it puts before a text is unknown; give --lead"
    )


def _token(name: str, tokenizer: Any) -> int:
    vocabulary = tokenizer.get_vocab()
    if name not in vocabulary:
        raise InputError(f"--lead has {name!r}, which is no token of the model: give auto, none, names or numbers")
    return int(vocabulary[name])


def _named(tokens: list[int], tokenizer: Any) -> Lead:
    names = zip(tokens, tokenizer.convert_ids_to_tokens(tokens), strict=True)
    return Lead(tuple(tokens), " ".join(str(token) if name is None else name for token, name in names) or "none")
