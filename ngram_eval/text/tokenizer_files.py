"""The tokenizer that a path or a name stands for (`--tokenizer`)."""

from pathlib import Path

from ngram_eval.text.byte_tokens import NAMED, RANKS, load_encoding, load_llm_c, load_ranks
from ngram_eval.text.stream import Stream
from ngram_eval.text.tokenizer import OTHER_TOKENIZER, Encoder, TextTokenizer, Tokenizer, check_vocabulary
from ngram_eval.text.tokenizer_json import load_tokenizer_json


def file_of(given: Path) -> Path | None:
    """The file of a tokenizer, in its folder or alone; None for an encoding that tiktoken knows by name."""
    if str(given).startswith(NAMED):
        return None
    return given / "tokenizer.json" if given.is_dir() else given


def is_sentencepiece(given: Path) -> bool:
    """Whether it stands for a SentencePiece model, by its name."""
    file = file_of(given)
    return file is not None and file.suffix not in (".json", RANKS, ".bin")


def check_tokens(tokens: Stream, tokenizer: TextTokenizer, source: str, part: tuple[int, int] = (0, 1)) -> None:
    """Raise `InputError` unless shards' tokens are the tokenizer's, which the message calls `source`, and are known."""
    remedy = OTHER_TOKENIZER
    if source.endswith(RANKS):
        remedy = "the file leaves out special tokens; say how many there are with them, --vocab-size V"
    check_vocabulary(tokens, tokenizer.vocab_size, source, part, remedy=remedy)
    tokenizer.check(tokens, part)


def load_tokenizer(given: Path | str, vocab_size: int | None = None) -> Encoder:
    """The tokenizer of a SentencePiece model, a tokenizer.json or its folder, a .tiktoken file, llm.c's
    gpt2_tokenizer.bin, or a name that tiktoken knows (tiktoken:gpt2). Raises `InputError`.

    `vocab_size` says how many tokens there are where the file leaves out special ones (.tiktoken).
    """
    file = file_of(Path(given))
    if file is None:
        return load_encoding(str(given).removeprefix(NAMED))
    if file.suffix == ".json":
        return load_tokenizer_json(file)
    if file.suffix == RANKS:
        return load_ranks(file, vocab_size)
    return load_llm_c(file) if file.suffix == ".bin" else Tokenizer.load(file)
