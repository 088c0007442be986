"""Probes of what a charge depends on: the past alone."""

from collections.abc import Iterator

import numpy as np

from ngram_eval.audit.case import AFTER, Case, first_entry
from ngram_eval.audit.finding import Finding, NotApplicable, Reach, finding, percent
from ngram_eval.audit.precision import CLOSE, SAME, apart
from ngram_eval.text.stream import Tokens

_CUTS = (1, 3, 7, 15, 31, 32, 63, 127, 255)
"""Where blocks of most sizes have their edges, and just before."""
_LAST_CUTS = (2, 8, 16)
"""How far the last cuts lie before the end, where what is scored again is scored."""
_RANDOM_CUTS = 2
_SETTLED = 8
"""Tokens after a cut at which an honest model may still foretell the text as it was."""
_GHOSTS = 16
"""Fewest positions at which a ghost can be told from chance."""
_CHANCE = 6.0
"""Standard deviations that no chance explains (10^-9)."""


def future_is_unseen(case: Case) -> Finding:
    """If tokens are replaced from some position on, the charges before it stay the same."""
    worst, text = 0.0, ""
    for cut in case.cuts:
        _, other = case.altered(cut)
        ours, theirs = (one.positions[one.positions < cut] for one in (case.trace, other))
        ends_apart = not case.subject.past_only and not np.array_equal(other.positions, case.trace.positions)
        if ends_apart or not np.array_equal(ours, theirs):
            return finding(False, np.inf, f"other positions are charged for when tokens after {cut + 1} change")
        before, after = (np.flatnonzero(one.positions < cut) for one in (case.trace, other))
        difference = apart(case.trace.values[before], other.values[after])
        worst_here = float(difference.max(initial=0.0))
        if worst_here > worst:
            entry = int(np.argmax(difference))
            values = f"{case.trace.values[before[entry]]:.6g} becomes {other.values[after[entry]]:.6g}"
            text = f"position {ours[entry]}: {values} when tokens after {cut + 1} change"
            worst = worst_here
    text = text or f"all charges before are the same when tokens change from {_list(case.cuts)} on"
    reach = Reach(len(case.cuts), case.expected, "cuts")
    if worst <= SAME and case.subject.source_is_given:
        text += "; the neural statistics are given, and whether they saw the future can't be probed"
        return Finding("inconclusive", worst, text, reach=reach)
    return finding(worst <= SAME, worst, text, reach)


def cuts_of_prefixes(case: Case) -> Finding:
    """The same at many places near the start, where blocks end; and each new target is charged what was foretold."""
    if case.subject.source_is_given:
        raise NotApplicable("its statistics are given: they can't be computed for another text")
    if case.subject.past_only:
        raise NotApplicable("it is given the past alone: rows 2 and 3 ask the same")
    tokens = case.short
    base, expected = case.subject.score(tokens), case.subject.expected(tokens)
    drawn = np.random.default_rng((case.seed, 1)).integers(1, max(expected, 2), _RANDOM_CUTS)
    echoed = {expected - before for before in _LAST_CUTS}
    cuts = np.unique([cut for cut in (*_CUTS, *echoed, *drawn.tolist()) if 0 < cut < expected])
    if len(cuts) == 0:
        raise NotApplicable("the data is too short")
    worst, text = 0.0, ""
    for glimpse in case.subject.glimpses(tokens, cuts):
        cut = glimpse.position
        changed = _echo(tokens, cut) if cut in echoed else case.replaced(tokens, cut)
        other = case.subject.score(changed)
        before, after = (np.flatnonzero(one.positions < cut) for one in (base, other))
        if not np.array_equal(base.positions[before], other.positions[after]):
            return finding(False, np.inf, f"other positions are charged for when tokens after {cut + 1} change")
        difference = apart(base.values[before], other.values[after])
        if (here := float(difference.max(initial=0.0))) > max(worst, SAME):
            entry = before[int(np.argmax(difference))]
            worst, text = (
                here,
                f"position {base.positions[entry]} changes by {here:.3g} nats with tokens after {cut + 1}",
            )
        target, charged = int(changed[cut + 1]), other.values[first_entry(other, cut)]
        if (here := float(apart(charged, glimpse.values[target]))) > max(worst, CLOSE):
            worst, text = here, f"position {cut}: with target {target} it is charged {charged:.6g}, "
            text += f"foretold was {glimpse.values[target]:.6g}"
    said = text or f"nothing before {len(cuts)} cuts in the first {expected:,} positions moves"
    return finding(not text, worst, said, Reach(len(cuts), expected, "cuts"))


def _echo(tokens: Tokens, cut: int) -> Tokens:
    """The stream with all tokens after position `cut` replaced by those just before it, again.

    What counts tokens and then charges the same positions again has now seen their contexts once more, for sure.
    """
    rest = len(tokens) - cut - 1
    return np.append(tokens[: cut + 1], np.resize(tokens[max(cut + 1 - rest, 0) : cut + 1], rest))


def target_changes_no_other(case: Case) -> Finding:
    """With another target, any of the vocabulary, other tokens' values stay, and it is charged what was foretold."""
    worst, text = 0.0, ""
    for one in case.glimpses:
        if one.change is not None and abs(one.change.values[0] - one.change.values[1]) > worst:
            (first, second), (a, b) = one.change.targets, one.change.values
            worst = abs(a - b)
            text = f"position {one.position}: token {one.change.token} has {a:.6g} if the target is {first}, "
            text += f"{b:.6g} if it is {second}"
    if worst > SAME:
        return finding(False, worst, text, case.reach)
    swaps = list(_swaps(case))
    for position, target, charged, foretold in swaps:
        difference = float(apart(charged, foretold))
        if difference > worst:
            worst = difference
            text = f"position {position}: with target {target} it is charged {charged:.6g}, foretold was {foretold:.6g}"
    text = text or "no value depends on the target"
    text += f"; {len({target for _, target, _, _ in swaps}):,} of {len(case.vocabulary):,} tokens were put as targets"
    return finding(worst <= CLOSE, worst, text, Reach(len(swaps), case.expected))


def _swaps(case: Case) -> Iterator[tuple[int, int, float, float]]:
    """(position, its other target, what that is charged, what was foretold).

    Whoever is given the past alone charges another target what it foretold: a few show that it is as it says.
    """
    if case.subject.past_only:
        foretold = {one.position: one.values for one in case.glimpses}
        found = [(cut, *case.altered(cut), foretold[cut]) for cut in case.cuts]
    else:
        tokens, trace = case.swapped
        glimpses = case.subject.glimpses(tokens, case.samples)
        found = [(one.position, tokens, trace, one.values) for one in glimpses]
    for position, tokens, trace, values in found:
        target = int(tokens[position + 1])
        yield position, target, float(trace.values[first_entry(trace, position)]), float(values[target])


def scores_before_counting(case: Case) -> Finding:
    """The charge of a target follows from the past alone: a second pass gets neither the target nor later tokens."""
    compared = case.trace.positions < len(case.repeated) - 1
    positions, charged = case.trace.positions[compared], case.trace.values[compared]
    reach = None if case.subject.past_only else Reach(len(charged), case.expected)
    foretold = case.subject.foretold(case.repeated, positions)
    if foretold is None:
        positions, charged, foretold, reach = case.samples, case.charged, case.foretold, case.reach
    difference = apart(charged, foretold)
    worst = int(np.argmax(difference))
    slack = case.subject.slack
    gained = float(np.mean(-np.log(np.maximum(foretold, 1e-30)) + np.log(np.maximum(charged, 1e-30))))
    text = f"position {positions[worst]}: charged {charged[worst]:.6g}, "
    text += f"foretold {foretold[worst]:.6g} with its target withheld; by the precision, {slack:.1g} nats are allowed"
    if case.subject.past_only:
        text += f"; its charges are what it foretells, and a second pass over {len(charged):,} positions repeats them"
    # Rounding goes both ways: over many positions, hardly anything of what one may be off remains.
    unbiased = gained <= CLOSE + 2 * slack / np.sqrt(len(charged))
    if difference[worst] <= slack and not unbiased:
        text += f", but all together gain {gained:.2g} nats a position, which rounding does not"
    return finding(bool(difference[worst] <= slack and unbiased), float(difference[worst]), text, reach)


def no_ghost_of_the_text(case: Case) -> Finding:
    """Where the text was replaced, nothing foretells the text as it was.

    Each position's own old target is ranked among the old targets of other positions: by chance, in the middle.
    """
    if case.subject.source_is_given:
        raise NotApplicable("its statistics are given: they are those of the text as it was")
    cut = case.cuts[0]
    tokens, _ = case.altered(cut)
    end = case.subject.expected(tokens)
    places = np.arange(cut + 1 + _SETTLED, end) if case.subject.past_only else case.samples
    places = places[(places > cut + _SETTLED) & (places < end)]
    places = (
        places[np.linspace(0, len(places) - 1, min(len(places), AFTER)).astype(np.int64)] if len(places) else places
    )
    if len(places) < _GHOSTS:
        raise NotApplicable(f"only {len(places)} positions lie behind the cut, {_GHOSTS} are needed")
    old = case.tokens[places + 1].astype(np.int64)
    ranks = []
    for glimpse, own in zip(case.subject.glimpses(tokens, places), old.tolist(), strict=True):
        others = glimpse.values[old]
        ranks.append(float((others < glimpse.values[own]).mean() + (others == glimpse.values[own]).mean() / 2))
    mean = float(np.mean(ranks))
    beyond = (mean - 0.5) * np.sqrt(12 * len(ranks))
    text = f"the old target ranks higher than {mean:.0%} of the text's tokens, at {len(ranks)} positions after "
    text += f"{cut + 1}, where other tokens stand now; by chance 50 %, {beyond:.1f} standard deviations less"
    text += f"; a memory of {percent(2 * _CHANCE / np.sqrt(12 * len(ranks)))} of the text is found"
    return finding(bool(beyond < _CHANCE), mean, text)


def documents_are_apart(case: Case) -> Finding:
    """If documents are claimed to be scored independently, the documents before one do not matter."""
    start = case.claim.document_start
    if start is None:
        raise NotApplicable("it does not claim to score documents independently")
    starts = np.flatnonzero(case.tokens[: case.expected] == start)
    starts = starts[starts > 0]
    if len(starts) == 0:
        raise NotApplicable(f"no document starts (token {start}) after the first position")
    begin = int(starts[len(starts) // 2])
    tokens = case.tokens.copy()
    tokens[:begin] = np.random.default_rng(case.seed).permutation(tokens[:begin])
    ours, other = case.trace, case.subject.score(tokens)
    pairs = (ours.values, other.values) if ours.neural is None or other.neural is None else (ours.neural, other.neural)
    within = np.flatnonzero(ours.positions >= begin)
    difference = apart(*pairs)[within]
    at = within[int(np.argmax(difference))]
    text = f"position {ours.positions[at]}: {pairs[0][at]:.6g} becomes {pairs[1][at]:.6g} "
    text += f"when tokens before the document's start at {begin} change"
    return finding(difference.max() <= SAME, float(difference.max()), text, Reach(1, len(starts), "starts"))


def _list(positions: list[int]) -> str:
    return " or ".join(str(position + 1) for position in positions)
