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

PROBES: tuple[Probe[Case], ...] = (
    Probe("sum to 1", "Σ", sums.sums_to_one, essential=True),
    Probe("two at a position", "Σ of two", sums.two_at_every_position, essential=True),
    Probe("future unseen", "nats", changes.future_is_unseen),
    Probe("random numbers", "nats gained", sums.random_numbers_cost_their_entropy, essential=True),
    Probe("text drawn from it", "nats gained", sums.drawn_text_costs_what_was_shown),
    Probe("full run is the probed", "nats", changes.full_run_is_the_probed),
    Probe("same number again", "nats", changes.same_number_again, essential=True),
    Probe("text not remembered", "nats a token", memory.text_is_not_remembered, proves=False),
    Probe("documents apart", "nats", changes.documents_are_apart),
    Probe("the text's bytes", "off", counts.bytes_are_the_text_s),
    Probe("size", "MB", account.size_is_decimal),
    Probe("the data claimed", "off", account.data_is_canonical),
    Probe("text not trained on", "share", account.text_is_not_trained_on, proves=False),
    Probe("each position once", "faults", counts.each_position_once),
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
