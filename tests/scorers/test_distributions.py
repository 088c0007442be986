"""What every scorer says of whole distributions, against what it charges."""

from dataclasses import replace

import numpy as np
import pytest

from ngram_eval.config import EvalConfig, WindowConfig, preset
from ngram_eval.models.source import Stats
from ngram_eval.scorers.base import NeuralScorer, Scorer
from ngram_eval.scorers.make import make_scorer
from ngram_eval.text.windows import Windows, plan_windows
from tests.support.streams import Stream

VOCAB = 50
WINDOWS = plan_windows(2816, WindowConfig(seq_len=256, stride=24))

scorers = pytest.mark.parametrize(
    ("name", "backend"), [*((n, b) for n in ("pr890", "hashed") for b in ("reference", "cpu", "triton")), ("", "")]
)


def empty(name: str, backend: str, buckets: int = 256) -> Scorer:
    """A scorer, its tables crowded; without a name the neural model alone."""
    if not name:
        return NeuralScorer()
    config = preset(name)
    return make_scorer(backend, replace(config, ngram=replace(config.ngram, buckets=buckets)))


def statistics(stream: Stream, windows: Windows) -> Stats:
    positions = windows.positions()
    return Stats(stream.p_target[positions], stream.entropy[positions])


@scorers
def test_the_value_charged_is_the_distribution_s_entry_of_the_target(stream: Stream, name: str, backend: str) -> None:
    scorer, neural = empty(name, backend), np.random.default_rng(0).dirichlet(np.ones(VOCAB))
    for k in (0, 1, 30, 80):
        window = WINDOWS[k : k + 1]
        ends = (0, k) if scorer.window_wise else (k, k)  # the rest of the past does not matter to this test
        past = WINDOWS[ends[0] : ends[1]]
        scorer.score(stream.tokens, past, statistics(stream, past))
        positions = window.positions()[: None if scorer.window_wise else 1]
        shown = [
            scorer.distribution(np.append(stream.tokens[: p + 1], np.uint16(0)), p, neural, float(stream.entropy[p]))
            for p in positions.tolist()
        ]
        targets = stream.tokens[positions + 1]
        stats = Stats(neural[stream.tokens[window.positions() + 1]], stream.entropy[window.positions()])
        charged = scorer.score(stream.tokens, window, stats).values[: len(positions)]
        np.testing.assert_allclose(np.stack(shown)[np.arange(len(shown)), targets], charged, rtol=1e-12)
        assert len(charged) == len(positions)


@scorers
def test_only_a_back_off_that_reads_the_target_depends_on_it(stream: Stream, name: str, backend: str) -> None:
    scorer, neural, position = empty(name, backend, 1 << 14), np.full(VOCAB, 1 / VOCAB), 2000
    past = WINDOWS[WINDOWS.stop <= position]
    scorer.score(stream.tokens, past, statistics(stream, past))
    tokens = stream.tokens.copy()
    free, given = scorer.distribution(tokens, position, neural, 3.0), []
    for target in range(VOCAB):
        tokens[position + 1] = target
        given.append(scorer.given_target(tokens, position, neural, 3.0))
        assert given[-1][target] == free[target]
    differ = any((one != given[0]).any() for one in given)
    assert differ == bool(name)


def test_without_target_backoff_the_order_is_the_context_s(stream: Stream) -> None:
    config: EvalConfig = preset("hashed")
    scorer = make_scorer("cpu", replace(config, ngram=replace(config.ngram, target_backoff=False, buckets=1 << 20)))
    scorer.score(stream.tokens, WINDOWS, statistics(stream, WINDOWS))
    neural = np.full(VOCAB, 1 / VOCAB)
    free = scorer.distribution(stream.tokens, 2900, neural, 3.0)
    assert (free == scorer.given_target(stream.tokens, 2900, neural, 3.0)).all()
    assert free.sum() == pytest.approx(1, abs=1e-12)  # no collisions, no target: a probability


def test_parts_of_statistics(stream: Stream) -> None:
    stats = Stats(stream.p_target, stream.entropy).part(slice(3, 9))
    assert (stats.p_target == stream.p_target[3:9]).all()
    assert (stats.entropy == stream.entropy[3:9]).all()
