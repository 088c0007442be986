"""The tables of exact counts in C++: crowded hashes, and memory that runs out."""

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from ngram_eval import _core
from ngram_eval.config import ExactConfig
from ngram_eval.scorers.exact.model import make_model


def test_no_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="threads is 0: give at least 1"):
        _core.ExactModel(max_order=2, chain=True, tilt="off", tilt_factor=1, tilt_confidence=0, threads=0)


def crowded(bits: int, homes: int) -> NDArray[np.uint32]:
    """Tokens that are sought, as first tokens of a text, from the first `homes` places of an index of 2^bits on."""
    tokens = np.arange((1 << 19) - 1, dtype=np.uint64)
    key = (tokens << np.uint64(13)) * np.uint64(0x9E3779B97F4A7C15)  # as in csrc/exact/child_index.h
    key = (key ^ key >> np.uint64(29)) >> np.uint64(13) << np.uint64(13)
    key *= np.uint64(0xBF58476D1CE4E5B9)
    return tokens[key >> np.uint64(64 - bits) < homes].astype(np.uint32)


def test_tokens_whose_hashes_crowd_are_told_apart() -> None:
    tokens = crowded(13, 40)
    assert 1 << 11 < len(tokens) < 1 << 12  # some lie further from home than an entry can say, so the index grows
    model = make_model("cpu", 1, ExactConfig())
    model.append(np.concatenate([tokens, tokens, tokens[:9]]))
    assert model.size()["nodes"] == len(tokens)
    counts = [int(model.evidence(token)[0, 4]) for token in tokens.tolist()]
    assert counts == [3] * 9 + [2] * (len(tokens) - 9)


SHORT_OF_MEMORY = """
import resource
import numpy as np
from ngram_eval.config import ExactConfig
from ngram_eval.scorers.exact.model import make_model

def limit(megabytes):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), resource.RLIM_INFINITY))

tokens = np.random.default_rng(1).integers(0, 500, {length}).astype(np.uint16)
arrays = np.full(len(tokens), 1 / 500), np.ones(len(tokens), np.float32)
{work}
"""


def short_of_memory(length: int, work: str) -> str:
    """What `work` prints, in a process whose memory it limits."""
    code = SHORT_OF_MEMORY.format(length=length, work=work)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="limits addresses as Linux does")
def test_the_thread_that_runs_out_of_memory_ends_the_call() -> None:
    work = """
model = make_model("cpu", 3, ExactConfig(), threads=2)
model.score(tokens[:2000], arrays[0][:2000], arrays[1][:2000], together=False)  # a thread's stack is kept
limit(3)
try:
    model.score(tokens, *arrays, together=False)
except MemoryError:
    print("no memory")
"""
    assert short_of_memory(300_000, work) == "no memory\n"


@pytest.mark.skipif(sys.platform != "linux", reason="limits addresses as Linux does")
def test_where_addresses_are_limited_tables_are_copied_as_they_grow() -> None:
    work = """
expected = make_model("cpu", 3, ExactConfig()).score(tokens, *arrays, together=False)
limit(400)
model = make_model("cpu", 3, ExactConfig())
for part in np.array_split(np.arange(len(tokens)), 5):
    p, _ = model.score(tokens[part], arrays[0][part], arrays[1][part], together=False)
    print((p == expected[0][part]).all(), end=" ")
"""
    assert short_of_memory(150_000, work).split() == ["True"] * 5
