"""One prediction in the open: what is shown is what the evaluator charges."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ngram_eval.assets import asset
from ngram_eval.cli import explain
from ngram_eval.config import WindowConfig, preset
from ngram_eval.models.source import Stats
from ngram_eval.scorers.base import Vocabulary
from ngram_eval.scorers.make import make_scorer
from ngram_eval.text.shards import read_shards
from ngram_eval.text.tokenizer import Tokenizer
from ngram_eval.text.windows import plan_windows
from tests.support.streams import Stream

Explain = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def explained(capsys: Any) -> Explain:
    """Run the command line in this process; predictions by preset."""

    def call(*arguments: object) -> dict[str, dict[str, Any]]:
        capsys.readouterr()
        explain.main([str(argument) for argument in (*arguments, "--json", "-", "--quiet")], "ngram-eval explain")
        return {one["preset"]: one for one in json.loads(capsys.readouterr().out)["predictions"]}

    return call


def uniform(stream: Stream, *more: object) -> list[object]:
    flags = ["--data", stream.shard, "--uniform", "--vocab-size", 50, "--seq-len", 256, "--buckets", 1 << 16]
    return [*flags, *more]


@pytest.mark.parametrize("position", [0, 255, 256, 1000, 2815])
def test_what_is_shown_is_what_is_charged(stream: Stream, explained: Explain, evaluate: Any, position: int) -> None:
    """At stride 1 a window is one position, so that the profile of an evaluation has the charge of each."""
    shape = ["--seq-len", 1, "--stride", 1]
    presets = ["--preset", "hashed", "--preset", "exact"]
    found = explained(*uniform(stream, *shape, *presets, "--position", position))
    runs = evaluate(*uniform(stream, *shape, *presets, "--max-tokens", position + 2))
    before = evaluate(*uniform(stream, *shape, *presets, "--max-tokens", position + 1)) if position else None
    for name, one in found.items():
        charged = runs[name]["nats"] - (before[name]["nats"] if before else 0.0)
        assert one["nats"] == pytest.approx(charged, abs=1e-9)
        assert one["neural_nats"] == pytest.approx(np.log(50))
        assert one["target"]["token"] == stream.tokens[position + 1]
        assert one["position"] == position


def test_a_hashed_explanation_adds_up(stream: Stream, explained: Explain) -> None:
    one = explained(*uniform(stream, "--preset", "hashed", "--position", 2000))["hashed"]
    told = one["explanation"]
    (matched,) = [order for order in told["orders"] if order["weight"]]
    assert matched["order"] == told["order"] > 0
    blended = (1 - told["weight"]) / 50 + told["weight"] * matched["target"] / matched["context"]
    assert one["target"]["blended"] == pytest.approx(blended, rel=1e-9)
    window = stream.tokens[: 1984 + 1]  # what was counted: the position's window ends at 2016, and begins to score here
    context = stream.tokens[2000 - matched["order"] + 2 : 2001]
    seen = [i for i in range(len(context) - 1, 1984) if (window[i - len(context) + 1 : i + 1] == context).all()]
    assert matched["context"] == len(seen)
    assert matched["target"] == sum(stream.tokens[i + 1] == stream.tokens[2001] for i in seen)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_shares_of_exact_counts_are_the_mass_they_take(stream: Stream, backend: str) -> None:
    """A token that nothing has counted is left with the rest of its base probability."""
    config = preset("exact")
    scorer, tokens = make_scorer(backend, config), np.append(stream.tokens[:1200], np.uint16(0))
    windows = plan_windows(1000, WindowConfig(seq_len=100, stride=100))
    rng = np.random.default_rng(0)
    scorer.score(tokens, windows, Stats(rng.random(1000), rng.random(1000).astype(np.float32)))
    base = rng.dirichlet(np.ones(60))
    shown = scorer.distribution(tokens, 1000, base, 2.0)
    told = scorer.explain(tokens, 1000, base, 2.0, 55)
    assert told is not None
    assert all(order.target == 0 for order in told.orders)
    assert len(told.orders) > 2
    assert told.weight == pytest.approx(sum(order.weight for order in told.orders))
    assert 0.1 < told.weight < 1
    assert shown[55] == pytest.approx(base[55] * (1 - told.weight), rel=1e-9)
    assert scorer.explain(tokens, 999, base, 2.0, 55) is None, "only the next position can be explained"


def test_the_mixer_tells_what_its_token_contexts_hold(stream: Stream) -> None:
    config = preset("mixer")
    config = replace(config, mixer=replace(config.mixer, groups=1 << 17))
    scorer = make_scorer("cpu", config, vocabulary=Vocabulary(60, None, neural=True))
    tokens = np.tile(stream.tokens[:200], 4)
    windows = plan_windows(750, WindowConfig(seq_len=75, stride=75))
    rows = np.full((750, 60), 1 / 60)
    scorer.score(tokens, windows, Stats(rows[:, 0].copy(), np.full(750, 4.0, np.float32), rows))
    target = int(tokens[751])
    told = scorer.explain(tokens, 750, rows[0], 4.0, target)
    assert told is not None
    assert [one.order for one in told.orders] == [3, 4, 7]
    assert told.order == 7
    assert all(one.context >= 3 and one.target >= 3 for one in told.orders), "three times before"
    assert 0 < sum(one.weight for one in told.orders) < told.weight <= 1
    assert scorer.distribution(tokens, 750, rows[0], 4.0)[target] > 0.5
    with pytest.raises(ValueError, match="750 is next"):
        scorer.explain(tokens, 749, rows[0], 4.0, target)


def test_a_piece_of_text_names_the_position(explained: Explain) -> None:
    tokenizer = Tokenizer.load(asset("tokenizer.model"))
    stream = read_shards([str(asset("sample_000000.bin"))])
    one = explained("--after", "family of Dashwood", "--preset", "hashed", "--context", 8)["hashed"]
    before = tokenizer.decode(stream.tokens[: one["position"] + 1])
    assert before.endswith("family of Dashwood")
    assert "".join(one["context"]).endswith("family of Dashwood")
    assert one["target"]["text"] == " had"
    last = explained("--after", "Dashwood", "--occurrence", -1, "--preset", "hashed")["hashed"]
    assert last["position"] > one["position"]
    assert len(one["top_neural"]) == len(one["top_blended"]) == 8
    shares = [token["blended"] for token in one["top_blended"]]
    assert shares == sorted(shares, reverse=True)


def test_for_people(stream: Stream, capsys: Any) -> None:
    arguments = uniform(stream, "--preset", "exact", "--preset", "hashed", "--position", 300, "--top", 3)
    explain.main([str(argument) for argument in arguments], "ngram-eval explain")
    text = capsys.readouterr().out
    assert "exact, position 300" in text
    assert "a score, not normalised" in text
    assert "matched order" in text
    assert "context seen" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give one place"),
        (["--position", 3, "--after", "x"], "give one place"),
        (["--position", 2816], "give one of the 2816 that are scored, 0 to 2815"),
        (["--position", -1], "--position is -1"),
        (["--after", "x"], "give the data's --tokenizer"),
        (["--position", 3, "--occurrence", 0], "--occurrence is 0"),
        (["--position", 3, "--top", 0], "--top is 0"),
    ],
)
def test_bad_flags(stream: Stream, capsys: Any, flags: list[object], message: str) -> None:
    with pytest.raises(SystemExit) as exit_info:
        explain.main([str(argument) for argument in uniform(stream, *flags)], "ngram-eval explain")
    assert exit_info.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_what_is_not_there(stream: Stream, capsys: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        explain.main(["--after", "no such words"], "ngram-eval explain")
    assert "does not occur in the text" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        explain.main(
            ["--data", str(stream.shard), "--scores", str(stream.scores), "--position", "9"], "ngram-eval explain"
        )
    assert "--scores holds only the probability of each target" in capsys.readouterr().err


def test_a_narrow_terminal_shows_every_column(stream: Stream, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("ngram_eval.cli.console._PIPED_WIDTH", 60)
    flags = map(str, uniform(stream, "--preset", "hashed", "--position", 2000))
    explain.main([*flags], "ngram-eval explain")
    shown = capsys.readouterr().out
    tables = [line for line in shown.splitlines() if not line.startswith(("context", "target", "matched"))]
    assert max(map(len, tables)) <= 60
    assert "…" not in shown
    for heading in ("likeliest by the model", "likeliest with n-grams", "context", "weight", "order"):
        assert heading in shown
    assert shown.count("with n-grams") >= 4
