"""Probes of what an evaluator counts: positions, and bytes."""

import numpy as np

from ngram_eval.audit.evaluator.case import Case
from ngram_eval.audit.finding import Finding, NotApplicable, finding
from ngram_eval.audit.original import original_bytes
from ngram_eval.audit.precision import of_digits
from ngram_eval.audit.probes.account import contradictions


def each_position_once(case: Case) -> Finding:
    """Every position is charged exactly once, in order, in every run; and claims are those of the charges."""
    base, claim, evaluator = case.base, case.claim, case.evaluator
    wrong = [evaluator.odd] if evaluator.odd and not claim.subset else []
    if base.summary is not None and abs(base.summary[0] - base.summary[1]) > evaluator.tolerance:
        wrong.append(f"a loss of {base.summary[0]:.6f} is said, the charges' mean is {base.summary[1]:.6f}")
    count = len(case.text) - 1 if base.nats is None else int(np.count_nonzero(~np.isnan(base.nats)))
    counts = {count, len(case.text) - 1}
    wrong += contradictions(claim, base.total, count, counts, evaluator.tolerance * len(case.text))
    if wrong:
        return finding(False, float(len(wrong)), "; ".join(wrong))
    if base.nats is None:
        raise NotApplicable("it gives totals: positions that are left out show in what random numbers cost")
    return finding(True, 0.0, f"each once, in {evaluator.runs:,} runs of up to {2 * len(case.text):,} tokens")


def bytes_are_the_text_s(case: Case) -> Finding:
    """The bytes that are counted are those of the text: of the original where it is at hand."""
    tokenizer, text, claim = case.data.tokenizer, case.data.text, case.claim
    if tokenizer is None:
        raise NotApplicable("there are no bytes to compare with without a --tokenizer")
    least = original_bytes(tokenizer, case.tokens, text)
    if isinstance(least, Finding):
        return least
    most = least + len(tokenizer.written(case.tokens[:1]))  # some count the first token's, too
    total, wrong, off = case.base.total, [], 0.0
    for name, counted in (("counted", case.base.bytes), ("claimed", claim.bytes)):
        if counted is None:
            continue
        rounded = 2 * case.evaluator.tolerance / max(abs(total), 1e-9)  # where bits per byte and a total imply them
        slack = 0.5 if float(counted).is_integer() else 0.5 + counted * rounded
        if not least - slack <= counted <= most + slack:
            off = counted - least
            wrong.append(
                f"{counted:,.0f} bytes are {name}, the text has {least:,} ({counted / max(least, 1) - 1:+.2%})"
            )
    true = total / np.log(2) / max(least, 1)
    if claim.bpb is not None and claim.bpb < true - of_digits(claim.bpb) - 2 * case.evaluator.tolerance:
        wrong.append(f"{claim.bpb:g} bits per byte are claimed, the charges over the text's bytes are {true:.5f}")
    if case.base.bytes is None and claim.bytes is None and claim.bpb is None:
        raise NotApplicable("it counts no bytes, and claims neither bytes nor bits per byte")
    said = "; ".join(wrong) or f"{least:,} bytes, as the text has: {true:.4f} bits per byte"
    return finding(not wrong, off, said, details={"bytes": least, "bpb": true})
