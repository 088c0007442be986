"""`ngram-eval convert`: a model file of PR #890 into one of ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ngram_eval.cli.console import show_help
from ngram_eval.errors import exit_on_input_error
from ngram_eval.models.convert import Conversion, convert


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(Conversion):
    """Read an artifact of parameter-golf PR #890 and write one of ours."""

    source: Annotated[Path, tyro.conf.Positional]
    """The file to convert."""


HELP = """\
Read an artifact of parameter-golf PR #890 (.ptz or .pt) and write one of ours. Never unpickles.

example
  {prog} final_model.ptz --out model.ngev

  SOURCE                 the .ptz or .pt file
  --out FILE             the artifact to write
  --train-seq-len L      length of the sequences it was trained on (2048)

Sizes are read off the tensors. What no tensor shows is as published; for other models:
  --value-layers L ...   layers with a value embedding
  --xsa-layers N --rope-dims D --rope-base B
  --leaky-slope S --logit-softcap C

--help-all: every flag. Which files, and what is checked: docs/models.md
"""


def main(arguments: Sequence[str], prog: str) -> None:
    """The command line."""
    given = list(arguments)
    with exit_on_input_error():
        show_help(given, HELP, prog)
        options = tyro.cli(Options, prog=prog, args=given, config=(tyro.conf.OmitArgPrefixes,))
        print(convert(options))
