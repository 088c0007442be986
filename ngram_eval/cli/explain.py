"""`ngram-eval explain`: shows how one prediction is made up."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ngram_eval.cli.console import show_help, table_console, tracked
from ngram_eval.cli.options import JobOptions, parse
from ngram_eval.config import EvalConfig
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.evaluation.job import load_job
from ngram_eval.files import STDOUT, require_writable, write_text
from ngram_eval.results.explain import Prediction, explain, find_text, print_prediction
from ngram_eval.scorers.make import check_source


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainOptions(JobOptions):
    """Show one prediction: context, counts and weight of each order, likeliest tokens without and with n-grams."""

    position: int | None = None
    """Explain the prediction of the token after this position: position p predicts token p + 1."""
    after: str | None = None
    """Explain the prediction of the token after this piece of text, instead of --position."""
    occurrence: int = 1
    """Occurrence of this piece of text: 1 is the first, -1 the last."""
    context: int = 24
    """Tokens of the context to show."""
    top: int = 8
    """Likeliest tokens to show."""

    def check(self) -> None:
        super(ExplainOptions, self).check()
        if (self.position is None) == (self.after is None):
            raise InputError("give one place: --position P, or --after 'some words'")
        if self.occurrence == 0:
            raise InputError("--occurrence is 0: 1 is the first, -1 the last")
        if self.after == "":
            raise InputError("--after is empty: give a few words of the text")
        for name in ("context", "top"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}: give at least 1")


def run(options: ExplainOptions, configs: dict[str, EvalConfig]) -> list[Prediction]:
    """The prediction under every preset. Raises `InputError` for a source that knows only targets' probabilities."""
    with tracked(quiet=options.output.quiet) as track:
        job = load_job(options.settings, ALONE, track)
        if not job.source.gives_all:
            raise InputError(
                "--scores holds only the probability of each target: give --artifact, --logits or --uniform"
            )
        position = options.position
        for config in configs.values():
            check_source(config, job.source)
        if position is None:
            assert options.after is not None, "ExplainOptions.check asks for one of the two"
            position = find_text(job, options.after, options.occurrence)
        return [
            explain(job, name, config, position, context=options.context, top=options.top, track=track)
            for name, config in configs.items()
        ]


HELP = """\
Show one prediction: the context, the counts and weight of each order, the likeliest tokens.

example
  {prog} --after 'Mrs. Dashwood and her' --occurrence -1 --preset exact

data (default: the embedded novel)
  --data FILE ... --tokenizer FILE
  --position P        explain the token after position P (position p predicts token p + 1); or
  --after WORDS       the token after these words; --occurrence 2: the second time, -1: the last
model (default: the embedded model)
  --artifact FILE | --logits FILE | --hf NAME | --uniform
method
  --preset NAME       pr890, hashed, exact, tilt, mixer, ppmd; may be repeated
output
  --context 24        tokens of the context to show
  --top 8             likeliest tokens to show
  --json FILE         everything; - for stdout

Presets that learn from each position for the next (exact, tilt, mixer, ppmd) are evaluated up to
the position, which takes as long as the evaluation does. Presets that only count need one forward
pass.

--help-all: every flag
"""


def main(arguments: Sequence[str], prog: str) -> None:
    """The command line."""
    given = list(arguments)
    with exit_on_input_error():
        show_help(given, HELP, prog)
        options, configs = parse(given, ExplainOptions(), prog)
        require_writable("--json", options.output.json)
        predictions = run(options, configs)
        if options.output.json is not None:
            write_text(
                options.output.json, json.dumps({"predictions": [asdict(one) for one in predictions]}, indent=2) + "\n"
            )
        console = table_console(quiet=options.output.quiet, stdout_taken=options.output.json == STDOUT)
        for one in predictions:
            print_prediction(one, console)
