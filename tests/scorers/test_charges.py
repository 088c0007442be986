"""Whatever is charged is a probability, or the run ends with its position; of every scorer, on every backend."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ngram_eval import NgramMemory, evaluate, preset
from ngram_eval.bpb import P_MOST, Tally, check_charges, nats_of
from ngram_eval.config import EvalConfig, PpmdConfig, WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.models.source import Asked, Stats, all_rows
from ngram_eval.scorers.backends import BACKENDS
from ngram_eval.scorers.base import NeuralScorer, Scorer, Vocabulary
from ngram_eval.scorers.make import make_scorer
from ngram_eval.scorers.online import OnlineScorer
from ngram_eval.text.shards import write_shard
from ngram_eval.text.stream import Stream as Tokens
from ngram_eval.text.windows import Windows, plan_windows
from tests.support.streams import Stream

V, LENGTH = 5, 48
VOCABULARY = Vocabulary(V, [bytes([97 + token]) for token in range(V)], neural=True)
WINDOWS = plan_windows(LENGTH, WindowConfig(seq_len=16, stride=8))

Rows = NDArray[np.float64]


def small(name: str, **exact: Any) -> EvalConfig:
    config = preset(name)
    exact_config = replace(config.exact, **exact)
    ngram = replace(config.ngram, buckets=64, max_order=min(config.ngram.max_order, 7))
    return replace(config, ngram=ngram, exact=exact_config, mixer=replace(config.mixer, groups=1 << 8))


METHODS = {
    "hashed": small("hashed"),
    "pr890": small("pr890"),
    "exact": small("exact"),
    "by window": small("exact", by_window=True),
    "tilt": small("tilt"),
    "chain and tilt": small("exact", tilt="learned"),
    "fixed tilt": small("exact", tilt="fixed"),
    "mixer": small("mixer"),
    "ppmd": small("ppmd"),
    "marginal ppmd": replace(small("ppmd"), ppmd=PpmdConfig(byte_gate="target", byte_share="marginal")),
    "neural": preset("hashed"),
}
WITHOUT_TOKENIZER = [name for name in METHODS if "ppmd" not in name]
HOST = [(name, backend) for name in WITHOUT_TOKENIZER for backend in ("cpu", "reference")]
everywhere = pytest.mark.parametrize(
    ("name", "backend"),
    [
        (name, backend)
        for name, config in METHODS.items()
        for backend, can in BACKENDS.items()
        if getattr(can, config.scorer) and (can.tilt or "tilt" not in name)
        if name != "neural" or backend == "cpu"  # the model alone has no backend
    ],
)
few = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


def scorer_of(name: str, backend: str) -> Scorer:
    return NeuralScorer() if name == "neural" else make_scorer(backend, METHODS[name], vocabulary=VOCABULARY)


EDGES = [0.0, 5e-324, 1e-310, 5.6e-309, 2.0**-1022, 1e-300, 1e-38, 1e-30, 0.1, 0.5, 1 - 2.0**-53, 1.0]


@st.composite
def rows_of_edges(draw: st.DrawFn, length: int = LENGTH) -> Rows:
    """(length, V) distributions: one-hot, with zeros and denormals, and sums that miss 1 by up to 1e-6."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = rng.dirichlet(np.full(V, draw(st.sampled_from([0.05, 1.0]))), length)
    edges = np.array(draw(st.lists(st.sampled_from(EDGES), min_size=1, max_size=3)))
    for row in rows[rng.random(length) < draw(st.sampled_from([0.1, 0.9]))]:
        at = rng.permutation(V)
        row[:] = 0.0
        row[at[0]] = rng.choice(edges)
        row[at[1 : 1 + rng.integers(0, V)]] = rng.choice(edges[edges < 1e-20]) if (edges < 1e-20).any() else 0.0
        row[at[-1]] += 1.0 - row.sum()
    return np.maximum(rows, 0.0) * draw(st.sampled_from([1.0, 1 - 1e-6, 1 + 1e-6, 1 + 1e-12]))


tokens_of = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, V)).map(
    lambda drawn: np.random.default_rng(drawn[0]).integers(0, drawn[1], LENGTH + 1).astype(np.uint16)
)


def stats_of(tokens: NDArray[np.uint16], rows: Rows, windows: Windows = WINDOWS) -> Stats:
    positions = windows.positions()
    entropy = -(rows * np.log(np.maximum(rows, 1e-300))).sum(axis=1)
    return Stats(rows[positions, tokens[positions + 1]], entropy[positions].astype(np.float32), rows[positions].copy())


def named(error: InputError) -> bool:
    return any(f" at position {position} " in str(error) for position in range(LENGTH + 1))


@everywhere
@few
@given(tokens=tokens_of, rows=rows_of_edges())
def test_whatever_is_legal_is_charged_a_probability(name: str, backend: str, tokens: Any, rows: Rows) -> None:
    scorer = scorer_of(name, backend)
    try:
        values = scorer.score(tokens, WINDOWS, stats_of(tokens, rows)).values
        whole = scorer.distribution(np.append(tokens, np.uint16(0)), LENGTH, rows[-1], 1.0)
    except InputError as error:  # a tilt has nothing to share out where a hint of almost 1 is not all
        if "tilt" not in name or not named(error):
            raise
        return
    for p in (values, whole):
        assert np.isfinite(p).all()
        assert p.min() >= 0
        assert p.max() <= P_MOST or "tilt" in name
    tally = scorer.tally()
    assert tally.positions == LENGTH
    assert 0 <= tally.nats <= LENGTH * 69.1 * 2**52
    assert tally.nats == pytest.approx(float(nats_of(values).sum()) * 2**52, rel=1e-9, abs=2**20)
    assert all(np.isfinite(array).all() for array in scorer.learned().values())


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("hashed", "pr890", "neural")])
@few
@given(tokens=tokens_of, rows=rows_of_edges())
def test_the_reference_is_met_bit_for_bit(name: str, tokens: Any, rows: Rows) -> None:
    found = []
    for backend in ("cpu", "reference"):
        scorer = scorer_of(name, backend)
        assert isinstance(scorer, OnlineScorer)
        try:
            found.append([scorer.score(tokens, WINDOWS, stats_of(tokens, rows)).values, *scorer.learned().values()])
        except InputError as error:
            found.append([np.array(str(error))])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_denormal_spoils_nothing_after_it(evaluate: Callable[..., Any], stream: Stream, tmp_path: Path) -> None:
    """The first of these once made NaN of every weight it touched."""
    cost = {}
    for tiny in (5e-324, 1e-309, 2.0**-1022, 1e-200):
        p = stream.p_target.copy()
        p[[0, 400]] = tiny
        np.savez(tmp_path / "scores.npz", p_target=p, entropy=stream.entropy)
        arguments = ("--data", stream.shard, "--scores", tmp_path / "scores.npz", "--seq-len", 64, "--stride", 32)
        cost[tiny] = evaluate(*arguments, "--preset", "exact", "--quiet")["exact"]["nats"]
    assert cost[1e-200] == pytest.approx(cost[5e-324], rel=0.01)


# What is no probability


BAD = [float("nan"), -1e-9, 1.01, float("inf"), -float("inf")]


@pytest.mark.parametrize(
    ("name", "backend", "bad"),
    [
        *((name, backend, bad) for name, backend in HOST for bad in (BAD if backend == "cpu" else BAD[:1])),
        *((name, backend, 1.01) for name in ("hashed", "pr890") for backend in ("triton", "cuda")),
    ],
)
def test_what_is_none_ends_the_run_by_its_position(name: str, backend: str, bad: float) -> None:
    class Model:
        """Right but for position 30."""

        name = "test"
        batch_windows, train_seq_len, gives_all, vocab_size = 4, 0, True, V
        settings: dict[str, str] = {}  # noqa: RUF012

        def stats(self, tokens: Tokens, windows: Windows, whole: Asked | None = None) -> Stats:
            p = np.where(windows.positions() == 30, bad, 0.2)
            return Stats(p, np.ones(len(p), np.float32), None if whole is None else np.full((whole.sum(), V), 0.2))

        def probabilities(self, tokens: Tokens, windows: Windows) -> Rows:
            return all_rows(self, tokens, windows)

    if name == "neural":
        scorer, stats = NeuralScorer(), Model().stats(np.zeros(LENGTH + 1, np.uint16), WINDOWS)
        with pytest.raises(InputError, match=r"at position 30 is"):
            scorer.score(np.zeros(LENGTH + 1, np.uint16), WINDOWS, stats)
        return
    config = replace(METHODS[name], window=WindowConfig(seq_len=16, stride=8))
    tokens = np.random.default_rng(0).integers(0, V, LENGTH + 1)
    with warnings.catch_warnings():
        if backend == "reference":  # numpy has warned before, while it learned
            warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.raises(InputError, match=r"at position 30 (is|are)") as raised:
            evaluate(Model(), tokens, config, backend=backend)
    assert np.isnan(bad) or f" is {bad}" in str(raised.value)


@pytest.mark.parametrize("backend", ["triton", "cuda"])
@pytest.mark.parametrize("bad", BAD)
def test_a_device_looks_without_being_read_back(backend: str, bad: float) -> None:
    scorer, tokens = scorer_of("hashed", backend), np.arange(LENGTH + 1).astype(np.uint16)
    p = np.full(LENGTH, 0.2)
    p[[40, 30]] = bad
    scorer.score(tokens, WINDOWS, Stats(p, np.ones(LENGTH, np.float32)))
    with pytest.raises(InputError, match="at position 30 "):
        scorer.tally()


@pytest.mark.parametrize("bad", BAD)
def test_a_tally_looks_at_what_it_adds(bad: float) -> None:
    fine, order = np.full(3, 0.5), np.zeros(3, np.uint8)
    wrong = np.array([0.5, bad, bad])
    for p, neural in ((wrong, fine), (fine, wrong)):
        tally = Tally()
        with pytest.raises(InputError, match=f"at position 8 is {bad}"):
            tally.add(p, neural, order, lambda: np.array([7, 8, 9]))
        assert tally == Tally()
    with pytest.raises(InputError, match=f"at position 1 is {bad}"):
        check_charges(wrong)
    with pytest.raises(InputError, match=f"at position 77 is {bad}"):
        Tally().add_vocabulary(wrong, 77)
    check_charges(np.zeros(0))


def test_a_little_more_than_1_is_charged_as_1() -> None:
    p = np.array([1 + 2.0**-52, 1 + 1e-12, 1 + 1e-6, 1.001, P_MOST, 1.0])
    tally = Tally()
    tally.add(p, p, np.zeros(len(p), np.uint8))
    assert (tally.nats, tally.neural_nats) == (0, 0)
    with pytest.raises(InputError, match="at position 0 is 1"):
        tally.add(np.array([np.nextafter(P_MOST, 2)]), np.ones(1), np.zeros(1, np.uint8))


# From outside


@pytest.mark.parametrize("name", ["hashed", "exact"])
@few
@given(tokens=tokens_of, p=st.lists(st.sampled_from([*EDGES, 0.3]), min_size=LENGTH, max_size=LENGTH))
def test_scores(tmp_path: Path, evaluate: Callable[..., Any], name: str, tokens: Any, p: list[float]) -> None:
    write_shard(tmp_path / "data.bin", tokens)
    np.savez(tmp_path / "scores.npz", p_target=np.array(p), entropy=np.ones(LENGTH, np.float32))
    arguments = ("--data", tmp_path / "data.bin", "--scores", tmp_path / "scores.npz", "--seq-len", 16, "--stride", 8)
    run = evaluate(*arguments, "--preset", name, "--max-order", 7, "--quiet")[name]
    assert 0 <= run["nats"] <= LENGTH * 69.1
    assert run["neural_nats"] == pytest.approx(float(nats_of(np.array(p)).sum()), abs=1e-9)


@pytest.mark.parametrize("name", [name for name in WITHOUT_TOKENIZER if name not in ("neural", "fixed tilt")])
@few
@given(tokens=tokens_of, rows=rows_of_edges())
def test_logits(name: str, tokens: Any, rows: Rows) -> None:
    with np.errstate(divide="ignore"):
        logits = np.log(rows)
    config = replace(METHODS[name], window=WindowConfig(seq_len=16, stride=8))
    found = evaluate(logits, tokens, config, backend="cpu")
    assert 0 <= found.nats <= LENGTH * 69.1
    assert 0 <= found.neural_nats <= LENGTH * 69.1


@pytest.mark.parametrize("name", ["exact", "tilt", "chain and tilt", "mixer"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
@few
@given(tokens=tokens_of, rows=rows_of_edges(LENGTH + 1))
def test_a_memory(name: str, backend: str, tokens: Any, rows: Rows) -> None:
    memory = NgramMemory(METHODS[name], vocabulary=VOCABULARY, backend=backend)
    try:
        memory.observe(tokens, rows)
        blended = memory.distribution(rows[0])
    except InputError as error:
        if "tilt" not in name or not named(error):
            raise
        return
    assert np.isfinite(blended).all()
    assert blended.min() >= 0
    assert blended.max() <= P_MOST
    if "tilt" not in name:
        assert blended.sum() == pytest.approx(rows[0].sum(), abs=2e-6)


def test_a_memory_names_what_a_tilt_cannot_share_out() -> None:
    """The others are scaled by what the hint leaves over what it left: here 0.0005 over 1e-16."""
    memory = NgramMemory("tilt")
    memory.observe([1, 2, 1, 2, 1])
    for _ in range(3):
        memory.observe([2, 1], np.full((2, 4), 0.25))
    with pytest.raises(InputError, match=r"the blend at position 10 is [0-9.]+, which is not a probability"):
        memory.distribution(np.array([0.0005, 0.0, 1 - 2.0**-53, 0.0004]))
