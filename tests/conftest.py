"""What several test files share: a small stream with repetitions, its neural statistics, and the command line."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

if not torch.cuda.is_available():  # before Triton is imported: without a GPU, kernels run in its interpreter
    os.environ["TRITON_INTERPRET"] = "1"

from host_cuda import compiler, host_extension

from ngram_eval.text.shards import write_shard
from published import Totals
from published import evaluate as published

if find_spec("hypothesis"):  # benchmarks/gpu/suite.sh runs some of the tests where little is installed
    from hypothesis import HealthCheck, settings

    # Machines that run tests are shared: how long an example takes says nothing about the code.
    settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("steady")


@dataclass(frozen=True)
class Stream:
    """A token stream on disk with neural statistics of every position."""

    shard: Path
    scores: Path
    tokens: NDArray[np.uint16]
    p_target: NDArray[np.float64]
    entropy: NDArray[np.float32]

    def published(self, **arguments: Any) -> Totals:
        """What the independent implementation finds."""
        return published(self.tokens.tolist(), self.p_target.tolist(), self.entropy.tolist(), **arguments)


@pytest.fixture(scope="session")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    """3,000 tokens below 50 in which phrases come back, so that every order matches somewhere."""
    rng = np.random.default_rng(7)
    phrases = [rng.integers(0, 50, rng.integers(3, 14)) for _ in range(40)]
    tokens = np.concatenate([phrases[i] for i in rng.integers(0, 40, 600)])[:3000].astype(np.uint16)
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
