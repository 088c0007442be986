"""Fixtures of several rooms: a small stream with repetitions, its neural statistics, the command line, tokenizers."""

import json
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():  # before Triton is imported: without a GPU, kernels run in its interpreter
    os.environ["TRITON_INTERPRET"] = "1"

from ngram_eval.text.shards import write_shard
from tests.support.host_cuda import compiler, host_extension
from tests.support.places import SAMPLE_PATH
from tests.support.streams import Stream, phrases

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
if WORKERS > 1 and "OMP_NUM_THREADS" not in os.environ:  # threads beyond the cores only wait for each other
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // WORKERS))

if find_spec("hypothesis"):  # benchmarks/gpu/suite.sh runs some of the tests where little is installed
    from hypothesis import HealthCheck, settings

    # Machines that run tests are shared: how long an example takes says nothing about the code.
    settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("steady")


@pytest.fixture(scope="session")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    """3,000 tokens below 50 in which phrases come back, so that every order matches somewhere."""
    tokens, rng = phrases()
    p_target = rng.beta(0.4, 2.0, len(tokens) - 1)
    p_target[17] = 0.0  # floored at 1e-30
    entropy = rng.uniform(0.0, 6.0, len(tokens) - 1).astype(np.float32)
    folder = tmp_path_factory.mktemp("stream")
    write_shard(folder / "data.bin", tokens)
    np.savez(folder / "scores.npz", p_target=p_target, entropy=entropy)
    return Stream(folder / "data.bin", folder / "scores.npz", tokens, p_target, entropy)


@pytest.fixture(autouse=True)
def cuda_backend(request: pytest.FixtureRequest) -> None:
    """Tests that a parameter sends to the `cuda` backend use the GPU, or where there is none its build for the host."""
    parameters = getattr(request.node, "callspec", None)
    if parameters is None or not any(isinstance(one, str) and one == "cuda" for one in parameters.params.values()):
        return
    if torch.cuda.is_available():
        pytest.importorskip("ngram_eval._cuda", reason="here is a GPU, but the CUDA extension was not built")
    elif compiler() is None:
        pytest.skip("no GPU, and no C++ compiler for the host's build")
    else:
        host_extension()


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, dict[str, Any]]]:
    """Run the evaluator's command line in this process; returns its runs by preset."""
    for needed in ("ngram_eval._core", "rich", "safetensors", "sentencepiece", "tyro", "zstandard"):
        pytest.importorskip(needed)
    from ngram_eval.cli import run

    def call(*arguments: object) -> dict[str, dict[str, Any]]:
        out = tmp_path / "out.json"
        monkeypatch.setattr(sys, "argv", ["run", *map(str, arguments), "--json", str(out)])
        run.main()
        return {one["preset"]: one for one in json.loads(out.read_text())["runs"]}

    return call


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer as `prepare` trains it."""
    from ngram_eval.text.prepare import PrepareConfig, prepare

    folder = tmp_path_factory.mktemp("trained")
    prepare(PrepareConfig(inputs=(str(SAMPLE_PATH),), out=folder, train_tokenizer=400), "test")
    return folder / "tokenizer.model"


@pytest.fixture(scope="session")
def other_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `squeeze.model` (SentencePiece's defaults, no byte fallback) and `nobos.model`."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("other")
    for name, bos_id in {"squeeze": 1, "nobos": -1}.items():
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SAMPLE_PATH.read_text(encoding="utf-8").split("\n")),
            model_prefix=str(folder / name),
            vocab_size=300,
            model_type="bpe",
            minloglevel=2,
            bos_id=bos_id,
        )
    return folder


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which no line is broken."""
    monkeypatch.setenv("COLUMNS", "4000")
