"""Legal test-time training: what a window is scored with, what may not matter, and what the audit says."""

import sys
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ngram_eval.assets import asset
from ngram_eval.cli import audit
from ngram_eval.config import WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.models import artifact
from ngram_eval.models import test_time_training as ttt
from ngram_eval.models import transformer_source as forward
from ngram_eval.models.source import NeuralStats, Stats
from ngram_eval.models.test_time_training import AdaptingSource, TttConfig, adapted_parameters
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.models.transformer_source import TransformerSource
from ngram_eval.text.stream import Stream
from ngram_eval.text.windows import Windows, batches, plan_windows

SMALL = ModelConfig(
    vocab_size=20,
    layers=4,
    width=16,
    heads=2,
    kv_heads=2,
    mlp_hidden=24,
    bigram_slots=16,
    bigram_width=4,
    rope_dims=4,
    xsa_layers=4,
    value_layers=(3,),
    value_width=4,
)
CONFIG = TttConfig(chunk=64, seq_len=16, batch=2, lr=0.01)
CPU = torch.device("cpu")
WINDOWS = plan_windows(300, WindowConfig(seq_len=16, stride=4))
"""Begin in chunks 0 to 4."""


def model_of(config: ModelConfig = SMALL) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return model.eval().requires_grad_(False)


def source_of(config: TttConfig = CONFIG, batch_windows: int = 8) -> AdaptingSource:
    more: dict[str, Any] = {"train_seq_len": 0, "batch_windows": batch_windows, "device": CPU, "dtype": torch.float32}
    return AdaptingSource(model_of(), config, **more)


@pytest.fixture
def tokens() -> NDArray[np.uint16]:
    """301 tokens in which a few phrases come back."""
    rng = np.random.default_rng(0)
    phrases = rng.integers(0, 20, (5, 12))
    return phrases[rng.integers(0, 5, 26)].ravel()[:301].astype(np.uint16)


def scored(
    source: AdaptingSource, tokens: NDArray[np.uint16], windows: Windows = WINDOWS, at_once: int = 8
) -> NeuralStats:
    parts = [source.stats(tokens, batch) for batch in batches(windows, at_once)]
    return Stats(np.concatenate([p.p_target for p in parts]), np.concatenate([p.entropy for p in parts]))


def test_by_hand(tokens: NDArray[np.uint16]) -> None:
    """Window by window: those of a chunk scored, then two sequences a step over the chunk, with AdamW."""
    model = model_of().float()
    names = adapted_parameters(model, 2)
    optimizer = torch.optim.AdamW(names.values(), lr=0.01, weight_decay=0.0)
    stream, expected, done = torch.from_numpy(tokens.astype(np.int64)), [], 0
    for start, first, stop in zip(WINDOWS.start, WINDOWS.first, WINDOWS.stop, strict=True):
        while (done + 1) * 64 <= start:
            for parameter in names.values():
                parameter.requires_grad_(True)
            for step in range(2):
                begins = [done * 64 + 32 * step, done * 64 + 32 * step + 16]
                rows = torch.stack([stream[b : b + 17] for b in begins])
                logits = model(rows[:, :-1])
                loss = -logits.log_softmax(-1).gather(-1, rows[:, 1:, None]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            model.requires_grad_(False)
            done += 1
        log_p = model(stream[None, start:stop])[0].log_softmax(-1)
        expected += [float(log_p[p - start, stream[p + 1]].exp()) for p in range(first, stop)]
    assert done == 4
    found = scored(source_of(), tokens)
    np.testing.assert_allclose(found.p_target, expected, rtol=1e-4)
    plain = TransformerSource(model_of(), train_seq_len=0, batch_windows=8, device=CPU, dtype=torch.float32)
    before = np.concatenate([plain.stats(tokens, batch).p_target for batch in batches(WINDOWS, 8)])
    np.testing.assert_array_equal(found.p_target[:64], before[:64])  # nothing had been adapted yet
    assert np.log(found.p_target[128:]).sum() > np.log(before[128:]).sum() + 20  # and it helps


def test_what_is_adapted() -> None:
    model = Transformer(replace(SMALL, mtp_heads=0, depth_gate=True))
    names = set(adapted_parameters(model, 2))
    assert names == {
        name
        for name, _ in model.named_parameters()
        if name.startswith(("blocks.2.", "blocks.3.")) or not name.endswith(".weight") or name == "bigram.proj.weight"
    }
    left_out = {name for name, _ in model.named_parameters()} - names
    matrices = ("attn.q", "attn.k", "attn.v", "attn.out", "mlp.up", "mlp.down")
    assert left_out == {"value.proj.weight", *(f"blocks.{i}.{name}.weight" for i in (0, 1) for name in matrices)}
    source = source_of()
    before = {name: value.clone() for name, value in source._model.state_dict().items()}
    source._prepare(np.arange(65, dtype=np.uint16) % 20, 1)
    moved = {name for name, value in source._model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(adapted_parameters(source._model, 2))


def test_the_future_does_not_show(tokens: NDArray[np.uint16]) -> None:
    """Bit for bit, wherever the text is changed: also right before and behind the end of a chunk."""
    whole = scored(source_of(), tokens).p_target
    rng = np.random.default_rng(1)
    for cut in (10, 63, 64, 65, 127, 128, 200, 299):
        changed = tokens.copy()
        changed[cut + 1 :] = rng.integers(0, 20, 300 - cut)
        found = scored(source_of(), changed).p_target
        np.testing.assert_array_equal(found[:cut], whole[:cut])


def test_no_position_is_scored_after_the_model_was_adapted_on_it(
    tokens: NDArray[np.uint16], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by the published windows, which score the last stride again and again."""
    adapted: list[int] = []
    adapt, stats = AdaptingSource._adapt, TransformerSource.stats

    def watched_adapt(self: AdaptingSource, tokens: Any, chunk: int) -> None:
        adapted.append((chunk + 1) * 64)
        adapt(self, tokens, chunk)

    def watched_stats(self: TransformerSource, tokens: Any, windows: Windows) -> NeuralStats:
        assert windows.first.min() >= max(adapted, default=0)
        return stats(self, tokens, windows)

    monkeypatch.setattr(AdaptingSource, "_adapt", watched_adapt)
    monkeypatch.setattr(TransformerSource, "stats", watched_stats)
    for config in (WindowConfig(seq_len=16, stride=4), WindowConfig(seq_len=64, stride=7, rescore_tail=True)):
        adapted.clear()
        scored(source_of(), tokens, plan_windows(300, config))
        assert adapted == [64, 128, 192, 256]


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_batches_do_not_matter(tokens: NDArray[np.uint16], at_once: int) -> None:
    expected = scored(source_of(), tokens)
    found = scored(source_of(), tokens, at_once=at_once)
    np.testing.assert_allclose(found.p_target, expected.p_target, rtol=1e-4)
    np.testing.assert_allclose(found.entropy, expected.entropy, rtol=1e-4, atol=1e-6)


def test_any_window_can_be_asked_for(tokens: NDArray[np.uint16]) -> None:
    """A rank that begins later, a second pass, another text between, whole distributions: all as in the first pass."""
    source = source_of()
    expected = scored(source, tokens).p_target
    np.testing.assert_array_equal(scored(source, tokens).p_target, expected)
    other = tokens.copy()
    other[:200] = 0
    assert not np.array_equal(scored(source, other).p_target[64:], expected[64:])
    parts = list(batches(WINDOWS, 8))
    where = np.cumsum([0, *(part.scored for part in parts)])
    for i in (6, 1, 8, 0, 4):
        fresh = source.stats(tokens.copy(), parts[i])
        np.testing.assert_array_equal(fresh.p_target, expected[where[i] : where[i + 1]])
    for position in (299, 70, 130, 3):
        one = WINDOWS.scoring(position)
        (row,) = source.probabilities(tokens[: position + 2].copy(), one)
        assert row.sum() == pytest.approx(1, abs=1e-5)
        assert row[tokens[position + 1]] == pytest.approx(expected[position], rel=1e-4)


def test_one_chunk_back_is_not_all_the_way_back(tokens: NDArray[np.uint16], monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch reaches into the next chunk; what is asked of its beginning costs one adaptation, to the same bits."""
    source = source_of()
    expected = scored(source, tokens).p_target
    asked: list[int] = []
    adapt = AdaptingSource._adapt

    def watched(self: AdaptingSource, tokens: Any, chunk: int) -> None:
        asked.append(chunk)
        adapt(self, tokens, chunk)

    monkeypatch.setattr(AdaptingSource, "_adapt", watched)
    windows = WINDOWS[(WINDOWS.start >= 184) & (WINDOWS.start < 200)]
    for _ in range(2):
        found = source.stats(tokens, windows)
        np.testing.assert_array_equal(found.p_target, expected[windows.positions()])
    assert asked == [0, 1, 2, 2]  # from the end to the beginning; then one chunk back
    scored(source, tokens)
    assert asked[4:] == [0, 1, 2, 3]


def test_command_line(evaluate: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`--ttt legal` on the embedded model, in small chunks: another number, and said so; refused where it can't be."""
    monkeypatch.setattr(ttt, "TttConfig", partial(TttConfig, chunk=512, lr=1e-3))
    flags = ["--max-tokens", 1500, "--stride", 64, "--batch-windows", 4, "--preset", "hashed", "--buckets", 4096]
    adapted, plain = evaluate(*flags, "--ttt", "legal")["hashed"], evaluate(*flags)["hashed"]
    assert adapted["neural_settings"]["ttt"] == "legal"
    assert adapted["neural_settings"]["ttt_seq_len"] == "256"
    assert adapted["neural_settings"]["ttt_batch"] == "32"  # as many tokens a step as published
    assert adapted["positions"] == plain["positions"]
    assert adapted["neural_nats"] != plain["neural_nats"]
    uniform = ["--data", asset("sample_000000.bin"), "--uniform", "--vocab-size", 1024]
    for wrong, why in ((uniform, "adapts a model of --artifact"), (["--backend", "triton"], "statistics on the host")):
        with pytest.raises(SystemExit):
            evaluate("--ttt", "legal", "--max-tokens", 600, *wrong)
        assert why in capsys.readouterr().err


def test_what_the_result_says_of_it() -> None:
    source = source_of(TttConfig())
    assert source.settings["ttt"] == "legal"
    assert source.settings["ttt_chunk"] == "65536"
    assert source.vocab_size == 20
    recipe = TttConfig()
    assert (recipe.chunk, recipe.seq_len, recipe.batch, recipe.lr, recipe.blocks) == (65_536, 2048, 4, 1e-4, 2)
    assert source._optimizer.param_groups[0]["weight_decay"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk": 0}, "chunk is 0"),
        ({"seq_len": 48}, "seq_len is 48: it must divide the chunk of 64"),
        ({"lr": 0.0}, "lr is 0"),
        ({"blocks": -1}, "blocks is -1"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(CONFIG, **change)


@pytest.mark.slow
def test_the_audit_accepts_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The embedded model, adapted every 1024 of the audited positions: nothing is refuted of it or of `exact` on it."""
    adapted = []

    class Noted(AdaptingSource):
        def _adapt(self, tokens: Stream, chunk: int) -> None:
            adapted.append(chunk)
            super()._adapt(tokens, chunk)

    def adapting(path: Any, *, batch_windows: int, **_: Any) -> AdaptingSource:
        model, length = artifact.load(path)
        config = TttConfig(chunk=1024, seq_len=256, batch=2, lr=1e-3)
        return Noted(model, config, train_seq_len=length, batch_windows=batch_windows, device=CPU, dtype=torch.float32)

    monkeypatch.setattr(forward, "load_transformer_source", adapting)
    monkeypatch.setattr(sys, "argv", ["audit", "--preset", "exact", "--samples", "32"])
    with pytest.raises(SystemExit) as done:
        audit.main()
    text = capsys.readouterr().out
    assert done.value.code == 0, text
    assert adapted
