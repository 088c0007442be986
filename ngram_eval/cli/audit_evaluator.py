"""`ngram-eval audit --evaluator`: a whole evaluator is audited from outside."""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import tyro

from ngram_eval.audit.alphabet import ByteTokenizer
from ngram_eval.audit.case import Data, Probing
from ngram_eval.audit.claim import Claim
from ngram_eval.audit.evaluator.ask import Evaluator
from ngram_eval.audit.evaluator.audit import audit_evaluator
from ngram_eval.audit.evaluator.case import Asking, Case
from ngram_eval.audit.evaluator.process import Limits, Place
from ngram_eval.audit.finding import Audited
from ngram_eval.errors import InputError
from ngram_eval.evaluation.interrupt import Interrupt
from ngram_eval.timing import Track

LEAST = 16
"""Tokens of the shortest text that is audited."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatorOptions:
    """Evaluator: a whole evaluation, audited from outside by what it charges for other streams."""

    evaluator: str | None = None
    """Audit this function, module:function or path/eval.py:function: it gets a stream and gives what it charged for
    each position, or only totals. It runs in a process of its own; docs/audit.md says in which forms it may answer."""
    asking: Annotated[Asking, tyro.conf.arg(name="")] = field(default_factory=Asking)
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)

    def check(self) -> None:
        """Raise `InputError` for values out of range, and for flags of an evaluator without one."""
        if self.evaluator is None and self != EvaluatorOptions():
            raise InputError("--endings, --sums, --processes and their like go with --evaluator")
        self.asking.check()
        self.limits.check()


def audited_evaluator(
    options: EvaluatorOptions,
    data: Data,
    claim: Claim,
    probing: Probing,
    track: Track,
    interrupt: Interrupt,
    vocab_size: int | None,
) -> tuple[list[Audited], dict[str, Any]]:
    """(what was found, what is told of how it was asked). Raises `InputError`."""
    assert options.evaluator is not None, "it is what is audited"
    assert probing.seed is not None, "it was drawn"
    if len(data.tokens) < LEAST:
        raise InputError(f"{data.files[0]}: {len(data.tokens)} tokens to audit are too few: give {LEAST} or more")
    if data.tokenizer is not None:
        vocab_size = data.tokenizer.vocab_size
    vocab_size = vocab_size or int(data.tokens.max()) + 1
    place = Place.of(options.evaluator, data.files, of_bytes=isinstance(data.tokenizer, ByteTokenizer))
    with Evaluator(place, options.limits, data.precision, lambda: interrupt.asked) as evaluator:
        case = Case(evaluator, data, vocab_size, claim=claim, asking=options.asking, seed=probing.seed)
        audited = audit_evaluator(case, track(place.name, options.asking.sums + options.asking.endings), interrupt)
        told = {**asdict(options), "vocab_size": vocab_size, "runs": evaluator.runs, "tolerance": evaluator.tolerance}
    return audited, {**told, "not_isolated": list(evaluator.lacking)}
