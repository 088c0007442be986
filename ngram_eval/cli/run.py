"""`ngram-eval run`: turns flags into settings, evaluates, and writes the results."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from ngram_eval.cli.console import show_help, table_console, tracked
from ngram_eval.cli.live import LiveSettings, LiveView
from ngram_eval.cli.options import JobOptions, Output, parse, peek
from ngram_eval.config import EvalConfig
from ngram_eval.distributed.ranks import Ranks, first_rank_speaks, joined_ranks
from ngram_eval.errors import FAILED, INTERRUPTED, InputError, exit_on_input_error
from ngram_eval.evaluation.budget.advice import advice
from ngram_eval.evaluation.evaluate import evaluate_all
from ngram_eval.evaluation.interrupt import Interrupt
from ngram_eval.evaluation.job import load_job, read_inputs
from ngram_eval.evaluation.result import Result
from ngram_eval.evaluation.schedule import sharing_of
from ngram_eval.evaluation.settings import CheckpointSettings, Settings
from ngram_eval.files import STDOUT, require_folder, require_writable
from ngram_eval.models.saved_scores import RememberingSource
from ngram_eval.results.page import draw_all, require_matplotlib, write_page
from ngram_eval.results.rerun import Again, differences
from ngram_eval.results.result_file import write_json
from ngram_eval.results.table import print_table
from ngram_eval.scorers.make import check_source
from ngram_eval.text.samples import SAMPLES
from ngram_eval.timing import Stopwatch


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutput(Output):
    """Output: where the result goes, what is shown, and checkpoints."""

    report: Path | None = None
    """Write one self-contained HTML page with table and charts here."""
    plot: Path | None = None
    """Write the charts of --report into this folder as PNG files; needs matplotlib."""
    from_result: Path | None = None
    """Run the evaluation of a --json file again, and report whether the result is equal; other flags override it."""
    save_scores: Path | None = None
    """Write the neural statistics of every position here, for --scores."""
    live: Annotated[LiveSettings, tyro.conf.arg(name="")] = field(default_factory=LiveSettings)
    saving: Annotated[CheckpointSettings, tyro.conf.arg(name="")] = field(default_factory=CheckpointSettings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(JobOptions):
    """Score a token stream in bits per byte: a language model, an n-gram memory, and both together.

    Without --data and a neural source, the embedded default is evaluated: a small model on a held-out novel.
    """

    output: RunOutput = field(default_factory=RunOutput)
    samples: int = SAMPLES
    """Positions at which the sum over the vocabulary is computed; they cost no forward pass. 0: none. (The --samples of
    audit are those of its probes.)"""
    rank_timeout: float = 30.0
    """Seconds without a sign of life after which a rank counts as lost and the run ends."""

    @property
    def settings(self) -> Settings:
        """As of other commands, and the number of samples."""
        return replace(super(Options, self).settings, samples=self.samples)

    def check(self) -> None:
        super(Options, self).check()
        self.output.saving.check()
        if self.output.saving.checkpoint is not None and self.output.save_scores is not None:
            raise InputError("--save-scores needs the statistics of one whole run: leave it out, or --checkpoint")
        if not 1.0 <= self.rank_timeout < float("inf"):
            raise InputError(f"--rank-timeout is {self.rank_timeout}: give at least 1 second")


def run(options: Options, configs: dict[str, EvalConfig], ranks: Ranks, again: Again | None, given: list[str]) -> int:
    """Evaluate every preset and report on rank 0; returns the exit code. `given`: the flags, kept in the result."""
    output, quiet = options.output, options.output.quiet or ranks.rank > 0
    configs = options.runnable(configs, quiet=ranks.rank > 0)
    for name, config in configs.items():  # raises before any preset is evaluated
        sharing_of(options.hardware.ngram, name, config, options.hardware.backend)
    for flag in ("json", "save_scores", "report"):
        require_writable(f"--{flag.replace('_', '-')}", getattr(output, flag))
    require_folder("--plot", output.plot)
    if ranks.rank == 0:
        output.live.check(output.report, configs, resumed=output.saving.resume)
    require_folder("--checkpoint", output.saving.checkpoint)
    if output.plot is not None:
        require_matplotlib("--plot")
    clock = Stopwatch()
    interrupt = Interrupt() if ranks.world == 1 else None  # ranks would stop at different places
    with tracked(quiet=quiet) as track:
        with clock.stage("load"):
            job = load_job(options.settings, ranks, track)
            inputs = read_inputs(job, track)
        if again is not None:
            again.check_inputs(inputs)
        runs_model = options.model.artifact is not None or options.model.hf is not None or options.settings.embedded
        for name, config in configs.items():
            check_source(config, job.source)
            if runs_model and not quiet and 0 < job.source.train_seq_len < config.window.seq_len:
                print(
                    f"warning: {name} has windows of {config.window.seq_len:,} positions, and the model was trained on "
                    f"{job.source.train_seq_len:,}: it is probably worse and slower than with --seq-len "
                    f"{job.source.train_seq_len}",
                    file=sys.stderr,
                )
        model = options.model
        if runs_model and not quiet and model.hf is None and model.ttt == "off" and model.forward == "windows":
            line = advice(job, next(iter(configs.values())))
            if line is not None:
                print(line, file=sys.stderr)
        remembering = None
        if output.save_scores is not None or (runs_model and len(configs) > 1):
            window = next(iter(configs.values())).window
            samples = {position for one in configs.values() for position in job.samples(one.window).tolist()}
            remembering = RememberingSource(job.source, len(job.stream.tokens) - 1, window.seq_len, samples)
            job = replace(job, source=remembering)
        results = []
        with interrupt or nullcontext(), LiveView(output.live, output.report, configs) as view:
            for result in evaluate_all(
                job,
                configs,
                inputs,
                options.settings,
                clock=clock,
                saving=output.saving,
                keep_scores=output.save_scores is not None,
                track=track,
                interrupt=interrupt,
                watch=view.watch if ranks.rank == 0 else None,
            ):
                results.append(replace(result, arguments=given))
                if ranks.rank == 0:
                    view.finish(results[-1])
    interrupted = interrupt is not None and interrupt.asked
    if interrupted:
        print("interrupted: the results so far follow" if results else "interrupted", file=sys.stderr)
    if ranks.rank == 0 and results:
        show(output, results)
        if output.save_scores is not None and remembering is not None and not interrupted:
            remembering.save_all(output.save_scores, job.stream.tokens, next(iter(configs.values())).window)
        draw(output, results)
    if interrupted:
        return INTERRUPTED
    return 0 if again is None or ranks.rank > 0 else print_verdict(again, results, shown(output))


def show(output: RunOutput, results: list[Result]) -> None:
    """Write the numbers, JSON and table, before anything that could fail."""
    if output.json is not None:
        write_json(output.json, results)
    print_table(results, shown(output))


def draw(output: RunOutput, results: list[Result]) -> None:
    """Write the page and the charts, as far as flags ask for them."""
    if output.report is not None:
        write_page(output.report, results)
    if output.plot is not None:
        draw_all(output.plot, results)


def print_verdict(again: Again, results: Sequence[Result], console: Console) -> int:
    """Print whether the results are equal; returns the exit code, 1 if they are not."""
    same, lines = differences(again, results)
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
    return 0 if same else FAILED


def shown(output: RunOutput) -> Console:
    """The console for tables."""
    return table_console(quiet=output.quiet, stdout_taken=STDOUT in (output.json, output.report))


@dataclass(frozen=True)
class _Named:
    from_result: Path | None = None


def parse_run(given: list[str], prog: str) -> tuple[Options, dict[str, EvalConfig], Again | None]:
    """(options, configurations, the runs to repeat); flags override the settings in the file of --from-result."""
    path = peek(given, _Named).from_result
    if path is None:
        return *parse(given, Options(), prog), None
    again = Again.read(path)
    settings = again.settings
    if settings is None:  # a file of version 0.1, which holds its command line
        settings = parse(again.arguments, Options(), prog)[0].settings
    default = Options(data=settings.data, model=settings.model, hardware=settings.hardware, samples=settings.samples)
    return *parse(given, default, prog, again.configs), again


HELP = """\
Score a token stream in bits per byte: a language model, an n-gram memory, and both together.

example
  {prog} --data 'shards/val_*.bin' --artifact model.ngev --tokenizer T.model \\
      --preset exact --json out.json

data (default: the embedded novel)
  --data FILE ...     token shards (.bin, .npy): names or quoted patterns, read as one stream
  --raw-dtype TYPE    uint16 or uint32, of shards without a header (nanoGPT)
  --text FILE ...     text instead; its bytes are the tokens unless a tokenizer cuts it
  --tokenizer FILE    of the data, for bits per byte: SentencePiece .model, tokenizer.json,
                      .tiktoken, tiktoken:gpt2
  --max-tokens N      only the first N tokens; --memory FILE ...: kept texts, counted before
model (default: the embedded model)
  --artifact FILE     a model (.ngev); --ttt legal adapts it to the text that it has scored
  --forward banded    each position is forwarded once and sees the last --seq-len: far faster
  --scores FILE       .npz or .safetensors with p_target and entropy of every position
  --logits FILE       .npy of logits, (positions, vocabulary), from any model
  --hf NAME           a Hugging Face model, with --text FILE ... or --data
  --lead TOKENS       before every window of --hf; default: what its tokenizer puts before a text
  --uniform           1/V for every token: the n-gram memory alone
method
  --preset NAME       pr890, ppmd (as published), hashed (fixed), exact, tilt, mixer (probabilities)
  --seq-len L --stride S    windows of L positions, each scoring S new ones
output
  --json FILE         all results; - for stdout
  --report FILE       one HTML page with charts; --live: while it runs; --plot DIR: PNG files
  --log-folder DIR    the numbers so far as log.jsonl; --log tensorboard wandb for more
  --save-scores FILE  the model's statistics, for --scores
  --from-result FILE  run a --json file again, and report whether the result is equal
  --checkpoint DIR    save progress there; --resume continues from it
  --quiet             no progress, no table
hardware
  --device, --dtype   torch device and precision; --batch-windows of one forward pass
  --backend NAME      count tables: cpu (default), triton, cuda (GPU), reference; --threads N

--help-all: every flag, with the settings of the method and of ranks (docs/distributed.md)
"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m ngram_eval.run") -> None:
    """The command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with exit_on_input_error():
        with first_rank_speaks():
            show_help(given, HELP, prog)
            options, configs, again = parse_run(given, prog)
        with joined_ranks(options.rank_timeout) as ranks:
            code = run(options, configs, ranks, again, given)
    if code:
        sys.exit(code)
