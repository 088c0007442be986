"""One step after another: learning, averages, the wall clock."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from ngram_eval.errors import InputError
from ngram_eval.models.transformer import Linear
from ngram_eval.text.shards import write_shard
from tests.support.training import CONFIG, TINY, losses_of, same, trainer_of


def test_it_overfits_one_batch(shard: Path, tmp_path: Path) -> None:
    tokens = np.fromfile(shard, "<u2", offset=1024)[:129]  # one batch of four sequences, again and again
    write_shard(tmp_path / "one.bin", tokens)
    config = replace(
        CONFIG, shuffle=False, steps=150, warmdown_steps=50, model=replace(TINY, mtp_heads=1, depth_gate=True)
    )
    trainer = trainer_of(tmp_path / "one.bin", config)
    losses = losses_of(trainer, 150)
    assert losses[0] == pytest.approx(np.log(20), rel=0.1)
    assert losses[-1] < 0.1
    assert trainer.done


def test_accumulated_gradients_are_those_of_the_whole_batch(shard: Path) -> None:
    whole = losses_of(trainer_of(shard), 12)
    for micro in (1, 2):
        parts = losses_of(trainer_of(shard, replace(CONFIG, micro_batch=micro)), 12)
        assert parts != whole  # sums are rounded in another order
        assert parts == pytest.approx(whole, rel=1e-4)


def test_seeds_decide_everything(shard: Path) -> None:
    one, again, other = (trainer_of(shard, replace(CONFIG, seed=seed)) for seed in (1, 1, 2))
    assert losses_of(one, 20) == losses_of(again, 20) != losses_of(other, 20)
    assert same(one.state(), again.state())


def test_warm_up_steps_leave_nothing_behind(shard: Path) -> None:
    plain, warmed = trainer_of(shard), trainer_of(shard, replace(CONFIG, warmup_steps=4))
    warmed.warm_up()
    assert warmed.step == 0
    assert warmed.seconds == 0
    assert not any(module.fake_quantise for module in warmed.model.modules() if isinstance(module, Linear))
    assert losses_of(plain, 20) == losses_of(warmed, 20)
    assert same(plain.state(), warmed.state())


def test_averages_begin_when_they_should(shard: Path) -> None:
    trainer = trainer_of(shard)
    with pytest.raises(InputError, match="export_weights is 'swa', but in 0 steps none"):
        trainer.weights("swa")
    kept, ema = [], {name: weight.clone() for name, weight in trainer.weights("raw").items()}
    for step in range(20):
        trainer.take_step()
        quantised = any(module.fake_quantise for module in trainer.model.modules() if isinstance(module, Linear))
        assert quantised == (step >= 15)  # the first whose multiplier, (20 - step) / 12, is below 0.5
        if step in (15, 17, 19):
            kept.append({name: weight.clone() for name, weight in trainer.weights("raw").items()})
        ema = {name: 0.9 * average + 0.1 * trainer.weights("raw")[name] for name, average in ema.items()}
    for name in ema:
        torch.testing.assert_close(trainer.weights("ema")[name], ema[name])
        torch.testing.assert_close(trainer.weights("swa")[name], torch.stack([one[name] for one in kept]).mean(0))
    assert trainer.swa.count == 3


def test_the_wall_clock_ends_a_run(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At half a second a step, 10 seconds are 20 steps; the rate falls over the last 12 of them."""
    clock = iter(np.arange(0, 1000, 0.5))
    monkeypatch.setattr("ngram_eval.train.trainer.time.perf_counter", lambda: float(next(clock)))
    trainer, rates = trainer_of(shard, replace(CONFIG, steps=10_000, max_seconds=10.0)), []
    while not trainer.done:
        trainer.take_step()
        rates.append(trainer.multiplier)
    assert trainer.step == 20
    assert rates == pytest.approx([min(1, (20 - step) / 12) for step in range(20)])


def test_quantisation_once_begun_goes_on(shard: Path) -> None:
    """Also where the multiplier, measured in time, rises again, and in a run that resumes there."""
    first, second = trainer_of(shard), trainer_of(shard)
    first._quantise()
    second.load_state(first.state())
    for trainer in (first, second):
        trainer.take_step()
        assert trainer.multiplier == 1
        assert all(module.fake_quantise for module in trainer.model.modules() if isinstance(module, Linear))


def test_divergence_is_reported(shard: Path) -> None:
    trainer = trainer_of(shard)
    trainer.take_step()
    with torch.no_grad():
        trainer.model.embedding.fill_(float("nan"))
    trainer.take_step()
    with pytest.raises(InputError, match="loss is nan at step 2: the training diverged"):
        trainer.mean_nats()


@pytest.mark.slow
def test_compiled_runs_learn_the_same(shard: Path) -> None:
    """With quantisation half way; the compiler's default is tried by a slow test."""
    torch._dynamo.reset()
    plain, compiled = trainer_of(shard), trainer_of(shard)
    compiled._objective = cast(torch.nn.Module, torch.compile(compiled._objective, backend="aot_eager"))
    assert losses_of(compiled, 20) == pytest.approx(losses_of(plain, 20), rel=1e-3)


def test_a_window_of_attention_is_learned_in(shard: Path) -> None:
    """As long as the sequence it changes nothing; with one position only bigrams and smear gate look back."""
    plain, whole, narrow = (losses_of(trainer_of(shard, replace(CONFIG, attention_window=w)), 12) for w in (0, 32, 1))
    assert whole == pytest.approx(plain, rel=1e-4)
    assert narrow != pytest.approx(plain, rel=1e-3)
    assert replace(CONFIG, attention_window=8).trained_length == 8
    assert CONFIG.trained_length == 32
    with pytest.raises(InputError, match=r"attention_window is 33: give 1 to seq_len \(32\)"):
        replace(CONFIG, attention_window=33)
