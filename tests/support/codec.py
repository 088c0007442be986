"""What goes through the codec, and how."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ngram_eval.assets import asset
from ngram_eval.codec import container, packing
from ngram_eval.codec.container import Container
from ngram_eval.codec.method import Method
from ngram_eval.config import WindowConfig, preset
from ngram_eval.text.shards import read_shards
from ngram_eval.text.tokenizer import Tokenizer
from ngram_eval.timing import Track, untracked
from tests.support.places import GOLDEN as FOLDER
from tests.support.places import SAMPLE_PATH

GOLDEN = FOLDER / "codec.ngc"
GOLDEN_TEXT = SAMPLE_PATH.read_bytes()[:2000] + bytes(range(256))
NOWHERE = Path("it")


def method(name: str = "exact", window: WindowConfig | None = None, **exact: Any) -> Method:
    """A preset's method, with the fields of `exact` changed."""
    base = preset(name)
    return Method(
        preset=name, max_order=base.ngram.max_order, exact=replace(base.exact, **exact), mixer=base.mixer, window=window
    )


def ignore(done: int) -> None:
    pass


def begin() -> Callable[[int], None]:
    return ignore


def compress(
    data: bytes, tokenizer: str = "packaged", artifact: str | None = None, backend: packing.Backend = "cpu", **how: Any
) -> packing.Packed:
    return packing.compress(
        data,
        how.get("method", method()),
        tokenizer=tokenizer,
        pieces=how.get("pieces", 300),
        artifact=artifact,
        backend=backend,
        track=how.get("track", untracked),
        unwrapped=how.get("unwrapped", True),
        blocks=how.get("blocks", 1),
    )


def decompress(
    found: Container, artifact: str | None = None, backend: packing.Backend = "cpu", track: Track = untracked
) -> bytes:
    return packing.decompress(found, NOWHERE, artifact=artifact, backend=backend, track=track)


def restored(data: bytes, tokenizer: str = "packaged", **how: Any) -> bytes:
    """`data` compressed, written, read and decompressed."""
    return decompress(container.parse(compress(data, tokenizer, **how).container.to_bytes(), NOWHERE))


def novel(size: int) -> bytes:
    """The start of the embedded sample."""
    tokens = read_shards([str(asset("sample_000000.bin"))]).tokens[: size // 2]
    return Tokenizer.load(asset("tokenizer.model")).decode(tokens).encode()[:size]
