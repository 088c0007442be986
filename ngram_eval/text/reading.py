"""Text files as one token stream, in memory (`--text`)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ngram_eval.errors import InputError
from ngram_eval.text.documents import TextForm, find_sources, read_segments
from ngram_eval.text.shards import TokenStream
from ngram_eval.text.stream import Tokens
from ngram_eval.text.tokenizer import Encoder, stream_bytes


def read_texts(
    tokenizer: Encoder, paths: Sequence[Path], max_tokens: int | None = None, text_field: str = "text"
) -> TokenStream:
    """The documents of files, or of folders of them, each led by `start_id`. Each is tokenised whole.

    Raises `InputError` for a file that is missing, not text, or not spelt by its tokens, and if there is no text.
    """
    form = TextForm(text_field=text_field)
    sources = find_sources([str(path) for path in paths], form, any_name=True)
    texts: list[str] = []
    cut: list[Tokens] = []
    for source in sources:
        for segment in read_segments([source], form, split=False, advance=lambda size: None):
            texts.append(segment.text)
            cut.append(tokenizer.tokens_of(segment.text, source.label))
    if not texts:
        raise InputError(f"{paths[0]}: empty; give --text a file with text")
    start = tokenizer.start_id
    if start is None and len(texts) > 1:
        raise InputError(
            f"{paths[0]} and the like are {len(texts):,} documents, and the tokenizer has neither BOS nor EOS to "
            "separate them with: give one --text"
        )
    lead = [] if start is None else [np.array([start], tokenizer.dtype)]
    tokens: Tokens = np.concatenate([part for one in cut for part in (*lead, one)])
    whole = "".join(texts).encode()
    expected = len(whole)
    if start is None:  # the first token is not a target
        first = tokenizer.surfaces()[tokens[0]] or b""
        expected -= len(first if whole.startswith(first) else first.removeprefix(b" "))
    counted = stream_bytes(tokenizer, tokens)
    if counted != expected:
        raise InputError(
            f"{paths[0]}: the tokenizer counts {counted:,} bytes, the text has {expected:,}: the bytes of its "
            "tokens are unknown; give one --text, or make shards with `ngram-eval prepare`, which tells what differs"
        )
    read = dict.fromkeys(source.path for source in sources if source.path is not None)
    return TokenStream(tokens[:max_tokens], tuple(read), len(tokens), whole)
