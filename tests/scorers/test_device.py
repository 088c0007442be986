"""`--backend triton` and `cuda`: the whole evaluator on kernels, against the other backends."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from ngram_eval.bpb import as_nats
from ngram_eval.config import EvalConfig, WindowConfig, preset
from ngram_eval.errors import InputError
from ngram_eval.evaluation.profile import Profile
from ngram_eval.extensions import load_cuda
from ngram_eval.kernels.runtime import kernel_device
from ngram_eval.models.saved_scores import SavedScores
from ngram_eval.models.source import NeuralStats, Stats
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.models.transformer_source import TransformerSource
from ngram_eval.scorers.hashed.device_scorer import CudaScorer, DeviceScorer, TritonScorer
from ngram_eval.scorers.hashed.gate import GatedBackoff
from ngram_eval.scorers.hashed.reference import ReferenceCounts
from ngram_eval.scorers.hashed.scorer import HashedScorer
from ngram_eval.scorers.make import make_scorer
from ngram_eval.text.stream import Tokens
from ngram_eval.text.windows import Windows, batches, plan_windows
from tests.support.evaluator import Evaluate
from tests.support.streams import Stream

SMALL = ModelConfig(vocab_size=50, width=32, layers=3, heads=2, kv_heads=2, value_layers=(2,))


def windows_of(stream: Stream, rescore_tail: bool) -> Windows:
    return plan_windows(2816, WindowConfig(seq_len=256, stride=24, rescore_tail=rescore_tail))


def scorer_on(backend: str, config: EvalConfig, at_once: int) -> DeviceScorer:
    """`at_once` is of triton's launches; a launch of cuda's takes whatever it is given."""
    return CudaScorer(config) if backend == "cuda" else TritonScorer(config, at_once)


@pytest.mark.parametrize(
    ("backend", "at_once", "name"),
    [
        pytest.param("triton", 1, "hashed", marks=pytest.mark.slow),
        pytest.param("triton", 100, "pr890", marks=pytest.mark.slow),
        *(("triton", 1024, "hashed"), ("triton", 1024, "pr890")),
        *(("cuda", 0, "hashed"), ("cuda", 0, "pr890")),
    ],
)
def test_scores_like_the_reference_however_many_windows_at_once(
    stream: Stream, name: str, backend: str, at_once: int
) -> None:
    """Window by window in launches of their own (the plainly safe form), many compared with each other, or one launch.

    The charge of a position differs from the host's by rounding of exp and log alone: 1e-12 of the sum.
    """
    config = preset(name)
    config = replace(config, ngram=replace(config.ngram, buckets=256))
    source = SavedScores(stream.p_target, stream.entropy)
    device = scorer_on(backend, config, at_once)
    host = HashedScorer(ReferenceCounts(config.ngram), GatedBackoff(config.gate))
    for scorer in (device, host):
        scorer.prefill(stream.tokens, 0, 130, lambda positions: None)
        for batch in batches(windows_of(stream, config.window.rescore_tail), 64):
            scorer.score(stream.tokens, batch, source.stats(stream.tokens, batch))
    found, expected = device.tally(), host.tally()
    assert as_nats(found.nats) == pytest.approx(as_nats(expected.nats), rel=1e-12)
    assert as_nats(found.neural_nats) == pytest.approx(as_nats(expected.neural_nats), rel=1e-12)
    assert found.positions == expected.positions
    assert found.hits_by_order == expected.hits_by_order
    assert len(found.hits_by_order) == 8


@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_the_sum_depends_on_neither_batches_nor_launches(stream: Stream, backend: str) -> None:
    """Bit for bit: sums are integers, and each position's charge is computed alone."""
    config = preset("hashed")
    config = replace(config, ngram=replace(config.ngram, buckets=256))
    source = SavedScores(stream.p_target, stream.entropy)
    tallies = []
    for at_once, windows in ((64, 1000), (1024, 1000), (1024, 20)):
        scorer = scorer_on(backend, config, at_once)
        for batch in batches(windows_of(stream, False), windows):
            scorer.score(stream.tokens, batch, source.stats(stream.tokens, batch))
        tallies.append(scorer.tally())
    assert all(tally == tallies[0] for tally in tallies)


@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_nothing_scored_is_nothing_charged(backend: str) -> None:
    tally = make_scorer(backend, replace(preset("hashed"), ngram=replace(preset("hashed").ngram, buckets=2))).tally()
    assert (tally.nats, tally.positions, tally.hits_by_order) == (0, 0, {})


@pytest.mark.parametrize("backend", ["triton", "cuda"])
@pytest.mark.parametrize("name", ["p_target", "entropy"])
def test_nan_statistics_are_an_error_that_names_the_first_position(stream: Stream, name: str, backend: str) -> None:
    config = preset("hashed")
    config = replace(config, ngram=replace(config.ngram, buckets=256))
    bad = [2000, 1234, 1235]
    p_target, entropy = stream.p_target.copy(), stream.entropy.copy()
    if name == "p_target":
        p_target[bad] = np.nan
    else:
        entropy[bad] = np.nan
    scorer = scorer_on(backend, config, 1024)
    windows = windows_of(stream, False)
    scorer.score(stream.tokens, windows, Stats(p_target[:2816], entropy[:2816]))
    with pytest.raises(InputError, match="position 1234 are NaN"):
        scorer.tally()


def statistics(model: Transformer, use_kernels: bool, tokens: Tokens, windows: Windows) -> NeuralStats:
    """On one device either way, so that the logits are the same."""
    source = TransformerSource(
        model,
        train_seq_len=64,
        batch_windows=4,
        device=kernel_device(),
        dtype=torch.float32,
        use_kernels=use_kernels,
    )
    return source.stats(tokens, windows)


def test_the_model_source_reduces_logits_alike_on_both_paths(stream: Stream) -> None:
    torch.manual_seed(0)
    model = Transformer(SMALL)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    (windows,) = batches(plan_windows(256, WindowConfig(seq_len=64, stride=64))[1:], 8)
    host, device = (statistics(model, use_kernels, stream.tokens, windows) for use_kernels in (False, True))
    np.testing.assert_allclose(device.p_target, host.p_target, rtol=2e-5)
    np.testing.assert_allclose(device.entropy, host.entropy, rtol=2e-5)
    assert device.p_target.std() > 0.01


def test_the_model_source_gives_whole_distributions(stream: Stream) -> None:
    """Their entries of the targets are what is charged for, bit for bit."""
    torch.manual_seed(0)
    model = Transformer(SMALL)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    source = TransformerSource(
        model, train_seq_len=64, batch_windows=4, device=torch.device("cpu"), dtype=torch.float32
    )
    (windows,) = batches(plan_windows(256, WindowConfig(seq_len=64, stride=64))[1:], 8)
    probabilities = source.probabilities(stream.tokens, windows)
    assert probabilities.shape == (192, 50)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    targets = stream.tokens[windows.positions() + 1]
    assert (probabilities[np.arange(192), targets] == source.stats(stream.tokens, windows).p_target).all()
    with torch.no_grad():
        model.embedding[3] = float("nan")
    with pytest.raises(InputError, match="are NaN"):
        source.probabilities(stream.tokens, windows)


def test_a_model_of_nan_is_an_error_on_both_paths(stream: Stream) -> None:
    model = Transformer(SMALL)
    with torch.no_grad():
        model.embedding[3] = float("nan")
    windows = plan_windows(64, WindowConfig(seq_len=64))
    with pytest.raises(InputError, match=r"position \d+ are NaN.*dtype float32"):
        statistics(model, False, stream.tokens, windows)
    scorer = TritonScorer(replace(preset("hashed"), ngram=replace(preset("hashed").ngram, buckets=2)))
    with np.errstate(invalid="ignore"):
        scorer.score(stream.tokens, windows, statistics(model, True, stream.tokens, windows))
        with pytest.raises(InputError, match="are NaN"):
            scorer.tally()


@pytest.mark.parametrize("backend", ["triton", "cuda"])
@pytest.mark.parametrize("name", ["hashed", "pr890"])
def test_evaluator_on_scores(stream: Stream, evaluate: Evaluate, name: str, backend: str) -> None:
    arguments = ["--data", stream.shard, "--scores", stream.scores, "--seq-len", 256, "--buckets", 512]
    cpu, device = (evaluate(*arguments, "--preset", name, "--backend", b)[name] for b in ("cpu", backend))
    assert device["backend"] == backend
    for key in ("nats", "neural_nats"):
        assert device[key] == pytest.approx(cpu[key], rel=1e-12)
    for key in ("positions", "hits_by_order", "normalised", "vocabulary_sum"):
        assert device[key] == cpu[key]
    one, other = (Profile.unpacked(run["profile"]) for run in (device, cpu))
    assert np.abs(one.along - other.along).max() <= 256, "a unit a position, at most"
    assert one.along[:, 3].tolist() == other.along[:, 3].tolist()
    assert device["gain_by_order"] is None, "orders stay on the device"
    assert cpu["gain_by_order"]


@pytest.mark.parametrize("backend", ["cuda"])
def test_evaluator_with_exact_counts_on_the_device(stream: Stream, evaluate: Evaluate, backend: str) -> None:
    """To the same bits: the counts are, and the weights are the host's either way."""
    arguments = ["--data", stream.shard, "--scores", stream.scores, "--seq-len", 256, "--preset", "exact"]
    for flags in ((), ("--by-window",)):
        cpu, device = (evaluate(*arguments, *flags, "--backend", b)["exact"] for b in ("cpu", backend))
        assert device["backend"] == backend
        for key in ("nats", "neural_nats", "positions", "hits_by_order", "normalised", "vocabulary_sum"):
            assert device[key] == cpu[key]


@pytest.mark.parametrize("backend", ["cuda"])
def test_the_tilt_stays_on_the_host(
    stream: Stream, evaluate: Evaluate, capsys: pytest.CaptureFixture[str], backend: str
) -> None:
    data = ("--data", stream.shard, "--uniform", "--vocab-size", 50, "--seq-len", 256, "--max-tokens", 513)
    with pytest.raises(SystemExit):
        evaluate(*data, "--preset", "tilt", "--backend", backend)
    assert "--preset tilt learns position by position: it needs --backend cpu or reference" in capsys.readouterr().err
    assert list(evaluate(*data, "--backend", backend)) == ["pr890", "hashed", "exact"]


@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_evaluator_on_the_embedded_model(evaluate: Evaluate, backend: str) -> None:
    """Kernels and torch sum the same float32 logits in another order: 1e-6 of the nats. Hits are exact."""
    arguments = ["--max-tokens", 1025, "--preset", "hashed", "--batch-windows", 4, "--dtype", "float32"]
    arguments += ["--stride", 128, "--buckets", 4096]  # the interpreter copies whole tables at every launch
    cpu, device = (evaluate(*arguments, "--backend", b)["hashed"] for b in ("cpu", backend))
    for key in ("nats", "neural_nats", "val_bpb"):
        assert device[key] == pytest.approx(cpu[key], rel=1e-6)
        assert device[key] != cpu[key], "the kernels were not used"
    assert device["hits_by_order"] == cpu["hits_by_order"]
    assert device["positions"] == 1024


def test_evaluator_remembers_statistics_of_kernels(evaluate: Evaluate) -> None:
    arguments = ["--max-tokens", 513, "--batch-windows", 4, "--backend", "triton", "--dtype", "float32"]
    arguments += ["--stride", 128, "--buckets", 4096]
    both = evaluate(*arguments, "--preset", "hashed", "--preset", "pr890")
    alone = evaluate(*arguments, "--preset", "pr890")["pr890"]
    assert both["pr890"]["neural_reused"] > 0
    assert both["pr890"]["nats"] == pytest.approx(alone["nats"], rel=1e-6)


@pytest.mark.parametrize("backend", ["cuda"])
def test_tensors_of_another_form_are_refused(backend: str) -> None:
    core, device = load_cuda()
    hashed = core.HashedTables(
        device=0, min_order=2, max_order=3, buckets=16, min_count=1, context_lag=0, target_backoff=False
    )
    tables = torch.zeros((2, 2, 16), dtype=torch.int32, device=device)
    tokens = torch.zeros(20, dtype=torch.uint16, device=device)
    for wrong, message in (
        ((tables.long(), tokens, 0, 0, 19), "tables must be int32, not torch.int64"),
        ((tables[:1], tokens, 0, 0, 19), "tables must have 64 entries, not 32"),
        ((tables.transpose(1, 2), tokens, 0, 0, 19), "tables must be contiguous"),
        ((tables, tokens.long(), 0, 0, 19), "tokens must be uint16 or int32"),
        ((tables, tokens, 0, 0, 20), r"positions \[0, 20\) read outside the tokens \[0, 20\)"),
        ((tables, tokens, 5, 5, 19), r"read outside the tokens \[5, 25\)"),
        ((tables, None, 0, 0, 19), "tokens must be a tensor"),
    ):
        with pytest.raises(ValueError, match=message):
            hashed.update(0, *wrong)
    if torch.cuda.is_available():
        with pytest.raises(ValueError, match="tables is on cpu, not in the memory of GPU 0"):
            hashed.update(0, tables.cpu(), tokens, 0, 0, 19)
    assert not tables.any()


@pytest.mark.usefixtures("evaluate")  # so that it is skipped where the command line can't run
@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_without_a_gpu_the_backend_says_so() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "ngram_eval.run", "--backend", "triton", "--preset", "hashed"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "--backend triton needs a GPU" in done.stderr
    assert "TRITON_INTERPRET=1" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on the GPU here")
def test_a_model_on_another_device_than_the_kernels_is_refused(
    evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        evaluate("--backend", "triton", "--device", "meta", "--max-tokens", 300)
    assert "--device is meta, but --backend triton runs on cpu" in capsys.readouterr().err
