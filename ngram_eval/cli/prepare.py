"""`ngram-eval prepare`: turns text into token shards."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import tyro
from rich.progress import DownloadColumn, TransferSpeedColumn

from ngram_eval.cli.console import show_help, tracked
from ngram_eval.cli.flags import read_flags
from ngram_eval.errors import exit_on_input_error
from ngram_eval.text.prepare import PrepareConfig, prepare

HELP = """\
Turn text into token shards; each document begins with a BOS token. Prints the manifest (JSON) too.

example
  {prog} text/ --out shards --name val --train-tokenizer 1024

data
  INPUT ...              .txt, .md, .jsonl, also as .zst, .gz, .bz2, .xz; .parquet; folders;
                         - for stdin
  --documents KIND       documents in .txt: file, line or blank-lines
  --text-field NAME      field of the text in .jsonl or .parquet (default: text)
  --stdin-format KIND    txt or jsonl
method
  --tokenizer FILE       a SentencePiece .model, a tokenizer.json, tiktoken:gpt2; or
  --train-tokenizer V    train one of V pieces on the text: OUT/tokenizer.model
output
  --out DIR              folder for the shards and NAME_manifest.json
  --name NAME            NAME_000000.bin, ... (default: tokens)
  --shard-tokens N       tokens in each shard (default: 100,000,000)
  --overwrite            replace existing files of this name
  --quiet                no progress

--help-all: every flag. Ctrl-C leaves no files.
"""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(PrepareConfig):
    """Turn text into token shards with a manifest; each document begins with a BOS token."""

    inputs: tyro.conf.Positional[tuple[str, ...]]
    """.txt, .md or .jsonl files, these also with .zst, .gz, .bz2 or .xz, and .parquet; folders of such files, read in
    sorted order; - is stdin."""

    quiet: bool = False
    """Show no progress; the manifest is still printed."""


def main(arguments: Sequence[str], prog: str) -> None:
    """The command line."""
    given = list(arguments)
    with exit_on_input_error():
        show_help(given, HELP, prog)
        options = read_flags(partial(tyro.cli, PrepareOptions), given, prog)
        with tracked(DownloadColumn(), TransferSpeedColumn(), quiet=options.quiet) as track:
            manifest = prepare(options, shlex.join([*prog.split(), *given]), track)
        print(manifest.to_json(), end="")
        for warning in manifest.warnings:
            print(f"warning: {warning}", file=sys.stderr)
