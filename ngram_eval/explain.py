"""One prediction in the open: `python -m ngram_eval.explain --position P` (see --help and docs/report.md).

The stream is evaluated up to the position, exactly as the evaluator does it, and then shown: the context, what each
order has counted, what it weighs, and the likeliest tokens before and after.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ngram_eval.bpb import nats_of
from ngram_eval.config import EvalConfig
from ngram_eval.console import progress_bars, show_help, table_console
from ngram_eval.engine import Engine
from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.files import STDOUT, require_writable, write_text
from ngram_eval.job import Job, load_job
from ngram_eval.options import JobOptions, parse
from ngram_eval.ranks import Ranks
from ngram_eval.reading import Reader
from ngram_eval.samples import entropy_of
from ngram_eval.scorers import Explanation, Scorer, check_source, make_scorer, windows_at_once
from ngram_eval.timing import Stopwatch
from ngram_eval.tokens import TextTokenizer
from ngram_eval.windows import Grid, Plan, target_count

ALONE = Ranks(0, 1)
_SEARCHED_AT_ONCE = 1 << 20
"""Positions whose text is looked through at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainOptions(JobOptions):
    """Show one prediction: context, matches of each order, weights, likeliest tokens before and after."""

    position: int | None = None
    """Explain the prediction of the token behind this position: position p predicts token p + 1."""
    after: str | None = None
    """Explain the prediction of what follows this piece of the text, instead of naming its position."""
    occurrence: int = 1
    """Which one, if the text occurs more than once: 1 is the first, -1 the last."""
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
        if self.after is not None and not (self.embedded or self.tokenizer):
            raise InputError("--after looks through the text, which takes the data's --tokenizer")
        if self.after == "":
            raise InputError("--after is empty: give a few words of the text")
        for name in ("context", "top"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}: give at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A token and what it is charged with, were it the target."""

    token: int
    text: str
    neural: float
    """The model's probability."""
    blended: float
    """What the preset would charge it with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What one preset makes of one position."""

    preset: str
    normalised: bool
    position: int
    context: list[str]
    """Its last tokens, oldest first."""
    target: Token
    entropy: float
    """Of the neural distribution, nats."""
    vocabulary_sum: float
    """Of the blended values of all tokens."""
    neural_nats: float
    nats: float
    explanation: dict[str, Any] | None
    """The matched order, the weight of the n-grams, and each order's counts and weight; None where the scorer can't
    tell (--by-window counts whole windows)."""
    tilted: bool
    """Whether the odds of one hint are raised on top of the blend, which is no weight in it."""
    top_neural: list[Token]
    top_blended: list[Token]


def find_text(job: Job, text: str, occurrence: int) -> int:
    """The position whose target follows an occurrence of `text`. Raises `InputError` where there is none."""
    assert job.tokenizer is not None, "ExplainOptions.check asks for one"
    tokens, wanted, found = job.stream.tokens, text.encode(), []
    kept, kept_end = b"", 0  # the end of what was looked through, in case an occurrence begins there
    ends: list[NDArray[np.int64]] = []
    seen = 0
    for start in range(0, len(tokens) - 1, _SEARCHED_AT_ONCE):
        stop = min(start + _SEARCHED_AT_ONCE, len(tokens) - 1)
        pieces = _texts(job.tokenizer, np.asarray(tokens[start + 1 : stop + 1]))
        ends.append(seen + np.cumsum([len(piece) for piece in pieces]))
        content = kept + b"".join(pieces)
        base, at = kept_end - len(kept), content.find(wanted)
        while at >= 0:
            found.append(base + at + len(wanted))
            at = content.find(wanted, at + 1)
        seen = int(ends[-1][-1])
        kept, kept_end = content[-(len(wanted) - 1) :] if len(wanted) > 1 else b"", seen
    place = occurrence - 1 if occurrence > 0 else occurrence
    if not -len(found) <= place < len(found):
        times = f"occurs {len(found)} time(s)" if found else "does not occur"
        raise InputError(f"--after {text!r} {times} in the text: give other words, or another --occurrence")
    # Position p's target is token p + 1: entry p of `ends` is where that target's text ends.
    return min(int(np.searchsorted(np.concatenate(ends), found[place], side="right")), len(tokens) - 2)


def _texts(tokenizer: TextTokenizer, tokens: "NDArray[Any]") -> list[bytes]:
    surfaces = tokenizer.surfaces()
    return [surfaces[token] or b"" for token in tokens.tolist()]


def explain(
    job: Job, name: str, config: EvalConfig, position: int, options: ExplainOptions, progress: Progress
) -> Prediction:
    """Evaluate up to `position` under `config`, and say how what is charged there comes about."""
    tokens, source = job.stream.tokens, job.source
    targets = target_count(len(tokens), max(config.window.seq_len, source.train_seq_len))
    if not 0 <= position < targets:
        raise InputError(f"--position is {position}: give one of the {targets} that are scored, 0 to {targets - 1}")
    config = replace(config, window=replace(config.window, rescore_tail=False))  # each position is looked at once
    plan, clock = Plan(targets, config.window), Stopwatch()
    scorer = make_scorer(job.backend, config, options.count_threads(), job.vocabulary)
    grid = Grid(plan, windows_at_once(config, source))
    row = next(r for r in range(_near(plan, position), len(plan)) if int(plan[r : r + 1].stop[0]) > position)
    bar = progress.add_task(name, total=position + 1)
    looked = Looking(
        tokens=tokens,
        plan=plan,
        scorer=scorer,
        tokenizer=None,
        byte_rule=config.byte_rule,
        clock=clock,
        expect=lambda positions: None,
        advance=lambda positions: progress.advance(bar, positions),
    )
    reader = Reader(tokens, source, grid, np.array([position]), scorer.needs_rows, clock)
    first = 0 if config.learns_online else row  # what only counts needs no forward passes of what came before
    looked.run(reader.read(grid.cut(range(first, row + 1))))
    progress.update(bar, completed=position + 1)
    neural, blended, explanation, entropy = looked.found
    tilted = config.scorer == "exact" and config.exact.tilt != "off"
    found = (neural, blended, explanation, entropy)
    return _prediction(job, name, scorer, position, options, found, tilted=tilted)


def _near(plan: Plan, position: int) -> int:
    """A row at or before the one that scores `position`."""
    return max((position - plan.config.seq_len) // plan.config.stride, 0)


Found = tuple[NDArray[np.float64], NDArray[np.float64], Explanation | None, float]
"""(the neural distribution, the blended values, how the target's charge comes about, entropy)."""


class Looking(Engine):
    """An engine that keeps what it sees at its sampled position."""

    found: Found

    def _look(self, position: int, neural: NDArray[np.float64]) -> None:
        entropy = entropy_of(neural)
        target = int(self.tokens[position + 1 : position + 2][0])
        blended = self.scorer.distribution(self.tokens, position, neural, entropy)
        self.found = (neural, blended, self.scorer.explain(self.tokens, position, neural, entropy, target), entropy)


def _prediction(
    job: Job, name: str, scorer: Scorer, position: int, options: ExplainOptions, found: Found, *, tilted: bool
) -> Prediction:
    neural, blended, explanation, entropy = found
    surfaces = job.tokenizer.surfaces() if job.tokenizer else None

    def show(token: int) -> str:
        text = surfaces[token] if surfaces else None
        return f"<{token}>" if text is None else text.decode(errors="backslashreplace")

    def one(token: int) -> Token:
        return Token(token=token, text=show(token), neural=float(neural[token]), blended=float(blended[token]))

    target = int(job.stream.tokens[position + 1 : position + 2][0])
    context = job.stream.tokens[max(position + 1 - options.context, 0) : position + 1].tolist()
    return Prediction(
        preset=name,
        normalised=scorer.normalised,
        position=position,
        context=[show(token) for token in context],
        target=one(target),
        entropy=entropy,
        vocabulary_sum=float(blended.sum()),
        neural_nats=float(nats_of(neural[[target]])[0]),
        nats=float(nats_of(blended[[target]])[0]),
        explanation=None
        if explanation is None
        else {
            "order": explanation.order,
            "weight": explanation.weight,
            "orders": [evidence._asdict() for evidence in explanation.orders],
        },
        tilted=tilted,
        top_neural=[one(token) for token in np.argsort(-neural, kind="stable")[: options.top].tolist()],
        top_blended=[one(token) for token in np.argsort(-blended, kind="stable")[: options.top].tolist()],
    )


def print_prediction(one: Prediction, console: Console) -> None:
    """The prediction, for people."""
    console.rule(f"{one.preset}, position {one.position:,}", style="dim")
    console.print("context:", "".join(one.context), markup=False, highlight=False, soft_wrap=True)
    rank = "a probability" if one.normalised else "a score, not normalised"
    console.print(
        f"target:  {one.target.text!r} (token {one.target.token}): neural {one.target.neural:.4f}, with n-grams "
        f"{one.target.blended:.4f} ({rank}); {one.neural_nats:.3f} nats become {one.nats:.3f}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"entropy of the neural distribution {one.entropy:.3f} nats; sum over the vocabulary {one.vocabulary_sum:.4f}",
        highlight=False,
    )
    if one.explanation is not None:
        console.print(_orders(one.explanation))
        matched, weight = one.explanation["order"] or "none", one.explanation["weight"]
        hint = "; on top, the odds of one hint are raised" if one.tilted else ""
        text = f"matched order {matched}; weight of the n-grams {weight:.4f}, the rest is the neural model's{hint}"
        console.print(text, highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in (
        "likeliest by the model",
        "neural",
        "with n-grams",
        "likeliest with n-grams",
        "neural",
        "with n-grams",
    ):
        table.add_column(heading, justify="left" if heading.startswith("likeliest") else "right", no_wrap=True)
    for before, after in zip(one.top_neural, one.top_blended, strict=True):
        cells = [[_quoted(t, one), f"{t.neural:.4f}", f"{t.blended:.4f}"] for t in (before, after)]
        table.add_row(*cells[0], *cells[1])
    console.print(table)


def _quoted(token: Token, one: Prediction) -> str:
    text = repr(token.text).replace("[", "\\[")
    return f"{text} ←" if token.token == one.target.token else text


def _orders(explanation: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("order", "context seen", "different tokens", "target seen", "weight"):
        table.add_column(heading, justify="right", no_wrap=True)
    for evidence in reversed(explanation["orders"]):
        if evidence["context"] == 0:
            continue
        distinct = "-" if evidence["distinct"] is None else f"{evidence['distinct']:,}"
        counts = (f"{evidence['context']:,}", distinct, f"{evidence['target']:,}")
        table.add_row(str(evidence["order"]), *counts, f"{evidence['weight']:.4f}")
    return table


def run(options: ExplainOptions, configs: dict[str, EvalConfig]) -> list[Prediction]:
    """The prediction under every preset. Raises `InputError` for a source that knows only targets' probabilities."""
    job = load_job(options, ALONE)
    if not job.source.gives_all:
        raise InputError("--scores knows the probability of each target only: give --artifact, --logits or --uniform")
    position = options.position
    for config in configs.values():
        check_source(config, job.source)
    if position is None:
        assert options.after is not None, "ExplainOptions.check asks for one of the two"
        position = find_text(job, options.after, options.occurrence)
    with progress_bars(quiet=options.quiet) as progress:
        return [explain(job, name, config, position, options, progress) for name, config in configs.items()]


HELP = """\
Show one prediction: the context, what each order has counted, what it weighs, the likeliest tokens.

example
  {prog} --after 'Mrs. Dashwood and her' --occurrence -1 --preset exact

which
  --position P        the token behind position P (position p predicts token p + 1)
  --after WORDS        or what follows these words; --occurrence 2: the second time, -1: the last
of what, as for `ngram-eval run` (by default the embedded novel with the embedded model)
  --data FILE ... --tokenizer FILE
  --artifact FILE | --logits FILE | --hf NAME | --uniform
  --preset NAME       pr890, hashed, exact, tilt, mixer; may be repeated
how it is shown
  --context 24        tokens of context
  --top 8             likeliest tokens
  --json FILE         all of it; - for stdout

What learns from each position for the next (exact, tilt) is evaluated up to the position: that
takes as long as the evaluation does. Presets that only count need one forward pass.

--help-all: every flag
"""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m ngram_eval.explain") -> None:
    """The command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with exit_on_input_error():
        show_help(given, HELP, prog)
        options, configs = parse(given, ExplainOptions(), prog)
        require_writable("--json", options.json)
        predictions = run(options, configs)
        if options.json is not None:
            write_text(options.json, json.dumps({"predictions": [asdict(one) for one in predictions]}, indent=2) + "\n")
        console = table_console(quiet=options.quiet, stdout_taken=options.json == STDOUT)
        for one in predictions:
            print_prediction(one, console)


if __name__ == "__main__":
    main()
