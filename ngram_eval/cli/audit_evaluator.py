"""`ngram-eval audit --evaluator`: a whole evaluator is audited from outside."""

import os
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console

from ngram_eval.audit.audit import Probing
from ngram_eval.audit.claim import Claim
from ngram_eval.audit.evaluator.ask import Evaluator
from ngram_eval.audit.evaluator.audit import PROBES, audit_evaluator
from ngram_eval.audit.evaluator.case import Asking, Case
from ngram_eval.audit.evaluator.process import Limits, Place
from ngram_eval.audit.finding import EXIT_CODES, outcome_of
from ngram_eval.audit.formats import write_json
from ngram_eval.audit.report import print_table, verdict
from ngram_eval.cli.console import tracked
from ngram_eval.cli.options import Output
from ngram_eval.distributed.ranks import ALONE
from ngram_eval.errors import INTERRUPTED, InputError
from ngram_eval.evaluation.interrupt import Interrupt
from ngram_eval.evaluation.job import load_stream
from ngram_eval.evaluation.settings import Settings
from ngram_eval.text.shards import TokenStream
from ngram_eval.text.tokenizer import TextTokenizer

LEAST = 16
"""Tokens of the shortest text that is audited."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatorOptions:
    """Evaluator: a whole evaluation, audited from outside by what it charges for other streams."""

    evaluator: str | None = None
    """Audit this function, module:function or path/eval.py:function: it gets a stream and gives what it charged for
    each position, or only totals. It runs in a process of its own; docs/audit.md says in which forms it may answer."""
    alphabet: Literal["tokens", "bytes"] = "tokens"
    """What its stream is of: token ids (int64), or the bytes of the text."""
    asking: Annotated[Asking, tyro.conf.arg(name="")] = field(default_factory=Asking)
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)

    def check(self) -> None:
        """Raise `InputError` for values out of range, and for flags of an evaluator without one."""
        if self.evaluator is None and self != EvaluatorOptions():
            raise InputError("--alphabet, --endings, --sums, --processes and their like go with --evaluator")
        self.asking.check()
        self.limits.check()


def run_evaluator(
    options: EvaluatorOptions, settings: Settings, probing: Probing, output: Output, claim: Claim, console: Console
) -> int:
    """Probe the evaluator and report the findings; returns the exit code."""
    assert options.evaluator is not None
    place = Place.of(options.evaluator)
    stream, tokenizer = load_stream(settings, ALONE)
    text, whole, vocab_size = _text(options, settings, probing, stream, tokenizer)
    place = replace(place, hidden=tuple(Path(os.path.realpath(one)) for one in (*stream.paths, *settings.data.text)))
    with (
        tracked(quiet=output.quiet) as track,
        Interrupt() as interrupt,
        Evaluator(place, options.limits, lambda: interrupt.asked) as evaluator,
    ):
        case = Case(
            evaluator,
            text,
            vocab_size,
            asking=options.asking,
            seed=probing.seed,
            as_bytes=options.alphabet == "bytes",
            tokenizer=tokenizer,
            claim=claim,
            artifact=settings.model.artifact,
            whole=whole,
        )
        audited = audit_evaluator(case, track(place.name, len(PROBES)), interrupt)
    if interrupt.asked:
        print("verdict: none, interrupted", file=sys.stderr)
        return INTERRUPTED
    if output.json is not None:
        told: dict[str, Any] = {"data": [str(path) for path in stream.paths], "positions": len(text) - 1}
        told |= {"seed": probing.seed, **asdict(options), "vocab_size": vocab_size, "runs": evaluator.runs}
        told |= {"tolerance": evaluator.tolerance, "not_isolated": evaluator.lacking}
        write_json(output.json, audited, told)
    print_table(audited, console)
    apart = (
        f"not possible here: {'; '.join(evaluator.lacking)}" if evaluator.lacking else "no network, no file of the data"
    )
    console.print(f"in a process of its own ({apart}); {evaluator.runs:,} runs", soft_wrap=True, highlight=False)
    coverage = f"{len(text) - 1:,} of {whole - 1:,} positions, seed {probing.seed}"
    console.print(verdict(audited, coverage), soft_wrap=True, highlight=False)
    return EXIT_CODES[outcome_of(audited)]


def _text(
    options: EvaluatorOptions,
    settings: Settings,
    probing: Probing,
    stream: TokenStream,
    tokenizer: TextTokenizer | None,
) -> tuple[NDArray[np.int64], int, int]:
    """(tokens or bytes to audit, how many there are in all, how many different ones there may be)."""
    if options.alphabet == "tokens":
        text, whole = probing.tokens(stream, 1).astype(np.int64), len(stream.tokens)
        known = tokenizer.vocab_size if tokenizer is not None else settings.model.vocab_size
        vocab_size = known or int(text.max()) + 1
    else:
        tokens = stream.tokens[:]
        written = stream.text if tokenizer is None else tokenizer.written(tokens)
        if written is None:
            raise InputError("--alphabet bytes needs the text of the tokens: give --tokenizer")
        text, whole, vocab_size = np.frombuffer(written, np.uint8).astype(np.int64), len(written), 256
        text = text[: probing.positions + 1] if probing.positions else text
    if len(text) < LEAST:
        raise InputError(f"{stream.paths[0]}: the {len(text)} tokens to audit are too few: give {LEAST} or more")
    return text, whole, vocab_size
