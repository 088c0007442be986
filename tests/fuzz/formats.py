"""Formats taken apart into trees and put together again, digests and lengths made right: what only a hostile or broken
writer could have made gets past the checksums, and to what lies behind them.

`apart` and `together` of a format: what `together` can't write (a number too large for its field) it raises for.
"""

import base64
import copy
import hashlib
import io
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
import zstandard
from sentencepiece import sentencepiece_model_pb2

from ngram_eval.codec import alphabet, container
from ngram_eval.kept import file as kept_file
from tests.fuzz import mutate

DEEP = 20_000


class Format(NamedTuple):
    """How files of a kind are built."""

    apart: Callable[[bytes], Any]
    together: Callable[[Any], bytes]

    def mutate(self, data: bytes, chance: Random) -> bytes:
        """A damaged file: one place of its tree another, or its bytes, or both."""
        how = chance.random()
        if how < 0.8:
            tree = self.apart(data)
            for _ in range(chance.choice((1, 1, 1, 2, 3))):
                tree = mutate.tree(tree, chance)
            try:
                data = self.together(tree)
            except Exception:  # not every tree can be written
                return mutate.raw(data, chance)
        return data if 0.1 < how < 0.8 else mutate.raw(data, chance)


def dumps(tree: Any) -> bytes:
    deep = "[" * DEEP + "]" * DEEP
    return json.dumps(tree).replace(json.dumps(mutate.NESTED), deep).encode()


JSON = Format(json.loads, dumps)
BYTES = Format(lambda data: [data], lambda tree: b"".join(tree))
LINES = Format(lambda data: data.splitlines(keepends=True), lambda tree: b"".join(tree))


def _zipped(inner: Format, pack: Callable[[bytes], bytes], unpack: Callable[[bytes], bytes]) -> Format:
    return Format(lambda data: inner.apart(unpack(data)), lambda tree: pack(inner.together(tree)))


def zstd(inner: Format) -> Format:
    """The same in one zstd frame."""
    return _zipped(
        inner, zstandard.ZstdCompressor(3).compress, lambda data: zstandard.ZstdDecompressor().decompress(data)
    )


def packed(inner: Format, tool: Any) -> Format:
    """The same as a module such as gzip packs it."""
    return _zipped(inner, tool.compress, tool.decompress)


def _apart_shard(data: bytes) -> Any:
    return {"header": np.frombuffer(data[:1024], "<i4").tolist()[:8], "rest": data[32:1024], "tokens": data[1024:]}


def _together_shard(tree: Any) -> bytes:
    data: bytes = struct.pack("<8i", *tree["header"]) + tree["rest"] + tree["tokens"]
    return data


SHARD = Format(_apart_shard, _together_shard)


def _apart_llm_c(data: bytes) -> Any:
    tokens, at = [], 1024
    while at < len(data):
        tokens.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return {"header": list(struct.unpack_from("<4I", data)), "rest": data[16:1024], "tokens": tokens}


def _together_llm_c(tree: Any) -> bytes:
    tokens = b"".join(bytes([len(one)]) + one for one in tree["tokens"])
    data: bytes = struct.pack("<4I", *tree["header"]) + tree["rest"] + tokens
    return data


LLM_C = Format(_apart_llm_c, _together_llm_c)


def _apart_npy(data: bytes) -> Any:
    size = int.from_bytes(data[8:10], "little")
    head = eval(data[10 : 10 + size].decode(), {"__builtins__": {}})  # a literal that numpy wrote
    return {"version": [1, 0], "head": {**head, "shape": list(head["shape"])}, "content": data[10 + size :]}


def _together_npy(tree: Any) -> bytes:
    head = dict(tree["head"])
    if isinstance(head.get("shape"), list):
        head["shape"] = tuple(head["shape"])
    text = repr(head).replace(repr(mutate.NESTED), "(" * 3000).encode()
    data: bytes = b"\x93NUMPY" + bytes([*tree["version"]]) + struct.pack("<H", len(text)) + text + tree["content"]
    return data


NPY = Format(_apart_npy, _together_npy)


def _apart_npz(data: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [[name, 0, _apart_npy(archive.read(name))] for name in archive.namelist()]


def _together_npz(tree: Any) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, how, array in tree:
            method = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)[how % 4]
            archive.writestr(name, _together_npy(array) if isinstance(array, dict) else bytes(array), method)
    return whole.getvalue()


NPZ = Format(_apart_npz, _together_npz)


def _apart_tensors(data: bytes) -> Any:
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    named = header.get("__metadata__", {})
    for name, text in named.items():
        named[name] = json.loads(text) if text.startswith("{") else text
    return {"header": header, "content": data[8 + size :]}


def _together_tensors(tree: Any) -> bytes:
    header = copy.copy(tree["header"])
    named = header.get("__metadata__")
    if isinstance(named, dict):
        header["__metadata__"] = {
            name: dumps(text).decode() if isinstance(text, dict) else text for name, text in named.items()
        }
    text = dumps(header)
    data: bytes = struct.pack("<Q", len(text)) + text + tree["content"]
    return data


TENSORS = Format(_apart_tensors, _together_tensors)


def _together_training(tree: Any) -> bytes:
    named = tree["header"].get("__metadata__")
    if not isinstance(named, dict):
        return _together_tensors(tree)
    named["sha256"] = zeros = "0" * 64
    data = _together_tensors(tree)
    return data.replace(zeros.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


TRAINING = Format(_apart_tensors, _together_training)


def _apart_artifact(data: bytes) -> Any:
    length = int.from_bytes(data[40:44], "little")
    payload = zstandard.ZstdDecompressor().decompress(data[44 + length :])
    return {"header": json.loads(data[44 : 44 + length]), "tensors": _apart_tensors(payload), "right": True}


def _together_artifact(tree: Any) -> bytes:
    unpacked = _together_tensors(tree["tensors"])
    payload, header = zstandard.ZstdCompressor(1).compress(unpacked), tree["header"]
    if tree.get("right"):
        header = {**header, "payload_bytes": len(payload), "unpacked_bytes": len(unpacked)}
        header["payload_sha256"] = hashlib.sha256(payload).hexdigest()
    text = dumps(header)
    return b"NGRMEVAL" + hashlib.sha256(text).digest() + struct.pack("<I", len(text)) + text + payload


ARTIFACT = Format(_apart_artifact, _together_artifact)


def _apart_profile(profile: Any) -> None:
    for name in ("along", "cells") if isinstance(profile, dict) else ():
        profile[name] = {"zlib": zlib.decompress(base64.b64decode(profile[name]))}


def _together_profile(profile: Any) -> None:
    for name in ("along", "cells") if isinstance(profile, dict) else ():
        if isinstance(profile.get(name), dict) and "zlib" in profile[name]:
            profile[name] = base64.b64encode(zlib.compress(profile[name]["zlib"])).decode()


def _apart_result(data: bytes) -> Any:
    tree = json.loads(data)
    for run in tree["runs"]:
        _apart_profile(run["profile"])
    return tree


def _together_result(tree: Any) -> bytes:
    for run in tree.get("runs", ()) if isinstance(tree, dict) else ():
        if isinstance(run, dict):
            _together_profile(run.get("profile"))
    return dumps(tree)


RESULT = Format(_apart_result, _together_result)


def _apart_checkpoint(data: bytes) -> Any:
    tensors = _apart_tensors(data[40:])
    at = tensors["header"].pop("json")["data_offsets"]
    text = json.loads(tensors["content"][at[0] : at[1]])
    _apart_profile(text["profile"])
    arrays = {
        name: [one["dtype"], one["shape"], tensors["content"][slice(*one["data_offsets"])]]
        for name, one in tensors["header"].items()
    }
    return {"json": text, "arrays": arrays}


def _together_checkpoint(tree: Any) -> bytes:
    text = tree["json"]
    if isinstance(text, dict):
        _together_profile(text.get("profile"))
    arrays = {**tree["arrays"], "json": ["U8", None, dumps(text)]}
    header, content = {}, b""
    for name, (dtype, shape, values) in arrays.items():
        shape = [len(values)] if shape is None else shape
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(content), len(content) + len(values)]}
        content += values
    body = _together_tensors({"header": header, "content": content})
    return b"NGRMCKPT" + hashlib.sha256(body).digest() + body


CHECKPOINT = Format(_apart_checkpoint, _together_checkpoint)


def _apart_codec(data: bytes) -> Any:
    found = container.parse(data, "it")  # type: ignore[arg-type]
    fields = {name: getattr(found.header, name) for name in found.header.__dataclass_fields__}
    table = (
        lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=alphabet._FILTERS).decompress(found.table)
        if found.table
        else b""
    )
    return {"fields": fields, "settings": json.loads(found.settings), "table": table, "payload": found.payload}


def _together_codec(tree: Any) -> bytes:
    settings = dumps(tree["settings"])
    table = lzma.compress(tree["table"], lzma.FORMAT_RAW, filters=alphabet._FILTERS) if tree["table"] else b""
    fields = {**tree["fields"], "settings_bytes": len(settings), "table_bytes": len(table)}
    fields["payload_bytes"] = len(tree["payload"])
    try:  # the digests of what it is now, so that more than their comparison is reached
        from ngram_eval.codec.method import Method

        fields["config_digest"] = Method.from_json(settings).digest
        fields["alphabet_digest"] = alphabet.unpack(table).digest if table else fields["alphabet_digest"]
    except Exception:  # settings or table are what is damaged: the digests stay those of the valid file
        pass
    header = container.Header(**fields)
    return container.Container(header=header, settings=settings, table=table, payload=tree["payload"]).to_bytes()


CODEC = Format(_apart_codec, _together_codec)


def _apart_kept(data: bytes) -> Any:
    fixed, at = kept_file._FIXED, kept_file._PREFIX.size
    fields = dict(zip(kept_file.Header.__dataclass_fields__, fixed.unpack_from(data, at), strict=True))
    parts, start = {}, at + fixed.size
    for name in ("numbers", "table", "payload"):
        parts[name], start = data[start : start + fields[f"{name}_bytes"]], start + fields[f"{name}_bytes"]
    return {"fields": fields, **parts}


def _together_kept(tree: Any) -> bytes:
    parts = [tree[name] for name in ("numbers", "table", "payload")]
    sizes = {f"{name}_bytes": len(tree[name]) for name in ("numbers", "table", "payload")}
    body = kept_file._PREFIX.pack(kept_file.MAGIC, kept_file.FORMAT_VERSION)
    body += kept_file._FIXED.pack(*{**tree["fields"], **sizes}.values()) + b"".join(parts)
    return body + hashlib.sha256(body).digest()


KEPT = Format(_apart_kept, _together_kept)

_MODEL: Any = getattr(sentencepiece_model_pb2, "ModelProto")  # noqa: B009  # made as it is imported


def _apart_model(data: bytes) -> Any:
    model = _MODEL.FromString(data)
    pieces = [[one.piece, one.score, one.type] for one in model.pieces]
    specs = {}
    for name in ("trainer_spec", "normalizer_spec", "denormalizer_spec"):
        specs[name] = {
            field.name: found
            for field, found in getattr(model, name).ListFields()
            if isinstance(found, int | float | str | bytes)
        }
    return {"pieces": pieces, "specs": specs}


def _together_model(tree: Any) -> bytes:
    model = _MODEL()
    for text, score, kind in tree["pieces"]:
        model.pieces.add(piece=text, score=score, type=kind)
    for name, fields in tree["specs"].items():
        for field, found in fields.items():
            setattr(getattr(model, name), field, found)
    data: bytes = model.SerializeToString()
    return data


MODEL = Format(_apart_model, _together_model)

TENSORS_OF: dict[str, Callable[[torch.Tensor], Any]] = {
    "sparse": lambda tensor: tensor.to_sparse(),
    "meta": lambda tensor: tensor.to("meta"),
    "expanded": lambda tensor: tensor.flatten()[:1].expand(1 << 40),
    "complex": lambda tensor: tensor.to(torch.complex64),
    "whole": lambda tensor: tensor.to(torch.int64),
    "flat": lambda tensor: tensor.flatten(),
    "scalar": lambda tensor: tensor.sum(),
    "empty": lambda tensor: tensor.flatten()[:0],
    "deep": lambda tensor: tensor.reshape(*tensor.shape, 1, 1),
    "more": lambda tensor: torch.cat([tensor.flatten()] * 2),
    "nan": lambda tensor: tensor.float() * float("nan"),
    "column": lambda tensor: tensor.t() if tensor.ndim == 2 else tensor,
    "bits": lambda tensor: tensor.to(torch.bool),
    "half": lambda tensor: tensor.half(),
}


def torch_file(content: Any) -> bytes:
    """torch.save of it."""
    whole = io.BytesIO()
    torch.save(content, whole)
    return whole.getvalue()


def _apart_torch(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True)


def _mutate_torch(content: Any, chance: Random) -> Any:
    """One of its tensors another kind of tensor; a tree's other values are for `mutate.tree`."""
    tensors = content["w"] if isinstance(content, dict) and "w" in content else content
    if isinstance(tensors, dict) and tensors:
        name = chance.choice(list(tensors))
        if isinstance(tensors[name], torch.Tensor):
            tensors[name] = TENSORS_OF[chance.choice(list(TENSORS_OF))](tensors[name])
    return content


class Torch(Format):
    """As torch writes it."""

    def mutate(self, data: bytes, chance: Random) -> bytes:
        if chance.random() < 0.5:
            try:
                return self.together(_mutate_torch(self.apart(data), chance))
            except Exception:  # not every tree can be written
                pass
        return super().mutate(data, chance)


TORCH = Torch(_apart_torch, torch_file)
PTZ = Torch(*zstd(TORCH))
