"""Line breaks that a width implies are left out, and come back."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngram_eval.codec import container, wrapping
from ngram_eval.codec.wrapping import Unwrapped, unwrap, wrap
from ngram_eval.errors import InputError
from tests.support.codec import NOWHERE, compress, decompress, novel

PROSE = " ".join(novel(30_000).decode().split())
WRAPPED = textwrap.fill(PROSE, 60, break_long_words=False, break_on_hyphens=False).encode()


@pytest.fixture
def any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapping, "_FEWEST", 1)


def restored(data: bytes) -> Unwrapped:
    found = unwrap(data)
    assert found is not None
    assert wrap(found) == data
    return found


def test_wrapped_prose_is_written_without_its_line_breaks() -> None:
    assert restored(WRAPPED).text == WRAPPED.replace(b"\n", b" ")


def test_characters_count_and_not_bytes(any_number: None) -> None:
    text = textwrap.fill("ältere Bäume wüßten mehr über die Höfe als wir, sagte der Müller. " * 40, 50).encode()
    assert b"\n" not in restored(text).text


def test_lines_that_no_width_implies_keep_their_breaks() -> None:
    verse = b"O Captain! my Captain!\nour fearful trip is done,\n\n"
    found = restored(WRAPPED + b"\n\n" + verse * 3 + WRAPPED)
    assert verse * 3 in found.text + b"\n\n"
    assert found.text.count(b"\n") == 3 * 3 + 2


def test_a_space_where_a_break_is_implied_is_an_exception() -> None:
    joined = WRAPPED.replace(b"\n", b" ", 3)
    found = restored(joined)
    assert len(found.notes) > len(restored(WRAPPED).notes)


def test_every_stretch_has_its_own_width() -> None:
    narrow = textwrap.fill(PROSE * 2, 40).encode()
    wide = textwrap.fill(PROSE * 2, 76).encode()
    found = restored(narrow + b"\n\n" + wide)
    assert found.text.count(b"\n") < 0.05 * (narrow + wide).count(b"\n")


@given(
    st.text(st.sampled_from("ab \n\t\ré▁"), max_size=300) | st.binary(max_size=100).map(lambda b: b.decode("latin1"))
)
def test_whatever_is_unwrapped_comes_back(text: str) -> None:
    data = text.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wrapping, "_FEWEST", 1)
        patch.setattr(wrapping, "_NARROWEST", 3)
        patch.setattr(wrapping, "_STRETCH", 64)
        patch.setattr(wrapping, "_LEAST_SHARE", 0.0)
        found = unwrap(data)
        assert found is None or wrap(found) == data


def test_code_and_short_texts_stay_as_they_are() -> None:
    assert unwrap(b"def f(x):\n    return x\n\n\n" * 1000) is None
    assert unwrap(WRAPPED[:3000]) is None
    assert unwrap(b"") is None


def test_a_file_of_wrapped_prose_is_smaller_and_comes_back() -> None:
    packed = compress(WRAPPED).container
    plain = compress(WRAPPED, unwrapped=False).container
    assert len(packed.to_bytes()) < 0.98 * len(plain.to_bytes())
    assert decompress(container.parse(packed.to_bytes(), NOWHERE)) == decompress(plain) == WRAPPED


@pytest.mark.parametrize("notes", [b"", b"\x00", b"not compressed"])
def test_notes_of_another_text_are_refused(notes: bytes) -> None:
    with pytest.raises(InputError, match="list of line widths is damaged"):
        wrap(Unwrapped(b"to be or not to be", notes))
