"""Audit a submission: is the number that an evaluator charges a probability?

    python examples/audit_a_submission.py honest       # passes, exit code 0
    python examples/audit_a_submission.py backs_off    # refuted, exit code 1

An evaluator is a function of the past that gives the probabilities of all tokens. To audit yours, put it into a module
and name it: `ngram-eval audit --callable MODULE:FUNCTION --data 'val_*.bin'`. The two here count which token follows
which in the embedded novel. They differ in one line, and the one that is no probability has the better score.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngram_eval.assets import asset
from ngram_eval.cli.main import main as ngram_eval

VOCABULARY = 1024
Array = NDArray[np.float64]


def _counted(past_tokens: NDArray[np.integer], state: dict[str, Any]) -> tuple[Array, Array]:
    """(counts of what followed the newest token, counts of all tokens), (V,) each."""
    pairs = state.setdefault("pairs", np.zeros((VOCABULARY, VOCABULARY)))
    singles = state.setdefault("singles", np.ones(VOCABULARY))
    if len(past_tokens) > 1:
        pairs[past_tokens[-2], past_tokens[-1]] += 1
    singles[past_tokens[-1]] += 1
    return pairs[past_tokens[-1]], singles


def honest(past_tokens: NDArray[np.integer], state: dict[str, Any]) -> Array:
    """Both counts in a mixture whose weight depends on the past alone: it sums to 1."""
    pairs, singles = _counted(past_tokens, state)
    weight = pairs.sum() / (pairs.sum() + 20)
    return np.asarray(weight * pairs / max(pairs.sum(), 1) + (1 - weight) * singles / singles.sum())


def backs_off(past_tokens: NDArray[np.integer], state: dict[str, Any]) -> Array:
    """Pairs where the target was seen, single tokens where it was not: the target chooses, so the sum exceeds 1."""
    pairs, singles = _counted(past_tokens, state)
    return np.where(pairs > 0, pairs / max(pairs.sum(), 1), singles / singles.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluator", choices=["honest", "backs_off"])
    asked = parser.parse_args()
    here = Path(__file__)
    sys.path.insert(0, str(here.parent))
    data = str(asset("sample_000000.bin"))
    ngram_eval(["audit", "--callable", f"{here.stem}:{asked.evaluator}", "--data", data, "--positions", "600"])


if __name__ == "__main__":
    main()
