"""Whole evaluations: against the published method, on ranks, and whatever the numbers are made of."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ngram_eval.assets import asset
from ngram_eval.bpb import as_nats
from ngram_eval.config import preset
from ngram_eval.distributed.ranks import ALONE, Ranks
from ngram_eval.evaluation import evaluate as evaluation
from ngram_eval.evaluation.job import Job
from ngram_eval.evaluation.settings import CheckpointSettings, HardwareSettings, Settings
from ngram_eval.models.saved_scores import SavedScores
from ngram_eval.text.shards import TokenStream, write_shard
from ngram_eval.timing import Stopwatch
from tests.support.evaluator import Evaluate, fails, small
from tests.support.processes import finish, launch
from tests.support.streams import Stream
from tests.support.torch_threads import torch_threads


@pytest.mark.parametrize("mended", [False, True])
def test_agrees_with_the_published_method(stream: Stream, evaluate: Evaluate, mended: bool) -> None:
    name = "hashed" if mended else "pr890"
    result = evaluate(*small(stream), "--preset", name)[name]
    expected = stream.published(seq_len=256, buckets=512, mended=mended)
    assert result["nats"] == pytest.approx(expected.nats, rel=1e-12)
    assert result["neural_nats"] == pytest.approx(expected.neural_nats, rel=1e-12)
    assert result["positions"] == expected.positions == (2816 if mended else 2816 + 256 - 32)
    assert result["hits_by_order"] == {str(n): expected.hits[n] for n in range(2, 10)}
    assert all(expected.hits.values()), "the stream should match in every order"
    assert result["hits"] == expected.hits.total()
    assert result["hit_rate"] == result["hits"] / result["positions"]
    assert result["val_loss"] == result["nats"] / result["positions"]
    assert result["normalised"] is False


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seq_len=st.integers(1, 200),
    stride=st.integers(1, 200),
    log_buckets=st.integers(0, 12),
    orders=st.tuples(st.integers(1, 9), st.integers(1, 9)).map(sorted),
    min_count=st.integers(1, 4),
    world=st.sampled_from([1, 2, 3, 8]),
    length=st.integers(220, 700),
)
def test_agrees_with_the_published_method_at_any_setting(
    stream: Stream,
    seq_len: int,
    stride: int,
    log_buckets: int,
    orders: list[int],
    min_count: int,
    world: int,
    length: int,
) -> None:
    stride = min(stride, seq_len)
    tokens = stream.tokens[:length]
    config = preset("pr890")
    config = replace(
        config,
        window=replace(config.window, seq_len=seq_len, stride=stride),
        ngram=replace(
            config.ngram,
            buckets=1 << log_buckets,
            min_order=orders[0],
            max_order=orders[1],
            min_count=min_count,
        ),
    )
    source = SavedScores(stream.p_target, stream.entropy)
    job = Job(
        settings=Settings(hardware=HardwareSettings(threads=1, prefill="local")),
        ranks=ALONE,
        stream=TokenStream(tokens, (stream.shard,), length),
        tokenizer=None,
        manifest=None,
        source=source,
        backend="cpu",
    )
    tallies = [
        evaluation.evaluate(
            replace(job, ranks=Ranks(rank, world)), "pr890", config, saving=CheckpointSettings(), clock=Stopwatch()
        ).tally
        for rank in range(world)
    ]
    expected = replace(stream, tokens=tokens).published(
        seq_len=seq_len,
        stride=stride,
        buckets=1 << log_buckets,
        orders=range(orders[0], orders[1] + 1),
        min_count=min_count,
        world=world,
    )
    assert as_nats(sum(tally.nats for tally in tallies)) == pytest.approx(expected.nats, rel=1e-12)
    assert sum(tally.positions for tally in tallies) == expected.positions
    assert sum(sum(tally.hits_by_order.values()) for tally in tallies) == expected.hits.total()


@pytest.mark.parametrize(
    ("world", "prefill"),
    [
        (3, "scan"),
        pytest.param(2, "local", marks=pytest.mark.slow),
        pytest.param(1, "scan", marks=pytest.mark.slow),
        pytest.param(8, "scan", marks=pytest.mark.slow),
    ],
)
def test_torchrun(stream: Stream, evaluate: Evaluate, tmp_path: Path, world: int, prefill: str) -> None:
    """The default presets: `pr890` as published on that many ranks, the others to the bit as on one."""
    out = tmp_path / "torchrun.json"
    flags = [*small(stream), "--batch-windows", 4, "--prefill", prefill]
    code, printed, err = finish(launch(world, *flags, "--json", out))
    assert code == 0, err
    results = {one["preset"]: one for one in json.loads(out.read_text())["runs"]}
    expected = stream.published(seq_len=256, buckets=512, mended=False, world=world)
    assert results["pr890"]["nats"] == pytest.approx(expected.nats, rel=1e-12)
    assert results["pr890"]["positions"] == expected.positions
    assert results["pr890"]["hits"] == expected.hits.total()
    alone = evaluate(*flags)
    for name, ngram in {"pr890": "sharded", "hashed": "sharded", "exact": "pipelined"}.items():
        one = results[name]
        assert one["world_size"] == world
        assert one["ngram"] == ngram
        assert one["depends_on_ranks"] == (name == "pr890")
        assert one["prefill"] == ((prefill if world > 1 else "local") if ngram == "sharded" else None)
        assert one["inputs"] == alone[name]["inputs"]
        for key in ("nats", "neural_nats", "positions", "hits_by_order", "vocabulary_sum", "profile", "gain_by_order"):
            assert one[key] == alone[name][key] or (name == "pr890" and world > 1), (name, key)
    assert printed.count("not normalised") == 1, "one rank reports"
    assert ("pr890: as published, another number of ranks" in printed) == (world > 1)


def test_a_model_gives_the_same_bits_on_two_ranks(evaluate: Evaluate, tmp_path: Path) -> None:
    """All default presets, which answer each other from memory; and the statistics that are saved."""
    out, scores = tmp_path / "two.json", tmp_path / "two.npz"
    flags = ["--max-tokens", 600, "--stride", 64, "--batch-windows", 2, "--buckets", 4096]
    code, _, err = finish(launch(2, *flags, "--json", out, "--save-scores", scores))
    assert code == 0, err
    two = {one["preset"]: one for one in json.loads(out.read_text())["runs"]}
    assert two["exact"]["neural_reused"] == two["hashed"]["neural_reused"] == two["hashed"]["positions"]
    for threads in (1, 2):
        with torch_threads(threads):
            one = evaluate(*flags, "--save-scores", tmp_path / "one.npz")
        for name in ("hashed", "exact"):
            for key in ("nats", "neural_nats", "positions", "bytes", "val_bpb", "hits_by_order", "vocabulary_sum"):
                assert two[name][key] == one[name][key], (name, key, threads)
        assert two["pr890"]["neural_nats"] == one["pr890"]["neural_nats"]
        with np.load(scores) as found, np.load(tmp_path / "one.npz") as expected:
            for key in ("p_target", "entropy", "train_seq_len"):
                assert (found[key] == expected[key]).all(), (key, threads)


@pytest.mark.slow
def test_the_triton_backend_on_two_ranks(stream: Stream, evaluate: Evaluate, tmp_path: Path) -> None:
    """Its tables are scanned where they are."""
    out = tmp_path / "two.json"
    flags = ["--data", stream.shard, "--scores", stream.scores, "--seq-len", 256, "--stride", 128, "--buckets", 64]
    flags += ["--batch-windows", 4, "--preset", "hashed", "--backend", "triton", "--prefill", "scan"]
    code, _, err = finish(launch(2, *flags, "--json", out, environment={"TRITON_INTERPRET": "1"}), timeout=400)
    assert code == 0, err
    (two,) = json.loads(out.read_text())["runs"]
    assert two["prefill"] == "scan"
    one = evaluate(*flags)["hashed"]
    for key in ("nats", "neural_nats", "positions", "hits_by_order"):
        assert two[key] == one[key], key


def test_reference_backend_gives_the_same_bits(stream: Stream, evaluate: Evaluate) -> None:
    fast = evaluate(*small(stream), "--backend", "cpu", "--threads", 2)
    slow = evaluate(*small(stream), "--backend", "reference")
    for name in fast:
        assert slow[name]["backend"] == "reference"
        assert slow[name]["nats"] == fast[name]["nats"]
        assert slow[name]["hits_by_order"] == fast[name]["hits_by_order"]


def test_logits_are_scored_like_the_scores_they_imply(stream: Stream, evaluate: Evaluate, tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (len(stream.tokens) - 1, 50))
    np.save(tmp_path / "l.npy", logits)
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    p_target = p[np.arange(len(p)), stream.tokens[1:]]
    np.savez(tmp_path / "s.npz", p_target=p_target, entropy=-(p * np.log(p)).sum(axis=1))
    common = ["--data", stream.shard, "--seq-len", 256, "--buckets", 512, "--preset", "hashed"]
    expected = evaluate(*common, "--scores", tmp_path / "s.npz")["hashed"]
    found = evaluate(*common, "--logits", tmp_path / "l.npy")["hashed"]
    for key in ("nats", "neural_nats"):
        assert found[key] == pytest.approx(expected[key], rel=1e-7)
    np.save(tmp_path / "l.npy", logits[:, :30])
    with pytest.raises(SystemExit):
        evaluate(*common, "--logits", tmp_path / "l.npy")


def test_logits_may_have_more_columns_than_the_tokenizer_has_tokens(
    evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sizes of vocabularies are often rounded up."""
    flags = ["--data", asset("sample_000000.bin"), "--tokenizer", asset("tokenizer.model"), "--max-tokens", 65]
    flags += ["--seq-len", 64, "--stride", 64, "--preset", "exact", "--logits", tmp_path / "l.npy"]
    np.save(tmp_path / "l.npy", np.zeros((64, 1100), np.float32))
    assert evaluate(*flags)["exact"]["neural_nats"] == pytest.approx(64 * np.log(1100))
    np.save(tmp_path / "l.npy", np.zeros((64, 1000), np.float32))
    assert "l.npy has a vocabulary of 1000 tokens, the tokenizer 1024" in fails(capsys, evaluate, *flags)


def test_uniform_charges_log_v_and_max_tokens_flags_a_subset(stream: Stream, evaluate: Evaluate) -> None:
    arguments = ["--data", stream.shard, "--uniform", "--vocab-size", 64, "--seq-len", 100, "--max-tokens", 1001]
    result = evaluate(*arguments, "--preset", "hashed")["hashed"]
    assert result["subset"] is True
    assert result["tokens"] == 1001
    assert result["positions"] == 1000
    assert result["neural_nats"] == pytest.approx(1000 * np.log(64), rel=1e-12)
    assert result["nats"] != result["neural_nats"]
    whole = evaluate(*arguments[:-2], "--max-tokens", 3000, "--preset", "hashed")["hashed"]
    assert whole["subset"] is False


def test_embedded_default_and_saved_scores(evaluate: Evaluate, tmp_path: Path, capsys: Any) -> None:
    scores = tmp_path / "scores.npz"
    direct = evaluate("--max-tokens", 1200, "--stride", 64, "--buckets", 4096, "--save-scores", scores)
    printed = capsys.readouterr().out
    assert "score (not normalised)" in printed
    assert "bits per byte" in printed
    assert "Subset" in printed
    assert direct["pr890"]["positions"] == 1024 + 256 - 64
    assert direct["hashed"]["neural_reused"] == direct["hashed"]["positions"] == 1024
    assert 1.0 < direct["hashed"]["neural_bpb"] < 2.5
    assert direct["pr890"]["neural_settings"] == {"device": "cpu", "dtype": "float32", "attention": "sdpa"}

    with np.load(scores) as saved:
        assert saved["p_target"].shape == saved["entropy"].shape == (1199,)
        assert saved["p_target"].dtype == np.float64
        assert saved["entropy"].dtype == np.float32
    again = evaluate(
        "--data",
        asset("sample_000000.bin"),
        "--tokenizer",
        asset("tokenizer.model"),
        "--scores",
        scores,
        *("--max-tokens", 1200, "--seq-len", 256, "--stride", 64, "--buckets", 4096, "--preset", "hashed"),
    )
    for key in ("nats", "neural_nats", "positions", "bytes", "hits_by_order", "val_bpb"):
        assert again["hashed"][key] == direct["hashed"][key], key


def test_a_tilt_asks_the_model_for_windows_of_one_shape(evaluate: Evaluate, tmp_path: Path) -> None:
    """Windows are cut at sampled positions; the number must not depend on where."""
    flags = ["--max-tokens", 600, "--stride", 64, "--preset", "tilt"]
    sampled = evaluate(*flags, "--samples", 3)["tilt"]
    (tmp_path / "out.json").rename(tmp_path / "three.json")
    plain = evaluate(*flags, "--samples", 0)["tilt"]
    again = evaluate("--from-result", tmp_path / "three.json")["tilt"]
    assert len(sampled["profile"]["samples"]) == len(again["profile"]["samples"]) == 3
    assert plain["vocabulary_sum"] is None
    assert sampled["vocabulary_sum"] == pytest.approx(1, abs=1e-5)
    assert sampled["nats"] == pytest.approx(plain["nats"], rel=1e-6)


def test_bytes_follow_the_rule_of_the_preset(tmp_path: Path, evaluate: Evaluate) -> None:
    texts = ["the cat sat on the mat. " * 30, "a second document about the dog. " * 30]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(tmp_path / "t"),
        vocab_size=300,
        byte_fallback=True,
        model_type="bpe",
        normalization_rule_name="identity",
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "t.model"))
    tokens = [token for text in texts for token in (processor.bos_id(), *processor.encode(text))]
    write_shard(tmp_path / "d.bin", np.array(tokens, np.uint16))
    targets = (len(tokens) - 1) // 64 * 64
    arguments = ["--data", tmp_path / "d.bin", "--tokenizer", tmp_path / "t.model", "--uniform", "--seq-len", 64]
    hashed = evaluate(*arguments, "--preset", "hashed")["hashed"]
    assert hashed["bytes"] == len(processor.decode(tokens[: targets + 1]).encode())
    assert hashed["val_bpb"] == pytest.approx(hashed["nats"] / np.log(2) / hashed["bytes"], rel=1e-15)
    assert hashed["neural_bpb"] == pytest.approx(hashed["neural_nats"] / np.log(2) / hashed["bytes"], rel=1e-15)
    assert hashed["unknown_targets"] == 0

    published_bytes = 0
    for previous, target in itertools.pairwise(tokens[: targets + 1]):
        piece = processor.id_to_piece(target)
        if processor.is_byte(target):
            published_bytes += 1
        elif not (processor.is_control(target) or processor.is_unknown(target) or processor.is_unused(target)):
            published_bytes += len(piece.removeprefix("▁").encode())
            published_bytes += piece.startswith("▁") and not processor.is_control(previous)
    piece_rule = evaluate(*arguments, "--preset", "hashed", "--byte-rule", "piece")["hashed"]
    assert piece_rule["bytes"] == published_bytes != hashed["bytes"]


def test_bits_per_original_byte_and_the_manifest(tmp_path: Path, evaluate: Evaluate, capsys: Any) -> None:
    text = "ﬁve ﬂat ﬁgures of a ﬁne oﬃce. " * 40  # ligatures, which NFKC takes apart
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    for name, rule in (("nfkc", "nfkc"), ("other", "identity")):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([text] * 3),
            model_prefix=str(tmp_path / name),
            vocab_size=290,
            byte_fallback=True,
            model_type="bpe",
            normalization_rule_name=rule,
            minloglevel=2,
        )
    prepare = [
        sys.executable,
        "-m",
        "ngram_eval",
        "prepare",
        "text.txt",
        "--out",
        "shards",
        "--tokenizer",
        "nfkc.model",
    ]
    subprocess.run(prepare, check=True, capture_output=True, cwd=tmp_path)
    arguments = ["--data", tmp_path / "shards/*.bin", "--uniform", "--seq-len", 1, "--stride", 1, "--preset", "hashed"]
    result = evaluate(*arguments, "--tokenizer", tmp_path / "nfkc.model")["hashed"]
    assert result["original_bytes"] == len(text.encode()) != result["bytes"]
    assert result["original_bpb"] == pytest.approx(result["nats"] / np.log(2) / len(text.encode()), rel=1e-15)
    assert result["neural_original_bpb"] == pytest.approx(result["neural_nats"] / np.log(2) / len(text.encode()))
    assert "with n-grams, over original bytes" in capsys.readouterr().out
    message = fails(capsys, evaluate, *arguments, "--tokenizer", tmp_path / "other.model")
    assert "is not the one that made" in message
