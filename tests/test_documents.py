"""What README and docs tell users to type is tried (`documents.py`), on small files of the names that the pages use."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard

from ngram_eval.assets import asset
from ngram_eval.cli.main import COMMANDS
from ngram_eval.models import artifact
from ngram_eval.models.transformer import Transformer
from ngram_eval.models.transformer_config import ModelConfig
from ngram_eval.text.shards import read_shards, write_shard
from ngram_eval.train import config as training
from ngram_eval.train.config import TrainConfig
from tests.models.test_convert import packed, zeros
from tests.support import documents
from tests.support.browser import measured
from tests.support.documents import PAGES, Command, check, steps
from tests.support.hf_models import TEXT, save_llama
from tests.support.places import ROOT

STREAM = slice(15_800, 17_900)
"""What is taken of the embedded sample: more than a window of 2048, and "Mrs. Dashwood and her" is in it."""
TOKENS = STREAM.stop - STREAM.start
SMALL = ModelConfig(
    layers=1,
    width=32,
    heads=2,
    kv_heads=2,
    mlp_hidden=32,
    bigram_slots=64,
    bigram_width=8,
    rope_dims=8,
    xsa_layers=0,
    value_layers=(),
)
PUBLISHED = ModelConfig(width=16, heads=1, kv_heads=1, mlp_hidden=16)
"""As published, but narrow."""
TOKENIZER = asset("tokenizer.model")
SHARD = asset("sample_000000.bin")
SAMPLE = ROOT / "tests/data/sample.txt"
HEAVY = {"ngram_eval.cli.budget"}
"""What measures this machine for many seconds, whatever it is given: run by `make test-all`."""
LONG = {"docs/audit.md", "docs/forward_once.md", "docs/leaderboard.md", "docs/memory.md", "docs/training.md"}
"""Pages that take many seconds: theirs are done by `make test-all`."""


def small_training(name: str) -> Callable[[], TrainConfig]:
    """A preset of training with a small model and few steps."""
    whole = getattr(training, name)()
    return lambda: replace(whole, model=SMALL, seq_len=64, batch=1, steps=4, max_seconds=0.0)


@lru_cache(maxsize=1)
def stream() -> np.ndarray[Any, np.dtype[np.uint16]]:
    """A part of the embedded sample."""
    return np.array(read_shards([str(SHARD)]).tokens[STREAM], np.uint16)


def write_artifact(path: Path) -> None:
    """An artifact of random weights."""
    torch.manual_seed(0)
    artifact.save(path, Transformer(SMALL), training.embedded().quant, 256)


def write_logits(path: Path) -> None:
    np.save(path, np.random.default_rng(0).normal(size=(TOKENS - 1, 1024)).astype(np.float32))


def write_scores(path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(path, p_target=rng.uniform(0.01, 0.5, TOKENS - 1), entropy=rng.uniform(0, 6, TOKENS - 1))


def write_claimed(path: Path) -> None:
    """The softmax of `write_logits`, as another evaluator would have written it down."""
    write_logits(path.with_name("logits.npy"))
    logits = np.load(path.with_name("logits.npy")).astype(np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.savez(path, p=chances[np.arange(TOKENS - 1), stream()[1:]])


def write_result(path: Path) -> None:
    """A result of two presets, with what it was made of beside it."""
    shutil.copy(TOKENIZER, "T.model")
    write_stream(Path("val.bin"))
    path.write_text(result())


@lru_cache(maxsize=1)
def result() -> str:
    """Of files of the current folder; its text says no more of them than their names."""
    flags = ["--data", "val.bin", "--tokenizer", "T.model", "--uniform", "--seq-len", "256", "--quiet"]
    documents.call("ngram_eval.run", [*flags, "--preset", "exact", "--preset", "hashed", "--json", "result.tmp"])
    return Path("result.tmp").read_text()


def copied(source: Path) -> Callable[[Path], object]:
    return lambda path: shutil.copy(source, path)


def write_stream(path: Path) -> None:
    write_shard(path, stream())


MAKERS: dict[str, Callable[[Path], object]] = {
    "IN": copied(SAMPLE),
    "after.json": write_result,
    "before.json": write_result,
    "book.txt": copied(SAMPLE),
    "charged.npz": write_claimed,
    "claim.json": lambda path: path.write_text(json.dumps({"positions": TOKENS - 1})),
    "elsewhere/val.bin": write_stream,
    "final_model.int6.ptz": lambda path: path.write_bytes(packed(zeros(PUBLISHED))),
    "fineweb_1024_bpe.model": copied(TOKENIZER),
    "fineweb_val_000000.bin": write_stream,
    "logits.npy": write_logits,
    "model": lambda path: save_llama(path, vocab_size=500, positions=4096),
    "model.ngev": write_artifact,
    "more.jsonl.zst": lambda path: path.write_bytes(
        zstandard.compress(json.dumps({"text": SAMPLE.read_text("utf-8")}).encode())
    ),
    "novel.txt": lambda path: path.write_text("".join(f"{n}. {TEXT}" for n in range(5)), encoding="utf-8", newline=""),
    "out.json": write_result,
    "scores.npz": write_scores,
    "shards/tokenizer.model": copied(TOKENIZER),
    "shards/train_000000.bin": write_stream,
    "shards/val_000000.bin": write_stream,
    "T.model": copied(TOKENIZER),
    "tests/data/sample.txt": copied(SAMPLE),
    "text/one.txt": copied(SAMPLE),
    "theirs.json": write_result,
    "val_000000.bin": write_stream,
}
"""File or folder -> how to make it."""
FINEWEB = ("fineweb_val_000000.bin",)
FILES: dict[str, tuple[str, ...]] = {
    "README.md": ("before.json", "after.json", "more.jsonl.zst", "text/one.txt", "model", "novel.txt"),
    "docs/audit.md": ("val_000000.bin", "T.model", "model.ngev", "charged.npz", "claim.json", "novel.txt"),
    "docs/budget.md": ("val_000000.bin", "T.model", "model.ngev"),
    "docs/codec.md": ("IN",),
    "docs/eight_gpus.md": ("T.model", "model.ngev", *FINEWEB),
    "docs/exact.md": ("val_000000.bin", "scores.npz"),
    "docs/formats.md": ("out.json",),
    "docs/forward_once.md": ("val_000000.bin", "T.model", "model.ngev", "novel.txt"),
    "docs/leaderboard.md": ("final_model.int6.ptz", "fineweb_1024_bpe.model", *FINEWEB),
    "docs/memory.md": ("text/one.txt", "T.model", "val_000000.bin", "model.ngev", "book.txt"),
    "docs/mixer.md": ("book.txt",),
    "docs/models.md": ("model", "novel.txt", "final_model.int6.ptz", "fineweb_1024_bpe.model", *FINEWEB),
    "docs/results.md": ("before.json", "after.json", "theirs.json", "elsewhere/val.bin"),
    "docs/training.md": ("shards/tokenizer.model", "shards/train_000000.bin", "shards/val_000000.bin"),
    "docs/tutorial.md": ("tests/data/sample.txt",),
}
"""Page -> what is there before its first command."""

WITH_TRANSFORMERS = {"README.md", "docs/models.md"}


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that a page's commands are run in; what comes with the package is small here."""
    page: str = request.getfixturevalue("page")
    here, package = tmp_path / "here", tmp_path / "package"
    here.mkdir()
    package.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(here)
    for name in FILES.get(page, ()):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        MAKERS[name](Path(name))
    write_stream(package / SHARD.name)
    write_artifact(package / "model.ngev")
    shutil.copy(TOKENIZER, package)
    monkeypatch.setattr("ngram_eval.assets.files", lambda name: package)
    for name in ("embedded", "small"):
        monkeypatch.setitem(training.PRESETS, name, small_training(name))
    yield here
    for module in [
        name for name, one in sys.modules.items() if str(getattr(one, "__file__", "")).startswith(str(here))
    ]:
        del sys.modules[module]


def runnable(page: str) -> bool:
    return any(not isinstance(step, Command) or step.run for step in steps(page))


def heavy(command: Command) -> bool:
    ours = documents.module_of(command)
    return ours is not None and ours[0] in HEAVY


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] * (page in LONG)) for page in PAGES if runnable(page)]
)
def test_a_page_does_what_it_shows(page: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if page in WITH_TRANSFORMERS:
        pytest.importorskip("transformers", reason="transformers is not installed: pip install ngram_eval[hf]")
    session = documents.run(page, folder, skip=heavy)
    printed = capsys.readouterr()
    if page in EXPECTED:
        EXPECTED[page](session, printed.out)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/budget.md"])
def test_what_takes_longer(page: str, folder: Path) -> None:
    found = [step for step in steps(page) if isinstance(step, Command) and heavy(step)]
    assert found
    documents.run(page, folder, skip=lambda command: not heavy(command))


def after_the_tutorial(session: dict[str, Any], printed: str) -> None:
    (run,) = json.loads(Path("result.json").read_text())["runs"]
    assert run["normalised"]
    assert run["val_bpb"] < run["neural_bpb"]
    assert "verdict: every probe that applies passed" in printed
    assert Path("result.html").exists()


def after_the_models(session: dict[str, Any], printed: str) -> None:
    assert "bits per byte" in printed
    assert "nats a token, of" in printed
    assert "11 layers of width 16" in printed
    assert session["result"].normalised
    assert len(session["written"]) == 220
    assert session["done"].shape[0] == 1
    assert Path("model.ngev").exists()


def after_the_readme(session: dict[str, Any], printed: str) -> None:
    assert Path("again.txt").read_bytes() == Path("novel.txt").read_bytes()
    assert Path("out.html").exists()


EXPECTED: dict[str, Callable[[dict[str, Any], str], None]] = {
    "README.md": after_the_readme,
    "docs/models.md": after_the_models,
    "docs/tutorial.md": after_the_tutorial,
}
"""Page -> what must have come of it, besides no error."""


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_run_exists(page: str) -> None:
    for step in steps(page):
        if isinstance(step, Command) and (not step.run or heavy(step)):
            check(step)


@pytest.mark.parametrize(
    "line",
    [
        "ngram-eval rum --preset exact  # needs a GPU",
        "ngram-eval run --preset exact --sequence-len 3  # needs a GPU",
        "ngram-eval run --preset exact --stride x  # takes long",
        "ngram-eval run --sequence-len ...",
        "torchrun --nproc_per_node=8 -m ngram_eval.runs  # needs 8 GPUs",
        "pip install 'ngram_eval[plots]'",
        "make tests",
        "benchmarks/gpu/suit.sh report.md",
        "nosuchprogram",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    with pytest.raises(ValueError, match=re.escape(line)):
        check(documents.parse(line))


def test_every_command_is_shown_somewhere() -> None:
    lines = [step for page in PAGES for step in steps(page) if isinstance(step, Command)]
    ours = {found[0] for step in lines if (found := documents.module_of(step)) is not None}
    assert {command.module for command in COMMANDS.values()} <= ours


def test_links_in_the_documents_lead_somewhere() -> None:
    for page in [*PAGES, "CHANGELOG.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert ((ROOT / page).parent / target).exists(), f"{page} -> {target}"


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links, as on GitHub and on the site, where no two are alike."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_to_headings_lead_somewhere() -> None:
    for page in PAGES:
        here = ROOT / page
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", here.read_text(encoding="utf-8")):
            there = here.parent / target if target else here
            assert anchor in anchors(there), f"{page} -> {target}#{anchor}"


def test_make_targets_in_the_text_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"`make ([\w-]+)`", (ROOT / page).read_text(encoding="utf-8"))) <= targets, page


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed: pip install -e '.[docs]'")
def test_the_site(tmp_path: Path) -> None:
    """It builds without a warning, holds every page, and asks for nothing from anywhere else."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    loaded = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=\"?(https?:|//)[^>]*")
    for page in pages:
        asked = [tag[0] for tag in loaded.finditer(page.read_text(encoding="utf-8")) if 'rel="canonical"' not in tag[0]]
        assert not asked, page
    reference = "".join(page.read_text(encoding="utf-8") for page in (tmp_path / "site").glob("api*.html"))
    for name in (
        "ngram_eval.evaluate",
        "ngram_eval.NgramMemory.distribution",
        "ngram_eval.EvalConfig",
    ):
        assert f'id="{name}"' in reference, name


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed: pip install -e '.[docs]'")
def test_the_site_fits_a_desktop_and_a_phone(tmp_path: Path) -> None:
    """No page is wider than its window, but for what scrolls in it; no text is below 11 px."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    subprocess.run(command, cwd=ROOT, check=True)
    pages = sorted((tmp_path / "site").glob("*.html"))
    assert len(pages) > 20
    for page in pages:
        for width in (1280, 420):
            found = measured(page, tmp_path, width, "light")
            assert (found["width"], found["overflow"], found["small"]) == (width, [], []), page.name
