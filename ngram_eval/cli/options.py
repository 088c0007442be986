"""The common flags of command lines that evaluate, and one `EvalConfig` for each preset.

tyro generates flags from dataclasses; each class is a heading of `--help-all`. A flag overrides its field in every
preset.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from ngram_eval import __version__
from ngram_eval.cli.flags import read_flags
from ngram_eval.config import DEFAULT_PRESETS, PRESETS, EvalConfig, preset
from ngram_eval.errors import InputError
from ngram_eval.evaluation.settings import (
    DataSettings,
    HardwareSettings,
    ModelSettings,
    Settings,
)
from ngram_eval.scorers.backends import BACKENDS, resolve_backend
from ngram_eval.scorers.make import check_backend


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """Method: how tokens are predicted and counted."""

    preset: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Method to evaluate, may be repeated: pr890 (as published), hashed (quirks fixed), exact (exact counts, a
    probability), tilt (one hint, a probability), mixer, mixer-fast or mixer-max (hashed contexts of decisions, a
    probability), ppmd (bytes mixed with a PPM-D, as published).
    Default: the first three, without exact on triton."""
    config: Annotated[EvalConfig, tyro.conf.arg(name="")] = field(default_factory=EvalConfig)
    """The method; a flag overrides its field in every preset."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """Output: where the result goes, and what is shown."""

    json: Path | None = None
    """Write the full results here; - for standard output, and the table then goes to stderr."""
    quiet: bool = False
    """Show no progress and no table, only errors and the output of --json -."""
    version: bool = False
    """Print the version and stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOptions:
    """Data, model, method, output and hardware: the flags of every command line that evaluates."""

    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    method: Method = field(default_factory=Method)
    output: Output = field(default_factory=Output)
    hardware: HardwareSettings = field(default_factory=HardwareSettings)

    @property
    def settings(self) -> Settings:
        """All settings that decide a result, except the method."""
        return Settings(data=self.data, model=self.model, hardware=self.hardware)

    def check(self) -> None:
        """Raise `InputError` for flags that do not go together or are out of range."""
        self.settings.check()

    def runnable(self, configs: Mapping[str, EvalConfig], *, quiet: bool = False) -> dict[str, EvalConfig]:
        """The presets that can run here.

        Without --preset, presets that can't run are left out, with a line on stderr unless `quiet`. With --preset,
        raises `InputError` for them.
        """
        kept, backend = {}, resolve_backend(self.hardware.backend)
        for name, config in configs.items():
            try:
                check_backend(name, config, backend)
                if config.byte_rule == "piece" and not self.settings.sentencepiece:
                    raise InputError(
                        f"--preset {name} counts bytes by a formula for SentencePiece models, and this tokenizer "
                        "is none: give --byte-rule decoded"
                    )
                if name == "pr890" and self.model.forward == "banded":
                    if not self.method.preset:
                        raise InputError("it is defined by windows; --preset pr890 scores --forward banded by its rule")
                    if not quiet:
                        print("pr890 is defined by windows: this score is not the published method's.", file=sys.stderr)
            except InputError as error:
                if self.method.preset:
                    raise
                if not quiet:
                    print(f"Left out {name}: {error}.", file=sys.stderr)
            else:
                kept[name] = config
        return kept


VALUES = {"--preset": [*PRESETS], "--backend": ["auto", *BACKENDS]}
"""Flag -> the values that completion offers."""

AnyOptions = TypeVar("AnyOptions", bound=JobOptions)


def parse(
    arguments: list[str], default: AnyOptions, prog: str, presets: Mapping[str, EvalConfig] | None = None
) -> tuple[AnyOptions, dict[str, EvalConfig]]:
    """(options, preset name -> configuration with all flags applied). Exits for --help and --version.

    Without --preset, `presets` are evaluated; by default those of `DEFAULT_PRESETS`.
    """
    if {"-h", "--help"} & set(arguments):
        _parse(arguments, default, prog)
    named = peek(arguments, _Named).preset
    bases = {name: preset(name) for name in named or DEFAULT_PRESETS} if named or presets is None else presets
    options, configs, length = default, {}, None
    for name, config in bases.items():  # a flag may be out of range for one preset and not for another
        options = _parse(arguments, _with(default, config), prog)
        if options.output.version:
            print(f"ngram_eval {__version__}")
            sys.exit(0)
        options.check()
        if presets is None and length is None:
            length = options.settings.trained_length()
        if length:
            config = replace(config, window=config.window.of_length(length))
            options = _parse(arguments, _with(default, config), prog)
        configs[name] = options.method.config
    return options, configs


@dataclass(frozen=True)
class _Named:
    preset: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()


Some = TypeVar("Some")


def peek(arguments: list[str], kind: type[Some]) -> Some:
    """Parse only the flags of the dataclass `kind`; other arguments are ignored."""
    found: Any
    found, _ = read_flags(partial(tyro.cli, kind, return_unknown_args=True, add_help=False), arguments, "")
    return found  # type: ignore[no-any-return]


def _with(default: AnyOptions, config: EvalConfig) -> AnyOptions:
    return replace(default, method=replace(default.method, config=config))


def _parse(arguments: list[str], default: AnyOptions, prog: str) -> AnyOptions:
    flags: Callable[..., AnyOptions] = partial(
        tyro.cli, type(default), default=default, config=(tyro.conf.OmitArgPrefixes,)
    )
    return read_flags(flags, arguments, prog)
