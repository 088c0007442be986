"""The hash against golden values, which no code of ours made.

`tests/golden/hash.json` was written by `python tests/golden/make_hash.py`: Python's big integers, straight from the
published formula, without numpy and without this package.
"""

import json
from typing import Any

import numpy as np
import pytest

from ngram_eval.config import MAX_HASHED_ORDER
from ngram_eval.scorers.hashed.hashing import PRIMES, bucket_pair, context_hash
from tests.support.places import GOLDEN as FOLDER

GOLDEN = json.loads((FOLDER / "hash.json").read_text())


def test_primes() -> None:
    assert list(PRIMES) == GOLDEN["primes"]
    assert len(PRIMES) == MAX_HASHED_ORDER


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"order{case['order']}-{case['dtype']}")
def test_golden(case: dict[str, Any]) -> None:
    context = np.array(case["context"], case["dtype"])
    target = np.array([case["target"]], case["dtype"])
    ends = np.array([len(context)])
    assert [int(h) for h in context_hash(context, ends, len(context))] == [int(case["context_hash"])]
    for buckets, expected in case["buckets"].items():
        pair = bucket_pair(context, ends, target, case["order"], int(buckets))
        assert [b.tolist() for b in pair] == [[expected[0]], [expected[1]]]
