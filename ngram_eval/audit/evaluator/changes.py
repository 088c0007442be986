"""Probes of an evaluator that change something and see what else changes."""

import numpy as np
from numpy.typing import NDArray

from ngram_eval.audit.evaluator.case import Case, Change, difference, differences
from ngram_eval.audit.finding import Finding, NotApplicable, Reach, finding

_LENGTHS = (1, 3, 7, 15, 31, 32, 63, 64, 127, 128, 255, 256, 511, 512, 1023, 1024)
"""Tokens of a prefix: whole blocks of the usual sizes, and one less."""
_STARTS = 8
"""Starts of documents before which everything is replaced."""


def future_is_unseen(case: Case) -> Finding:
    """Whatever follows, the charges before it stay the same."""
    _ = case.charges  # of totals it can't be asked
    tolerance, sweep = case.evaluator.tolerance, case.sweep
    worst, refused = _lengths(case)
    if sweep.worst is not None and (worst is None or sweep.worst.size > worst.size):
        worst = sweep.worst
    reach = Reach(len(sweep.cuts), len(case.text) - 1, "cuts")
    covered = f"; it refuses streams of {', '.join(map(str, refused))} tokens" if refused else ""
    if worst is None or worst.size <= tolerance:
        size = 0.0 if worst is None else worst.size
        text = f"nothing before a cut, or in a stream of another length, changes by more than {size:.2g} nats"
        return finding(True, size, text + covered, reach)
    ahead = _ahead(case, worst) if worst is sweep.worst else 0
    text = (
        f"token {worst.token}: {worst.was:.6g} nats become {worst.becomes:.6g} with what follows token {worst.cut - 1}"
    )
    text += f"; it sees up to {ahead} tokens ahead" if ahead else ""
    return finding(False, worst.size, text + covered, reach, {"cuts_before_which_something_changes": sweep.changed})


def _lengths(case: Case) -> tuple[Change | None, list[int]]:
    """(the largest change when the text is cut, extended or doubled, the lengths that are refused)."""
    base, last = case.charges, len(case.text)
    sampled = case.rng(5).integers(2, last, case.asking.scattered).tolist()
    lengths = sorted({one for one in (*_LENGTHS, *sampled, last - 1) if 1 <= one < last})
    streams = [case.text[:length] for length in lengths]
    streams += [np.append(case.text, case.noise[:last]), np.append(case.text, case.text)]
    streams.append(np.append(case.text, case.noise[:1]))
    worst, refused = None, []
    for stream, answer in zip(streams, case.evaluator.try_to([case.question(one) for one in streams]), strict=True):
        if answer is None or answer.nats is None:
            refused.append(len(stream))
            continue
        change = _change(base, answer.nats, min(len(stream), last))
        if worst is None or change.size > worst.size:
            worst = change
    return worst, refused


def _change(a: NDArray[np.float64], b: NDArray[np.float64], end: int) -> Change:
    """The largest difference of charges before `end` in streams of two lengths.

    What one of them leaves out is not compared: an evaluator of whole sequences leaves out the rest of a stream.
    """
    off = differences(a[:end], b[:end])
    off[np.isnan(a[:end]) | np.isnan(b[:end])] = 0.0
    token = int(np.argmax(off))
    return Change(end, token, float(a[token]), float(b[token]))


def _ahead(case: Case, worst: Change) -> int:
    """How many tokens after the token decide what it is charged: found by halving."""
    low, high = worst.cut, len(case.text)  # a cut at `low` changes the charge, one at `high` replaces nothing
    rng = case.rng(6)
    while high - low > 1:
        middle = (low + high) // 2
        (answer,) = case.ask([case.replaced(middle, rng)])
        assert answer.nats is not None
        changes = difference(worst.was, float(answer.nats[worst.token])) > case.evaluator.tolerance
        low, high = (middle, high) if changes else (low, middle)
    return low - worst.token


def full_run_is_the_probed(case: Case) -> Finding:
    """What the full run charges is what the runs of the probes charge at the same positions."""
    base, rng = case.base, case.rng(7)
    if base.nats is None:
        raise NotApplicable("it gives totals: no position is charged by itself")
    ends = np.unique(rng.integers(len(case.text) // 4, len(case.text), case.asking.scattered))
    streams = [np.append(case.text[:end], case.noise[: int(rng.integers(1, len(case.text)))]) for end in ends]
    worst = Change(0, 0, 0.0, 0.0)
    for end, answer in zip(ends.tolist(), case.ask(streams), strict=True):
        assert answer.nats is not None
        change = _change(base.nats, answer.nats, end)
        worst = max(worst, change, key=lambda one: one.size)
    mean = float(np.nanmean(base.nats))
    text = f"the full run's {mean:.6f} nats a token are of charges that {len(ends)} other streams show too, "
    text += f"to {worst.size:.2g} nats"
    if worst.size > case.evaluator.tolerance:
        text = f"token {worst.token} is charged {worst.was:.6g} nats in the full run, {worst.becomes:.6g} in a stream "
        text += f"that is the same up to token {worst.cut}"
    return finding(worst.size <= case.evaluator.tolerance, worst.size, text, details={"mean": mean})


def same_number_again(case: Case) -> Finding:
    """The same stream costs the same: at once again, after other texts, in a new process, with the data in reach."""
    text, other = case.question(case.text), case.question(case.noise[: len(case.text)])
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
    if case.claim.document_start is None:
        raise NotApplicable("it does not claim to score documents independently (document_start)")
    starts = case.rng(8).permutation(case.starts[case.starts < len(case.text) - 1])[:_STARTS]
    if not len(starts):
        raise NotApplicable(f"no document starts (token {case.claim.document_start}) after the first position")
    worst, where = 0.0, 0
    for start in starts.tolist():
        changed = np.concatenate([case.noise[:start], case.text[start:]])
        ours, other = case.ask([case.text, changed])
        if ours.nats is not None and other.nats is not None:
            size = float(differences(ours.nats[start + 1 :], other.nats[start + 1 :]).max())
        else:
            before = case.ask([case.text[: start + 1], changed[: start + 1]])
            size = abs((ours.total - before[0].total) - (other.total - before[1].total))
        worst, where = max((worst, where), (size, start))
    text = f"tokens of the document at token {where} change by up to {worst:.3g} nats with what came before it"
    reach = Reach(len(starts), int(np.count_nonzero(case.starts < len(case.text) - 1)), "starts of documents")
    return finding(worst <= case.evaluator.tolerance, worst, text, reach)
