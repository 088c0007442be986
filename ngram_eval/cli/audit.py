"""`ngram-eval audit`: probe whether a score is a probability.

Exit code 0: every probe passed; 1: one refutes; 2: bad input; 3: an internal error; 4: inconclusive, nothing was
refuted and what matters could not be asked. The last line is the verdict.
"""

import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ngram_eval.assets import asset
from ngram_eval.audit.alphabet import ByteTokenizer, byte_stream, read_text
from ngram_eval.audit.audit import audit, preset_subjects
from ngram_eval.audit.case import Data, Probing
from ngram_eval.audit.claim import Claim, load_claim
from ngram_eval.audit.evaluator.process import Limits
from ngram_eval.audit.finding import EXIT_CODES, outcome_of
from ngram_eval.audit.formats import annotations, summary, write_json, write_sarif
from ngram_eval.audit.precision import Precision
from ngram_eval.audit.report import print_table, verdict
from ngram_eval.audit.subject import Subject
from ngram_eval.audit.subjects.claimed import load_claimed
from ngram_eval.audit.subjects.function import function_in_process
from ngram_eval.cli.audit_evaluator import EvaluatorOptions, audited_evaluator
from ngram_eval.cli.console import show_help, table_console, tracked
from ngram_eval.cli.options import JobOptions, parse, peek
from ngram_eval.config import DEFAULT_PRESETS, EvalConfig, preset
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.errors import INTERNAL, INTERRUPTED, InputError, exit_on_input_error
from ngram_eval.evaluation.interrupt import Interrupt
from ngram_eval.evaluation.job import load_job, load_stream
from ngram_eval.evaluation.settings import DataSettings, ModelSettings, Settings
from ngram_eval.files import STDOUT, require_writable, write_text
from ngram_eval.models.saved_logits import load_logits
from ngram_eval.text.shards import TokenStream, read_shards
from ngram_eval.text.stream import Tokens
from ngram_eval.text.tokenizer import TextTokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditOptions(JobOptions):
    """Audit a score: probe whether it is a probability of the text, given what came before.

    Without --data the embedded default is audited, a small model on a held-out novel. The neural model alone is always
    audited beside the presets. Exit code 0: every probe passed; 1: one refutes; 2: bad input; 3: internal error; 4:
    inconclusive.
    """

    callable: str | None = None
    """Audit this function, module:function or path/file.py:function: (past_tokens, state) -> the probability of each
    token to be the next; `state` is a dictionary that starts empty. It runs in a process of its own (--timeout,
    --gigabytes, --cpu), without the files of the data. --artifact gives the file whose size is claimed."""
    claimed: Path | None = None
    """Audit probabilities from a file, .npz or .safetensors: p, the probability that each position was charged with,
    and positions (default 0, 1, ...). --logits gives the distributions that they are claimed to be from."""
    claim: Path | None = None
    """JSON with the claims: positions, nats, loss, bpb, bytes, subset, megabytes, document_start, tokens, sha256; or a
    result of --json."""
    alphabet: Literal["tokens", "bytes"] = "tokens"
    """What --callable, --claimed and --evaluator charge: tokens; or the bytes of --text (or of what --data decodes to),
    each given the bytes before, with 256 values."""
    precision: Precision | None = None
    """Precision in which the audited values were computed; default: seen in them. Tolerances follow from it."""
    training: tuple[str, ...] = ()
    """Shards that the model was trained on, file names or quoted patterns: they are searched for the text."""
    format: Literal["text", "github"] = "text"
    """How findings are printed: as a table, or as annotations of a GitHub workflow."""
    summary: Path | None = None
    """Write the table in Markdown here, to paste or for $GITHUB_STEP_SUMMARY; - for standard output."""
    sarif: Path | None = None
    """Write what is not in order here as SARIF 2.1.0."""
    probing: Annotated[Probing, tyro.conf.arg(name="")] = field(default_factory=Probing)
    whole: Annotated[EvaluatorOptions, tyro.conf.arg(name="")] = field(default_factory=EvaluatorOptions)

    @property
    def given(self) -> str | None:
        """The flag of a subject from outside."""
        named = {"--callable": self.callable, "--claimed": self.claimed, "--evaluator": self.whole.evaluator}
        return next((flag for flag, value in named.items() if value is not None), None)

    def check(self) -> None:
        sources, preset = set(self.model.sources), self.method.preset
        limits = self.whole.limits
        limits.check()
        if self.callable is not None:  # --timeout, --gigabytes and --cpu are its own too
            limits = Limits(processes=limits.processes, fresh=limits.fresh)
        replace(self.whole, limits=limits).check()
        if self.whole.evaluator is not None and (
            self.callable is not None or self.claimed is not None or sources - {"artifact", "hf"} or preset
        ):
            raise InputError(
                "--evaluator has its own model: give no other subject, no --preset and no neural source with it, but "
                "for --artifact (the file whose size is claimed) and --hf (its tokenizer)"
            )
        if self.callable is not None and self.claimed is not None:
            raise InputError("--callable and --claimed are both subjects: give one of them")
        if self.callable is not None and (sources - {"artifact", "hf"} or preset):
            raise InputError(
                "--callable has its own model: give no --preset and no neural source with it, but for --artifact (the "
                "file whose size is claimed) and --hf (its tokenizer)"
            )
        if self.claimed is not None and (sources - {"logits", "artifact", "hf"} or preset):
            raise InputError(
                "--claimed goes with --logits, --artifact (the file whose size is claimed) and --hf (its tokenizer): "
                "give no other neural source and no --preset with it"
            )
        if self.claimed is not None and not self.data.data and not self.data.text:
            raise InputError("--claimed needs the tokens that were scored: --data 'PATTERN'")
        if self.alphabet == "bytes" and self.given is None:
            raise InputError(
                "--alphabet bytes is what --callable, --claimed or --evaluator charges: give one; presets charge tokens"
            )
        if (
            self.given is not None
            and self.data.text
            and not (self.data.data or self.model.hf or self.alphabet == "bytes")
        ):
            raise InputError("--text is compared with the tokens: give --data too, or --hf to tokenise it")
        self.probing.check()
        if self.given is None:
            replace(self.settings, data=_without_text(self.data)).check()


@dataclass(frozen=True)
class _Given:
    evaluator: str | None = None
    callable: str | None = None
    claimed: Path | None = None


_DEFAULTS = {name: preset(name) for name in DEFAULT_PRESETS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """What is audited."""

    subjects: list[Subject]
    stream: TokenStream
    data: Data
    lacking: tuple[str, ...]
    """What of a process of its own the system did not allow."""


def load(options: AuditOptions, configs: dict[str, EvalConfig], claim: Claim, stack: ExitStack) -> Loaded:
    """The subjects, and the data to audit them on; `stack` ends what runs. Raises `InputError`."""
    subjects: list[Subject]
    lacking: tuple[str, ...] = ()
    kept: Tokens | None = None
    if options.given is None:
        job = load_job(replace(options.settings, data=_without_text(options.data)), ALONE)
        stream, tokenizer = _beside(options, job.stream), job.tokenizer
        subjects, tokens = preset_subjects(job, configs, options.probing)
        kept = None if job.kept is None else job.kept.tokens
        artifact = asset("model.ngev") if options.settings.embedded else options.model.artifact
    else:
        stream, tokenizer = _load_stream(options)
        artifact = options.model.artifact
        if options.callable is not None:
            hidden = (*stream.paths, *options.data.text)
            subject, process = function_in_process(options.callable, hidden, options.whole.limits)
            stack.callback(process.close)
            lacking = process.lacking
            subjects, tokens = [subject], options.probing.tokens(stream, 1)
        elif options.whole.evaluator is not None:
            subjects, tokens = [], options.probing.tokens(stream, 1)
        else:
            assert options.claimed is not None, "AuditOptions.check asks for one of the two"
            tokens, logits = stream.tokens[:], options.model.logits
            source = load_logits(logits, (stream.total - 1, len(tokens) - 1)) if logits else None
            length, subset = options.method.config.window.seq_len, bool(claim.subset)
            subjects = [load_claimed(options.claimed, source, tokens, length, subset, options.precision)]
    data = Data(
        tokens=tokens,
        tokenizer=tokenizer,
        text=stream.text,
        whole=len(tokens) == stream.total,
        total=stream.total,
        files=stream.paths,
        artifact=artifact,
        training=read_shards(options.training).tokens if options.training else None,
        kept=kept,
        precision=options.precision,
    )
    return Loaded(subjects=subjects, stream=stream, data=data, lacking=lacking)


def _load_stream(options: AuditOptions) -> tuple[TokenStream, TextTokenizer | None]:
    """The data of a subject from outside, whose model is not ours: of --hf only the tokenizer is read."""
    settings = Settings(
        data=_without_text(options.data), model=ModelSettings(hf=options.model.hf), hardware=options.hardware
    )
    if options.alphabet == "bytes" and options.data.text:
        text = read_text(options.data.text)
        return byte_stream(text[: options.data.max_tokens], options.data.text), ByteTokenizer()
    stream, tokenizer = load_stream(settings, ALONE)
    if options.alphabet == "bytes":
        if tokenizer is None:
            raise InputError("--alphabet bytes needs the text: --text FILE, or --tokenizer to decode --data")
        return byte_stream(tokenizer.written(stream.tokens[:]), stream.paths), ByteTokenizer()
    return _beside(options, stream), tokenizer


def _without_text(data: DataSettings) -> DataSettings:
    """Without the text beside tokens: nothing is tokenised, it is compared with them."""
    return replace(data, text=()) if data.data else data


def _beside(options: AuditOptions, stream: TokenStream) -> TokenStream:
    """The stream with the --text that its tokens were cut from."""
    if not options.data.data or not options.data.text:
        return stream
    return stream._replace(text=read_text(options.data.text))


def run(options: AuditOptions, configs: dict[str, EvalConfig], stack: ExitStack) -> int:
    """Probe every subject and report the findings; returns the exit code."""
    output = options.output
    console = table_console(quiet=output.quiet, stdout_taken=STDOUT in (output.json, options.summary))
    for flag, path in (("--json", output.json), ("--summary", options.summary), ("--sarif", options.sarif)):
        require_writable(flag, path)
    claim = load_claim(options.claim) if options.claim is not None else Claim()
    configs = options.runnable(configs) if options.given is None else configs
    loaded, probing = load(options, configs, claim, stack), options.probing.seeded
    stream, positions = loaded.stream, len(loaded.data.tokens) - 1
    if len(loaded.data.tokens) < len(stream.tokens) and claim.of_all:
        raise InputError(
            f"{options.claim} makes a claim about the whole data, and only {positions:,} positions are audited: "
            "give --positions 0"
        )
    with tracked(quiet=output.quiet) as track, Interrupt() as interrupt:
        if options.whole.evaluator is not None:
            size = options.model.vocab_size
            audited, told = audited_evaluator(options.whole, loaded.data, claim, probing, track, interrupt, size)
        else:
            audited = audit(loaded.subjects, loaded.data, claim, probing, track=track, interrupt=interrupt)
            told = {"not_isolated": list(loaded.lacking)} if options.callable is not None else {}
    if interrupt.asked:
        print_table(audited, console)
        print("verdict: none, interrupted; the table holds the subjects that were finished", file=sys.stderr)
        return INTERRUPTED
    said = verdict(audited, f"{positions:,} of {len(stream.tokens) - 1:,} positions, --seed {probing.seed}")
    source = (options.callable or options.whole.evaluator or "").rpartition(":")[0]
    source_file = source if source.endswith(".py") else None
    if output.json is not None:
        settings: dict[str, Any] = {"data": [str(path) for path in stream.paths], "positions": positions}
        settings |= {"of": len(stream.tokens) - 1, "alphabet": options.alphabet}
        settings |= told
        settings |= {name: getattr(probing, name) for name in ("samples", "cuts", "seed")}
        settings |= {"config": {name: config.to_json() for name, config in configs.items()}}
        write_json(output.json, audited, settings)
    if options.summary is not None:
        write_text(options.summary, summary(audited, said))
    if options.sarif is not None:
        write_sarif(options.sarif, audited, source_file)
    if options.format == "github":
        console.print("\n".join(annotations(audited, said, source_file)), soft_wrap=True, highlight=False, markup=False)
    else:
        print_table(audited, console)
        console.print(said, soft_wrap=True, highlight=False)
    return EXIT_CODES[outcome_of(audited)]


HELP = """\
Audit a score: probe whether it is a probability of the text, given what came before.

example
  {prog} --preset pr890 --preset exact --json audit.json

data (default: the embedded novel)
  --data FILE ...     token shards (.bin); --tokenizer FILE
  --text FILE         the text that they were cut from: bytes are compared with it
  --training FILE ... shards that the model was trained on: searched for the text
  --positions 4096    number of positions to audit, from the start; 0 for all
model (default: the embedded model)
  --artifact FILE | --logits FILE | --hf NAME | --uniform
  --evaluator M:F     your evaluator, or path/eval.py:F: stream -> what it charged, or a total
  --callable M:F      your function: (past_tokens, state) -> probabilities of the next token
  --claimed FILE      .npz of probabilities that were charged, from the distributions of --logits
  --alphabet bytes    they charge bytes, not tokens
  --claim FILE        JSON of the claims (positions, nats, bpb, bytes, ...), or a result of --json
method
  --preset NAME       pr890, hashed, exact, tilt, mixer, ppmd; repeatable; beside the model alone
  --samples 128       number of positions at which whole distributions are checked
  --cuts 2            number of places; all tokens after a place are replaced
  --seed N            the seed that an audit printed, to repeat it; default: a secret one
output
  --json FILE         every finding; - for stdout
  --format github     annotations of a pull request; --summary FILE.md; --sarif FILE
  --quiet             no progress and no table, only the exit code

exit codes: 0 passed; 1 refuted; 2 bad input; 3 internal error; 4 inconclusive; 130 interrupted
--help-all: every flag. The probes: docs/audit.md
"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m ngram_eval.audit") -> None:
    """The command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with exit_on_input_error():
            show_help(given, HELP, prog)
            outside = any(vars(peek(given, _Given)).values())  # then --artifact is only a file that has a size
            options, configs = parse(given, AuditOptions(), prog, _DEFAULTS if outside else None)
            with ExitStack() as stack:
                code = run(options, configs, stack)
    except Exception:
        traceback.print_exc()
        print("verdict: none, an internal error stopped the audit", file=sys.stderr)
        sys.exit(INTERNAL)
    sys.exit(code)
