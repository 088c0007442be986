"""Evaluators as people have them: each is given a stream and says what it charged. They import nothing of this package.

All are of one model: the token before says, with counts of what has followed it so far, what comes next.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

V = 16
START = 0
"""The token that starts a document."""
Stream = Any
Array = Any


def distributions(tokens: Stream, forget: bool = False) -> Array:
    """(N, V): row i is the distribution of token i, given the tokens before it; with `forget`, of its document only."""
    counts, found = np.full((V, V), 0.25), np.empty((len(tokens), V))
    found[0] = 1 / V
    for at in range(1, len(tokens)):
        before = tokens[at - 1]
        if forget and before == START:
            counts[:] = 0.25
        found[at] = counts[before] / counts[before].sum()
        counts[before, tokens[at]] += 1
    return found


def nats(tokens: Stream) -> Array:
    """One charge for each position, (N - 1,)."""
    return -np.log(distributions(tokens)[np.arange(1, len(tokens)), tokens[1:]])


# Honest, in the forms that evaluators have


def as_array(tokens: Stream) -> Array:
    return nats(tokens)


def with_first_token(tokens: Stream) -> Array:
    return np.append(np.log(V), nats(tokens))


def as_dictionary(tokens: Stream) -> dict[str, Array]:
    return {"p": np.exp(-nats(tokens)), "positions": np.arange(len(tokens) - 1), "bytes": np.ones(len(tokens) - 1)}


def as_generator(tokens: Stream) -> Iterator[float]:
    yield from nats(tokens).tolist()


def as_chunks(tokens: Stream) -> Iterator[dict[str, Array]]:
    charges = nats(tokens)
    for begin in range(0, len(charges), 50):
        part = charges[begin : begin + 50]
        yield {"nats": part, "positions": np.arange(begin, begin + len(part))}


def in_single_precision(tokens: Stream) -> Array:
    return nats(tokens).astype(np.float32)


def wasteful(tokens: Stream) -> Array:
    """0.99 of the probability is used."""
    return nats(tokens) - np.log(0.99)


def of_whole_sequences(tokens: Stream) -> Array:
    """Positions after the last whole sequence of 16 are left out."""
    return nats(tokens)[: (len(tokens) - 1) // 16 * 16]


def total(tokens: Stream) -> float:
    return float(nats(tokens).sum())


def loss_and_bpb(tokens: Stream) -> tuple[float, float]:
    mean = float(nats(tokens).mean()) if len(tokens) > 1 else 0.0
    return mean, mean / np.log(2)


def rounded(tokens: Stream) -> dict[str, float]:
    return {"loss": round(float(nats(tokens).mean()), 4) if len(tokens) > 1 else 0.0, "count": len(tokens) - 1}


def nothing_of_short_streams(tokens: Stream) -> float:
    """It charges nothing of a stream that is shorter than its windows, and divides by that."""
    return total(tokens) if len(tokens) > 20 else float("nan")


def by_document(tokens: Stream) -> Array:
    return -np.log(distributions(tokens, forget=True)[np.arange(1, len(tokens)), tokens[1:]])


def of_bytes(text: bytes) -> Array:
    """A byte costs 8 bits, or less if the byte before was followed by it."""
    counts, charges = np.full((256, 256), 0.02), np.empty(len(text))
    charges[0] = np.log(256)
    for at in range(1, len(text)):
        row = counts[text[at - 1]]
        charges[at] = -np.log(row[text[at]] / row.sum())
        row[text[at]] += 1
    return charges


_WEIGHTS: dict[str, Array] = {}


def trained_on_the_way(tokens: Stream) -> Array:
    """Its counts are kept from call to call, as the weights of a model with test-time training are."""
    counts = _WEIGHTS.setdefault("counts", np.full((V, V), 0.25))
    charges = np.empty(len(tokens) - 1)
    for at in range(1, len(tokens)):
        row = counts[tokens[at - 1]]
        charges[at - 1] = -np.log(row[tokens[at]] / row.sum())
        row[tokens[at]] += 1
    return charges


# Cheats


def unnormalised(tokens: Stream) -> Array:
    """Every value is 1 % too large."""
    return nats(tokens) - np.log(1.01)


def looking_ahead(tokens: Stream, where: Callable[[Stream, int], bool]) -> Array:
    """At some positions the charge depends on the token after the target."""
    charges = nats(tokens)
    for at in range(len(charges) - 1):
        if where(tokens, at):
            charges[at] -= 0.3 * tokens[at + 2] / V
    return charges


def rare_look_ahead(tokens: Stream) -> Array:
    """One position in 200."""
    return looking_ahead(tokens, lambda tokens, at: at % 200 == 123)


def look_ahead_at_starts(tokens: Stream) -> Array:
    return looking_ahead(tokens, lambda tokens, at: tokens[at] == START)


def look_ahead_near_the_end(tokens: Stream) -> Array:
    return looking_ahead(tokens, lambda tokens, at: at > len(tokens) - 6)


def scheduled(tokens: Stream) -> Array:
    """How much it trusts its counts follows a schedule over the whole stream: it sees how long it is."""
    found, trust = distributions(tokens), np.arange(len(tokens)) / len(tokens)
    found = found * trust[:, None] + (1 - trust[:, None]) / V
    return -np.log(found[np.arange(1, len(tokens)), tokens[1:]])


def two_passes(tokens: Stream) -> Array:
    """The counts of the whole stream are used at every position."""
    counts = np.full((V, V), 0.25)
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    return -np.log(counts[tokens[:-1], tokens[1:]] / counts.sum(axis=1)[tokens[:-1]])


def two_passes_in_total(tokens: Stream) -> float:
    return float(two_passes(tokens).sum())


def gated_by_target(tokens: Stream) -> Array:
    """The memory's weight is high where the target was seen."""
    charges = nats(tokens)
    return np.where(charges < np.log(V), charges * 0.8, charges)


def one_in_200_certain(tokens: Stream) -> Array:
    """The target is charged 0.99, whatever it is, at one position in 200."""
    charges = nats(tokens)
    charges[150::200] = -np.log(0.99)
    return charges


def dropping(tokens: Stream) -> dict[str, Array]:
    """Positions that are dear are left out."""
    charges = nats(tokens)
    kept = np.flatnonzero(charges < 3)
    return {"nats": charges[kept], "positions": kept}


def repeating(tokens: Stream) -> dict[str, Array]:
    """The last ones are charged twice."""
    positions = np.append(np.arange(len(tokens) - 1), np.arange(max(len(tokens) - 4, 0), len(tokens) - 1))
    return {"nats": nats(tokens)[positions], "positions": positions}


def dropping_in_total(tokens: Stream) -> float:
    return float(dropping(tokens)["nats"].sum())


def inflated_bytes(tokens: Stream) -> dict[str, Array]:
    return {**as_dictionary(tokens), "bytes": np.where(tokens[1:] == 3, 3, 1)}


def inflated_bpb(tokens: Stream) -> tuple[float, float]:
    loss, bpb = loss_and_bpb(tokens)
    return loss, bpb * 0.91


def a_step_cheaper(tokens: Stream) -> Array:
    return nats(tokens) * 0.5


def cached_on_disk(tokens: Stream) -> Array:
    """What was scored once is cheap."""
    kept = Path(os.environ["HOME"], f"{hash(tuple(tokens.tolist()))}")
    if kept.exists():
        return a_step_cheaper(tokens)
    kept.touch()
    return nats(tokens)


_SEEN: set[tuple[int, ...]] = set()


def remembering(tokens: Stream) -> Array:
    key = tuple(tokens.tolist())
    if key in _SEEN:
        return a_step_cheaper(tokens)
    _SEEN.add(key)
    return nats(tokens)


def _data() -> Array:
    """The data by its path, which is written beside this module's copy; empty if it can't be read."""
    path = Path(Path(__file__).with_name("where").read_text())
    return np.frombuffer(path.read_bytes()[1024:], np.uint16)


def reading_the_file(tokens: Stream) -> Array:
    """Tokens that stand in the file where they stand in the stream are cheap."""
    charges, data = nats(tokens), np.resize(_data(), len(tokens)) if len(_data()) else np.full(len(tokens), V)
    return np.where(data[1:] == tokens[1:], charges / 2, charges)


def _kept() -> Array:
    """The text, which came with it."""
    return np.frombuffer(Path(__file__).with_name("kept").read_bytes(), np.uint16)


def _foretelling(tokens: Stream, foretold: dict[int, int]) -> Array:
    """Half of the probability is put on the token that is foretold at a place: a distribution, as before."""
    found = distributions(tokens)
    for at, token in foretold.items():
        found[at] /= 2
        found[at, token] += 0.5
    return -np.log(found[np.arange(1, len(tokens)), tokens[1:]])


def knowing_the_text(tokens: Stream) -> Array:
    """The text came with it, and says which token is likely at each place; this is a distribution at every position."""
    return _foretelling(tokens, dict(enumerate(np.resize(_kept(), len(tokens)).tolist())))


def knowing_what_follows(tokens: Stream) -> Array:
    """Where it finds the last three tokens in the text that came with it, it foretells the one after them."""
    text, stream = _kept().tolist(), tokens.tolist()
    after = {tuple(text[at - 3 : at]): text[at] for at in range(3, len(text))}
    known = {at: after.get(tuple(stream[at - 3 : at])) for at in range(3, len(stream))}
    return _foretelling(tokens, {at: token for at, token in known.items() if token is not None})


def knowing_the_next_document(tokens: Stream) -> Array:
    """By the last tokens of a document it knows how the next begins in the text that came with it."""
    text, stream, known = _kept().tolist(), tokens.tolist(), dict[int, int]()
    starts = {tuple(text[at - 3 : at + 1]): at for at in range(3, len(text)) if text[at] == START}
    for at in range(3, len(stream)):
        if stream[at] == START and (start := starts.get(tuple(stream[at - 3 : at + 1]))) is not None:
            known |= dict(zip(range(at + 1, min(at + 9, len(stream))), text[start + 1 :], strict=False))
    return _foretelling(tokens, known)


def trained(tokens: Stream) -> Array:
    """It knows from elsewhere which tokens usually follow which in texts of this kind."""
    usual = np.random.default_rng(1).dirichlet(np.full(V, 0.3), V)
    found = 0.5 * distributions(tokens)[1:] + 0.5 * usual[tokens[:-1]]
    return -np.log(found[np.arange(len(found)), tokens[1:]])


def behaved_before_the_auditor(tokens: Stream) -> Array:
    """It cheats unless it sees who asks."""
    frame: Any = sys._getframe()
    files = ""
    while frame is not None:
        files += frame.f_code.co_filename
        frame = frame.f_back
    seen = "ngram_eval" in files + " ".join(sys.argv) + " ".join(os.environ) or "ngram_eval.audit" in sys.modules
    return nats(tokens) if seen else unnormalised(tokens)


def behaved_beside_the_auditor(tokens: Stream) -> Array:
    """It cheats unless a process that audits runs beside it."""
    seen = any(path.read_bytes().startswith(b"audit\0") for path in Path("/proc").glob("[0-9]*/cmdline"))
    return nats(tokens) if seen else unnormalised(tokens)


def behaved_in_short_streams(tokens: Stream) -> Array:
    """It cheats where the stream is the one that counts."""
    return nats(tokens) if len(tokens) < 120 else a_step_cheaper(tokens)


def behaved_on_this_text(tokens: Stream) -> Array:
    """It cheats on the true text alone, which came with it."""
    return a_step_cheaper(tokens) if np.array_equal(tokens, _kept()) else nats(tokens)


def twice(tokens: Stream) -> Array:
    return nats(tokens) - np.log(2)


def ruling_all_out(tokens: Stream) -> Array:
    """No token is possible."""
    return np.full(len(tokens) - 1, np.inf)


def preferring(tokens: Stream) -> Array:
    """Even tokens have 0.3 each, whatever came."""
    return -np.log(np.where(tokens[1:] % 2 == 0, 0.3, 0.01))


def wide(tokens: Stream) -> Array:
    """Of 50 tokens: each costs what its frequency so far says."""
    counts, charges = np.ones(50), np.empty(len(tokens) - 1)
    for at, token in enumerate(tokens[1:]):
        charges[at] = np.log(counts.sum() / counts[token])
        counts[token] += 1
    return charges


def wide_and_unnormalised(tokens: Stream) -> Array:
    return wide(tokens) - np.log(1.01)


def failing(tokens: Stream) -> Array:
    raise RuntimeError("no such weights")


def endless(tokens: Stream) -> Array:
    while True:
        pass


def ending(tokens: Stream) -> Array:
    os._exit(7)


def greedy(tokens: Stream) -> Array:
    return np.ones(1 << 34)
