"""The method of a file: the settings that decide its probabilities, and their form in the header."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import accumulate
from typing import Any, Literal, TypeVar

from ngram_eval.config import PRESETS, EvalConfig, ExactConfig, MixerConfig, WindowConfig, preset
from ngram_eval.errors import InputError
from ngram_eval.structured import build, parse

Forward = Literal["windows", "banded"]

_DIGEST_BYTES = 16
_REMEDY = "use the release that wrote it"
_MOST_BYTES = (1 << 16) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A preset, and those of its settings that decide probabilities, which may differ from the preset."""

    preset: str
    max_order: int
    exact: ExactConfig
    mixer: MixerConfig
    window: WindowConfig | None
    """The neural model's windows; None without one."""
    forward: Forward = "windows"
    """How the neural model gets its tokens: in windows, or one by one, with a ring of keys and values."""
    memory: str = ""
    """First half of the sha256 of the tokens that are counted before the first, in hexadecimal; empty without any."""

    def __post_init__(self) -> None:
        assert self.config.normalised, "a code needs probabilities"

    @property
    def config(self) -> EvalConfig:
        """The whole configuration, except the windows."""
        base = preset(self.preset)
        return replace(base, ngram=replace(base.ngram, max_order=self.max_order), exact=self.exact, mixer=self.mixer)

    @property
    def digest(self) -> bytes:
        """16 bytes of a sha256 over every field, defaults included."""
        whole = {
            "max_order": self.max_order,
            "exact": asdict(self.exact),
            "window": None if self.window is None else asdict(self.window),
        }
        if self.config.scorer == "mixer":
            whole["mixer"] = asdict(self.mixer)
        if self.forward != "windows":  # files of earlier releases have no such field
            whole["forward"] = self.forward
        if self.memory:
            whole["memory"] = self.memory
        return hashlib.sha256(_canonical(whole)).digest()[:_DIGEST_BYTES]

    def to_json(self, layout: "Layout | None" = None) -> bytes:
        """The preset's name, the fields that differ from it, and a layout that is not the plain one."""
        base = preset(self.preset)
        stored: dict[str, Any] = {"preset": self.preset}
        if self.max_order != base.ngram.max_order:
            stored["max_order"] = self.max_order
        if self.exact != base.exact:
            stored["exact"] = _changes(base.exact, self.exact)
        if self.mixer != base.mixer:
            stored["mixer"] = _changes(base.mixer, self.mixer)
        if self.window is not None:
            stored["window"] = _changes(base.window, self.window)
        if self.forward != "windows":
            stored["forward"] = self.forward
        if self.memory:
            stored["memory"] = self.memory
        if layout not in (None, Layout()):
            stored["layout"] = asdict(layout)
        encoded = _canonical(stored)
        assert len(encoded) <= _MOST_BYTES, "the header counts them with 16 bits"
        return encoded

    @classmethod
    def from_json(cls, encoded: bytes) -> "Method":
        """The method that `to_json` wrote; raises `InputError` for settings that this release does not know."""
        try:
            stored = _Stored.from_json(encoded)
            base = preset(stored.preset)
            if not base.normalised:
                raise InputError(f"{stored.preset!r} is not a probability")
            return cls(
                preset=stored.preset,
                max_order=base.ngram.max_order if stored.max_order is None else stored.max_order,
                exact=_changed(base.exact, stored.exact),
                mixer=_changed(base.mixer, stored.mixer),
                window=None if stored.window is None else _changed(base.window, stored.window),
                forward=stored.forward,
                memory=stored.memory,
            )
        except InputError as error:
            raise InputError(f"its settings {encoded!r} are not of this release ({error})") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The parts of a payload: that of each block, then the notes for wrapping."""

    blocks: tuple[int, ...] = ()
    """Bytes of each block's; empty for one block, which has all but the notes."""
    notes: int = 0
    """Bytes of the notes; 0 if no line break is left out."""

    @classmethod
    def from_json(cls, encoded: bytes) -> "Layout":
        """The layout that `Method.to_json` wrote."""
        return _Stored.from_json(encoded).layout

    def parts(self, payload: bytes) -> tuple[list[bytes], bytes]:
        """(the payload of each block, the notes); raises `InputError` if they are not the whole."""
        sizes = self.blocks or (len(payload) - self.notes,)
        if min(*sizes, self.notes) < 0 or sum(sizes) + self.notes != len(payload):
            raise InputError(f"its blocks of {sizes} bytes and {self.notes} of notes are no {len(payload)} bytes")
        ends = list(accumulate(sizes))
        return [payload[end - size : end] for end, size in zip(ends, sizes, strict=True)], payload[ends[-1] :]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stored:
    """What `Method.to_json` writes."""

    preset: str
    max_order: int | None = None
    exact: dict[str, Any] = field(default_factory=dict)
    mixer: dict[str, Any] = field(default_factory=dict)
    window: dict[str, Any] | None = None
    forward: Forward = "windows"
    memory: str = ""
    layout: Layout = field(default_factory=Layout)

    @classmethod
    def from_json(cls, encoded: bytes) -> "_Stored":
        return build(parse(encoded, "the file", _REMEDY), cls, "the file", _REMEDY)


Config = TypeVar("Config", ExactConfig, MixerConfig, WindowConfig)


def _changes(base: Config, config: Config) -> dict[str, Any]:
    names = [one.name for one in fields(config)]
    return {name: getattr(config, name) for name in names if getattr(config, name) != getattr(base, name)}


def _changed(base: Config, changes: dict[str, Any]) -> Config:
    return build({**asdict(base), **changes}, type(base), "the file", _REMEDY)


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def code_presets() -> list[str]:
    """The presets whose probabilities sum to 1, as a code needs."""
    return [name for name in PRESETS if preset(name).normalised]
