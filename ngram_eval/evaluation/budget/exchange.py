"""The time of exchanges between ranks: `measure_exchange` starts this module as two processes on this machine.

They use gloo over loopback, as an evaluation on one host does. Other hosts, or NCCL between GPUs, give other figures.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ngram_eval.config import EvalConfig
from ngram_eval.distributed.prefill import scan
from ngram_eval.distributed.ranks import joined_ranks
from ngram_eval.errors import InputError

_MESSAGES, _POSITIONS = 32, 1024
"""Messages sent, and positions in each: as many as in a batch at stride 32."""


def measure_exchange(config: EvalConfig) -> tuple[float, float]:
    """(seconds to scan the tables of `config` over two ranks, seconds to send one position's statistics).

    Raises `InputError` if the two processes fail.
    """
    counters = 2 * len(config.ngram.orders) * config.ngram.buckets if config.scorer == "hashed" else 1 << 20
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seconds.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        command += ["-m", "ngram_eval.evaluation.budget.exchange", str(counters), str(out)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"--ranks: two processes could not exchange on this machine ({last}); give --ranks 1")
        scanned, sent = json.loads(out.read_text())
        return scanned, sent


def work(counters: int, out: Path) -> None:
    """Work of one of two ranks; rank 0 writes the median seconds to `out`, as JSON."""
    import torch

    with joined_ranks(60.0) as ranks:
        tables = torch.ones(counters, dtype=torch.int32)
        scans = []
        for _ in range(3):
            ranks.gather(None)
            started = time.perf_counter()
            scan(tables, ranks)
            scans.append(time.perf_counter() - started)
        message = np.zeros(_POSITIONS * 12, np.uint8)
        ranks.gather(None)
        started = time.perf_counter()
        for tag in range(_MESSAGES):
            if ranks.rank:
                ranks.send(message, 0, tag)
            else:
                ranks.receive(message, 1, tag)()
        sent = (time.perf_counter() - started) / _MESSAGES / _POSITIONS
        if ranks.rank == 0:
            out.write_text(json.dumps([sorted(scans)[1], sent]))


if __name__ == "__main__":
    work(int(sys.argv[1]), Path(sys.argv[2]))
