"""`ngram-eval audit`: probe whether a score is a probability.

Exit code 0: every probe passed; 1: one refutes; 2: bad input; 3: an internal error. The last line is the verdict.
"""

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from ngram_eval.assets import asset
from ngram_eval.audit.audit import Probing, audit, preset_subjects
from ngram_eval.audit.claim import Claim, load_claim
from ngram_eval.audit.report import print_table, verdict, write_json
from ngram_eval.audit.subject import Subject
from ngram_eval.audit.subjects import load_callable, load_claimed
from ngram_eval.cli.console import show_help, table_console, tracked
from ngram_eval.cli.options import JobOptions, parse
from ngram_eval.config import EvalConfig
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.errors import FAILED, INTERRUPTED, InputError, exit_on_input_error
from ngram_eval.evaluation.interrupt import Interrupt
from ngram_eval.evaluation.job import load_job, load_stream
from ngram_eval.files import STDOUT, require_writable
from ngram_eval.models.saved_logits import load_logits
from ngram_eval.text.shards import TokenStream
from ngram_eval.text.stream import Tokens
from ngram_eval.text.tokenizer import TextTokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditOptions(JobOptions):
    """Audit a score: probe whether it is a probability of the text, given what came before.

    Without --data the embedded default is audited, a small model on a held-out novel. The neural model alone is always
    audited beside the presets. Exit code 0: every probe passed; 1: one refutes; 2: bad input; 3: internal error.
    """

    callable: str | None = None
    """Audit this function, module:function: (past_tokens, state) -> the probability of each token to be the next;
    `state` is a dictionary that starts empty."""
    claimed: Path | None = None
    """Audit probabilities from a file, .npz or .safetensors: p, the probability that each position was charged with,
    and positions (default 0, 1, ...). --logits gives the distributions that they are claimed to be from."""
    claim: Path | None = None
    """JSON with the claims: positions, nats, bytes, subset, megabytes, document_start; or a result of --json."""
    probing: Annotated[Probing, tyro.conf.arg(name="")] = field(default_factory=Probing)

    def check(self) -> None:
        sources, preset = self.model.sources, self.method.preset
        if self.callable is not None and self.claimed is not None:
            raise InputError("--callable and --claimed are both subjects: give one of them")
        if self.callable is not None and (sources or preset):
            raise InputError("--callable has its own model: give no neural source and no --preset with it")
        if self.claimed is not None and (set(sources) - {"logits"} or preset):
            raise InputError("--claimed goes with --logits only: give no other neural source and no --preset with it")
        if self.claimed is not None and not self.data.data:
            raise InputError("--claimed needs the tokens that were scored: --data 'PATTERN'")
        self.probing.check()
        if self.callable is None and self.claimed is None:
            super(AuditOptions, self).check()


def load_subjects(
    options: AuditOptions, configs: dict[str, EvalConfig], claim: Claim
) -> tuple[list[Subject], Tokens, TokenStream, TextTokenizer | None]:
    """(subjects, tokens to audit them on, stream of these tokens, tokenizer)."""
    if options.callable is not None:
        stream, tokenizer = load_stream(options.settings, ALONE)
        return [load_callable(options.callable)], options.probing.tokens(stream, 1), stream, tokenizer
    if options.claimed is not None:
        stream, tokenizer = load_stream(options.settings, ALONE)
        tokens, given = stream.tokens[:], options.model.logits
        logits = load_logits(given, (stream.total - 1, len(tokens) - 1)) if given else None
        seq_len = options.method.config.window.seq_len
        return [load_claimed(options.claimed, logits, tokens, seq_len, bool(claim.subset))], tokens, stream, tokenizer
    job = load_job(options.settings, ALONE)
    subjects, tokens = preset_subjects(job, configs, options.probing)
    return subjects, tokens, job.stream, job.tokenizer


def run(options: AuditOptions, configs: dict[str, EvalConfig]) -> int:
    """Probe every subject and report the findings; returns the exit code."""
    output = options.output
    console = table_console(quiet=output.quiet, stdout_taken=output.json == STDOUT)
    require_writable("--json", output.json)
    claim = load_claim(options.claim) if options.claim is not None else Claim()
    configs = options.runnable(configs)
    subjects, tokens, stream, tokenizer = load_subjects(options, configs, claim)
    if len(tokens) < len(stream.tokens) and any(one is not None for one in (claim.positions, claim.nats, claim.bytes)):
        raise InputError(
            f"{options.claim} makes a claim about the whole data, and only {len(tokens) - 1:,} positions are audited: "
            "give --positions 0"
        )
    artifact = asset("model.ngev") if options.settings.embedded else options.model.artifact
    with tracked(quiet=output.quiet) as track, Interrupt() as interrupt:
        audited = audit(
            subjects,
            tokens,
            tokenizer,
            claim,
            options.probing,
            artifact=artifact,
            text=stream.text,
            track=track,
            interrupt=interrupt,
        )
    if interrupt.asked:
        print_table(audited, console)
        print("verdict: none, interrupted; the table holds the subjects that were finished", file=sys.stderr)
        return INTERRUPTED
    if output.json is not None:
        settings: dict[str, Any] = {"data": [str(path) for path in stream.paths], "positions": len(tokens) - 1}
        settings |= {name: getattr(options.probing, name) for name in ("samples", "cuts", "seed")}
        settings |= {"config": {name: config.to_json() for name, config in configs.items()}}
        write_json(output.json, audited, settings)
    print_table(audited, console)
    console.print(verdict(audited), soft_wrap=True, highlight=False)
    return FAILED if any(one.refuted for one in audited) else 0


HELP = """\
Audit a score: probe whether it is a probability of the text, given what came before.

example
  {prog} --preset pr890 --preset exact --json audit.json

data (default: the embedded novel)
  --data FILE ...     token shards (.bin); --tokenizer FILE
  --positions 4096    number of positions to audit, from the start; 0 for all
model (default: the embedded model)
  --artifact FILE | --logits FILE | --hf NAME | --uniform
  --callable M:F      your function: (past_tokens, state) -> probabilities of the next token
  --claimed FILE      .npz of probabilities that were charged, from the distributions of --logits
  --claim FILE        JSON of the claims (positions, nats, bytes, ...), or a result of --json
method
  --preset NAME       pr890, hashed, exact, tilt, mixer, ppmd; repeatable; the model alone is always added
  --samples 128       number of positions at which whole distributions are checked
  --cuts 2            number of places; all tokens after a place are replaced
output
  --json FILE         every finding; - for stdout
  --quiet             no progress and no table, only the exit code

exit codes: 0 every probe passed; 1 one refutes; 2 bad input; 3 internal error; 130 interrupted
--help-all: every flag. The probes: docs/honesty.md
"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m ngram_eval.audit") -> None:
    """The command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with exit_on_input_error():
            show_help(given, HELP, prog)
            options, configs = parse(given, AuditOptions(), prog)
            code = run(options, configs)
    except Exception:
        traceback.print_exc()
        print("verdict: none, an internal error stopped the audit", file=sys.stderr)
        sys.exit(3)
    sys.exit(code)
