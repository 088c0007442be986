"""The benchmarks run at toy size, so that they do not rot."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import (
    blends,
    byte_mixtures,
    codec,
    collisions,
    demo,
    exact_counts,
    export_sizes,
    forward_once,
    hashed_counts,
    last_block,
    long_stream,
    memory,
    mixer,
    mixer_speed,
    scaling,
    small_training,
    training,
)
from benchmarks.gpu import bench, peers
from benchmarks.gpu.prediction import Assumptions, Sizes, kernels, predict
from benchmarks.limits import random_increments
from benchmarks.limits.keys import RandomKeys
from benchmarks.machine import KEPT_FROM, publish
from ngram_eval.config import DEFAULT_PRESETS, preset
from ngram_eval.kernels import buckets
from ngram_eval.kernels.runtime import INTERPRETED
from ngram_eval.scorers.hashed.reference import ReferenceCounts
from ngram_eval.text.shards import write_shard
from tests.support.host_cuda import compiler
from tests.support.places import ROOT, SAMPLE_PATH
from tests.support.streams import Stream

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
interpreted = pytest.mark.skipif(not INTERPRETED, reason="benchmarks/gpu/suite.sh runs it where there is a GPU")


@needs_compiler
def test_hashed_counts(tmp_path: Path) -> None:
    shard = tmp_path / "toy_000000.bin"
    write_shard(shard, (np.random.default_rng(0).zipf(1.3, 8_000) % 1024).astype(np.uint16))
    text = hashed_counts.measure(hashed_counts.Options(data=(str(shard),), toy=True))
    assert "| fused call to published numpy |" in text
    assert "## Which memory level binds" in text


@needs_compiler
def test_random_increments_are_as_many_as_asked_for() -> None:
    counts = np.zeros((4, 256), np.uint32)
    random_increments(counts, 5000, 32)
    assert counts.sum() == 5000
    assert (counts > 0).mean() > 0.9
    for increments, ahead in ((1, 1 << 63), (1, -1), (-1, 1), (1 << 62, 1)):
        with pytest.raises(ValueError, match="requested"):
            random_increments(counts, increments, ahead)
    bad: list[Any] = [counts[:3], counts[:, :128], counts.astype(np.int64), counts[:0]]
    for wrong in bad:
        with pytest.raises(ValueError, match="counts"):
            random_increments(wrong, 1, 1)


@needs_compiler
def test_random_keys_are_found_once_they_are_added() -> None:
    keys = RandomKeys(on_host=True, device=0, slots=1 << 10, lanes=2)
    keys.add(0, 700)
    keys.find(600, 800)
    assert keys.found() == 100
    for begin, end in ((0, 1 << 10), (2, 1), (-1, 1), (0, 1 << 63)):
        with pytest.raises(ValueError, match="keys"):
            keys.add(begin, end)
    for slots, lanes in ((1000, 2), (4, 2), (1 << 10, 3)):
        with pytest.raises(ValueError, match="give"):
            RandomKeys(on_host=True, device=0, slots=slots, lanes=lanes)


def test_last_block_notices_logits_that_differ_or_are_nan() -> None:
    good = torch.zeros(2, 3)
    assert last_block.largest_difference([good, good, good + 1]) == 1
    for bad in ([good, good, good / 0], [good, good / 0, good], [good / 0, good, good]):
        assert not last_block.largest_difference(bad) <= 1


def test_last_block() -> None:
    text = last_block.measure(last_block.Options(toy=True, stride=8))
    assert text.count("| last block and head at scored positions |") == 2


@pytest.mark.slow
def test_forward_once() -> None:
    text = forward_once.measure(forward_once.Options(toy=True))
    assert text.count("| banded, chunks of 1,024") == 1 + 2 + 1
    assert text.count("| windows, stride 32 |") == 3


def test_codec(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"to be or not to be, that is the question\n" * 30)
    options = codec.Options(files=(text,), known=("text,elsewhere,120,2.5", "other,elsewhere,1,1"))
    result = codec.measure(options)
    assert result.count("| codec, `") == 3
    assert "| 1,024 | " in result
    assert result.count("| elsewhere (measured elsewhere) | 120 | ") == 1


def test_codec_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    text, plots = tmp_path / "text", (tmp_path / "one.svg", tmp_path / "two.svg")
    text.write_bytes(b"any")
    sizes = [codec.Size("codec, `exact`, `train`", 2, (0.5, 0.5), 1), codec.Size("zpaq -m5", 3, (9.0, 9.0))]
    for plot in plots:
        codec.draw(plot, {text: sizes})
    assert plots[0].read_bytes() == plots[1].read_bytes()
    codec.draw(plots[1], {text: sizes[:1]})
    assert plots[0].read_bytes() != plots[1].read_bytes()


@pytest.mark.slow
def test_demo() -> None:
    text = demo.measure(demo.Options(toy=True))
    assert text.count("| the evaluator's own time, ") == len(DEFAULT_PRESETS)


def test_publishing_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    out = tmp_path / "result.md"
    publish("# Old figures\n", out)
    out.write_text(out.read_text() + KEPT_FROM + "By hand.\n")
    publish("# New figures\n", out)
    assert out.read_text() == "# New figures\n" + KEPT_FROM + "By hand.\n"


def test_collisions(tmp_path: Path) -> None:
    options = collisions.Options(toy=True)
    positions, lines, beside = collisions.measure_all(options)
    sizes = sorted(lines)
    assert [lines[size].claimed for size in sizes] == sorted(line.claimed for line in lines.values())
    sums = [lines[size].vocabulary_sum for size in sizes] + [line.vocabulary_sum for line in beside.values()]
    assert sums == sorted(sums, reverse=True)
    assert sums[-1] == pytest.approx(1, abs=1e-6)
    assert collisions.report(options, positions, lines, beside).count("| 2^") == 3
    pytest.importorskip("matplotlib")
    collisions.draw(tmp_path / "c.svg", lines, beside)
    assert "svg" in (tmp_path / "c.svg").read_text()[:300]


@pytest.mark.slow
def test_byte_mixtures(tmp_path: Path) -> None:
    found = list(byte_mixtures.measure(byte_mixtures.Options(toy=True, text=SAMPLE_PATH)))
    for one in found:
        assert all(line.vocabulary_sum > 1.05 for name, line in one.published.items() if "blind" in name)
        assert all(line.vocabulary_sum < 1 + 1e-9 for name, line in one.marginal.items() if "blind" in name)
        for line in one.beside.values():
            assert line.vocabulary_sum == pytest.approx(1, abs=1e-6)
            assert line.renormalised == pytest.approx(line.at_samples, abs=1e-6)
    assert byte_mixtures.report(found).count("| preset `mixer` |") == 2
    pytest.importorskip("matplotlib")
    byte_mixtures.draw(tmp_path / "b.svg", found[0])
    assert "svg" in (tmp_path / "b.svg").read_text()[:300]


def test_exact_counts_are_those_of_tables_without_collisions(stream: Stream) -> None:
    tokens = stream.tokens[:600]
    config = replace(preset("pr890").ngram, buckets=1 << 24, max_order=5)
    exact, tables = collisions.DictionaryCounts(config), ReferenceCounts(config)
    firsts, stops = np.arange(0, 590, 10), np.arange(10, 600, 10)
    for found, expected in (
        (exact.score_windows(tokens, firsts, stops), tables.score_windows(tokens, firsts, stops)),
        (exact.lookup_targets(tokens, 400, 50), tables.lookup_targets(tokens, 400, 50)),
    ):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@interpreted
@pytest.mark.slow
def test_gpu_bench_measures_everything(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        bench.main()
    text = capsys.readouterr().out
    assert done.value.code == 0, text
    assert "dry run" in text
    for kernel in kernels(Assumptions(), Sizes()):
        assert re.search(rf"^\| {kernel}\b.* \| [\d,.]+ \(.*x\) \| [\d,.]+ \(.*x\) \| ", text, re.MULTILINE), kernel
    assert text.count("| dry run, ") == 4
    assert re.search(r"^\| blocks \| no \| [\d.]+ \| [\d,.]+ \|$", text, re.MULTILINE)


@interpreted
@pytest.mark.slow
def test_gpu_bench_reports_what_differs_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "lookup", lambda *arguments: torch.zeros(8, 2, bench.TOY.lookup).int())
    monkeypatch.setattr(buckets, "list_buckets", lambda *arguments: 1 / 0)
    with pytest.raises(SystemExit) as done:
        bench.main()
    text = capsys.readouterr().out
    assert done.value.code == 1
    assert "### lookup, against PyTorch\n" in text
    assert "AssertionError: Tensor-likes are not equal" in text
    assert "### bucket\n" in text
    assert "ZeroDivisionError" in text
    assert len(re.findall(r"^\| .*FAILED", text, re.MULTILINE)) == 2
    assert text.count("| dry run, ") == 4


def test_the_documents_have_the_predictions() -> None:
    """As the formulas give them, and no other figures; what was measured may stand beside them."""
    rows = [line for line in predict(Assumptions()).splitlines() if re.match(r"\| (?!kernel|\|)", line)]
    assert len(rows) == 6 + 2
    kept = (ROOT / "benchmarks/results/gpu_prediction.md").read_text("utf-8")
    page = (ROOT / "docs/gpu.md").read_text("utf-8")
    for row in rows:
        name, figures = row[2:].split(" | ", 1)
        assert row in kept
        assert re.search(rf"^\| `?{re.escape(name)}`? \| .*{re.escape(figures)}|^{re.escape(row)}$", page, re.MULTILINE)


@pytest.mark.slow
def test_gpu_suite_dry_run(tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    script = ROOT / "benchmarks/gpu/suite.sh"
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([script, "--dry-run", report], check=True, env=environment)
    text = report.read_text()
    assert text.startswith("# DRY RUN")
    assert re.search(r"^    \d+ passed", text, re.MULTILINE)
    assert "FAILED" not in text
    assert "skipped" not in text


@pytest.mark.slow
def test_scaling(tmp_path: Path) -> None:
    options = scaling.Options(toy=True, plot=tmp_path / "curves.svg")
    groups, evaluations = scaling.measure(options)
    text = scaling.report(options, groups, evaluations)
    assert text.count("| 2 | 20,000 | 2^10 | scan |") == 2
    (scanned,) = [case for case in groups["Tables"] if case.way == "scan" and case.log_buckets == 10]
    assert scanned.sent == 8 * 2 * 4 * 2**10  # twice half of the tables
    assert scanned.loopback == 0 or scanned.loopback >= 2 * scanned.sent
    assert text.count("| scores from a file | hashed | pipelined | 2 | ") == 1
    pytest.importorskip("matplotlib")
    scaling.draw(tmp_path / "curves.svg", groups)
    assert "svg" in (tmp_path / "curves.svg").read_text()[:300]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_long_stream() -> None:
    text = long_stream.measure(long_stream.Options(toy=True))
    assert text.startswith("# A long stream")
    assert "1,000,000 tokens (2 MiB) in 1 shard(s)" in text


@needs_compiler
def test_exact_counts(tmp_path: Path) -> None:
    shard = tmp_path / "toy_000000.bin"
    write_shard(shard, (np.random.default_rng(0).zipf(1.3, 8_000) % 1024).astype(np.uint16))
    options = exact_counts.Options(data=(str(shard),), tokens=(2_000, 8_000), rounds=1)
    text = exact_counts.measure(options)
    assert text.count(" M | ") >= 2
    assert "A whole distribution over 1024 tokens" in text


@pytest.mark.slow
def test_blends() -> None:
    """Exact counts beat every fixed weight, PR #890's gate and the tilt, on the embedded sample too."""
    text = blends.measure(blends.Options())
    bpb = {name: float(value) for name, value in re.findall(r"^\| (.+?) \| ([\d.]+) \|", text, re.MULTILINE)}
    rivals = [value for name, value in bpb.items() if not name.startswith("exact")]
    assert bpb["exact"] < 0.98 * min(rivals)


def test_training() -> None:
    text = training.measure(training.Options(toy=True))
    assert text.count(" steps in 600 s |") == 3
    assert "| Muon | " in text
    assert "| published step | 116 ms: 5,172 steps in 600 s, 6.78 M tokens/s, " in text


def test_export_sizes() -> None:
    text = export_sizes.measure(export_sizes.Options(toy=True))
    errors = {
        row[0]: float(row[-1]) for row in re.findall(r"^\| (.*?) \| ±15 \| yes .* \| ([\d.]+) \|$", text, re.MULTILINE)
    }
    assert errors["Gaussian, std 0.2"] > errors["Gaussian, std 0.5"] > 0  # the floor coarsens narrow weights
    assert text.count("\n| ±15 | ") == len(export_sizes.PENALTIES)


@pytest.mark.slow
def test_training_memory() -> None:
    config = training.configuration(training.Options())
    assert training.peak_mebibytes(config, "recipe") > training.peak_mebibytes(replace(config, batch=2), "recipe") > 50


@pytest.mark.slow
def test_small_training(tmp_path: Path) -> None:
    assets = ROOT / "ngram_eval/assets"
    data, tokenizer = str(assets / "sample_000000.bin"), assets / "tokenizer.model"
    schedule = ["--steps", "4", "--warmdown-steps", "4", "--swa-every", "1", "--swa-below", "1"]
    flags = ["--data", data, *schedule, "--folder", str(tmp_path / "run")]
    train = [sys.executable, "-m", "ngram_eval.train", *flags, "--out", str(tmp_path / "m.ngev")]
    subprocess.run(train, check=True)
    options = small_training.Options(
        folder=tmp_path / "run",
        artifact=tmp_path / "m.ngev",
        data=data,
        tokenizer=tokenizer,
        command=" ".join(train),
        max_tokens=1025,
        compared_tokens=1025,
    )
    text = small_training.measure(options)
    assert len(re.findall(r"^\| 32 \| (hashed|pr890) \| .* \(score, not normalised\) ", text, re.MULTILINE)) == 2
    assert re.search(r"^\| 32 \| exact \| .* \(bits per byte\) \| 1.0000 \|$", text, re.MULTILINE)
    assert text.count("| ema | ±") == 8


def test_memory() -> None:
    text = memory.measure(memory.Options(vocabularies=(1024, 70_000), observed=500, steps=3))
    assert text.count("\n| 1,024 |") == text.count("\n| 70,000 |") == 1


def test_pretrained(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")
    from benchmarks import pretrained
    from tests.support import hf_models

    hf_models.save_llama(tmp_path / "model", positions=2100)
    (tmp_path / "text.txt").write_bytes((hf_models.TEXT * 5).encode())
    text = f"again={tmp_path / 'text.txt'}"
    found = pretrained.measure(pretrained.Options(hf=str(tmp_path / "model"), text=(text,), tokens=2048))
    assert found.count("\n| again | ") == len(pretrained.WINDOWS)
    assert "(Σ " in found


def test_mixer() -> None:
    small = mixer.Options(text=SAMPLE_PATH, tokens=2000, windows=(128,), max_tokens=700, long=20_000, adversarial=9_000)
    report = mixer.measure(small)
    rows = [line for line in report.splitlines() if line.startswith("| ")]
    assert sum("contexts: " in row for row in rows) == 37
    assert "| 24 |" in report
    assert "| random |" in report
    assert "Largest weight at the end" in report


def test_mixer_speed() -> None:
    small = mixer_speed.Options(
        text=SAMPLE_PATH, tokens=3000, turn=1000, groups=(10,), vocab_size=300, counted=500, rows=20
    )
    rows = [line for line in mixer_speed.measure(small).splitlines() if line.startswith("| `mixer")]
    assert [row.count("|") for row in rows] == [5, 5, 5, 5]
