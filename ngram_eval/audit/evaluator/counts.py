"""Probes of what an evaluator counts: positions, bytes, the size of a file."""

import numpy as np

from ngram_eval.audit.evaluator.case import Case
from ngram_eval.audit.finding import Finding, NotApplicable, finding


def each_position_once(case: Case) -> Finding:
    """Every position is charged exactly once, in order, in every run; and claims are those of the charges."""
    base, claim, evaluator = case.base, case.claim, case.evaluator
    wrong = [evaluator.odd] if evaluator.odd and not claim.subset else []
    if base.summary is not None and abs(base.summary[0] - base.summary[1]) > evaluator.tolerance:
        wrong.append(f"a loss of {base.summary[0]:.6f} is said, the charges' mean is {base.summary[1]:.6f}")
    charged = len(case.text) - 1 if base.nats is None else int(np.count_nonzero(~np.isnan(base.nats)))
    if case.whole == len(case.text):
        if claim.positions is not None and base.nats is not None and claim.positions not in (charged, charged - 1):
            wrong.append(f"{claim.positions:,} positions are claimed, {charged:,} have charges")
        if claim.nats is not None and abs(claim.nats - base.total) > evaluator.tolerance * len(case.text):
            wrong.append(f"{claim.nats:.6f} nats are claimed, the run charges {base.total:.6f}")
    if wrong:
        return finding(False, float(len(wrong)), "; ".join(wrong))
    if base.nats is None:
        raise NotApplicable("it gives totals: positions that are left out show in what random numbers cost")
    return finding(True, 0.0, f"each once, in {evaluator.runs:,} runs of up to {2 * len(case.text):,} tokens")


def bytes_are_the_text_s(case: Case) -> Finding:
    """The bytes that are counted are those of the text."""
    counted = case.base.bytes
    if counted is None:
        raise NotApplicable("it counts no bytes")
    if case.as_bytes:
        least, size = len(case.text) - 1, len(case.text)
    elif case.tokenizer is not None:
        tokens = case.text.astype(np.uint32)
        least, size = case.tokenizer.text_bytes(tokens), len(case.tokenizer.written(tokens))
    else:
        raise NotApplicable("there are no bytes to compare with without a --tokenizer")
    slack = 0.5 if float(counted).is_integer() else 0.5 + counted * _implied(case)
    text = f"{counted:,.0f} bytes are counted, the text has {least:,} ({counted / least - 1:+.2%})"
    return finding(least - slack <= counted <= size + slack, counted - least, text)


def _implied(case: Case) -> float:
    """By what share bytes that follow from bits per byte may be off, from the rounding of the total."""
    return 2 * case.evaluator.tolerance / max(abs(case.base.total), 1e-9)


def size_is_decimal(case: Case) -> Finding:
    """The artifact is as small as claimed, in MB of 1,000,000 bytes."""
    claimed = case.claim.megabytes
    if claimed is None or case.artifact is None:
        raise NotApplicable("no size is claimed of a file that is given (--artifact)")
    size = case.artifact.stat().st_size
    text = f"{claimed:g} MB are claimed; {size:,} bytes are {size / 1e6:.3f} MB ({size / (1 << 20):.3f} MiB)"
    return finding(size / 1e6 <= claimed * 1.005, size / 1e6, text)
