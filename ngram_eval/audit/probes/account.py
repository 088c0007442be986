"""Probes of the account: positions, sums, bytes, the data and the artifact."""

import hashlib

import numpy as np

from ngram_eval.audit.case import Case, Told
from ngram_eval.audit.claim import Claim
from ngram_eval.audit.finding import Finding, NotApplicable, finding, percent
from ngram_eval.audit.original import original_bytes
from ngram_eval.audit.precision import SAME, of_a_sum, of_digits
from ngram_eval.audit.stretches import stretches
from ngram_eval.bpb import bits_per_byte, nats_of
from ngram_eval.files import open_input

_STRETCH = 32
"""Tokens in a row that two texts do not share by chance."""
_SHARED = 0.01
"""Share of the text that may be in the training data as well: mottos, licences, tables of contents."""
_AT_ONCE = 1 << 20


def each_position_once(case: Case) -> Finding:
    """Every position of the stream is charged for exactly once, and the claimed sums are those of the charges."""
    trace, expected, claim = case.trace, case.expected, case.claim
    times = np.bincount(trace.positions, minlength=expected)
    dropped, repeated = np.flatnonzero(times[:expected] == 0), np.flatnonzero(times > 1)
    wrong = []
    if len(dropped) and not claim.subset:
        wrong.append(f"{len(dropped):,} of {expected:,} positions are not charged for, {dropped[0]} the first")
    if len(repeated):
        wrong.append(f"{len(repeated):,} are charged for up to {times.max()} times, {repeated[0]} the first")
    if len(times) > expected:
        wrong.append(f"{np.count_nonzero(times[expected:]):,} after the end are charged for")
    count = len(trace.positions)
    nats = float(nats_of(trace.values).sum())
    wrong += contradictions(claim, nats, count, {count}, SAME * count + of_a_sum(count, nats))
    after = len(case.tokens) - 1 - expected
    text = f"positions 0 to {expected - 1}, each once"
    text += f" ({after:,} after the last whole sequence are left out by rule)" if after else ""
    text += " (a subset, as claimed)" if claim.subset else ""
    return finding(not wrong, float(len(dropped) + (times[repeated] - 1).sum()), "; ".join(wrong) or text)


def contradictions(claim: Claim, nats: float, count: int, counts: set[int], slack: float) -> list[str]:
    """What of a claim contradicts `count` charges that add up to `nats`, give or take `slack` in all.

    `counts` are the numbers of positions that may be claimed.
    """
    wrong = []
    if claim.positions is not None and claim.positions not in counts:
        wrong.append(f"{claim.positions:,} positions are claimed, {count:,} are charged")
    if claim.nats is not None and not abs(claim.nats - nats) <= slack + of_digits(claim.nats):
        wrong.append(f"{claim.nats:.6f} nats are claimed, the charges add up to {nats:.6f}")
    if claim.loss is not None and not abs(claim.loss - nats / count) <= slack / count + of_digits(claim.loss):
        wrong.append(f"a loss of {claim.loss:g} is claimed, the charges' mean is {nats / count:.6f}")
    return wrong


def bytes_are_the_text_s(case: Case) -> Finding:
    """The claimed number of bytes is that of the text, where it is at hand; else of what tokens decode to."""
    claim, tokenizer, text = case.claim, case.data.tokenizer, case.data.text
    if tokenizer is None and (text is None or not case.data.whole):
        raise NotApplicable("there are no bytes without a --tokenizer, or all of the --text")
    charged = len(np.unique(case.trace.positions)) if claim.subset else case.expected
    size = len(text or b"") if tokenizer is None else original_bytes(tokenizer, case.tokens[: charged + 1], text)
    if isinstance(size, Finding):
        return size
    if claim.bytes is None and claim.bpb is None:
        raise NotApplicable("it claims no bytes and no bits per byte")
    nats = float(nats_of(case.trace.values[_firsts(case)]).sum())
    true = bits_per_byte(nats, size)
    wrong, off = [], 0.0 if claim.bytes is None else float(claim.bytes - size)
    # Without a tokenizer nobody knows the first token's bytes, which are no target: fewer bytes may be claimed.
    if claim.bytes is not None and (off > 0 or (off < 0 and tokenizer is not None)):
        wrong.append(
            f"{claim.bytes:,} bytes are claimed, the text has {size:,} ({claim.bytes / max(size, 1) - 1:+.2%})"
        )
    if claim.bpb is not None and true is not None:
        allowed = of_digits(claim.bpb) + claim.bpb * (SAME + of_a_sum(charged, 1.0))
        if claim.bpb < true - allowed:
            wrong.append(f"{claim.bpb:g} bits per byte are claimed, the charges over the text's bytes are {true:.5f}")
    said = "; ".join(wrong) or f"{size:,} bytes, as the text has" + (f": {true:.4f} bits per byte" if true else "")
    return finding(not wrong, off, said, details={"bytes": size, "bpb": true})


def _firsts(case: Case) -> list[int]:
    """The first entry of each position charged for."""
    _, entries = np.unique(case.trace.positions, return_index=True)
    return [int(entry) for entry in entries]


def size_is_decimal(case: Told) -> Finding:
    """The artifact is as small as claimed, in MB of 1,000,000 bytes."""
    claimed = case.claim.megabytes
    if claimed is None:
        raise NotApplicable("no size of an artifact is claimed")
    if case.data.artifact is None:
        raise NotApplicable("no artifact is at hand: give --artifact FILE, whose size is claimed")
    size = case.data.artifact.stat().st_size
    text = f"{claimed:g} MB are claimed; {size:,} bytes are {size / 1e6:.3f} MB ({size / (1 << 20):.3f} MiB)"
    return finding(size / 1e6 <= claimed * 1.005, size / 1e6, text)


def data_is_canonical(case: Told) -> Finding:
    """The data is the one that is claimed: its number of tokens, and the sha256 of its files."""
    claim, wrong = case.claim, []
    if claim.tokens is None and claim.sha256 is None:
        raise NotApplicable("no number of tokens and no sha256 of the data is claimed")
    if claim.tokens is not None and claim.tokens != case.data.total:
        wrong.append(f"{claim.tokens:,} tokens are claimed, the data has {case.data.total:,}")
    if claim.sha256 is not None:
        digest = hashlib.sha256()
        for path in case.data.files:
            with open_input(path, "check --data") as file:
                while block := file.read(_AT_ONCE):
                    digest.update(block)
        if digest.hexdigest() != claim.sha256.lower():
            wrong.append(f"sha256 {claim.sha256[:12]}... is claimed, the data has {digest.hexdigest()[:12]}...")
    off = 0.0 if claim.tokens is None else float(case.data.total - claim.tokens)
    return finding(not wrong, off, "; ".join(wrong) or f"{case.data.total:,} tokens, the data that is claimed")


def text_is_not_trained_on(case: Told) -> Finding:
    """The training data holds hardly any stretch of the text."""
    if case.data.training is None:
        raise NotApplicable("the training data is not at hand: give --training 'PATTERN'")
    own = np.unique(stretches(case.tokens, _STRETCH))
    if len(own) == 0:
        raise NotApplicable(f"the text is shorter than {_STRETCH} tokens")
    found = np.zeros(len(own), bool)
    for start in range(0, len(case.data.training), _AT_ONCE):
        other = stretches(case.data.training[start : start + _AT_ONCE + _STRETCH - 1], _STRETCH)
        at = np.searchsorted(own, other)
        at[at == len(own)] = 0
        found[at[own[at] == other]] = True
    share = float(found.mean())
    text = f"{percent(share)} of the text's stretches of {_STRETCH} tokens are in the training data"
    return finding(share <= _SHARED, share, text)
