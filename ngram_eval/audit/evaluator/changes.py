"""Probes of an evaluator that change something and see what else changes."""

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.evaluator.case import Case, Questions, asked
from ngram_eval.audit.evaluator.process import Refused
from ngram_eval.audit.evaluator.sweep import Change, differences, largest, sweep
from ngram_eval.audit.finding import Finding, NotApplicable, Reach, finding

_LENGTHS = (1, 3, 7, 15, 31, 32, 63, 64, 127, 128, 255, 256, 511, 512, 1023, 1024)
"""Tokens of a prefix: whole blocks of the usual sizes, and one less."""
_STARTS = 8
"""Starts of documents before which everything is replaced."""


def future_is_unseen(case: Case) -> Finding:
    """Whatever follows, the charges before it stay the same."""
    _ = case.charges  # of totals it can't be asked
    tolerance, swept, (other, refused) = case.evaluator.tolerance, case.once(sweep), case.once(lengths)
    worst = swept.worst if swept.worst.size > tolerance else max(swept.worst, other, key=lambda one: one.size)
    reach = Reach(len(swept.cuts), len(case.text) - 1, "cuts")
    covered = f"; it refuses streams of {', '.join(map(str, refused))} tokens" if refused else ""
    if worst.size <= tolerance:
        text = f"nothing before a cut, or in a stream of another length, changes by more than {worst.size:.2g} nats"
        return finding(True, worst.size, text + covered, reach)
    text = f"token {worst.token}: {worst.was:.6g} nats become {worst.becomes:.6g} "
    if worst is swept.worst:
        ahead = _ahead(case, worst)
        text += f"with what follows token {worst.cut - 1}; it sees up to {ahead} tokens ahead"
    else:
        text += f"where the stream ends or goes on after token {worst.cut - 1}; other tokens in its place change "
        text += "nothing: what shows is how long the stream is"
    return finding(False, worst.size, text + covered, reach, {"cuts_before_which_something_changes": swept.changed})


def lengths(case: Case) -> Questions[tuple[Change, list[int]]]:
    """(the largest change when the text is cut, extended or doubled, the lengths that are refused)."""
    base, last = case.charges, len(case.text)
    sampled = case.rng(5).integers(2, last, case.asking.scattered).tolist()
    cut = sorted({one for one in (*_LENGTHS, *sampled, last - 1) if 1 <= one < last})
    streams = [case.text[:length] for length in cut]
    streams += [np.append(case.text, case.noise[:last]), np.append(case.text, case.text)]
    streams.append(np.append(case.text, case.noise[:1]))
    worst, refused = Change(0, 0, 0.0, 0.0), []
    for stream, answer in zip(streams, (yield streams), strict=True):
        if isinstance(answer, Refused) or answer.nats is None:
            refused.append(len(stream))
        else:
            worst = max(worst, _change(base, answer.nats, min(len(stream), last)), key=lambda one: one.size)
    return worst, refused


def _change(a: NDArray[np.float64], b: NDArray[np.float64], end: int) -> Change:
    """The largest difference of charges before `end` in streams of two lengths.

    What one of them leaves out is not compared: an evaluator of whole sequences leaves out the rest of a stream.
    """
    both = ~(np.isnan(a[:end]) | np.isnan(b[:end]))
    return largest(np.where(both, a[:end], 0.0), np.where(both, b[:end], 0.0), end)


def _ahead(case: Case, worst: Change) -> int:
    """How many tokens after the token decide what it is charged: found by halving."""
    low, high = worst.cut, len(case.text)  # a cut at `low` changes the charge, one at `high` replaces nothing
    rng = case.rng(6)
    while high - low > 1:
        middle = (low + high) // 2
        (answer,) = case.evaluator.ask([case.replaced(middle, rng)])
        assert answer.nats is not None
        change = Change(middle, worst.token, worst.was, float(answer.nats[worst.token]))
        low, high = (middle, high) if change.size > case.evaluator.tolerance else (low, middle)
    return low - worst.token


def full_run_is_the_probed(case: Case) -> Finding:
    """What the full run charges is what the runs of the probes charge at the same positions."""
    base, worst = case.charges, case.once(other_runs)
    text = f"the full run's {np.nanmean(base):.6f} nats a token are of charges that {case.asking.scattered} other "
    text += f"streams show too, to {worst.size:.2g} nats"
    if worst.size > case.evaluator.tolerance:
        text = f"token {worst.token} is charged {worst.was:.6g} nats in the full run, {worst.becomes:.6g} in a stream "
        text += f"that is the same up to token {worst.cut}"
    mean = float(np.nanmean(base))
    return finding(worst.size <= case.evaluator.tolerance, worst.size, text, details={"mean": mean})


def other_runs(case: Case) -> Questions[Change]:
    """The largest change in streams that are the same up to some token, then go on otherwise, to another length."""
    base, rng = case.charges, case.rng(7)
    ends = rng.integers(len(case.text) // 4, len(case.text), case.asking.scattered).tolist()
    streams = [np.append(case.text[:end], case.noise[: int(rng.integers(1, len(case.text)))]) for end in ends]
    answers = yield from asked(streams)
    changes = [_change(base, one.nats, end) for one, end in zip(answers, ends, strict=True) if one.nats is not None]
    return max(changes, key=lambda one: one.size)


def same_number_again(case: Case) -> Finding:
    """The same stream costs the same: at once again, after other texts, in a new process, with the data in reach."""
    text, other = case.text, case.noise[: len(case.text)]
    first = case.base
    again, at_once, _, after = case.evaluator.again([text, text, other, text])
    runs = {"again": again, "again at once": at_once, "after another text": after}
    with case.evaluator.restarted() as anew:
        (runs["in a new process"], runs["twice in it"]) = anew.again([text, text])
    hides = bool(case.evaluator.place.hidden) and not case.evaluator.lacking
    if hides:
        with case.evaluator.restarted(hidden=False) as reaching:
            (runs["where the data's file can be read"],) = reaching.again([text])
    totals = {name: one.total for name, one in runs.items()}
    off = {}
    for name, one in runs.items():
        apart = abs(one.total - first.total)
        if one.nats is not None and first.nats is not None:
            apart = float(differences(one.nats, first.nats).max())
        off[name] = apart
    worst = max(off, key=lambda name: off[name])
    said = f"the same to {off[worst]:.2g}: {', '.join(runs)}"
    holds = off[worst] <= case.evaluator.tolerance
    if not holds:
        said = f"{first.total:.6f} nats at first, {totals[worst]:.6f} {worst}; a charge differs by {off[worst]:.4g}"
        if not case.evaluator.limits.fresh:
            said += "; if it trains a model on the way, --fresh asks a new copy each time"
    lacking = "; ".join(case.evaluator.lacking)
    said += f"; this system does not allow: {lacking}" if lacking else "; without network and other processes"
    said += "" if hides else " (whether the data's file is read was not asked)"
    return finding(holds, off[worst], said, details={"first": first.total, **totals})


def documents_are_apart(case: Case) -> Finding:
    """If documents are claimed to be scored independently, what came before one does not matter."""
    worst, where, number = case.once(documents)
    text = f"tokens of the document at token {where} change by up to {worst:.3g} nats with what came before it"
    reach = Reach(number, int(np.count_nonzero(case.starts < len(case.text) - 1)), "starts of documents")
    return finding(worst <= case.evaluator.tolerance, worst, text, reach)


def documents(case: Case) -> Questions[tuple[float, int, int]]:
    """(the largest change in a document when what is before it is replaced, where it starts, documents asked)."""
    if case.claim.document_start is None:
        raise NotApplicable("it does not claim to score documents independently (document_start)")
    starts = case.rng(8).permutation(case.starts[case.starts < len(case.text) - 1])[:_STARTS].tolist()
    if not starts:
        raise NotApplicable(f"no document starts (token {case.claim.document_start}) after the first position")
    changed = [np.concatenate([case.noise[:start], case.text[start:]]) for start in starts]
    if case.base.nats is not None:
        answers = yield from asked(changed)
        sizes = [
            float(differences(case.base.nats[start + 1 :], one.nats[start + 1 :]).max())
            for start, one in zip(starts, answers, strict=True)
            if one.nats is not None
        ]
    else:
        befores = [one[: start + 1] for start, one in zip(starts, changed, strict=True)]
        answers = yield from asked([*changed, *befores, *(case.text[: start + 1] for start in starts)])
        whole, before, ours = np.array([one.total for one in answers]).reshape(3, len(starts))
        sizes = np.abs(whole - before - (case.base.total - ours)).tolist()
    worst = max(sizes)
    return worst, starts[sizes.index(worst)], len(starts)
