"""What tokens stand for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngram_eval.codec import alphabet
from ngram_eval.codec.alphabet import Alphabet
from ngram_eval.errors import InputError


@given(st.lists(st.binary(max_size=8) | st.none(), min_size=2, max_size=40), st.data())
def test_an_alphabet_survives_its_table(surfaces: list[bytes | None], data: st.DataObject) -> None:
    escape = data.draw(st.none() | st.integers(0, len(surfaces) - 1))
    one = Alphabet(tuple(surfaces), escape)
    assert alphabet.unpack(alphabet.pack(one)) == one


@given(st.binary(max_size=60))
def test_a_damaged_table_is_no_crash(packed: bytes) -> None:
    whole = alphabet.pack(Alphabet((b"a", None, b"abc")))
    for bad in (packed, whole[: len(packed)], whole[:5] + packed):
        try:
            alphabet.unpack(bad)
        except InputError:
            continue


@given(st.binary(max_size=60))
def test_the_longest_match_spells_the_text_with_escapes(data: bytes) -> None:
    one = Alphabet((None, b"a", b"ab", b"\x00", b"abc", b"bc"), escape=0)
    tokens, raw = one.cut_greedily(data)
    assert one.spell(np.array(tokens, np.uint16), raw) == data


def test_the_longest_match_is_the_longest() -> None:
    assert Alphabet((None, b"a", b"ab", b"abc", b"bc")).cut_greedily(b"abcabbc") == ([3, 2, 4], b"")


def test_a_byte_without_token_and_escape_is_named() -> None:
    with pytest.raises(InputError, match="0x7a"):
        Alphabet((b"a", b"b")).cut_greedily(b"az")
