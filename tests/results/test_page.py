"""The page and the charts of a result."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import numpy as np
import pytest

from ngram_eval.config import PRESETS, EvalConfig
from ngram_eval.evaluation.profile import Profile
from ngram_eval.evaluation.result import Result
from ngram_eval.results.notebook import NotebookResult
from ngram_eval.results.page import draw_all, write_page
from ngram_eval.results.page.charts import Chart, Series, charts_of, labelled, number, ticks
from ngram_eval.results.page.html import Live, page
from ngram_eval.results.page.rows import comparison, stages
from ngram_eval.results.page.svg import svg, svg_rows
from ngram_eval.results.page.words import PAGES, headline, used
from ngram_eval.results.table import STAGES, table_rows
from ngram_eval.text.samples import SAMPLES
from tests.support.evaluator import Evaluate
from tests.support.streams import Stream

NAMES = ("along_the_stream", "matches", "gain", "gate", "vocabulary_sums")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def results(stream: Stream, evaluate: Evaluate, tmp_path: Path) -> list[Result]:
    """Of a small stream, with every chart: the model knows whole distributions, some surer than others."""
    logits = np.random.default_rng(0).normal(size=(len(stream.tokens) - 1, 50)).astype(np.float32)
    np.save(tmp_path / "logits.npy", logits * np.linspace(0, 4, len(logits), dtype=np.float32)[:, None])
    flags = ["--data", stream.shard, "--logits", tmp_path / "logits.npy", "--seq-len", 256, "--buckets", 256]
    return [Result(**run) for run in evaluate(*flags).values()]


def named(results: list[Result], preset: str) -> Result:
    (result,) = [one for one in results if one.preset == preset]
    return result


def drawn(results: list[Result], preset: str) -> dict[str, Chart]:
    return {chart.name: chart for chart in charts_of(named(results, preset))}


def test_every_chart_is_there_and_says_what_it_shows(results: list[Result]) -> None:
    assert tuple(drawn(results, "pr890")) == NAMES
    assert tuple(drawn(results, "exact")) == tuple(name for name in NAMES if name != "vocabulary_sums")
    for result in results:
        for chart in charts_of(result):
            assert chart.x_label
            assert chart.y_label
            for series in chart.series:
                assert len(series.x) == len(series.y) > 0
    assert "not normalised" in drawn(results, "hashed")["along_the_stream"].y_label
    assert drawn(results, "exact")["along_the_stream"].y_label == "bits per token"


def test_a_memory_that_never_matched_has_a_page(stream: Stream, evaluate: Evaluate) -> None:
    """Windows are looked up before they are counted, so in the first of a text nothing matches."""
    flags = ["--data", stream.shard, "--uniform", "--vocab-size", 50, "--seq-len", 1600, "--preset", "hashed"]
    results = [Result(**run) for run in evaluate(*flags).values()]
    assert results[0].hits == 0
    assert "gate" not in drawn(results, "hashed")
    assert "<svg" in page(results)


def test_the_numbers_are_those_of_the_result(results: list[Result]) -> None:
    ln2 = 0.6931471805599453
    for result in results:
        made = {chart.name: chart for chart in charts_of(result)}
        _, alone, _, mean = made["along_the_stream"].series
        assert (alone.name, mean.name) == ("model alone, mean so far", "with n-grams, mean so far")
        assert mean.x[-1] == alone.x[-1] == result.positions
        assert mean.y[-1] == pytest.approx(result.nats / result.positions / ln2, rel=1e-7)
        assert alone.y[-1] == pytest.approx(result.neural_nats / result.positions / ln2, rel=1e-7)
        assert sum(made["matches"].series[0].y) == pytest.approx(100)
        saved = (result.neural_nats - result.nats) / result.positions / ln2
        assert sum(made["gain"].series[0].y) == pytest.approx(saved, rel=1e-6)
        spent = stages(result)
        assert spent is not None
        long = {STAGES[stage][0]: seconds for stage, seconds in result.seconds.items() if seconds >= 0.0005}
        assert {row.name: row.value for row in spent.all} == long
    sums = drawn(results, "hashed")["vocabulary_sums"]
    assert sum(sums.series[0].y) == SAMPLES
    gate = drawn(results, "hashed")["gate"]
    assert [one.name for one in gate.series][-1] == "all orders"
    assert all(0.05 <= weight <= 0.6 for one in gate.series for weight in one.y)
    (points,) = drawn(results, "exact")["gate"].series
    assert (points.kind, points.name) == ("points", f"{SAMPLES} sampled positions")


def test_the_tail_that_is_scored_again_is_marked(results: list[Result]) -> None:
    published = named(results, "pr890")
    targets = Profile.unpacked(published.profile).targets
    assert drawn(results, "pr890")["along_the_stream"].shaded == (targets, published.positions, "scored again")
    assert published.positions > targets
    assert drawn(results, "hashed")["along_the_stream"].shaded is None


def test_presets_are_compared_and_scores_stand_apart(results: list[Result]) -> None:
    (_, rows), (head, scores) = comparison(results).groups
    assert [row.name for row in rows] == ["model alone", "exact"]
    assert [(row.name, row.hatched) for row in scores] == [("pr890", True), ("hashed", True)]
    assert "no probability" in head
    exact = named(results, "exact")
    alone, blended = rows
    assert alone.value == pytest.approx(exact.neural_nats / exact.positions / 0.6931471805599453)
    assert blended.span is not None
    assert blended.span[0] < blended.value < blended.span[1]
    assert all(row.span is None for row in [alone, *scores])
    (_, best), (_, interval), (kind, others) = headline(results)
    assert f"With exact the text takes {blended.value:.4f} bits per token: " in best
    assert f"alone takes {alone.value:.4f}" in interval
    assert kind == "note warn"
    assert re.match(r"No code length: pr890 \([\d.]+\) and hashed \([\d.]+\)\.", others)
    assert len(list(headline([exact]))) == 2
    assert [kind for kind, _ in headline([named(results, "hashed")])] == ["note warn"]


def test_an_order_that_a_preset_has_not_is_no_zero(stream: Stream, evaluate: Evaluate) -> None:
    flags = [
        "--data",
        stream.shard,
        "--uniform",
        "--vocab-size",
        50,
        "--seq-len",
        256,
        "--buckets",
        256,
        "--groups",
        64,
    ]
    flags += ["--preset", "hashed", "--preset", "exact", "--preset", "mixer-fast"]
    results = [Result(**run) for run in evaluate(*flags).values()]
    rows = dict(table_rows(results))
    assert rows["  orders 10 to 24"][0] == rows["  orders 10 to 24"][2] == "-"
    assert [value == "-" for value in rows["  order 6"]] == [False, False, True]
    assert "-" not in rows["  order 2"]
    hashed, exact, mixer = (f"{result.hit_rate:.2%}" for result in results)
    assert rows["context seen"] == ["-", exact, mixer]
    assert rows["context and target seen"] == [hashed, "-", "-"]
    assert drawn(results, "mixer-fast")["matches"].categories == ["none", "2", "3", "4", "7"]
    assert "context seen" not in dict(table_rows(results[:1]))


def test_the_page_asks_for_nothing(results: list[Result], tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", results)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//|\bsrc=|\bhref=|@import|url\(|<script|<link|http-equiv", text.replace("</", "<"))
    for result in results:
        assert f"<h2>{result.preset}" in text
        assert result.finished[:10] in text
    assert "No code length" in text
    assert "prefers-color-scheme: dark" in text
    assert results[0].inputs[0]["sha256"] in text
    assert "window.seq_len" in text
    (times,) = re.findall(r"<details><summary>seconds of each stage</summary>(.*?)</details>", text, re.DOTALL)
    for name, tip in (STAGES[stage] for result in results for stage in result.seconds):
        assert f'<span title="{tip}">{name}</span>' in times
    assert f"data: {results[0].inputs[0]['path']}</th>" in text
    drawings = re.findall(r'<svg class="(wide|narrow)".*?</svg>', text, re.DOTALL)
    count = 1 + sum(len(charts_of(result)) + 1 for result in results)
    assert drawings == ["wide", "narrow"] * count
    for drawing in re.findall(r'<svg class="(?:wide|narrow)".*?</svg>', text, re.DOTALL):
        root = ElementTree.fromstring(drawing)
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        assert root.attrib["aria-label"]
        for element in root.iter():
            for name, limit in (("x", width), ("x1", width), ("cx", width), ("y", height), ("y1", height)):
                assert 0 <= float(element.attrib.get(name, 0)) <= limit, (element.tag, element.attrib)


def test_a_page_of_a_running_evaluation_says_how_far_it_is(results: list[Result]) -> None:
    live = Live(preset="exact", done=250, total=1000, seconds_left=5400.0, every=60.0, waiting=("mixer",))
    text = page(results, live)
    assert '<meta http-equiv="refresh" content="60">' in text
    assert "Running: exact</b>. 250 of 1,000 positions (25.0%), about 1 h 30 min left; then mixer." in text
    partial = replace(results[0], complete=False)
    assert "PARTIAL" in page([partial])
    assert "PARTIAL" not in page([partial], live)


def test_a_kept_memory_is_named(results: list[Result]) -> None:
    kept = {"role": "memory", "path": "folder/kept.ngm", "bytes": 9, "sha256": "0" * 64}
    memory = {"sha256": "0" * 64, "tokens": 1234, "text_bytes": 5, "bytes": 9, "model_bytes": None}
    one = replace(results[0], inputs=[*results[0].inputs, kept], memory=memory)
    assert "<dd>1,234 tokens counted before the text, of kept.ngm</dd>" in page([one])


def test_settings_are_those_that_the_preset_reads() -> None:
    families = {config.scorer for config in (make() for make in PRESETS.values())}
    assert families == set(PAGES) == set(get_args(EvalConfig.__dataclass_fields__["scorer"].type) or families)
    assert all((ROOT / place).exists() for place in PAGES.values())
    parts = {preset: {name.partition(".")[0] for name in used(make())} for preset, make in PRESETS.items()}
    assert parts["hashed"] == {"scorer", "byte_rule", "window", "ngram", "gate"}
    assert parts["exact"] == {"scorer", "byte_rule", "window", "ngram", "exact"}
    assert parts["mixer"] == {"scorer", "byte_rule", "window", "ngram", "mixer"}
    assert "gate.alpha_fixed" not in used(PRESETS["hashed"]())
    assert "ngram.buckets" not in used(PRESETS["exact"]())
    assert "exact.tilt_confidence" in used(PRESETS["tilt"]())
    assert "exact.tilt_confidence" not in used(PRESETS["exact"]())


def test_a_notebook_s_own_style_is_left_alone(results: list[Result]) -> None:
    text = NotebookResult.of(results[0])._repr_html_()
    style, shown = text.split("</style>")
    rules = re.findall(r"([^{}]+)\{", style.split("<style>")[1])
    selectors = [one.strip() for rule in rules if not rule.lstrip().startswith("@") for one in rule.split(",")]
    assert len(selectors) > 30
    assert all(one.startswith(".ngram-eval") for one in selectors)
    assert shown.count('<svg class="wide"') == len(charts_of(results[0])) + 1
    assert "Configuration" not in shown


def test_what_a_user_names_is_escaped(results: list[Result]) -> None:
    text = page([replace(results[0], data=["<script>.bin"], arguments=["a", "<b>"], preset="<i>")])
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<i>" not in text


def test_charts_of_little(results: list[Result]) -> None:
    """One stretch, no time, no samples: what can't be drawn is left out, and nothing fails."""
    hashed, exact = named(results, "hashed"), named(results, "exact")
    bare = replace(hashed, seconds={}, gain_by_order=None, profile={**hashed.profile, "samples": []})
    assert [chart.name for chart in charts_of(bare)] == ["along_the_stream", "matches", "gate"]
    assert stages(bare) is None
    alike = [[position, 1.0, total, weight] for position, _, total, weight in exact.profile["samples"]]
    one_stage = replace(exact, gain_by_order={"0": 0.0}, profile={**exact.profile, "samples": alike})
    assert [chart.name for chart in charts_of(one_stage)] == ["along_the_stream", "matches"]
    flat = Chart(name="n", title="t", x_label="x", y_label="y", series=[Series(name="s", x=[1.0], y=[2.0], colour=0)])
    for drawing in svg(flat).split("</svg>")[:-1]:
        ElementTree.fromstring(drawing + "</svg>")


def test_rounding_lengthens_no_axis(results: list[Result]) -> None:
    hashed = named(results, "hashed")
    samples = [[0, 1.0, 0.99999987, 0.0], [1, 1.0, 1.0, 0.0], [2, 1.0, 3.9, 0.0]]
    sums = drawn([replace(hashed, profile={**hashed.profile, "samples": samples})], "hashed")["vocabulary_sums"]
    assert sums.categories is not None
    assert (sums.categories[0], sums.series[0].y[0]) == ("1", 2)
    bars = Series(name="s", x=[0.0, 1.0], y=[-0.00001, 0.5], colour=0, kind="bars")
    chart = Chart(name="n", title="t", x_label="x", y_label="y", series=[bars], categories=["a", "b"], from_zero=True)
    assert "-0" not in re.sub(r"<title>.*?</title>|aria-label=\S+", "", svg(chart))


def test_values_stand_beyond_their_bars() -> None:
    bars = Series(name="s", x=[0.0, 1.0], y=[-0.3, 0.5], colour=0, kind="bars")
    chart = Chart(name="n", title="t", x_label="x", y_label="y", series=[bars], categories=["2", "3"], from_zero=True)
    root = ElementTree.fromstring(svg(chart).partition("</svg>")[0] + "</svg>")
    below, above = [float(one.attrib["y"]) for one in root.iter("text") if one.attrib.get("class") == "value"]
    down, up = [
        (float(one.attrib["y"]), float(one.attrib["y"]) + float(one.attrib["height"])) for one in root.iter("rect")
    ]
    assert below > down[1]
    assert above < up[0]


def test_ticks_are_round_and_span_the_values() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert [round(tick, 9) for tick in ticks(1.52, 2.31)] == [1.4, 1.6, 1.8, 2.0, 2.2, 2.4]
    for low, high in ((3.0, 3.0), (-1e-3, 5e-4), (0, 7e7)):
        found = ticks(low, high)
        assert found[0] <= low
        assert found[-1] >= high
        assert 2 <= len(found) <= 12
    assert number(1234567.0, 1e6) == "1,234,567"
    assert number(0.25, 0.05) == "0.25"


def test_labels_of_bars_do_not_touch() -> None:
    orders = ["none", *map(str, range(2, 25))]
    assert labelled(orders, 4) == list(range(24))
    assert labelled(orders, 3) == list(range(1, 24))
    assert [orders[place] for place in labelled(orders, 1.5)] == [str(n) for n in range(2, 25, 2)]
    assert [orders[place] for place in labelled(orders, 1)] == ["none", "5", "10", "15", "20"]
    assert labelled(["0.8", "1", "1.2", "1.4"], 2) == [0, 2]
    assert labelled(["none"], 1) == [0]


def test_every_tick_has_a_label(results: list[Result]) -> None:
    for result in results:
        for chart in charts_of(result):
            for drawing in re.findall(r"<svg.*?</svg>", svg(chart), re.DOTALL):
                root = ElementTree.fromstring(drawing)
                marks = [one for one in root.iter("line") if one.attrib["x1"] == one.attrib["x2"]]
                labels = {one.attrib["x"] for one in root.iter("text") if one.attrib.get("class") != "value"}
                assert marks
                assert {one.attrib["x1"] for one in marks} <= labels


def test_png_files(results: list[Result], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = [named(results, "exact")]
    written = draw_all(tmp_path / "plots", results)
    names = [f"{result.preset}_{chart.name}.png" for result in results for chart in charts_of(result)]
    assert sorted(path.name for path in written) == sorted(["comparison.png", *names, "exact_stages.png"])
    for path in written:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert int.from_bytes(content[16:20], "big") == 1440


def test_the_flags(stream: Stream, evaluate: Evaluate, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    flags = ["--data", stream.shard, "--scores", stream.scores, "--seq-len", 256, "--preset", "hashed"]
    evaluate(*flags, "--report", tmp_path / "page.html")
    assert "<h2>hashed" in (tmp_path / "page.html").read_text()
    monkeypatch.setattr("ngram_eval.results.page.plots.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        evaluate(*flags, "--plot", tmp_path / "plots")
    assert "--plot needs matplotlib: pip install 'ngram_eval[plot]'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate(*flags, "--report", tmp_path / "no" / "page.html")
    assert "--report is" in capsys.readouterr().err


def test_a_score_without_samples_says_nothing_of_its_sum(results: list[Result]) -> None:
    blind = replace(named(results, "hashed"), vocabulary_sum=None)
    assert "need not sum to 1" in page([blind])
    assert "\u03a3" not in svg_rows(comparison([blind]))
