"""Audit scorers: `python -m ngram_eval.audit` (see --help).

Exit code 0: every probe passed; 1: one refutes; 2: bad input; 3: an internal error. The last line is the verdict.
"""

import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ngram_eval.audit.probes import PROBES, Case, ask
from ngram_eval.audit.report import Audited, print_table, verdict, write_json
from ngram_eval.audit.subjects import (
    Claim,
    ScorerSubject,
    SharedSource,
    Subject,
    load_callable,
    load_claim,
    load_claimed,
    other_sources,
)
from ngram_eval.config import EvalConfig, WindowConfig
from ngram_eval.console import progress_bars, show_help, table_console
from ngram_eval.counts import Tokens
from ngram_eval.errors import FAILED, INTERRUPTED, InputError, exit_on_input_error
from ngram_eval.files import STDOUT, require_writable
from ngram_eval.interrupt import Interrupt
from ngram_eval.job import load_job, load_stream
from ngram_eval.neural import NeuralSource, load_logits
from ngram_eval.options import JobOptions, asset, parse
from ngram_eval.ranks import Ranks
from ngram_eval.run import runnable
from ngram_eval.scorers import NeuralScorer, Scorer, check_source, make_scorer
from ngram_eval.tokens import TextTokenizer, TokenStream

ALONE = Ranks(0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditOptions(JobOptions):
    """Audit a score: probe whether it is a probability of the text, given what came before.

    Without --data the embedded default is audited, a small model on a held-out novel. The neural model alone is always
    audited beside the presets. Exit code 0: every probe passed; 1: one refutes; 2: bad input; 3: internal error.
    """

    callable: str | None = None
    """Audit this function, module:function: (past_tokens, state) -> the probability of each token to come next; `state`
    is a dictionary that starts empty."""
    claimed: Path | None = None
    """Audit probabilities that were written down: an .npz with p, what each position was charged with, and positions
    (default 0, 1, ...). With --logits, the distributions they are said to be of."""
    claim: Path | None = None
    """JSON with what is claimed: positions, nats, bytes, subset, megabytes, document_start; or a result of --json."""
    positions: int = 4096
    """Audit only so many positions from the start of the data; 0 for all. Every probe runs over them several times."""
    samples: int = 128
    """Positions at which whole distributions are looked at."""
    cuts: int = 2
    """Places from which on the tokens are replaced."""
    seed: int = 0
    """Seed of what is drawn."""

    def check(self) -> None:
        if self.callable is not None and self.claimed is not None:
            raise InputError("--callable and --claimed are both subjects: give one of them")
        if self.callable is not None and (self._sources() or self.preset):
            raise InputError("--callable has its own model: give no neural source and no --preset with it")
        if self.claimed is not None and (set(self._sources()) - {"logits"} or self.preset):
            raise InputError("--claimed goes with --logits only: give no other neural source and no --preset with it")
        if self.claimed is not None and not self.data:
            raise InputError("--claimed needs the tokens that were scored: --data 'PATTERN'")
        if self.samples < 1 or self.cuts < 1 or self.positions < 0:
            raise InputError("--samples and --cuts are at least 1, --positions is at least 0")
        if self.cuts > self.samples:
            raise InputError(f"--cuts is {self.cuts}: give no more than --samples ({self.samples})")
        if self.callable is None and self.claimed is None:
            super(AuditOptions, self).check()


def audited_tokens(stream: TokenStream, options: AuditOptions, at_least: int) -> Tokens:
    """The tokens to audit: --positions of them and a last target, and whole sequences enough for a few windows."""
    positions = max(options.positions, at_least) if options.positions else len(stream.tokens) - 1
    tokens: Tokens = stream.tokens[: positions + 1]
    return tokens


def load_subjects(
    options: AuditOptions, configs: dict[str, EvalConfig], claim: Claim
) -> tuple[list[Subject], Tokens, TokenStream, TextTokenizer | None]:
    """(subjects, the tokens to audit them on, the stream these are of, tokenizer)."""
    if options.callable is not None:
        stream, tokenizer = load_stream(options, ALONE)
        return [load_callable(options.callable)], audited_tokens(stream, options, 1), stream, tokenizer
    if options.claimed is not None:
        stream, tokenizer = load_stream(options, ALONE)
        tokens = stream.tokens[:]
        logits = load_logits(options.logits, (stream.total - 1, len(tokens) - 1)) if options.logits else None
        claimed = load_claimed(options.claimed, logits, tokens, options.config.window.seq_len, bool(claim.subset))
        return [claimed], tokens, stream, tokenizer
    job = load_job(options, ALONE)
    for config in configs.values():
        check_source(config, job.source)
    source, others, threads = SharedSource(job.source), other_sources(job.source), options.count_threads()
    longest = max(source.train_seq_len, *(one.window.seq_len for one in configs.values()))
    tokens = audited_tokens(job.stream, options, 2 * longest)
    window = next(iter(configs.values())).window
    neural = EvalConfig(window=WindowConfig(seq_len=window.seq_len, stride=window.stride))
    alone = ScorerSubject(
        name="neural",
        make=neural_scorer,
        config=neural,
        source=source,
        tokenizer=job.tokenizer,
        backend=job.backend,
        others=others,
        remembers=False,
    )

    def make(backend: str, config: EvalConfig, source: NeuralSource) -> Scorer:
        return make_scorer(backend, config, threads, job.vocabulary)

    presets = [replace(alone, name=name, make=make, config=config, remembers=True) for name, config in configs.items()]
    return [alone, *presets], tokens, job.stream, job.tokenizer


def neural_scorer(backend: str, config: EvalConfig, source: NeuralSource) -> NeuralScorer:
    """The model alone, on any backend."""
    return NeuralScorer()


def audit(options: AuditOptions, configs: dict[str, EvalConfig]) -> int:
    """Probe every subject and report: the exit code."""
    console = table_console(quiet=options.quiet, stdout_taken=options.json == STDOUT)
    require_writable("--json", options.json)
    claim = load_claim(options.claim) if options.claim is not None else Claim()
    configs = runnable(options, configs, ALONE)
    subjects, tokens, stream, tokenizer = load_subjects(options, configs, claim)
    if len(tokens) < len(stream.tokens) and any(one is not None for one in (claim.positions, claim.nats, claim.bytes)):
        raise InputError(
            f"{options.claim} makes a claim of the whole data, and only {len(tokens) - 1:,} positions are audited: "
            "give --positions 0"
        )
    artifact = asset("model.ngev") if options.embedded else options.artifact
    audited = []
    with progress_bars(quiet=options.quiet) as progress, Interrupt() as interrupt:
        for subject in interrupt.until(iter(subjects)):
            case = Case(
                subject,
                tokens,
                tokenizer,
                samples=options.samples,
                cuts=options.cuts,
                seed=options.seed,
                claim=claim if subject.name != "neural" else replace(claim, positions=None, nats=None, bytes=None),
                artifact=artifact,
            )
            task = progress.add_task(subject.name, total=len(PROBES))
            findings = []
            for probe in interrupt.until(iter(PROBES)):
                findings.append(ask(probe, case))
                progress.advance(task)
            if len(findings) == len(PROBES):
                audited.append(Audited(subject.name, tuple(findings)))
    if interrupt.asked:
        print_table(audited, console)
        print("verdict: none, interrupted; subjects above are those that were probed to the end", file=sys.stderr)
        return INTERRUPTED
    if options.json is not None:
        settings = {"data": [str(path) for path in stream.paths], "positions": len(tokens) - 1}
        settings |= {name: getattr(options, name) for name in ("samples", "cuts", "seed")}
        settings |= {"config": {name: asdict(config) for name, config in configs.items()}}
        write_json(options.json, audited, settings)
    print_table(audited, console)
    console.print(verdict(audited), soft_wrap=True, highlight=False)
    return FAILED if any(one.refuted for one in audited) else 0


HELP = """\
Audit a score: probe whether it is a probability of the text, given what came before.

example
  {prog} --preset pr890 --preset exact --json audit.json

what is audited (by default the presets, on the embedded novel with the embedded model)
  --preset NAME       pr890, hashed, exact, tilt, mixer; repeatable; and always the model alone
  --callable M:F      your function: (past_tokens, state) -> probabilities of the next token
  --claimed FILE      .npz of probabilities that were written down; --logits: of which distributions
  --claim FILE        JSON of what is claimed (positions, nats, bytes, ...), or a result of --json
on what
  --data FILE ...     token shards (.bin); --tokenizer FILE
  --artifact FILE | --logits FILE | --hf NAME | --uniform
  --positions 4096    only so many from the start; 0 for all
how thoroughly
  --samples 128       positions at which whole distributions are looked at
  --cuts 2            places from which on the tokens are replaced
what comes of it
  --json FILE         every finding; - for stdout
  --quiet             no progress, no table; the exit code tells

exit codes: 0 every probe passed; 1 one refutes; 2 bad input; 3 internal error; 130 interrupted
--help-all: every flag. What the probes are: docs/honesty.md
"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m ngram_eval.audit") -> None:
    """The command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with exit_on_input_error():
            show_help(given, HELP, prog)
            options, configs = parse(given, AuditOptions(), prog)
            code = audit(options, configs)
    except Exception:
        traceback.print_exc()
        print("verdict: none, an internal error stopped the audit", file=sys.stderr)
        sys.exit(3)
    sys.exit(code)


if __name__ == "__main__":
    main()
