"""Exact counts as a scorer: windows, settings, the command line."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ngram_eval import _core
from ngram_eval.bpb import nats_of
from ngram_eval.config import MAX_EXACT_ORDER, EvalConfig, ExactConfig, NgramConfig, preset
from ngram_eval.errors import InputError
from ngram_eval.models.saved_scores import SavedScores
from ngram_eval.models.source import Stats
from ngram_eval.scorers.exact.model import make_model
from ngram_eval.scorers.make import check_source, make_scorer
from ngram_eval.text.windows import plan_windows
from tests.support.evaluator import Evaluate
from tests.support.exact import ENTROPY, TWO
from tests.support.streams import Stream


def test_a_tilt_says_what_it_needs(stream: Stream) -> None:
    with pytest.raises(ValueError, match="whole base distributions"):
        make_model("cpu", 4, ExactConfig(tilt="learned")).score(TWO, np.ones(2), ENTROPY, together=False)
    with pytest.raises(InputError, match="only the target's probability is known"):
        check_source(preset("tilt"), SavedScores(stream.p_target, stream.entropy))


@pytest.mark.parametrize(
    ("make", "flag"),
    [
        (lambda: NgramConfig(max_order=MAX_EXACT_ORDER + 1), "max_order"),
        (lambda: replace(preset("hashed"), ngram=NgramConfig(max_order=10)), "preset exact goes to 32"),
        (lambda: replace(preset("exact"), ngram=NgramConfig(target_backoff=True)), "target_backoff"),
        (lambda: ExactConfig(chain=False), "chain"),
        (lambda: ExactConfig(tilt="learned", by_window=True), "by_window"),
        (lambda: ExactConfig(tilt_confidence=1.5), "tilt_confidence"),
    ],
)
def test_settings_that_do_not_go_together(make: Callable[[], object], flag: str) -> None:
    with pytest.raises(InputError, match=flag):
        make()


def test_the_highest_order_is_the_extension_s() -> None:
    make_model("cpu", MAX_EXACT_ORDER, ExactConfig())
    with pytest.raises(ValueError, match="give 1 to 32"):
        _core.ExactModel(max_order=MAX_EXACT_ORDER + 1, chain=True, tilt="off", tilt_factor=1, tilt_confidence=0)


def nats(stream: Stream, config: EvalConfig, stride: int) -> float:
    window = replace(config.window, seq_len=256, stride=stride)
    windows = plan_windows(2816, window)
    scorer = make_scorer("cpu", replace(config, window=window))
    stats = Stats(stream.p_target[:2816], stream.entropy[:2816])
    return float(nats_of(scorer.score(stream.tokens, windows, stats).values).sum())


def test_windows_matter_only_where_they_are_counted_as_a_whole(stream: Stream) -> None:
    config = preset("exact")
    assert nats(stream, config, 8) == nats(stream, config, 64)
    whole = replace(config, exact=ExactConfig(by_window=True))
    assert nats(stream, config, 8) < nats(stream, whole, 8) < nats(stream, whole, 64)


def test_windows_come_in_stream_order(stream: Stream) -> None:
    windows = plan_windows(2816, preset("exact").window)
    scorer = make_scorer("cpu", preset("exact"))
    with pytest.raises(ValueError, match="0 is next, not 2048"):
        scorer.score(stream.tokens, windows[1:], Stats(stream.p_target[:768], stream.entropy[:768]))


def test_command_line(stream: Stream, evaluate: Evaluate) -> None:
    runs = evaluate(
        "--data", stream.shard, "--scores", stream.scores, "--seq-len", 256, "--preset", "exact", "--preset", "hashed"
    )
    exact, hashed = runs["exact"], runs["hashed"]
    assert exact["normalised"]
    assert not hashed["normalised"]
    assert exact["positions"] == hashed["positions"] == 2816
    assert exact["nats"] == pytest.approx(nats(stream, preset("exact"), 32), rel=1e-12)
    assert exact["hits"] == sum(exact["hits_by_order"].values()) > hashed["hits"]  # no least count, no least order
    assert exact["vocabulary_sum"] is None


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_command_line_of_the_tilt(stream: Stream, evaluate: Evaluate, backend: str) -> None:
    run = evaluate(
        "--data", stream.shard, "--uniform", "--vocab-size", 50, "--preset", "tilt", "--seq-len", 256,
        "--max-tokens", 513, "--backend", backend,
    )["tilt"]  # fmt: skip
    assert run["normalised"]
    assert run["vocabulary_sum"] == pytest.approx(1, abs=1e-12)
    assert run["nats"] < run["neural_nats"]


def test_presets_that_need_one_rank_and_the_host(
    stream: Stream, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", stream.shard, "--scores", stream.scores)
    triton = (*data, "--seq-len", 256, "--max-tokens", 600, "--backend", "triton")
    assert list(evaluate(*triton)) == ["pr890", "hashed"]
    assert "Left out exact" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate(*triton, "--preset", "exact")
    assert "it needs --backend cpu or reference" in capsys.readouterr().err
