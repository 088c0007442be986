"""`ngram-eval prepare`: text into token shards."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import tyro
from rich.progress import DownloadColumn, TransferSpeedColumn

from ngram_eval.cli.console import show_help, tracked
from ngram_eval.errors import exit_on_input_error
from ngram_eval.text.prepare import PrepareConfig, prepare

HELP = """\
Turn text into token shards, each document led by a BOS token. The manifest, JSON, is printed too.

example
  {prog} text/ --out shards --name val --train-tokenizer 1024

  INPUT ...              .txt or .jsonl, either also as .zst; folders of them; - for stdin
where to
  --out DIR              for the shards and NAME_manifest.json
  --name NAME            NAME_000000.bin, ... (default: tokens)
  --shard-tokens N       tokens in each shard (default: 100,000,000)
  --overwrite            replace what is there under this name
by which tokenizer
  --tokenizer FILE       a SentencePiece .model
  --train-tokenizer V    or train one of V pieces on the text: OUT/tokenizer.model
what the text is
  --documents KIND       in .txt: file, line or blank-lines
  --text-field NAME      in .jsonl (default: text)
  --stdin-format KIND    txt or jsonl

  --quiet                no progress
--help-all: every flag. Ctrl-C leaves nothing behind.
"""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(PrepareConfig):
    """Turn text into token shards, each document led by a BOS token, and say what was done in a manifest."""

    inputs: tyro.conf.Positional[tuple[str, ...]]
    """.txt or .jsonl files, either also as .zst; folders, of which all such files are taken, sorted; - is stdin."""

    quiet: bool = False
    """Show no progress; the manifest is printed all the same."""


def main(arguments: Sequence[str], prog: str) -> None:
    """The command line."""
    given = list(arguments)
    with exit_on_input_error():
        show_help(given, HELP, prog)
        options = tyro.cli(PrepareOptions, prog=prog, args=given)
        with tracked(DownloadColumn(), TransferSpeedColumn(), quiet=options.quiet) as track:
            manifest = prepare(options, shlex.join([*prog.split(), *given]), track)
        print(manifest.to_json(), end="")
        for warning in manifest.warnings:
            print(f"warning: {warning}", file=sys.stderr)
