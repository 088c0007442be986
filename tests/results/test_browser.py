"""The page as a browser lays it out: light and dark, on a desktop and on phones."""

from pathlib import Path

import pytest

from ngram_eval.evaluation.result import Result
from ngram_eval.results.page.charts import charts_of
from ngram_eval.results.page.html import Live, inline, page
from tests.support.browser import measured, screenshot
from tests.support.evaluator import Evaluate

pytestmark = pytest.mark.slow

SIZES = [(width, scheme) for width in (1280, 768, 420, 360) for scheme in ("light", "dark")]


def test_the_page_fits_and_is_legible(evaluate: Evaluate, tmp_path: Path) -> None:
    """Of the embedded novel and every family of scorers; so do the page of a running evaluation, and a notebook's."""
    presets = [word for name in ("pr890", "hashed", "exact", "mixer-fast", "ppmd") for word in ("--preset", name)]
    results = [Result(**run) for run in evaluate(*presets, "--max-tokens", 5000).values()]
    live = Live(preset="exact", done=1_234_567, total=62_021_632, seconds_left=1e5, every=60.0, waiting=("mixer",))
    place, shot = tmp_path / "page.html", tmp_path / "shot.png"
    drawings = 1 + sum(len(charts_of(result)) + 1 for result in results)
    for text in (page(results), page(results, live)):
        place.write_text(text, encoding="utf-8")
        for width, scheme in SIZES:
            found = measured(place, tmp_path, width, scheme)
            assert (found.pop("width"), found.pop("drawings"), found.pop("loaded")) == (width, drawings, 0)
            assert found.pop("ground") == ([20, 23, 27] if scheme == "dark" else [247, 248, 250])
            assert found == {fault: [] for fault in FAULTS}, (width, scheme)
    for width, scheme in SIZES:
        screenshot(place, shot, tmp_path, width, scheme)
        content = shot.read_bytes()
        assert int.from_bytes(content[16:20], "big") == max(width, 500)
        assert len(content) > 20_000
    place.write_text(f"<!doctype html><body>{inline(results[:1])}</body>", encoding="utf-8")
    for width in (900, 420):
        found = measured(place, tmp_path, width, "light")
        assert [found[fault] for fault in FAULTS] == [[]] * len(FAULTS), width


FAULTS = {
    "overflow": '<p style="width: 900px">far to the right <span style="margin-left: 700px">here</span></p>',
    "small": '<p style="font-size: 10px">little</p>',
    "faint": '<p style="color: #aaa">pale</p>',
    "cut": '<svg viewBox="0 0 300 80" width="300"><text x="290" y="40">cut off</text></svg>',
    "touching": '<svg viewBox="0 0 300 80" width="300"><text y="40">one</text><text x="4" y="42">two</text></svg>',
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, tmp_path: Path) -> None:
    place = tmp_path / "page.html"
    place.write_text(f"<!doctype html><body style='overflow-x: visible'>{FAULTS[fault]}</body>", encoding="utf-8")
    found = measured(place, tmp_path, 420, "light")
    assert [name for name in FAULTS if found[name]] == [fault]
