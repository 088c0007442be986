"""Tokenizers as transformers loads them: of a folder, a GGUF file, a name on the hub."""

from pathlib import Path
from typing import Any

from ngram_eval.errors import InputError
from ngram_eval.models.hf.loading import load_tokenizer
from ngram_eval.text.spelling import Spelling
from ngram_eval.text.spelt_tokenizer import SpeltTokenizer
from ngram_eval.text.tokenizer import first_difference
from ngram_eval.text.tokenizer_json import read_definition

_PROBE = " The quick  brown fox's 12,345 náïve cafés\n\tsaid: “déjà vu” 東京 🦊 e\u0301\r\n  def f(x):  return x_1\n"
"""Text that two definitions of one tokenizer must cut alike after a word; before a text, one may put a space."""


class HfTokenizer(SpeltTokenizer):
    """`ngram_eval.text.tokenizer.Encoder` of a `transformers` tokenizer.

    Raises `InputError`, naming `source`, for a tokenizer whose tokens have unknown bytes.
    """

    _spelling: Spelling

    def __init__(self, tokenizer: Any, source: str = "the tokenizer") -> None:
        """`tokenizer` is a `transformers.PreTrainedTokenizerBase` with a backend of the tokenizers library."""
        self._tokenizer = tokenizer
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise InputError(
                f"{source} is a {type(tokenizer).__name__} without a backend of the tokenizers library: the bytes of "
                "its tokens are unknown; convert it to a tokenizer.json"
            )
        named = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        starts = [int(token) for token in named if token is not None]
        spelling = Spelling(backend, tokenizer.all_special_ids, starts, source)
        super().__init__(spelling, starts, tokenizer("a")["input_ids"], source)
        self._compare_with_file()

    @classmethod
    def load(cls, name: str) -> "HfTokenizer":
        """The tokenizer of a folder, a GGUF file or a name on the hub; raises `InputError`."""
        file = _definition_of(name)
        if file is not None:
            read_definition(file)  # refuses what transformers would run out of memory for
        return cls(load_tokenizer(name), f"the tokenizer of --hf {name}")

    def _compare_with_file(self) -> None:
        """Refuse a tokenizer that transformers made something else of than its tokenizer.json says."""
        given = self._tokenizer
        file = None if "gguf_file" in given.init_kwargs else _definition_of(str(given.name_or_path))
        if file is None:
            return
        import tokenizers

        saved = tokenizers.Tokenizer.from_file(str(file))
        saved.encode_special_tokens = True
        saved.no_truncation()
        saved.no_padding()

        def cut_by_file(text: str) -> list[int]:
            ids: list[int] = saved.encode(text, add_special_tokens=False).ids
            return ids

        word = self._spelling.word
        expected, found = (cut(word + _PROBE)[len(cut(word)) :] for cut in (cut_by_file, self._spelling.cut))
        if found != expected:
            at = first_difference(found, expected)
            ours, theirs = found[at : at + 4], expected[at : at + 4]
            raise InputError(
                f"{self._source} contradicts itself: as a {type(given).__name__} it cuts {_PROBE!r} from token {at} on "
                f"into {ours}, which spell {self._spelling.join(ours).decode(errors='replace')!r}, by its {file.name} "
                f'into {theirs}. In its tokenizer_config.json, tokenizer_class "PreTrainedTokenizerFast" takes '
                "tokenizer.json as it stands"
            )

    @property
    def hf(self) -> Any:
        """The `transformers` tokenizer itself."""
        return self._tokenizer


def _definition_of(name: str) -> Path | None:
    """The tokenizer.json of a folder, or of a name on the hub that was loaded before, if there is one."""
    if Path(name).is_dir():
        file = Path(name, "tokenizer.json")
        return file if name and file.is_file() else None
    import huggingface_hub

    try:
        found = huggingface_hub.try_to_load_from_cache(name, "tokenizer.json")
    except ValueError:  # no name on the hub: it was made in Python
        return None
    return Path(found) if isinstance(found, str) else None
