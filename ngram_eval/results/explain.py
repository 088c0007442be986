"""Explains one prediction (`ngram-eval explain`, docs/results.md).

The stream is evaluated up to the position, exactly as the evaluator does it. Then the context, the counts and the
weight of each order, and the likeliest tokens without and with n-grams are shown.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.columns import Columns
from rich.console import Console
from rich.table import Table

from ngram_eval.bpb import nats_of
from ngram_eval.config import EvalConfig
from ngram_eval.errors import InputError
from ngram_eval.evaluation.engine import Engine
from ngram_eval.evaluation.job import Job
from ngram_eval.evaluation.reader import Reader
from ngram_eval.scorers.base import Explanation
from ngram_eval.scorers.make import windows_at_once
from ngram_eval.text.samples import entropy_of
from ngram_eval.text.tokenizer import TextTokenizer
from ngram_eval.text.windows import Grid, Plan, target_count
from ngram_eval.timing import Stopwatch, Track, untracked

_SEARCHED_AT_ONCE = 1 << 20
"""Positions whose text is searched at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A token and its values as the target."""

    token: int
    text: str
    neural: float
    """The model's probability."""
    blended: float
    """The value that the preset would charge."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The prediction of one preset at one position."""

    preset: str
    normalised: bool
    position: int
    context: list[str]
    """The last tokens of the context, oldest first."""
    target: Token
    entropy: float
    """Entropy of the neural distribution, in nats."""
    vocabulary_sum: float
    """Sum of the blended values of all tokens."""
    neural_nats: float
    nats: float
    explanation: dict[str, Any] | None
    """The matched order, the weight of the n-grams, and each order's counts and weight; None if the scorer does not
    know them (--by-window counts whole windows)."""
    tilted: bool
    """Whether the odds of one hint are raised after the blend; the weights do not include this."""
    top_neural: list[Token]
    top_blended: list[Token]


def find_text(job: Job, text: str, occurrence: int) -> int:
    """The position whose target follows an occurrence of `text`. Raises `InputError` if there is none."""
    if job.tokenizer is None:
        raise InputError("--after searches the text: give the data's --tokenizer")
    tokens, wanted, found = job.stream.tokens, text.encode(), []
    kept, kept_end = b"", 0  # the end of the searched text: an occurrence may begin there
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
    # Position p's target is token p + 1; its text ends at entry p of `ends`.
    return min(int(np.searchsorted(np.concatenate(ends), found[place], side="right")), len(tokens) - 2)


def _texts(tokenizer: TextTokenizer, tokens: "NDArray[Any]") -> list[bytes]:
    surfaces = tokenizer.surfaces()
    return [surfaces[token] or b"" for token in tokens.tolist()]


def explain(
    job: Job,
    name: str,
    config: EvalConfig,
    position: int,
    *,
    context: int = 24,
    top: int = 8,
    track: Track = untracked,
) -> Prediction:
    """Evaluate up to `position` under `config`, and explain its prediction.

    The result holds `context` tokens before it and the `top` likeliest tokens. Raises `InputError` for a position that
    is not scored.
    """
    tokens, source = job.stream.tokens, job.source
    targets = target_count(len(tokens), max(config.window.seq_len, source.train_seq_len))
    if not 0 <= position < targets:
        raise InputError(f"--position is {position}: give one of the {targets} that are scored, 0 to {targets - 1}")
    config = replace(config, window=replace(config.window, rescore_tail=False))  # each position is scored once
    plan, clock = Plan(targets, config.window), Stopwatch()
    scorer = job.scorer(config)
    grid = Grid(plan, windows_at_once(config, source))
    row = next(r for r in range(_near(plan, position), len(plan)) if int(plan[r : r + 1].stop[0]) > position)
    target = int(tokens[position + 1 : position + 2][0])
    found: list[Looked] = []

    def look(position: int, neural: NDArray[np.float64]) -> None:
        entropy = entropy_of(neural)
        blended = scorer.distribution(tokens, position, neural, entropy)
        found.append(Looked(neural, blended, scorer.explain(tokens, position, neural, entropy, target), entropy))

    engine = Engine(
        tokens=tokens,
        plan=plan,
        scorer=scorer,
        tokenizer=None,
        byte_rule=config.byte_rule,
        clock=clock,
        track=lambda _: track(name, position + 1),
        look=look,
    )
    engine.expect(position + 1)
    reader = Reader(tokens, source, grid, np.array([position]), config.needs_rows, clock)
    first = 0 if config.learns_online else row  # a scorer that only counts needs no earlier forward passes
    engine.run(reader.read(grid.cut(range(first, row + 1))))
    tilted = config.scorer == "exact" and config.exact.tilt != "off"
    return _prediction(job, name, config, position, found[0], context=context, top=top, tilted=tilted)


def _near(plan: Plan, position: int) -> int:
    """A row at or before the one that scores `position`."""
    return max((position - plan.config.seq_len) // plan.config.stride, 0)


class Looked(NamedTuple):
    """The distributions at a position before it is scored."""

    neural: NDArray[np.float64]
    blended: NDArray[np.float64]
    """The value that each token would be charged with."""
    explanation: Explanation | None
    """How the target's charge is made up."""
    entropy: float


def _prediction(
    job: Job, name: str, config: EvalConfig, position: int, looked: Looked, *, context: int, top: int, tilted: bool
) -> Prediction:
    neural, blended, explanation, entropy = looked
    surfaces = job.vocabulary.surfaces

    def show(token: int) -> str:
        text = surfaces[token] if surfaces else None
        return f"<{token}>" if text is None else text.decode(errors="backslashreplace")

    def one(token: int) -> Token:
        return Token(token=token, text=show(token), neural=float(neural[token]), blended=float(blended[token]))

    target = int(job.stream.tokens[position + 1 : position + 2][0])
    before = job.stream.tokens[max(position + 1 - context, 0) : position + 1].tolist()
    return Prediction(
        preset=name,
        normalised=config.normalised,
        position=position,
        context=[show(token) for token in before],
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
        top_neural=[one(token) for token in np.argsort(-neural, kind="stable")[:top].tolist()],
        top_blended=[one(token) for token in np.argsort(-blended, kind="stable")[:top].tolist()],
    )


def print_prediction(one: Prediction, console: Console) -> None:
    """Print the prediction."""
    console.rule(f"{one.preset}, position {one.position:,}", style="dim")
    console.print("context:", "".join(one.context), highlight=False, soft_wrap=True)
    kind = "a probability" if one.normalised else "a score, not normalised"
    console.print(
        f"target:  {one.target.text!r} (token {one.target.token}): neural {one.target.neural:.4f}, with n-grams "
        f"{one.target.blended:.4f} ({kind}); {one.neural_nats:.3f} nats become {one.nats:.3f}",
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
    tops = ("likeliest by the model", one.top_neural), ("likeliest with n-grams", one.top_blended)
    console.print(Columns([_likeliest(heading, top, one) for heading, top in tops]))


def _likeliest(heading: str, top: list[Token], one: Prediction) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column(heading, no_wrap=True)
    for other in ("neural", "with n-grams"):
        table.add_column(other, justify="right", no_wrap=True)
    for token in top:
        table.add_row(_quoted(token, one), f"{token.neural:.4f}", f"{token.blended:.4f}")
    return table


def _quoted(token: Token, one: Prediction) -> str:
    text = repr(token.text).replace("[", "\\[")
    return f"{text} ←" if token.token == one.target.token else text


def _orders(explanation: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("order", "context seen", "different tokens", "target seen", "weight"):
        table.add_column(heading, justify="right")
    for evidence in reversed(explanation["orders"]):
        if evidence["context"] == 0:
            continue
        distinct = "-" if evidence["distinct"] is None else f"{evidence['distinct']:,}"
        counts = (f"{evidence['context']:,}", distinct, f"{evidence['target']:,}")
        table.add_row(str(evidence["order"]), *counts, f"{evidence['weight']:.4f}")
    return table
