"""Whole files: turns bytes into a container and back, with all checks."""

import hashlib
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from ngram_eval.assets import asset
from ngram_eval.bpb import as_nats
from ngram_eval.codec.alphabet import BYTES, Alphabet, of_surfaces, pack, unpack
from ngram_eval.codec.base import Base, UniformBase
from ngram_eval.codec.blocks import each_block, span
from ngram_eval.codec.coder import Advance, make_coder
from ngram_eval.codec.container import HEADER_BYTES, TOKENIZERS, Container, Header
from ngram_eval.codec.cutting import Cut, cut_bytes, cut_trained, cut_with
from ngram_eval.codec.method import Layout, Method
from ngram_eval.codec.wrapping import Unwrapped, unwrap, wrap
from ngram_eval.errors import InputError
from ngram_eval.files import file_sha256, read_input
from ngram_eval.text.byte_tokens import bytes_tokenizer
from ngram_eval.text.kept import KeptMemory, surfaces_sha256
from ngram_eval.text.stream import Tokens
from ngram_eval.text.tokenizer import MOST_MODEL_BYTES, Tokenizer
from ngram_eval.timing import Track

PACKAGED = "packaged"
"""Name of the tokenizer or the artifact that is installed with the package."""
NO_DIGEST = bytes(16)
_MEMORY_DIGITS = 32
Backend = Literal["cpu", "reference"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """A compressed file, its charge and its tokenizer."""

    container: Container
    nats: float
    """Charge of the scorer for the content, in nats."""
    tokenizer: str
    """A description of the tokenizer."""


class _Neural(NamedTuple):
    """A neural base and its digests."""

    base: Base
    artifact_digest: bytes
    probe_digest: bytes


def artifact_path(name: str | None) -> Path:
    """The file of an artifact; `name` is a path, or "packaged" or None for the packaged one."""
    return asset("model.ngev") if name in (None, PACKAGED) else Path(str(name))


def compress(
    data: bytes,
    method: Method,
    *,
    tokenizer: str,
    pieces: int | None,
    artifact: str | None,
    backend: Backend,
    track: Track,
    memory: KeptMemory | None = None,
    unwrapped: bool = True,
    blocks: int = 1,
) -> Packed:
    """Compress `data`, after the text of `memory`; `artifact` None is the uniform base.

    `unwrapped` leaves out line breaks that a width implies. Every block has a memory of its own and a thread. Raises
    `InputError` for settings that do not fit.
    """
    neural = None
    found = unwrap(data) if unwrapped else None
    text, notes = (data, b"") if found is None else found
    if memory is not None:
        method = replace(method, memory=memory.sha256[:_MEMORY_DIGITS])
    with _one_thread(artifact is not None):
        if artifact is not None:
            neural = _load_neural(artifact_path(artifact), method)
        kind, said, cut = _cut(text, tokenizer, pieces, track)
        base = _base(neural, cut.alphabet, f"--tokenizer {tokenizer}")
        known = _known(memory, cut.alphabet, f"--tokenizer {tokenizer}")

        def encode(block: int, advance: Advance) -> tuple[bytes, int]:
            coder = make_coder(method, cut.alphabet, base, backend, known)
            part = cut.block(block, blocks)
            return coder.encode(part.tokens, part.raw, advance)

        coded = each_block(blocks, encode, track("compressing", len(cut.tokens)))
    payload = b"".join(part for part, _ in coded) + notes
    layout = Layout(blocks=tuple(len(part) for part, _ in coded) if blocks > 1 else (), notes=len(notes))
    settings, table = method.to_json(layout), pack(cut.alphabet) if TOKENIZERS[kind] == "table" else b""
    header = Header(
        tokenizer=kind,
        settings_bytes=len(settings),
        table_bytes=len(table),
        payload_bytes=len(payload),
        content_bytes=len(data),
        tokens=len(cut.tokens),
        content_sha256=hashlib.sha256(data).digest(),
        config_digest=method.digest,
        alphabet_digest=cut.alphabet.digest,
        artifact_digest=neural.artifact_digest if neural else NO_DIGEST,
        probe_digest=neural.probe_digest if neural else bytes(8),
    )
    container = Container(header=header, settings=settings, table=table, payload=payload)
    return Packed(container=container, nats=as_nats(sum(nats for _, nats in coded)), tokenizer=said)


def _cut(data: bytes, tokenizer: str, pieces: int | None, track: Track) -> tuple[int, str, Cut]:
    """(index in `TOKENIZERS`, a description of the tokenizer, the text in tokens)."""
    if tokenizer == "bytes":
        return TOKENIZERS.index("bytes"), "bytes", cut_bytes(data)

    def begin() -> Callable[[int], None]:
        return track("cutting into tokens", len(data))

    if tokenizer == "train":
        cut = cut_trained(data, pieces, begin)
        if cut is None:
            return TOKENIZERS.index("bytes"), "bytes (too little text to train one on)", cut_bytes(data)
        return TOKENIZERS.index("table"), f"trained, {cut.alphabet.size:,} pieces in use", cut
    packaged = tokenizer == PACKAGED
    path = asset("tokenizer.model") if packaged else Path(tokenizer)
    model = read_input(path, "give --tokenizer a SentencePiece .model file, packaged, train or bytes", MOST_MODEL_BYTES)
    cut = cut_with(model, str(path), data, begin)
    return TOKENIZERS.index("packaged" if packaged else "table"), f"{tokenizer}, {cut.alphabet.size:,} pieces", cut


def decompress(
    container: Container,
    path: Path,
    *,
    artifact: str | None,
    backend: Backend,
    track: Track,
    memory: KeptMemory | None = None,
) -> bytes:
    """The content of a container, verified by its checksum; raises `InputError` naming `path`."""
    try:
        return _decompress(container, artifact, backend, track, memory)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _decompress(
    container: Container, artifact: str | None, backend: Backend, track: Track, memory: KeptMemory | None
) -> bytes:
    header = container.header
    method, layout = Method.from_json(container.settings), Layout.from_json(container.settings)
    if method.digest != header.config_digest:
        raise InputError(
            f"it has format version {container.version} and was written with another configuration (this release has "
            "other defaults for settings that it leaves out, and another mixer than 0.2): use the release that wrote it"
        )
    _match_memory(method, memory)
    alphabet = _alphabet(container)
    if alphabet.digest != header.alphabet_digest:
        raise InputError("it was written with another packaged tokenizer: use the release that wrote it")
    with _one_thread(header.artifact_digest != NO_DIGEST):
        base = _base(_matching_neural(header, method, artifact), alphabet, "its tokenizer")
        known = _known(memory, alphabet, "its tokenizer")
        parts, notes = layout.parts(container.payload)
        if len(parts) > 1 and not isinstance(base, UniformBase):
            raise InputError("it has several blocks and a neural model, which no release writes")

        def decode(block: int, advance: Advance) -> bytes:
            coder = make_coder(method, alphabet, base, backend, known, container.version)
            size = len(range(header.tokens)[span(header.tokens, block, len(parts))])
            return alphabet.spell(*coder.decode(size, alphabet.escape, parts[block], advance))

        data = b"".join(each_block(len(parts), decode, track("decompressing", header.tokens)))
    data = wrap(Unwrapped(data, notes)) if notes else data
    if len(data) != header.content_bytes or hashlib.sha256(data).digest() != header.content_sha256:
        raise InputError(
            "the decoded text does not have the sha256 of the content, so nothing is written: the file is whole, but "
            "this machine or build computes other probabilities than the one that wrote it"
        )
    return data


def _match_memory(method: Method, memory: KeptMemory | None) -> None:
    """Raise `InputError` unless the memory is the one that a file was written with."""
    found = "" if memory is None else memory.sha256[:_MEMORY_DIGITS]
    if found == method.memory:
        return
    if not method.memory:
        raise InputError("it was written without a memory, so --memory can't be right")
    given = "none is given" if memory is None else f"that of --memory has {found}..."
    raise InputError(
        f"it was written with a memory of sha256 {method.memory}..., and {given}: give the right one with --memory FILE"
    )


def _known(memory: KeptMemory | None, alphabet: Alphabet, tokenizer: str) -> Tokens | None:
    """The memory's tokens in the alphabet; raises `InputError` for those of another tokenizer."""
    if memory is None:
        return None
    if memory.surfaces_sha256 == surfaces_sha256(alphabet.surfaces):
        return memory.tokens
    if alphabet is BYTES and memory.surfaces_sha256 == surfaces_sha256(bytes_tokenizer().surfaces()):
        return memory.tokens[memory.tokens < alphabet.size]  # without what separates documents
    raise InputError(f"the memory is of another tokenizer than {tokenizer}: build it with the same")


def _alphabet(container: Container) -> Alphabet:
    kind = TOKENIZERS[container.header.tokenizer]
    if kind == "bytes":
        return BYTES
    if kind == "table":
        return unpack(container.table)
    tokenizer = Tokenizer.load(asset("tokenizer.model"))
    return of_surfaces(tokenizer.surfaces(), tokenizer.unknown_id)


def _one_thread(neural: bool) -> AbstractContextManager[None]:
    if not neural:
        return nullcontext()
    from ngram_eval.models.side_by_side import one_thread  # imports torch, which takes seconds

    return one_thread()


def _load_neural(path: Path, method: Method) -> _Neural:
    from ngram_eval.codec.stepping import SteppedModel, load_model, probe

    assert method.window is not None, "a method with a neural model has windows"
    model = load_model(path)
    digest = bytes.fromhex(file_sha256(path))[: len(NO_DIGEST)]
    base = SteppedModel(model, method.window, method.forward)
    return _Neural(base, digest, probe(model, method.window, method.forward))


def _matching_neural(header: Header, method: Method, artifact: str | None) -> _Neural | None:
    """The neural base that the header names, verified by its digests."""
    if header.artifact_digest == NO_DIGEST:
        if artifact is not None:
            raise InputError(f"it was written without a neural model, so --artifact {artifact} can't be right")
        return None
    if method.window is None:
        raise InputError("its header names a neural model but no windows for it")
    path = artifact_path(artifact)
    found = bytes.fromhex(file_sha256(path))[: len(NO_DIGEST)]
    if found != header.artifact_digest:
        given = "the packaged model" if artifact in (None, PACKAGED) else f"--artifact {path}"
        raise InputError(
            f"it was written with a model of sha256 {header.artifact_digest.hex()}..., and {given} has "
            f"{found.hex()}...: give the right one with --artifact FILE"
        )
    neural = _load_neural(path, method)
    if neural.probe_digest != header.probe_digest:
        raise InputError(
            "the model gives other bits on this machine than on the one that wrote the file: decompress it there, "
            f"or with the same torch on the same kind of processor (here: {_environment()})"
        )
    return neural


def _base(neural: _Neural | None, alphabet: Alphabet, tokenizer: str) -> Base:
    """The base distributions over an alphabet."""
    if neural is None:
        return UniformBase(alphabet.size)
    if neural.base.vocab_size != alphabet.size:
        raise InputError(
            f"{tokenizer} has {alphabet.size} tokens, the neural model {neural.base.vocab_size}: "
            "give the tokenizer that the model was trained with"
        )
    return neural.base


def _environment() -> str:
    import torch

    return f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {platform.machine()}"


def overhead(container: Container) -> int:
    """Bytes that do not grow with the content: header, settings and checksum."""
    return HEADER_BYTES + len(container.settings)
