"""Probes of an evaluator that add up values, or compare a total with what an entropy allows."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.evaluator.case import Case, Questions, asked, batches
from ngram_eval.audit.evaluator.streams import Ids
from ngram_eval.audit.evaluator.sweep import sweep
from ngram_eval.audit.finding import Finding, NotApplicable, Reach, finding
from ngram_eval.audit.precision import LUCK

_STEPS = 4
"""Tokens that are drawn one after another from what the evaluator shows."""
_SHORT = 256
"""The first sum is taken in a stream no longer than that: it is the cheapest."""


@dataclass(slots=True)
class Shown:
    """Values of all tokens at places; at each place the next token is drawn from them."""

    sums: list[float] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    begun: int = 0
    """Places at which it is begun, one in each of equal parts of the text but for the first, which is cheap."""
    gain: float = 0.0
    """Nats by which the drawn texts, scored as a whole, cost less than what was shown."""
    drawn: int = 0
    usual: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """What each token usually has, as far as it was seen, (V,); NaN if it was not."""


def shown(case: Case) -> Questions[Shown]:
    """Values of all tokens at places all over the text, until a sum exceeds 1."""
    found = Shown()
    found.usual = _usual(case)
    rng, most = case.rng(3), min(case.vocab_size, case.asking.sums)
    places = max(case.asking.sums // case.vocab_size, 1)
    steps = min(_STEPS, max(places // 2, 1))
    found.begun = places - steps + 1
    last, least = len(case.text) - 1, min(case.least, len(case.text) - 1)
    for chain in range(found.begun):
        low, high = (0, min(_SHORT, last)) if chain == 0 else (last * (chain - 1), last * chain)
        length = 1 + int((low + rng.random() * (high - low)) / (1 if chain == 0 else found.begun - 1))
        length = max(length, least)
        yield from _chain(
            case, found, case.text[:length], min(steps if chain == 0 else 1, last - length + 1), most, rng
        )
        if not found.sums[-1] <= np.exp(case.evaluator.tolerance):
            break
    return found


def _usual(case: Case) -> NDArray[np.float64]:
    """The mean of the values that each token of the text was charged with, (V,); NaN if it never was."""
    usual = np.full(case.vocab_size, np.nan)
    if case.base.nats is not None:
        values, charged = np.exp(-case.base.nats), ~np.isnan(case.base.nats)
        times = np.bincount(case.text[charged], minlength=case.vocab_size)
        sums = np.bincount(case.text[charged], values[charged], minlength=case.vocab_size)
        usual[times > 0] = sums[times > 0] / times[times > 0]
    return usual


def _expected(case: Case, found: Shown, before: int) -> NDArray[np.float64]:
    """What each token can be expected to have after the token `before`, (V,).

    That is what the evaluator gave it there in the text; else what it usually gives it; else what the text lets expect.
    """
    expected = found.usual.copy()
    unknown = np.flatnonzero(np.isnan(expected))
    expected[unknown] = [case.source.p(before, token) for token in unknown.tolist()]
    if case.base.nats is not None:
        after = np.flatnonzero(case.text[:-1] == before) + 1
        expected[case.text[after]] = np.exp(-case.base.nats[after])
    return np.nan_to_num(expected, nan=0.0)


def _chain(case: Case, found: Shown, stream: Ids, steps: int, most: int, rng: np.random.Generator) -> Questions[None]:
    begin, costs = len(stream), []
    for _ in range(steps):
        values, order = yield from _values(case, found, stream, most, rng)
        found.places.append(len(stream))
        found.sums.append(float(values.sum()))
        found.asked.append(len(values))
        if not 0 < values.sum() <= np.exp(case.evaluator.tolerance) or len(values) < case.vocab_size:
            return
        usual = found.usual[order]
        found.usual[order] = np.where(np.isnan(usual), values, (usual + values) / 2)
        token = int(rng.choice(len(values), p=values / values.sum()))
        costs.append(-np.log(values[token] / values.sum()))
        stream = np.append(stream, order[token])
    (whole,) = yield from asked([np.append(stream, case.noise[: len(case.text) - len(stream)])])
    if whole.nats is not None:
        found.gain += float(np.nansum(np.array(costs) - whole.nats[begin : len(stream)]))
        found.drawn += len(costs)


def _values(
    case: Case, found: Shown, stream: Ids, most: int, rng: np.random.Generator
) -> Questions[tuple[NDArray[np.float64], Ids]]:
    """(the values of tokens after a stream, the tokens), until they exceed 1.

    First come those of which most is expected. Where not all can be asked, three quarters are any others.
    """
    first = np.argsort(-_expected(case, found, int(stream[-1])), kind="stable")
    first = first if most == case.vocab_size else first[: most // 4]
    order = np.concatenate([first, rng.permutation(np.setdiff1d(np.arange(case.vocab_size), first))])[:most]
    values: NDArray[np.float64] = np.zeros(0)
    for part in batches(order):
        values = np.append(values, (yield from case.values(stream, part, rng)))
        if not values.sum() <= np.exp(case.evaluator.tolerance):
            break
    return values, order[: len(values)]


def sums_to_one(case: Case) -> Finding:
    """The values that all tokens have as the next of the same stream are those of a distribution."""
    found = case.once(shown)
    sums, asked_for = np.array(found.sums), np.array(found.asked)
    worst = int(np.argmax(np.nan_to_num(sums, nan=np.inf)))
    tolerance = float(np.expm1(case.evaluator.tolerance))
    details = {"sums": found.sums, "asked": found.asked, "tokens": found.places, "tolerance": tolerance}
    if not sums[worst] <= 1 + tolerance:
        text = f"after {found.places[worst]:,} tokens, {asked_for[worst]:,} of {case.vocab_size:,} tokens have "
        return finding(False, float(sums[worst]), f"{text}{sums[worst]:.7g} together, more than 1", details=details)
    if asked_for.min() < case.vocab_size:
        text = (
            f"{asked_for.min():,} of {case.vocab_size:,} tokens were asked and have {sums[worst]:.4g} together: what "
        )
        text += f"the others have is unknown; --sums {case.vocab_size} asks all at one position"
        return Finding("inconclusive", float(sums[worst]), text, details, Reach(0, len(case.text) - 1))
    text = f"{sums.min():.7g} ≤ Σ ≤ {sums.max():.7g} at {len(sums)} positions, to ±{tolerance:.2g}"
    text += ", a waste where it is below 1" if sums.min() < 1 - tolerance else ""
    return finding(True, float(np.abs(sums - 1).max()), text, Reach(found.begun, len(case.text) - 1), details=details)


def two_at_every_position(case: Case) -> Finding:
    """The text's token and another have no more than 1 together, at each of many positions."""
    swept = case.once(sweep)
    charged = ~np.isnan(swept.twos)
    if not charged.any():
        raise NotApplicable("no position is charged")
    tolerance = float(np.expm1(case.evaluator.tolerance))
    worst = int(np.argmax(np.where(charged, swept.twos, -np.inf)))
    off = np.count_nonzero(swept.twos[charged] > 1 + tolerance)
    text = f"two tokens have up to {swept.twos[worst]:.7g} together at {np.count_nonzero(charged):,} positions "
    text += f"(token {swept.cuts[worst]})" + (f"; {off:,} exceed 1" if off else "")
    reach = Reach(int(charged.sum()), len(case.text) - 1)
    return finding(off == 0, float(swept.twos[worst]), text, reach, {"exceed": int(off)})


def random_numbers(case: Case) -> Questions[tuple[dict[str, float], str]]:
    """(nats gained over each kind of drawn tokens, what they cost)."""
    rng, length = case.rng(4), len(case.text)
    alphabet = case.source.alphabet
    uniform = np.append(case.text[:1], rng.choice(alphabet, length - 1))
    draws = {
        "any token": (uniform, np.full(length, np.log(len(alphabet)))),
        "tokens like the text's": case.source.draw(length, rng),
        "half of them the text's": case.source.draw(length, rng, case.text),
    }
    gains, texts = {}, []
    answers = yield from asked([tokens for tokens, _ in draws.values()])
    for name, (_, nats), answer in zip(draws, draws.values(), answers, strict=True):
        if answer.nats is None:
            cost, entropy = answer.total, float(nats[1:].sum())
            gains[name] = entropy - cost - case.evaluator.tolerance
        else:  # of the charges' running sums, too, none may fall that far below
            charged = np.flatnonzero(~np.isnan(answer.nats[1:])) + 1
            cost, entropy = float(answer.nats[charged].sum()), float(nats[charged].sum())
            gains[name] = float(np.max(np.cumsum((nats - answer.nats)[charged]), initial=0.0))
        mean, drawn = cost / (length - 1) / np.log(2), entropy / (length - 1) / np.log(2)
        texts.append(f"{name} {mean:.4f} (drawn with {drawn:.4f})")
    return gains, f"bits a token, {length - 1:,} of each: {', '.join(texts)}"


def random_numbers_cost_their_entropy(case: Case) -> Finding:
    """Tokens that were drawn with known probabilities cost what these say, but for luck."""
    gains, text = case.once(random_numbers)
    worst = max(gains, key=lambda name: gains[name])
    holds = gains[worst] <= LUCK
    if not holds:
        text = f"{worst} cost {gains[worst]:.1f} nats less than their entropy, by luck with p < 1e-9; {text}"
    return finding(holds, gains[worst], text, details={"gains": gains})


def drawn_text_costs_what_was_shown(case: Case) -> Finding:
    """Text drawn from what the evaluator shows is not cheaper when it is scored as a whole."""
    found = case.once(shown)
    if not found.drawn:
        raise NotApplicable("no whole distribution was seen from which a text could be drawn and charged")
    holds = found.gain <= 2 * found.drawn * case.evaluator.tolerance
    text = f"{found.drawn} tokens drawn cost {found.gain:+.3g} nats less than shown; by luck with p ≤ "
    return finding(holds, found.gain, f"{text}e^-{max(found.gain, 0):.3g}", details={"drawn": found.drawn})
