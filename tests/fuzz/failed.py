"""Files that once broke a reader, each made from a valid one: (reader, what the file is, how it is made of a seed)."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

from tests.fuzz import formats
from tests.fuzz.formats import Format

DEEP = b"[" * 100_000 + b"\n"
HUGE = 1 << 62


def _changed(format: Format, change: Callable[[Any], object]) -> Callable[[bytes], bytes]:
    """The file of a tree in which `change` changed something."""

    def make(seed: bytes) -> bytes:
        tree = format.apart(seed)
        change(tree)
        return format.together(tree)

    return make


def _npz(head: bytes, size: int, method: int = zipfile.ZIP_STORED) -> bytes:
    """Scores of which p_target has this header and so many zeros."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", method) as archive, archive.open("p_target.npy", "w", force_zip64=True) as file:
        file.write(b"\x93NUMPY\1\0" + len(head).to_bytes(2, "little") + head)
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return whole.getvalue()


def _inner_zip_method(seed: bytes) -> bytes:
    """Compressed as numpy.savez never does, the stream then damaged."""
    whole = bytearray(formats.NPZ.together([[n, 3, a] for n, _, a in formats.NPZ.apart(seed)]))
    whole[60:80] = bytes(20)
    return bytes(whole)


FAILED: tuple[tuple[str, str, Callable[[bytes], bytes]], ...] = (
    ("scores-npz", "zero-size dtype", lambda _: _npz(b"{'descr': '|V0', 'fortran_order': False, 'shape': (300,)}", 0)),
    (
        *("scores-npz", "64 MiB of zeros in 64 kB"),
        lambda _: _npz(
            b"{'descr': '<f8', 'fortran_order': False, 'shape': (8388608,)}", 64 << 20, zipfile.ZIP_DEFLATED
        ),
    ),
    ("scores-npz", "header that is no literal", lambda _: _npz(b"{'descr': (((", 0)),
    ("scores-npz", "lzma", _inner_zip_method),
    ("logits", "shape of 2**62", _changed(formats.NPY, lambda tree: tree["head"].update(shape=[HUGE, 5]))),
    ("claimed", "cut in the middle", lambda seed: seed[: len(seed) // 2]),
    (
        *("scores-safetensors", "dtype with a line break"),
        _changed(formats.TENSORS, lambda tree: tree["header"]["p_target"].update(dtype="F\n64")),
    ),
    ("hf-config", "2**62 layers", _changed(formats.JSON, lambda tree: tree.update(n_layer=HUGE))),
    ("tokenizer-config", "half a surrogate pair", _changed(formats.JSON, lambda tree: tree.update(bos_token="\ud800"))),
    ("tokenizer", "no unknown token", lambda seed: seed.replace(b"\x18\x02", b"\x18\x03", 1)),
    ("tokenizer", "byte piece that is not UTF-8", lambda seed: seed.replace(b"<0x41>", b"\xff0x41>", 1)),
    ("tokenizer", "piece that is not UTF-8", lambda seed: seed.replace(b"\xe2\x96\x81the", b"\xe2\x96\xffthe", 1)),
    (
        *("tokenizer", "byte piece with a line break"),
        _changed(formats.MODEL, lambda tree: next(p for p in tree["pieces"] if p[2] == 6).__setitem__(0, "<0x\n1>")),
    ),
    *(
        (name, "100,000 brackets", lambda _: DEEP)
        for name in ("claim", "result", "from-result", "manifest", "journal", "jsonl")
    ),
    (
        *("hf-tokenizer", "token of number 2**31"),
        _changed(formats.JSON, lambda tree: tree["model"]["vocab"].update(P=1 << 31)),
    ),
    ("claim", "integer of 5,000 digits", lambda _: b'{"positions": ' + b"9" * 5000 + b"}"),
    ("result", "number as a preset", _changed(formats.RESULT, lambda tree: tree["runs"][0].update(preset=1))),
    ("codec", "unknown scorer", _changed(formats.CODEC, lambda tree: tree["settings"].update(scorer="hashed"))),
    ("codec", "payload of 5 bytes", _changed(formats.CODEC, lambda tree: tree.update(payload=b"12345"))),
    (
        *("checkpoint-exact", "list for a number, its digest right"),
        _changed(formats.CHECKPOINT, lambda tree: tree["json"].update(runs=[[]])),
    ),
    (
        *("convert-pt", "sparse tensor"),
        _changed(
            formats.TORCH, lambda tree: tree.update({"bigram.proj.weight": tree["bigram.proj.weight"].to_sparse()})
        ),
    ),
    (
        *("convert-pt", "tensor without values"),
        _changed(formats.TORCH, lambda tree: tree.update({"bigram.scale": tree["bigram.scale"].to("meta")})),
    ),
)
