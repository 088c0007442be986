"""The audit of an evaluator: every probe is asked, in processes that end with it."""

from collections.abc import Callable
from dataclasses import replace

from ngram_eval.audit.evaluator import changes, counts, memory, sums
from ngram_eval.audit.evaluator.ask import Stopped
from ngram_eval.audit.evaluator.case import Case
from ngram_eval.audit.evaluator.sweep import sweep
from ngram_eval.audit.finding import Audited, Finding, Probe, ask
from ngram_eval.audit.probes import account
from ngram_eval.evaluation.interrupt import Interrupt

_WHOLE = "nothing: all of it is compared"

PROBES: tuple[Probe[Case], ...] = (
    Probe("sum to 1", "Σ", sums.sums_to_one, True, "less than the tolerance"),
    Probe("two at a position", "Σ of two", sums.two_at_every_position, True, "surpluses that two tokens do not show"),
    Probe("future unseen", "nats", changes.future_is_unseen, False, "less than the tolerance"),
    Probe(
        "random numbers", "nats gained", sums.random_numbers_cost_their_entropy, True, "gains below 20.7 nats in all"
    ),
    Probe(
        "text drawn from it", "nats gained", sums.drawn_text_costs_what_was_shown, False, "what no drawn token meets"
    ),
    Probe(
        "full run is the probed", "nats", changes.full_run_is_the_probed, False, "places that no other stream reached"
    ),
    Probe("same number again", "nats", changes.same_number_again, True, "what depends on the day or the machine"),
    Probe(
        "text not remembered", "nats a token", memory.text_is_not_remembered, False, "gains below those named", False
    ),
    Probe("documents apart", "nats", changes.documents_are_apart, False, "what only another past would change"),
    Probe(
        "the text's bytes", "off", counts.bytes_are_the_text_s, False, "without --text, what the decoder does not write"
    ),
    Probe("size", "MB", account.size_is_decimal, False, _WHOLE),
    Probe("the data claimed", "off", account.data_is_canonical, False, _WHOLE),
    Probe(
        "text not trained on",
        "share",
        account.text_is_not_trained_on,
        False,
        "texts without 32 tokens in common",
        False,
    ),
    Probe("each position once", "faults", counts.each_position_once, False, "other streams than were asked"),
)
"""All probes of an evaluator; their numbers start at 1. The last looks at what all others were answered."""


ASKERS = (
    sums.shown,
    sums.random_numbers,
    sweep,
    changes.lengths,
    changes.other_runs,
    changes.documents,
    memory.shifted,
    memory.renamed,
    memory.ghosts,
    memory.reordered,
)
"""What asks for these probes, all at once; only whether a number comes again is asked in an order of its own."""


def audit_evaluator(case: Case, advance: Callable[[int], None], interrupt: Interrupt) -> list[Audited]:
    """The findings of all probes, in a list of one; empty after an interrupt. Each says on how many runs it rests."""
    findings: list[Finding] = []
    try:
        case.together(*ASKERS, advance=advance)
        for probe in interrupt.until(iter(PROBES)):
            before = case.evaluator.runs + case.consulted
            found = ask(probe, case)
            runs = case.evaluator.runs + case.consulted - before
            evidence = f"{found.evidence}; {runs:,} runs" if runs else found.evidence
            findings.append(replace(found, evidence=evidence, details={**found.details, "runs": runs}))
    except Stopped:
        return []
    return [Audited(case.evaluator.place.name, PROBES, tuple(findings))] if len(findings) == len(PROBES) else []
