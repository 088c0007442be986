"""The page and the charts of a result."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from ngram_eval.evaluation.result import Result
from ngram_eval.results.page import draw_all, write_page
from ngram_eval.results.page.charts import Chart, Series, charts_of, number, ticks
from ngram_eval.results.page.html import page
from ngram_eval.results.page.svg import svg
from ngram_eval.text.samples import SAMPLES
from tests.support.evaluator import Evaluate
from tests.support.streams import Stream

NAMES = ("along_the_stream", "hit_rate", "gain", "gate", "vocabulary_sums", "stages")


@pytest.fixture
def results(stream: Stream, evaluate: Evaluate, tmp_path: Path) -> list[Result]:
    """Of a small stream, with every chart: the model knows whole distributions, some surer than others."""
    logits = np.random.default_rng(0).normal(size=(len(stream.tokens) - 1, 50)).astype(np.float32)
    np.save(tmp_path / "logits.npy", logits * np.linspace(0, 4, len(logits), dtype=np.float32)[:, None])
    flags = ["--data", stream.shard, "--logits", tmp_path / "logits.npy", "--seq-len", 256, "--buckets", 256]
    return [Result(**run) for run in evaluate(*flags).values()]


def drawn(results: list[Result], preset: str) -> dict[str, Chart]:
    (result,) = [one for one in results if one.preset == preset]
    return {chart.name: chart for chart in charts_of(result)}


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
    for result in results:
        made = {chart.name: chart for chart in charts_of(result)}
        mean = made["along_the_stream"].series[2]
        assert mean.x[-1] == result.positions
        assert mean.y[-1] == pytest.approx(result.nats / result.positions / 0.6931471805599453, rel=1e-7)
        assert sum(made["hit_rate"].series[0].y) == pytest.approx(100)
        saved = (result.neural_nats - result.nats) / result.positions / 0.6931471805599453
        assert sum(made["gain"].series[0].y) == pytest.approx(saved, rel=1e-6)
        assert made["stages"].categories == [stage for stage, spent in result.seconds.items() if spent >= 0.0005]
    sums = drawn(results, "hashed")["vocabulary_sums"]
    assert sum(sums.series[0].y) == SAMPLES
    gate = drawn(results, "hashed")["gate"]
    assert [one.name for one in gate.series][-1] == "all orders"
    assert all(0.05 <= weight <= 0.6 for one in gate.series for weight in one.y)
    assert [one.kind for one in drawn(results, "exact")["gate"].series] == ["points"]


def test_the_page_asks_for_nothing(results: list[Result], tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", results)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//|\bsrc=|\bhref=|@import|url\(|<script|<link", text.replace("</", "<"))
    for result in results:
        assert f"<h2>{result.preset}" in text
    assert "a pseudo-probability: its score is not a code length" in text
    assert "prefers-color-scheme: dark" in text
    assert results[0].inputs[0]["sha256"] in text
    assert "window.seq_len" in text
    (times,) = re.findall(r"<details><summary>seconds of each stage</summary>(.*?)</details>", text, re.DOTALL)
    assert "seconds: n-gram" in times
    assert times.count("<svg") == len(results)
    assert text.count("seconds: n-gram") == 1
    assert f"<td>data</td><td>{results[0].inputs[0]['path']}: " in text
    assert text.count("<svg") == sum(len(charts_of(result)) for result in results)
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        root = ElementTree.fromstring(drawing)
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        assert root.attrib["aria-label"]
        for element in root.iter():
            for name, limit in (("x", width), ("x1", width), ("cx", width), ("y", height), ("y1", height)):
                assert 0 <= float(element.attrib.get(name, 0)) <= limit, (element.tag, element.attrib)


def test_a_notebook_s_own_style_is_left_alone(results: list[Result]) -> None:
    text = results[0]._repr_html_()
    style, shown = text.split("</style>")
    selectors = [one for rule in re.findall(r"([^{}]+)\{", style.split("<style>")[1]) for one in rule.split(",")]
    assert len(selectors) > 30
    assert all(one.strip().startswith(".ngram-eval") for one in selectors)
    assert shown.count("<svg") == len(charts_of(results[0]))
    assert "Configuration" not in shown


def test_what_a_user_names_is_escaped(results: list[Result]) -> None:
    text = page([replace(results[0], data=["<script>.bin"], arguments=["a", "<b>"])])
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_charts_of_little(results: list[Result]) -> None:
    """One stretch, no time, no samples: what can't be drawn is left out, and nothing fails."""
    (hashed,) = [one for one in results if one.preset == "hashed"]
    bare = replace(hashed, seconds={}, gain_by_order=None, profile={**hashed.profile, "samples": []})
    assert [chart.name for chart in charts_of(bare)] == ["along_the_stream", "hit_rate", "gate"]
    (exact,) = [one for one in results if one.preset == "exact"]
    alike = [[position, 1.0, total, weight] for position, _, total, weight in exact.profile["samples"]]
    one_stage = replace(exact, gain_by_order={"0": 0.0}, profile={**exact.profile, "samples": alike})
    assert [chart.name for chart in charts_of(one_stage)] == ["along_the_stream", "hit_rate", "stages"]
    flat = Chart(name="n", title="t", x_label="x", y_label="y", series=[Series(name="s", x=[1.0], y=[2.0])])
    ElementTree.fromstring(svg(flat))


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


def test_png_files(results: list[Result], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    written = draw_all(tmp_path / "plots", results)
    assert sorted(path.name for path in written) == sorted(
        f"{result.preset}_{chart.name}.png" for result in results for chart in charts_of(result)
    )
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


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


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_in_a_browser(results: list[Result], tmp_path: Path, scheme: str) -> None:
    """Chromium lays the page out in both colours, every drawing with a size, and reports no fault."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    measure = (
        "<script>onload = () => { const all = [...document.querySelectorAll('svg')];"
        "document.querySelectorAll('details').forEach(one => one.open = true);"
        "const boxes = all.map(s => s.getBoundingClientRect());"
        "document.title = [boxes.length, boxes.filter(b => b.width > 200 && b.height > 60).length,"
        "document.documentElement.scrollWidth <= innerWidth, getComputedStyle(document.body).backgroundColor,"
        "performance.getEntriesByType('resource').length].join(' '); }</script>"
    )
    (tmp_path / "page.html").write_text(page(results) + measure, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={tmp_path}/browser",
    ]
    flags += [f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}", "--window-size=1100,900"]
    shot = tmp_path / "shot.png"
    url = (tmp_path / "page.html").as_uri()
    dom = subprocess.run(
        [browser, *flags, "--dump-dom", url], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    title = re.findall(r"<title>(.*?)</title>", dom)[0]
    count = sum(len(charts_of(result)) for result in results)
    colour = "rgb(20, 23, 27)" if scheme == "dark" else "rgb(252, 252, 253)"
    assert title == f"{count} {count} true {colour} 0"
    subprocess.run([browser, *flags, f"--screenshot={shot}", url], check=True, timeout=120, capture_output=True)
    assert shot.stat().st_size > 20_000
