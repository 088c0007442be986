"""Probes of an evaluator that add up values, or compare a total with what an entropy allows."""

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.evaluator.case import Case, batches
from ngram_eval.audit.evaluator.streams import Ids
from ngram_eval.audit.finding import Finding, NotApplicable, Reach, finding

GAIN = float(np.log(1e9))
"""A code may beat the entropy of what was drawn by so many nats with a probability of 1e-9."""
_STEPS = 4
"""Tokens that are drawn one after another from what the evaluator shows."""
_SHORT = 256
"""The first sum is taken in a stream no longer than that: it is the cheapest."""


class Shown:
    """Values of all tokens at places, taken one by one; at each place the next token is drawn from them."""

    def __init__(self, case: Case) -> None:
        self.sums: list[float] = []
        self.asked: list[int] = []
        self.places: list[int] = []
        self.gain = 0.0
        """Nats by which the drawn texts, scored as a whole, cost less than what was shown."""
        self.drawn = 0
        rng, alphabet = case.rng(3), 256 if case.as_bytes else case.vocab_size
        self.vocab = alphabet
        places, most = max(case.asking.sums // alphabet, 1), min(alphabet, case.asking.sums)
        steps = min(_STEPS, max(places // 2, 1))
        self.begun = places - steps + 1
        """Places at which it is begun, one in each of equal parts of the text but for the first, which is cheap."""
        last, least = len(case.text) - 1, min(case.least, len(case.text) - 1)
        for chain in range(self.begun):
            low, high = (0, min(_SHORT, last)) if chain == 0 else (last * (chain - 1), last * chain)
            length = 1 + int((low + rng.random() * (high - low)) / (1 if chain == 0 else self.begun - 1))
            length = max(length, least)
            self._chain(case, case.text[:length], min(steps if chain == 0 else 1, last - length + 1), most, rng)
            if self.broken(case):
                return

    def broken(self, case: Case) -> bool:
        """Whether a sum exceeds 1."""
        return bool(self.sums) and not self.sums[-1] <= np.exp(case.evaluator.tolerance)

    def _chain(self, case: Case, stream: Ids, steps: int, most: int, rng: np.random.Generator) -> None:
        begin, shown = len(stream), []
        for _ in range(steps):
            values, order = self._values(case, stream, most, rng)
            self.places.append(len(stream))
            self.sums.append(float(values.sum()))
            self.asked.append(len(values))
            if self.broken(case) or len(values) < self.vocab:
                return
            token = int(rng.choice(len(values), p=values / values.sum()))
            shown.append(-np.log(values[token] / values.sum()))
            stream = np.append(stream, order[token])
        rest = case.noise[: len(case.text) - len(stream)]
        (whole,) = case.ask([np.append(stream, rest)])
        if whole.nats is not None:
            self.gain += float(np.nansum(np.array(shown) - whole.nats[begin : len(stream)]))
            self.drawn += len(shown)

    def _values(self, case: Case, stream: Ids, most: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], Ids]:
        """(the values of tokens after a stream, the tokens): the expected ones first, until they exceed 1."""
        first = case.source.by_frequency(int(stream[-1]))[: most // 4]
        every = np.arange(self.vocab)
        order = np.concatenate([first, rng.permutation(np.setdiff1d(every, first))])[:most]
        values: list[float] = []
        for part in batches(order):
            costs = case.cost([np.append(stream, token) for token in part])
            if np.isnan(costs).any():
                raise NotApplicable(f"the last token of a stream of {len(stream) + 1:,} is not charged")
            values += np.exp(-costs).tolist()
            if not sum(values) <= np.exp(case.evaluator.tolerance):
                break
        return np.array(values), order[: len(values)]


def sums_to_one(case: Case) -> Finding:
    """The values that all tokens have as the next of the same stream are those of a distribution."""
    shown = case.once(Shown)
    sums, asked = np.array(shown.sums), np.array(shown.asked)
    worst = int(np.argmax(np.nan_to_num(sums, nan=np.inf)))
    tolerance = float(np.expm1(case.evaluator.tolerance))
    details = {"sums": shown.sums, "asked": shown.asked, "tokens": shown.places, "tolerance": tolerance}
    if not sums[worst] <= 1 + tolerance:
        text = f"after {shown.places[worst]:,} tokens, {asked[worst]:,} of {shown.vocab:,} tokens have "
        return finding(False, float(sums[worst]), f"{text}{sums[worst]:.7g} together, more than 1", details=details)
    if asked.min() < shown.vocab:
        text = f"{asked.min():,} of {shown.vocab:,} tokens were asked and have {sums[worst]:.4g} together: what the "
        text += f"others have is unknown; --sums {shown.vocab} asks all at one position"
        return Finding("inconclusive", float(sums[worst]), text, details, Reach(0, len(case.text) - 1))
    text = f"{sums.min():.7g} ≤ Σ ≤ {sums.max():.7g} at {len(sums)} positions, to ±{tolerance:.2g}"
    text += ", a waste where it is below 1" if sums.min() < 1 - tolerance else ""
    return finding(True, float(np.abs(sums - 1).max()), text, Reach(shown.begun, len(case.text) - 1), details=details)


def two_at_every_position(case: Case) -> Finding:
    """The text's token and another have no more than 1 together, at each of many positions."""
    sweep = case.sweep
    charged = ~np.isnan(sweep.twos)
    if not charged.any():
        raise NotApplicable("no position is charged")
    tolerance = float(np.expm1(case.evaluator.tolerance))
    worst = int(np.argmax(np.where(charged, sweep.twos, -np.inf)))
    off = np.count_nonzero(sweep.twos[charged] > 1 + tolerance)
    text = f"two tokens have up to {sweep.twos[worst]:.7g} together at {np.count_nonzero(charged):,} positions "
    text += f"(token {sweep.cuts[worst]})" + (f"; {off:,} exceed 1" if off else "")
    reach = Reach(int(charged.sum()), len(case.text) - 1)
    return finding(off == 0, float(sweep.twos[worst]), text, reach, {"exceed": int(off)})


def random_numbers_cost_their_entropy(case: Case) -> Finding:
    """Tokens that were drawn with known probabilities cost what these say, but for luck."""
    rng, length = case.rng(4), len(case.text)
    alphabet = case.source.alphabet
    uniform = np.append(case.text[:1], rng.choice(alphabet, length - 1))
    draws = {
        "any token": (uniform, np.full(length, np.log(len(alphabet)))),
        "tokens like the text's": case.source.draw(length, rng),
        "half of them the text's": case.source.draw(length, rng, case.text),
    }
    gains, texts = {}, []
    answers = case.ask([tokens for tokens, _ in draws.values()])
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
    worst = max(gains, key=lambda name: gains[name])
    holds = gains[worst] <= GAIN
    text = f"bits a token, {length - 1:,} of each: {', '.join(texts)}"
    if not holds:
        text = f"{worst} cost {gains[worst]:.1f} nats less than their entropy, by luck with p < 1e-9; {text}"
    return finding(holds, gains[worst], text, details={"gains": gains})


def drawn_text_costs_what_was_shown(case: Case) -> Finding:
    """Text drawn from what the evaluator shows is not cheaper when it is scored as a whole."""
    shown = case.once(Shown)
    if not shown.drawn:
        raise NotApplicable("no whole distribution was seen from which a text could be drawn and charged")
    holds = shown.gain <= 2 * shown.drawn * case.evaluator.tolerance
    text = f"{shown.drawn} tokens drawn cost {shown.gain:+.3g} nats less than shown; by luck with p ≤ "
    return finding(holds, shown.gain, f"{text}e^-{max(shown.gain, 0):.3g}", details={"drawn": shown.drawn})
