"""Faults of models beneath an honest evaluation: what a position sees."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ngram_eval.audit.claim import Claim
from ngram_eval.text.windows import Windows
from tests.audit.faults.case import Fault, Setting, what, words
from tests.support.planted import START, Documents, Model, Tokens, alone, subject

FAULTS: list[Fault] = []
Kind = TypeVar("Kind", bound=Callable[..., Model])


def fault(*found_by: int, claim: Claim | None = None, **arguments: Any) -> Callable[[Kind], Kind]:
    """List a model as a fault that these probes find."""

    def add(kind: Kind) -> Kind:
        def build(tokens: Tokens, folder: Path) -> Setting:
            return Setting(subject(alone, model=kind(**arguments)), tokens, claim or Claim())

        name = " ".join([words(kind.__name__), *map(str, arguments.values())])
        FAULTS.append(Fault(name, what(kind), "model", build, found_by))
        return kind

    return add


@fault(2, 4, 15)
class RolledSmear(Model):
    """The smear comes around: the first position of a window gets its last token."""

    def before(self, tokens: Tokens, windows: Windows, row: int, position: int) -> int | None:
        if position == windows.start[row]:
            return int(tokens[min(windows.start[row] + windows.seq_len, len(tokens) - 1)])
        return super().before(tokens, windows, row, position)


@fault(8)
class SmearOverRows(Model):
    """The smear runs over the rows of a batch: the first position of a window gets the last token of the row before."""

    def before(self, tokens: Tokens, windows: Windows, row: int, position: int) -> int | None:
        if position == windows.start[row] and row > 0:
            return int(tokens[windows.stop[row - 1] - 1])
        return super().before(tokens, windows, row, position)


@fault(11, claim=Claim(document_start=START))
class SmearOverDocuments(Documents):
    """The smear at a document's start comes from the document before."""

    def before(self, tokens: Tokens, windows: Windows, row: int, position: int) -> int | None:
        return None if position == windows.start[row] else int(tokens[position - 1])


# The bugs


@fault(15, block=4)
@fault(15, block=8)
@fault(15, block=64)
class SeesTheBlock(Model):
    """The mask lets a position see its whole block."""

    def __init__(self, block: int) -> None:
        super().__init__()
        self.block = block

    def before(self, tokens: Tokens, windows: Windows, row: int, position: int) -> int | None:
        last = min(position // self.block * self.block + self.block, len(tokens)) - 1
        return int(tokens[last]) if position > windows.start[row] else None


@fault(4, 15)
class SeesTheNextToken(Model):
    """The mask is off by one: a position sees its own target."""

    def before(self, tokens: Tokens, windows: Windows, row: int, position: int) -> int | None:
        return int(tokens[position + 1]) if position + 1 < len(tokens) else None
