"""`ngram-eval convert`: converts a model file of PR #890 to an artifact."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from ngram_eval.cli.console import show_help
from ngram_eval.cli.flags import read_flags
from ngram_eval.errors import exit_on_input_error
from ngram_eval.models.convert import Conversion, convert


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(Conversion):
    """Convert a model file of parameter-golf PR #890 to an artifact (.ngev)."""

    source: Annotated[Path, tyro.conf.Positional]
    """The file to convert."""


HELP = """\
Convert a model file of parameter-golf PR #890 (.ptz or .pt) to an artifact. Never unpickles.

example
  {prog} final_model.ptz --out model.ngev

model
  SOURCE                 the .ptz or .pt file
  --train-seq-len L      length of the sequences it was trained on (2048)
  --value-layers L ...   layers with a value embedding
  --xsa-layers N --rope-dims D --rope-base B
  --leaky-slope S --logit-softcap C
output
  --out FILE             the artifact to write

Sizes are taken from the tensors. Settings that no tensor shows are as published by default.
--help-all: every flag. Supported files and checks: docs/models.md
"""


def main(arguments: Sequence[str], prog: str) -> None:
    """The command line."""
    given = list(arguments)
    with exit_on_input_error():
        show_help(given, HELP, prog)
        options = read_flags(partial(tyro.cli, Options, config=(tyro.conf.OmitArgPrefixes,)), given, prog)
        print(convert(options))
