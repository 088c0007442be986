"""What is kept of a text where not all of it may be."""

import numpy as np
import pytest

from ngram_eval.errors import InputError
from ngram_eval.kept import file as kept_file
from ngram_eval.kept.choosing import SPAN, fitted, ordered
from ngram_eval.text.kept import KeptMemory, kept_of

RNG = np.random.default_rng(0)
MEMORY = kept_of(RNG.integers(0, 200, 40 * SPAN + 9).astype(np.uint16), None, 200)


def size(memory: KeptMemory) -> int:
    return len(kept_file.to_bytes(memory, "none"))


@pytest.mark.parametrize("most", [2000, 9000, 100_000])
def test_as_many_spans_are_kept_as_fit_in_the_order_of_the_text(most: int) -> None:
    order = RNG.permutation(41)
    kept = fitted(MEMORY, most, order, size)
    assert size(kept) <= most
    count = -(-len(kept.tokens) // SPAN)
    spans = [MEMORY.tokens[at * SPAN : (at + 1) * SPAN] for at in sorted(order[:count].tolist())]
    assert kept.tokens.tolist() == np.concatenate(spans).tolist()
    assert count == 41 or size(kept) > 0.99 * most or size(kept) + 2 * SPAN > most


def test_too_few_bytes_for_a_span_are_refused() -> None:
    with pytest.raises(InputError, match=r"max.bytes is 300: 256 tokens take"):
        fitted(MEMORY, 300, np.arange(41), size)


def test_spans_that_a_model_is_bad_at_come_first() -> None:
    p = np.full(len(MEMORY.tokens), 0.5)
    p[7 * SPAN : 8 * SPAN], p[30 * SPAN : 31 * SPAN] = 0.001, 0.01
    assert ordered(MEMORY, p)[:2].tolist() == [7, 30]
    assert sorted(ordered(MEMORY, None).tolist()) == list(range(41))


def test_of_two_spans_the_cheaper_one_comes_first() -> None:
    """A span that comes again costs little, and the model spends as much on it."""
    tokens = MEMORY.tokens.copy()
    tokens[20 * SPAN : 21 * SPAN] = tokens[3 * SPAN : 4 * SPAN]
    again = kept_of(tokens, None, 200)
    assert ordered(again, np.full(len(tokens), 0.01))[0] == 20
