"""Honest evaluators pass in every form, and each cheat is caught by the probe that is meant for it."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ngram_eval.audit.alphabet import ByteTokenizer
from ngram_eval.audit.case import Data
from ngram_eval.audit.claim import Claim
from ngram_eval.audit.evaluator import case
from ngram_eval.audit.evaluator.ask import Answer, Evaluator
from ngram_eval.audit.evaluator.audit import PROBES, audit_evaluator
from ngram_eval.audit.evaluator.case import Asker, Asking, Case, Questions, asked
from ngram_eval.audit.evaluator.process import Limits, Place, Refused
from ngram_eval.audit.evaluator.streams import Ids
from ngram_eval.audit.evaluator.sweep import sweep
from ngram_eval.audit.finding import Audited, Finding, ask
from ngram_eval.evaluation.interrupt import Interrupt
from ngram_eval.text.shards import write_shard
from tests.support import evaluators
from tests.support.evaluators import START, V

LENGTH = 160
LIMITS = Limits(processes=1, timeout=60)
ASKING = Asking(endings=LENGTH, sums=4 * V, scattered=8)
NAMES = {probe.name: probe for probe in PROBES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluators, the data, and what the cheats among them have brought with them."""
    return brought(tmp_path_factory.mktemp("evaluators"), text())


def brought(folder: Path, tokens: NDArray[np.int64]) -> Path:
    """The folder, with the evaluators in it."""
    shutil.copy(evaluators.__file__, folder / "eval.py")
    write_shard(folder / "data.bin", tokens.astype(np.uint16))
    (folder / "where").write_text(str(folder / "data.bin"))
    (folder / "kept").write_bytes(tokens.astype(np.uint16).tobytes())
    return folder


def text(length: int = LENGTH) -> NDArray[np.int64]:
    """Tokens in which each has its usual successors."""
    rng = np.random.default_rng(1)
    successors = rng.dirichlet(np.full(V, 0.3), V)
    tokens = [START]
    while len(tokens) < length:
        tokens.append(int(rng.choice(V, p=successors[tokens[-1]])))
    return np.array(tokens)


def evaluator(folder: Path, name: str, limits: Limits = LIMITS) -> Evaluator:
    return Evaluator(Place.of(f"{folder / 'eval.py'}:{name}", [folder / "data.bin"]), limits)


def make_case(asked: Evaluator, **arguments: Any) -> Case:
    given: dict[str, Any] = {"tokens": text().astype(np.uint16), "total": LENGTH}
    given |= {name: arguments.pop(name) for name in ("tokens", "tokenizer", "artifact", "text") if name in arguments}
    return Case(asked, Data(**given), V, **{"claim": Claim(), "asking": ASKING, "seed": 3, **arguments})


def audited(folder: Path, name: str, limits: Limits = LIMITS, **arguments: Any) -> Audited:
    with evaluator(folder, name, limits) as asked, Interrupt() as interrupt:
        (found,) = audit_evaluator(make_case(asked, **arguments), lambda done: None, interrupt)
    return found


def found_by(folder: Path, name: str, probe: str, **arguments: Any) -> Finding:
    with evaluator(folder, name) as asked:
        return ask(NAMES[probe], make_case(asked, **arguments))


HONEST: dict[str, dict[str, Any]] = {
    "as_array": {},
    "with_first_token": {},
    "as_dictionary": {},
    "as_generator": {},
    "as_chunks": {},
    "in_single_precision": {},
    "wasteful": {},
    "by_document": {"claim": Claim(document_start=START)},
    "of_whole_sequences": {"claim": Claim(subset=True)},
    "total": {},
    "loss_and_bpb": {},
    "rounded": {},
    "nothing_of_short_streams": {},
    "trained_on_the_way": {"limits": replace(LIMITS, fresh=True)},
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_evaluator_passes_in_every_form(folder: Path, name: str) -> None:
    found = audited(folder, name, **HONEST[name])
    evidence = {probe.name: one for probe, one in zip(PROBES, found.findings, strict=True)}
    assert found.outcome == "pass", evidence
    applied = len(found.numbers("pass"))
    of_totals = name in ("total", "loss_and_bpb", "rounded", "nothing_of_short_streams")
    assert applied == (5 if of_totals else 9 + (name == "by_document")), evidence


FEW: dict[str, Any] = {"asking": replace(ASKING, endings=1)}
CHEATS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("unnormalised", "sum to 1", "1.01 together, more than 1", {}),
    ("gated_by_target", "sum to 1", "more than 1", {}),
    ("two_passes_in_total", "sum to 1", "more than 1", {}),
    ("one_in_200_certain", "two at a position", "1.98 together", {}),
    ("two_passes", "random numbers", "any token cost", {}),
    ("two_passes_in_total", "random numbers", "any token cost", {}),
    ("dropping_in_total", "random numbers", "less than their entropy", {}),
    ("rare_look_ahead", "future unseen", "it sees up to 1 tokens ahead", {}),
    ("look_ahead_at_starts", "future unseen", "what follows token", {"claim": Claim(document_start=START), **FEW}),
    ("look_ahead_near_the_end", "future unseen", "what follows token", FEW),
    ("two_passes", "future unseen", "what follows token", {}),
    ("scheduled", "future unseen", "what shows is how long the stream is", {}),
    ("behaved_in_short_streams", "text drawn from it", "less than shown", {}),
    ("behaved_on_this_text", "full run is the probed", "in the full run", {}),
    ("behaved_before_the_auditor", "sum to 1", "more than 1", {}),
    ("dropping", "each position once", "are not charged", {}),
    ("of_whole_sequences", "each position once", "are not charged, the last ones", {}),
    ("repeating", "each position once", "charged up to 2 times", {}),
    ("cached_on_disk", "same number again", "at first", {}),
    ("remembering", "same number again", "at first", {}),
    ("trained_on_the_way", "same number again", "--fresh", {}),
    ("knowing_the_text", "text not remembered", "than shifted by 3 tokens +1.", {}),
    ("knowing_what_follows", "text not remembered", "than renamed +1.", {}),
    ("as_array", "documents apart", "with what came before it", {"claim": Claim(document_start=START)}),
    ("total", "documents apart", "with what came before it", {"claim": Claim(document_start=START)}),
]


@pytest.mark.parametrize(("name", "probe", "evidence", "arguments"), CHEATS)
def test_a_cheat_is_caught_by_its_probe(
    folder: Path, name: str, probe: str, evidence: str, arguments: dict[str, Any]
) -> None:
    found = found_by(folder, name, probe, **arguments)
    assert found.verdict == "refuted", found
    assert evidence in found.evidence


def test_the_last_tokens_and_starts_of_documents_are_cuts_however_few_others_are(folder: Path) -> None:
    with evaluator(folder, "as_array") as asked:
        swept = make_case(asked, claim=Claim(document_start=START), **FEW).once(sweep)
    cuts = set(swept.cuts.tolist())
    starts = np.flatnonzero(text() == START)
    assert set(range(LENGTH - 32, LENGTH)) <= cuts
    near = [{start + step for step in range(4)} & set(range(LENGTH)) <= cuts for start in starts.tolist() if start]
    assert sum(near) >= min(len(near), ASKING.scattered) > 1


def test_what_reads_the_data_by_its_path_gives_another_number_without_it(folder: Path) -> None:
    with evaluator(folder, "reading_the_file") as asked:
        found = ask(NAMES["same number again"], make_case(asked))
        lacking = asked.lacking
    if lacking:
        assert "this system does not allow" in found.evidence
    else:
        assert found.verdict == "refuted", found
        assert "where the data's file can be read" in found.evidence


def test_what_looks_for_the_auditor_among_the_processes_does_not_see_it(folder: Path) -> None:
    sleeps = subprocess.Popen(["audit", "60"], executable=shutil.which("sleep"))
    with evaluator(folder, "behaved_beside_the_auditor") as asked, sleeps as audit:
        found = ask(NAMES["sum to 1"], make_case(asked))
        audit.kill()
        lacking = asked.lacking
    assert lacking or found.verdict == "refuted", found


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.int64]]:
    """(a folder of evaluators that know a longer text, that text)."""
    tokens = text(1600)
    return brought(tmp_path_factory.mktemp("long"), tokens), tokens


@pytest.mark.parametrize(
    ("name", "verdict", "evidence"),
    [
        ("as_array", "pass", "than renamed [+-]0.0000"),
        ("trained", "pass", "with its tokens renamed it can't be asked: it tells them apart .[+]0"),
        ("knowing_the_next_document", "refuted", "at the start of documents in another order .[01]"),
    ],
)
def test_documents_in_another_order_show_who_knows_the_next(
    long: tuple[Path, NDArray[np.int64]], name: str, verdict: str, evidence: str
) -> None:
    folder, tokens = long
    for seed in (1, 2, 3):
        claim = Claim(document_start=START)
        found = found_by(folder, name, "text not remembered", tokens=tokens.astype(np.uint16), claim=claim, seed=seed)
        assert found.verdict == verdict, found
        assert re.search(evidence, found.evidence), found


@pytest.mark.parametrize("runs", [0, 60])
def test_an_interrupt_ends_the_audit_without_findings(folder: Path, runs: int) -> None:
    place = Place.of(f"{folder / 'eval.py'}:as_array")
    with Evaluator(place, LIMITS, stopped=lambda: one.runs >= runs) as one, Interrupt() as interrupt:
        assert audit_evaluator(make_case(one), lambda done: None, interrupt) == []
        assert one.runs < 250, "the audit has 278"


class OneByte:
    """A tokenizer each of whose tokens is a byte."""

    def text_bytes(self, tokens: NDArray[np.uint16]) -> int:
        return len(tokens) - 1

    def written(self, tokens: NDArray[np.uint16]) -> bytes:
        return bytes(len(tokens))


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("as_dictionary", "pass"), ("loss_and_bpb", "pass"), ("inflated_bytes", "refuted"), ("inflated_bpb", "refuted")],
)
def test_bytes_are_compared_with_the_text(folder: Path, name: str, verdict: str) -> None:
    assert found_by(folder, name, "the text's bytes", tokenizer=OneByte()).verdict == verdict


def test_a_decoder_that_does_not_write_the_text_is_refuted(folder: Path) -> None:
    """Casing sentinels are counted as bytes that the original does not have."""
    found = found_by(folder, "as_dictionary", "the text's bytes", tokenizer=OneByte(), text=b"Another" * LENGTH)
    assert found.verdict == "refuted"
    assert "not a code of the text" in found.evidence


def test_a_size_is_compared_with_the_file(folder: Path) -> None:
    size = (folder / "data.bin").stat().st_size / 1e6
    for claimed, verdict in ((size, "pass"), (size * 0.9, "refuted")):
        claim = Claim(megabytes=claimed)
        assert found_by(folder, "total", "size", claim=claim, artifact=folder / "data.bin").verdict == verdict


def test_claimed_nats_are_those_of_the_run(folder: Path) -> None:
    nats = float(evaluators.nats(text()).sum())
    for claimed, verdict in ((nats, "pass"), (nats - 0.1, "refuted")):
        assert found_by(folder, "as_array", "each position once", claim=Claim(nats=claimed)).verdict == verdict


def test_a_sum_over_a_part_of_the_vocabulary_is_inconclusive_and_says_what_settles_it(folder: Path) -> None:
    found = found_by(folder, "as_array", "sum to 1", asking=replace(ASKING, sums=V - 2))
    assert found.verdict == "inconclusive"
    assert f"--sums {V} asks all" in found.evidence


@pytest.mark.parametrize(("name", "most"), [("twice", V - 4), ("preferring", 4)])
def test_a_sum_stops_where_it_exceeds_1(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, most: int) -> None:
    """The tokens that the evaluator itself gives most to are asked first, few at a time."""
    monkeypatch.setattr(case, "AT_ONCE", 4)
    for seed in range(4):
        found = found_by(folder, name, "sum to 1", seed=seed)
        assert found.verdict == "refuted"
        assert found.details["asked"] <= [most]


def test_a_sum_of_nothing_is_a_waste(folder: Path) -> None:
    found = found_by(folder, "ruling_all_out", "sum to 1")
    assert (found.verdict, found.details["sums"]) == ("pass", [0.0] * len(found.details["sums"]))
    assert "a waste" in found.evidence


def test_who_asks_what_is_not_seen_in_the_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions of several askers are mixed; each gets the answers to its own."""
    put: list[int] = []

    def asker(first: int) -> Asker[list[float]]:
        def ask(case: Case) -> Questions[list[float]]:
            totals = []
            for length in range(first, first + 20, 10):
                answers = yield from asked([np.arange(V)[np.arange(one) % V] for one in range(length, length + 10)])
                totals += [one.total for one in answers]
            return totals

        return ask

    with evaluator(folder, "total") as of_totals:
        case, try_to = make_case(of_totals), of_totals.try_to

        def noting(streams: Sequence[Ids]) -> list[Answer | Refused]:
            put.extend(map(len, streams))
            return try_to(streams)

        monkeypatch.setattr(of_totals, "try_to", noting)
        short, long = asker(5), asker(45)
        case.together(short, long)
        assert case.once(short) == [evaluators.total(np.arange(one) % V) for one in range(5, 25)]
        assert case.once(long) == [evaluators.total(np.arange(one) % V) for one in range(45, 65)]
    assert sorted(put) == [*range(5, 25), *range(45, 65)]
    kinds = [length < 40 for length in put]
    assert sum(a != b for a, b in pairwise(kinds)) > 10, put
    assert case.consulted == 40


def test_bytes_of_a_text_are_an_alphabet(folder: Path) -> None:
    """An evaluator of bytes gets bytes; the sum is over their 256 values."""
    words = np.frombuffer(b"the cat sat on the mat and the rat sat on the hat, " * 3, np.uint8).astype(np.uint16)
    place = Place.of(f"{folder / 'eval.py'}:of_bytes", of_bytes=True)
    with Evaluator(place, LIMITS) as asked, Interrupt() as interrupt:
        asking = Asking(endings=40, sums=512, scattered=4)
        data = Data(tokens=words, tokenizer=ByteTokenizer(), total=len(words))
        of_bytes = Case(asked, data, 256, claim=Claim(), asking=asking, seed=3)
        (found,) = audit_evaluator(of_bytes, lambda done: None, interrupt)
    assert found.outcome == "pass", found
    assert found.findings[0].details["asked"] == [256, 256]


def test_a_seed_repeats_what_is_asked(folder: Path) -> None:
    texts = [found_by(folder, "as_array", "random numbers", seed=seed).evidence for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
