"""Writes codec.ngc, a compressed file that every later release of its format version must restore.

To be run again (python tests/golden/make_codec.py, from the repository's root) only with a new format version.
"""

from pathlib import Path

from ngram_eval.codec import files
from ngram_eval.codec.method import Method
from ngram_eval.config import preset

TEXT = (Path(__file__).parents[1] / "data/sample.txt").read_bytes()[:2000] + bytes(range(256))


def golden() -> bytes:
    """The file as this release writes it."""
    base = preset("exact")
    method = Method(preset="exact", max_order=base.ngram.max_order, exact=base.exact, window=None)
    packed = files.compress(
        TEXT,
        method,
        tokenizer="packaged",
        pieces=0,
        artifact=None,
        backend="cpu",
        track=lambda title, total: lambda _: None,
    )
    return packed.container.to_bytes()


if __name__ == "__main__":
    Path(__file__).with_name("codec.ngc").write_bytes(golden())
