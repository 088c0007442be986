"""Writes the line breaks that a width implies as spaces, and puts them back: a text without them is a shorter code.

A line of wrapped prose ends where the next word would pass the width. Such a break says nothing that the words do not,
yet a model of text pays for it. Every byte keeps its place, and only breaks change, to spaces; a reader wraps the text
again. A break that no width implies stays one. A space where a break is implied is an exception: it is listed, and
nothing is implied in the rest of its line. Each stretch of the text has a width of its own, or none.
"""

import lzma
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ngram_eval.errors import InputError

_STRETCH = 1 << 15
"""Bytes of a stretch: a line belongs to the one that it begins in."""
_NARROWEST, _WIDEST = 20, 255
"""Characters of a width; one byte holds it."""
_LEAST_SHARE = 0.5
"""Of a stretch's breaks between two words, those that its width must imply, less lines that are longer than it."""
_FEWEST = 200
"""Implied breaks, less exceptions: fewer may cost more than they save."""
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 16, "lc": 0, "lp": 0, "pb": 0}]
_SPACE, _BREAK = b" \n"
_GROUND = np.isin(np.arange(256), list(b" \n\r\t"))
"""By byte, whether it parts words."""


class Unwrapped(NamedTuple):
    """A text without the breaks that its widths imply."""

    text: bytes
    notes: bytes
    """Widths and exceptions, for `wrap`."""


def unwrap(data: bytes) -> Unwrapped | None:
    """The text without implied breaks; None if there are few, or if `wrap` does not restore it."""
    if not data:
        return None
    layout = _Layout.of(data)
    widths = layout.widths(data)
    text, exceptions = bytearray(data), []
    implied = 0

    def take_out(at: int) -> bool:
        nonlocal implied
        implied += 1
        if data[at] == _BREAK:
            text[at] = _SPACE
        else:
            exceptions.append(implied)
        return data[at] == _BREAK

    layout.walk(data, widths, take_out)
    if implied - 2 * len(exceptions) < _FEWEST:
        return None
    steps = np.diff(np.array(exceptions, np.uint32), prepend=np.uint32(0)).astype("<u4").tobytes()
    unwrapped = Unwrapped(bytes(text), lzma.compress(widths + steps, lzma.FORMAT_RAW, filters=_FILTERS))
    return unwrapped if wrap(unwrapped) == data else None


def wrap(unwrapped: Unwrapped) -> bytes:
    """The text with its breaks; raises `InputError` for notes of another text."""
    text = unwrapped.text
    stretches = _stretches(len(text))
    try:
        most = stretches + 4 * len(text)
        notes = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS).decompress(unwrapped.notes, most)
    except (lzma.LZMAError, EOFError) as error:
        raise InputError("its list of line widths is damaged") from error
    widths, steps = notes[:stretches], notes[stretches:]
    if len(widths) < stretches or len(steps) % 4:
        raise InputError("its list of line widths is damaged")
    exceptions = set(np.cumsum(np.frombuffer(steps, "<u4"), dtype=np.int64).tolist())
    wrapped, implied = bytearray(text), 0

    def put_in(at: int) -> bool:
        nonlocal implied
        implied += 1
        if implied in exceptions:
            return False
        wrapped[at] = _BREAK
        return True

    _Layout.of(text).walk(text, widths, put_in)
    return bytes(wrapped)


def _stretches(size: int) -> int:
    return -(-size // _STRETCH)


class _Layout(NamedTuple):
    """Where breaks may be: at single spaces and breaks between two words, the same before and after they change."""

    gaps: NDArray[np.int64]
    """Their places, rising."""
    reach: NDArray[np.int64]
    """Characters of the text up to the end of the word after each."""
    inner: NDArray[np.int64]
    """Places of the bytes that begin no character."""

    @classmethod
    def of(cls, text: bytes) -> "_Layout":
        """The layout of a text."""
        array = np.frombuffer(text, np.uint8)
        ground = np.flatnonzero(_GROUND[array])
        inner = np.flatnonzero(array & 0xC0 == 0x80)
        ends = np.append(ground, len(text))
        before = np.diff(ends[:-1], prepend=-1) > 1
        is_gap = before & (np.diff(ends) > 1) & np.isin(array[ground], (_SPACE, _BREAK))
        reached = ends[1:][is_gap]
        return cls(ground[is_gap], reached - np.searchsorted(inner, reached), inner)

    def characters(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Characters of the text before each place."""
        return at - np.searchsorted(self.inner, at)

    def walk(self, text: bytes, widths: bytes, is_break: Callable[[int], bool]) -> None:
        """Call is_break(place) at the first implied break of every line of `text`; where it says no, there is none."""
        gaps, reach, inner = self.gaps.data, self.reach.data, self.inner.data
        start = first = 0
        while start < len(text):
            first = bisect_left(gaps, start, first)
            end = text.find(b"\n", start)
            end = len(text) if end < 0 else end
            width = widths[start // _STRETCH]
            passing = bisect_right(reach, start - bisect_left(inner, start) + width, first) if width else len(gaps)
            if passing < len(gaps) and gaps[passing] <= end and is_break(gaps[passing]):
                start = gaps[passing] + 1
            else:
                start = end + 1

    def widths(self, text: bytes) -> bytes:
        """Every stretch's width, 0 for none: the one that implies most breaks, less the lines that are longer."""
        array = np.frombuffer(text, np.uint8)
        breaks = np.append(np.flatnonzero(array == _BREAK), len(text))
        starts = np.append(0, breaks[:-1] + 1)
        begin = self.characters(starts)
        length = np.minimum(self.characters(breaks) - begin, _WIDEST + 1)
        where = np.searchsorted(self.gaps, breaks)
        between = (where < len(self.gaps)) & (np.append(self.gaps, -1)[where] == breaks)
        most = np.minimum(np.append(self.reach, 0)[where] - begin, _WIDEST + 1)  # a width of this is too wide
        # Differences from width to width of: breaks that it implies, and lines that are longer.
        steps = np.zeros((_stretches(len(text)), _WIDEST + 2))
        stretch = np.minimum(starts, len(text) - 1) // _STRETCH
        np.add.at(steps, (stretch[between], length[between]), 1)
        np.add.at(steps, (stretch[between], most[between]), -1)
        np.add.at(steps, (stretch, 0), -1)
        np.add.at(steps, (stretch, length), 1)
        score = np.cumsum(steps, axis=1)[:, : _WIDEST + 1]
        score[:, :_NARROWEST] = -np.inf
        everywhere = score.sum(axis=0)
        best = np.argmax(score + everywhere / (1 + 2 * np.abs(everywhere[_NARROWEST:]).max()), axis=1)
        needed = _LEAST_SHARE * np.bincount(stretch[between], minlength=len(score))
        used = score[np.arange(len(score)), best] > needed
        return bytes(np.where(used, best, 0).astype(np.uint8))
