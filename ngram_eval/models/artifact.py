"""The model file (.ngev): quantise, compress, verify, load. Nothing here unpickles.

Layout: 8 bytes magic | 32 bytes sha256 of the header | uint32 length of the header | header (JSON) | payload (a
safetensors file in one zstd frame). The header holds the format version, the full model config, the quantisation,
size and sha256 of the payload, and its unpacked size. So every byte of the file is verified before any is unpacked:
the header by the prefix, the payload by the header.

Quantisation (PR #890): block matrices int5 per row (or int6, int8, any range), other large tables int8 per row, small
tensors float16, the rest float32. A quantised tensor `name` is stored as int8 `name` and float16 `name.scale`.
"""

import hashlib
import json
import struct
import subprocess
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import zstandard
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from ngram_eval.config import SIZE_LIMIT
from ngram_eval.errors import InputError
from ngram_eval.files import read_input, replacing
from ngram_eval.models.transformer import Transformer, parameter_count
from ngram_eval.models.transformer_config import ModelConfig

MAGIC = b"NGRMEVAL"
FORMAT_VERSION = 1
MAX_PARAMETERS = 1 << 28
"""Largest model that is unpacked; every real artifact is much smaller."""

ZSTD_LEVELS = (22, 1)
"""Compression levels to try; the smaller frame is kept. PR #890 uses 22, which suits weights that repeat. For other
weights, its references to short repetitions cost up to a tenth of the file more than they save; level 1 is smaller."""

_QUANTILE_AT_ONCE = 1 << 23
"""Elements given to torch.quantile at once; its limit is 16 M."""
_PREFIX = struct.Struct("<8s32sI")
_CLIP_QUANTILES = (0.999, 0.9995, 0.9999, 0.99999, 1.0)
_TABLE_CLIP_QUANTILE = 0.9999984
_LATER_FIELDS = frozenset({"bos_id"})
"""Fields of the model config that older artifacts lack; the defaults describe those models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantConfig:
    """How tensors are quantised for the artifact (PR #890)."""

    matrix_levels: int = 15
    """Block matrices are rounded to whole steps from -L to L: 15 is int5 (PR #890), 31 int6, 127 int8."""
    float16_max_elements: int = 65_536
    """Tensors up to this many elements are kept as float16."""
    scale_floor: bool = True
    """Keep every scale at 1/levels or above (1/15 for int5, 1/127 for int8): rows of small weights become coarser."""

    def __post_init__(self) -> None:
        if not 1 <= self.matrix_levels <= 127:
            raise InputError(f"--matrix-levels is {self.matrix_levels}: give 1 to 127 (15 int5, 31 int6, 127 int8)")
        if self.float16_max_elements < 0:
            raise InputError(f"--float16-max-elements is {self.float16_max_elements}: give at least 0")


def is_block_matrix(name: str) -> bool:
    """Whether the tensor is an attention or MLP matrix, which `QuantConfig.matrix_levels` applies to."""
    return name.startswith("blocks.") and name.endswith(".weight")


def row_scale(row_max: Tensor, levels: int, floor: bool) -> Tensor:
    """Scale of each row from its largest magnitude, (rows,), for values from -levels to levels."""
    scale = row_max / levels
    return scale.clamp_min(1 / levels) if floor else scale.clamp_min(torch.finfo(torch.float16).tiny)


def _quantise_rows(matrix: Tensor, clip: Tensor, levels: int, floor: bool) -> tuple[Tensor, Tensor]:
    """(int8 values, float16 scales) of matrix (rows, columns), each row clipped at +-clip (rows,)."""
    scale = row_scale(clip, levels, floor).half()
    values = (matrix / scale.float()[:, None]).round().clamp(-levels, levels)
    return values.to(torch.int8), scale


def _row_quantiles(matrix: Tensor, quantiles: tuple[float, ...]) -> Tensor:
    """Quantiles (Q, rows) of the magnitudes of each row, interpolated linearly."""
    step = max(1, _QUANTILE_AT_ONCE // matrix.size(1))
    parts = (matrix[row : row + step].abs() for row in range(0, matrix.size(0), step))
    wanted = torch.tensor(quantiles, device=matrix.device)
    return torch.cat([torch.quantile(part, wanted, dim=1) for part in parts], dim=1)


def quantise_matrix(matrix: Tensor, levels: int, floor: bool) -> tuple[Tensor, Tensor]:
    """(int8 values from -levels to levels, float16 scales of the rows).

    Rows are clipped at the quantile that gives the least squared error over the whole matrix (GPTQ-lite).
    """
    matrix = matrix.float()
    candidates = []
    for clip in _row_quantiles(matrix, _CLIP_QUANTILES):
        values, scale = _quantise_rows(matrix, clip, levels, floor)
        error = (values * scale.float()[:, None] - matrix).square().sum().item()
        candidates.append((error, values, scale))
    _, values, scale = min(candidates, key=lambda candidate: candidate[0])
    return values, scale


def quantise_table(matrix: Tensor, floor: bool) -> tuple[Tensor, Tensor]:
    """(int8 values, float16 scales of the rows)."""
    matrix = matrix.float()
    return _quantise_rows(matrix, _row_quantiles(matrix, (_TABLE_CLIP_QUANTILE,))[0], 127, floor)


def quantise(model: Transformer, config: QuantConfig) -> dict[str, Tensor]:
    """The tensors to store, without multi-token-prediction heads.

    Raises `InputError` for a weight that is not finite, or too large for float16.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.state_dict().items():
        if name.startswith("mtp."):
            continue
        if parameter.numel() <= config.float16_max_elements:
            tensors[name] = parameter.half()
        elif parameter.ndim == 2:
            if is_block_matrix(name):
                packed = quantise_matrix(parameter, config.matrix_levels, config.scale_floor)
            else:
                packed = quantise_table(parameter, config.scale_floor)
            tensors[name], tensors[name + ".scale"] = packed
        else:
            tensors[name] = parameter.float()
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{name} is not finite, or too large for float16: the training diverged; lower its rates")
    return {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}


def compressed(unpacked: bytes, level: int) -> bytes:
    """One zstd frame, with the size of its content in the frame header."""
    frame: bytes = zstandard.ZstdCompressor(level=level, write_content_size=True).compress(unpacked)
    return frame


def save(path: Path, model: Transformer, config: QuantConfig, train_seq_len: int) -> int:
    """Write the artifact atomically and return its size in bytes; `train_seq_len` is the length it was trained on."""
    data = encode(quantise(model, config), model.config, asdict(config), train_seq_len)
    with replacing(path) as file:
        file.write(data)
    return len(data)


def encode(tensors: dict[str, Tensor], config: ModelConfig, quantisation: dict[str, Any], train_seq_len: int) -> bytes:
    """The artifact of tensors in stored form (see `dequantised`); `quantisation` is recorded for readers."""
    unpacked = save_tensors(tensors)
    payload = min((compressed(unpacked, level) for level in ZSTD_LEVELS), key=len)
    header = {
        "format_version": FORMAT_VERSION,
        "model": {**asdict(config), "mtp_heads": 0},
        "quantisation": quantisation,
        "train_seq_len": train_seq_len,
        "payload_bytes": len(payload),
        "payload_sha256": hashlib.sha256(payload).hexdigest(),
        "unpacked_bytes": len(unpacked),
    }
    encoded = json.dumps(header, sort_keys=True).encode()
    return _PREFIX.pack(MAGIC, hashlib.sha256(encoded).digest(), len(encoded)) + encoded + payload


@dataclass(frozen=True, slots=True)
class _Header:
    """The fields of the header that loading needs."""

    config: ModelConfig
    train_seq_len: int
    unpacked_bytes: int


def _verify(path: Path, data: bytes) -> tuple[Any, bytes]:
    """(header, payload) of the file's bytes, verified by their digests."""
    if len(data) < _PREFIX.size:
        raise InputError(f"{path}: truncated, {len(data)} bytes are less than the {_PREFIX.size} of the prefix")
    magic, digest, length = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise InputError(f"{path}: not an artifact of ngram_eval (it starts with {magic!r}, not {MAGIC!r})")
    encoded, payload = data[_PREFIX.size : _PREFIX.size + length], data[_PREFIX.size + length :]
    if len(encoded) < length:
        raise InputError(f"{path}: truncated, the header has {len(encoded)} of {length} bytes; fetch the file again")
    if hashlib.sha256(encoded).digest() != digest:
        raise InputError(f"{path}: corrupted, the header does not match its sha256; fetch the file again")
    header = json.loads(encoded)
    if header["format_version"] != FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {header['format_version']}, this release reads {FORMAT_VERSION}; export it again"
        )
    declared = header["payload_bytes"]
    if len(payload) < declared:
        raise InputError(f"{path}: truncated, the payload has {len(payload)} of {declared} bytes; fetch the file again")
    if len(payload) > declared:
        raise InputError(f"{path}: corrupted, {len(payload) - declared} bytes follow its end; fetch the file again")
    if hashlib.sha256(payload).hexdigest() != header["payload_sha256"]:
        raise InputError(f"{path}: corrupted, the payload does not match its sha256; fetch the file again")
    return header, payload


def _model_config(path: Path, stored: dict[str, Any]) -> ModelConfig:
    """The model config of the header, every field of the type it has in `ModelConfig`."""
    defaults = {field.name: field.default for field in fields(ModelConfig)}
    if set(stored) | _LATER_FIELDS != set(defaults):
        raise InputError(
            f"{path}: its model config has other fields than this release "
            f"(differing: {', '.join(sorted((set(stored) | _LATER_FIELDS) ^ set(defaults)))}); export it again"
        )
    values: dict[str, Any] = {}
    for name, value in stored.items():
        if isinstance(value, list) and all(type(entry) is int for entry in value):
            value = tuple(value)
        if isinstance(defaults[name], float) and type(value) is int:
            value = float(value)
        if type(value) is not type(defaults[name]):
            raise TypeError(f"{name} is {value!r}")
        values[name] = value
    try:
        return ModelConfig(**values)
    except InputError as error:
        raise InputError(f"{path}: artifact of another model, {error}") from error


def _interpret(path: Path, header: Any) -> _Header:
    """The header's fields; raises an error for values that `save` can't have written."""
    config = _model_config(path, header["model"])
    train_seq_len, size = header["train_seq_len"], header["unpacked_bytes"]
    for name, value in (("train_seq_len", train_seq_len), ("unpacked_bytes", size)):
        if type(value) is not int or value < 1:
            raise TypeError(f"{name} is {value!r}")
    if config.mtp_heads:
        raise InputError(f"{path}: artifact of another model, multi-token-prediction heads are never exported")
    return _Header(config, train_seq_len, size)


def _unpack(path: Path, payload: bytes, size: int) -> bytes:
    """The `size` bytes of the zstd frame."""
    try:
        declared = zstandard.frame_content_size(payload)
        if declared != size:  # checked first: the frame can't unpack to more than it declares
            raise InputError(
                f"{path}: oversized or corrupted, it unpacks to {declared} bytes, "
                f"its header says {size}; export it again"
            )
        unpacked: bytes = zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise InputError(f"{path}: corrupted, zstd says {error}; export it again") from error
    return unpacked


def dequantised(path: Path, model: Transformer, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's state from the artifact's tensors, each checked for presence, shape and type.

    A float tensor is used as it is; an int8 matrix is multiplied by `name.scale`, one factor per row. Removes the
    tensors that it uses from `tensors`. Raises `InputError`, naming `path`.
    """
    state = {}
    for name, parameter in model.state_dict().items():
        stored = tensors.pop(name, None)
        if stored is None:
            raise InputError(f"{path}: artifact of another model, the tensor {name} is missing")
        if stored.shape != parameter.shape:
            raise InputError(
                f"{path}: artifact of another model, {name} has shape {tuple(stored.shape)}, "
                f"its config needs {tuple(parameter.shape)}"
            )
        if stored.dtype == torch.int8 and stored.ndim == 2:
            scale = tensors.pop(name + ".scale", None)
            if scale is None or scale.shape != stored.shape[:1]:
                raise InputError(f"{path}: artifact of another model, no row scales for {name}")
            stored = stored.float() * scale.float()[:, None]
        if not stored.is_floating_point():
            raise InputError(f"{path}: artifact of another model, {name} is {stored.dtype}")
        state[name] = stored.to(parameter.dtype)
        if not bool(state[name].isfinite().all()):
            raise InputError(f"{path}: {name} is not finite everywhere; export it again")
    if tensors:
        raise InputError(f"{path}: artifact of another model, unknown tensors {', '.join(sorted(tensors))}")
    return state


def load(path: Path) -> tuple[Transformer, int]:
    """(dequantised model in evaluation mode on the CPU, sequence length it was trained on).

    Raises `InputError`, naming the file, if it is unreadable, truncated, corrupted, oversized, of another format
    version, or if its tensors do not fit its header.
    """
    return decode(path, read_input(path, "check --artifact", 6 * MAX_PARAMETERS))


def trained_length(path: Path) -> int:
    """The sequence length that the model was trained on; raises `InputError` as `load` does."""
    return _read_header(path, read_input(path, "check --artifact", 6 * MAX_PARAMETERS))[0].train_seq_len


def _read_header(path: Path, data: bytes) -> tuple[_Header, bytes]:
    """(header, payload)."""
    try:
        stored, payload = _verify(path, data)
        return _interpret(path, stored), payload
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: corrupted, its header can't be read ({error!r}); export it again") from error


def decode(path: Path, data: bytes) -> tuple[Transformer, int]:
    """The same of the bytes that `path` holds, or is going to hold."""
    header, payload = _read_header(path, data)
    with torch.device("meta"):
        model = Transformer(header.config)
    parameters, size = parameter_count(model), header.unpacked_bytes
    # float32 is the widest storage; the slack holds the safetensors header and the row scales.
    if parameters > MAX_PARAMETERS or size > 5 * parameters + (1 << 20):
        raise InputError(f"{path}: oversized, it declares {size} bytes for a model of {parameters} parameters")
    try:
        tensors = load_tensors(_unpack(path, payload, size))
    except SafetensorError as error:
        raise InputError(f"{path}: the payload is not a safetensors file ({error}); export it again") from error
    model.load_state_dict(dequantised(path, model, tensors), assign=True)
    return model.eval().requires_grad_(False), header.train_seq_len


def code_files() -> list[Path]:
    """Every .py, .cc and .h file that an evaluation imports or is built from; a subprocess lists the imports."""
    script = (
        "import sys, ngram_eval.run, ngram_eval.models.transformer_source, ngram_eval.models.artifact\n"
        "import ngram_eval.scorers.hashed.cpu\n"
        "for name, module in sys.modules.items():\n"
        "    if name.split('.')[0] == 'ngram_eval' and (module.__file__ or '').endswith('.py'): print(module.__file__)"
    )
    listed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    csrc = Path(__file__).resolve().parents[2] / "csrc"
    if not csrc.is_dir():
        raise InputError(f"{csrc}: the C++ sources, which count too, are missing; install with `pip install -e .`")
    sources = (path for ending in ("*.cc", "*.h") for path in csrc.rglob(ending))
    built = (path for path in sources if "cuda" not in (path.stem, path.parent.name))
    return [*map(Path, listed.stdout.splitlines()), *built]


def code_bytes() -> int:
    """Bytes of the code that counts towards the limit."""
    return sum(source.stat().st_size for source in code_files())


def size_report(model: int) -> str:
    """A line with model bytes, code bytes, and whether their sum is under 16,000,000."""
    code = code_bytes()
    verdict = "under" if model + code < SIZE_LIMIT else "OVER"
    return f"model {model:,} + code {code:,} = {model + code:,} bytes, {verdict} {SIZE_LIMIT:,}"
