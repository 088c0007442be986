"""The codec after a kept memory: smaller, and restored with that memory alone."""

from dataclasses import replace

import numpy as np
import pytest

from ngram_eval.assets import asset
from ngram_eval.codec import container, packing
from ngram_eval.codec.packing import Packed
from ngram_eval.errors import InputError
from ngram_eval.text.byte_tokens import bytes_tokenizer
from ngram_eval.text.kept import KeptMemory, kept_of
from ngram_eval.text.shards import read_shards
from ngram_eval.text.tokenizer import Tokenizer
from ngram_eval.timing import untracked
from tests.support.codec import NOWHERE, method, novel

TEXT = novel(9000)[6000:]


def memory_of(tokenizer: str) -> KeptMemory:
    """Of the novel's beginning."""
    if tokenizer == "bytes":
        text = np.frombuffer(novel(6000), np.uint8).astype(np.uint16)
        return kept_of(np.append(text, np.uint16(256)), bytes_tokenizer())
    tokens = read_shards([str(asset("sample_000000.bin"))]).tokens[:2000]
    return kept_of(tokens, Tokenizer.load(asset("tokenizer.model")))


def compressed(name: str, tokenizer: str, memory: KeptMemory | None) -> Packed:
    how = method(name)
    how = replace(how, mixer=replace(how.mixer, groups=1 << 16))
    return packing.compress(
        TEXT, how, tokenizer=tokenizer, pieces=300, artifact=None, backend="cpu", track=untracked, memory=memory
    )


def restored(packed: Packed, memory: KeptMemory | None) -> bytes:
    found = container.parse(packed.container.to_bytes(), NOWHERE)
    return packing.decompress(found, NOWHERE, artifact=None, backend="cpu", track=untracked, memory=memory)


@pytest.mark.parametrize("tokenizer", ["packaged", "bytes"])
@pytest.mark.parametrize("name", ["exact", "mixer"])
def test_a_text_is_smaller_after_a_memory_and_comes_back_with_it(name: str, tokenizer: str) -> None:
    memory = memory_of(tokenizer)
    alone, after = compressed(name, tokenizer, None), compressed(name, tokenizer, memory)
    assert len(after.container.to_bytes()) < 0.93 * len(alone.container.to_bytes())
    assert restored(after, memory) == TEXT


def test_another_memory_and_none_are_refused() -> None:
    memory = memory_of("packaged")
    other = replace(memory, tokens=memory.tokens[1:])
    alone, after = compressed("exact", "packaged", None), compressed("exact", "packaged", memory)
    digits = memory.sha256[:32]
    with pytest.raises(InputError, match=f"with a memory of sha256 {digits}..., and none is given: give the right one"):
        restored(after, None)
    with pytest.raises(InputError, match=f"and that of memory has {other.sha256[:32]}"):
        restored(after, other)
    with pytest.raises(InputError, match=r"written without a memory, so memory can't be right"):
        restored(alone, memory)
    with pytest.raises(InputError, match="the memory is of another tokenizer than tokenizer bytes"):
        compressed("exact", "bytes", memory)
