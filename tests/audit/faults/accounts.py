"""Faults of claims and data: what was written down, how it was added up and divided, what it was trained on."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngram_eval.assets import asset
from ngram_eval.audit.claim import Claim
from ngram_eval.audit.subjects.claimed import ClaimedSubject
from ngram_eval.config import ByteRule
from ngram_eval.models.saved_logits import SavedLogits
from ngram_eval.models.source import UniformSource
from ngram_eval.text.tokenizer import Tokenizer
from tests.audit.faults.case import Fault, Setting
from tests.support.planted import VOCAB, Array, Tokens, alone, subject

FAULTS: list[Fault] = []
TITLES = "The cat and the hat sat in London; it rained in May, they say, and nobody saw the mouse leave. " * 12
TEXT = "It is a truth — universally acknowledged — that a café in Zürich, or 東京, costs 5 €. " * 12


def _fault(name: str, what: str, kind: str, build: Callable[..., Setting], *found_by: int, unseen: str = "") -> None:
    FAULTS.append(Fault(name, what, kind, build, found_by, unseen))


# Written claims


def claimed(
    tokens: Tokens, change: Callable[[Array], Array], at: NDArray[np.int64] | None = None, dtype: type = np.float32
) -> ClaimedSubject:
    """Charges from known logits, changed."""
    rows = np.random.default_rng(1).normal(0, 3, (len(tokens) - 1, VOCAB))
    logits = SavedLogits(rows.astype(dtype), Path("l.npy"))
    p = np.exp(rows - rows.max(axis=1, keepdims=True))
    p = (p / p.sum(axis=1, keepdims=True))[np.arange(len(rows)), tokens[1:]]
    positions = np.arange(len(rows)) if at is None else at
    return ClaimedSubject(
        name="claimed", positions=positions, values=change(p[positions]), logits=logits, tokens=tokens, whole=len(rows)
    )


def ten(p: Array) -> Array:
    """Ten of the charges tripled."""
    p = p.copy()
    p[37::90] = np.minimum(3 * p[37::90] + 0.1, 1)
    return p


def _claims(name: str, what: str, change: Callable[[Array], Array], *found_by: int, **arguments: Any) -> None:
    _fault(name, what, "claim", lambda tokens, folder: Setting(claimed(tokens, change, **arguments), tokens), *found_by)


def _says(name: str, what: str, claim: Callable[[float, int], Claim], *found_by: int) -> None:
    def build(tokens: Tokens, folder: Path) -> Setting:
        one = claimed(tokens, lambda p: p)
        return Setting(one, tokens, claim(float(-np.log(one.values).sum()), len(tokens) - 1), {"text": b"x" * 4000})

    _fault(name, what, "claim", build, *found_by)


_claims(
    "all inflated", "A fifth is added to every charge that was written down", lambda p: np.minimum(p * 1.2, 1), 4, 10
)
_claims("ten inflated", "Ten of 900 charges are more than the distributions say", ten, 4)
_claims("charges above 1", "Charges are no probabilities", lambda p: p * 100, 1)
_claims(
    "gain within float16",
    "Each charge gains less than float16 is off, all in one direction",
    lambda p: p * 1.004,
    4,
    dtype=np.float16,
)
_claims("a part as the whole", "Only the first 400 positions have charges", lambda p: p, 5, at=np.arange(400))
_claims(
    "one position twice", "A position that was cheap is charged again", lambda p: p, 5, at=np.append(np.arange(900), 7)
)
_says("a nat too few", "The claimed sum is not that of the charges", lambda nats, n: Claim(nats=nats - 1), 5)
_says("a loss too low", "The claimed mean is not that of the charges", lambda nats, n: Claim(loss=nats / n - 0.001), 5)
_says("a position too many", "The sum is divided by more positions", lambda nats, n: Claim(positions=n + 1), 5)
_says(
    "bits over inflated bytes",
    "Bits per byte that only more bytes than the text has would give",
    lambda nats, n: Claim(bpb=round(nats / np.log(2) / 4000 / 1.0895, 4)),
    6,
)
_says("bytes that the text has not", "Sentinels of three bytes are counted", lambda nats, n: Claim(bytes=4358), 6)


def _without_logits(tokens: Tokens, folder: Path) -> Setting:
    return Setting(replace(claimed(tokens, lambda p: np.full(len(p), 0.999)), logits=None), tokens)


def _all_on_the_target(tokens: Tokens, folder: Path) -> Setting:
    rows = np.full((len(tokens) - 1, VOCAB), 0.0)
    rows[np.arange(len(rows)), tokens[1:]] = 20
    p = np.exp(20) / (np.exp(20) + VOCAB - 1)
    one = claimed(tokens, lambda values: np.full(len(values), p))
    return Setting(replace(one, logits=SavedLogits(rows, Path("l.npy"))), tokens)


_fault(
    *("numbers without distributions", "0.999 for every target, and no logits", "claim", _without_logits),
    unseen="numbers alone say nothing of what other targets would have got: the verdict is inconclusive, not a pass",
)
_fault(
    *("logits of the targets", "Logits that were computed from the targets", "claim", _all_on_the_target),
    unseen="a file can't be asked about another text: the verdict is inconclusive; ask the function or the evaluator",
)


# Bytes


class SpaceTwice(Tokenizer):
    """A leading space counts in the piece and again before it."""

    def target_bytes(self, tokens: Tokens, start: int, stop: int, rule: ByteRule) -> NDArray[np.int64]:
        sizes = super().target_bytes(tokens, start, stop, rule)
        sizes += self._spaced[tokens[start + 1 : stop + 1]]
        return sizes


class ThreeBytesAByte(Tokenizer):
    """A byte token counts as long as what stands for it where it is decoded alone."""

    def target_bytes(self, tokens: Tokens, start: int, stop: int, rule: ByteRule) -> NDArray[np.int64]:
        sizes = super().target_bytes(tokens, start, stop, rule)
        sizes += 2 * self._byte[tokens[start + 1 : stop + 1]]
        return sizes


class NoSpaces(Tokenizer):
    """Takes the vocabulary for one without a mark of spaces: none is counted."""

    def target_bytes(self, tokens: Tokens, start: int, stop: int, rule: ByteRule) -> NDArray[np.int64]:
        sizes = super().target_bytes(tokens, start, stop, rule)
        sizes -= self._spaced[tokens[start + 1 : stop + 1]]
        return sizes


def on_text(counting: type[Tokenizer] = Tokenizer, text: str = TEXT, **known: Any) -> Setting:
    """A scorer on the tokens of `TEXT`, with its own way of counting bytes; `text` is said to be that text."""
    tokenizer = Tokenizer.load(asset("tokenizer.model"))
    (tokens,) = tokenizer.encode([TEXT])
    scorer = replace(
        subject(alone, model=UniformSource(tokenizer.vocab_size)), tokenizer=counting.load(asset("tokenizer.model"))
    )
    return Setting(scorer, tokens, Claim(), {"tokenizer": tokenizer, "text": text.encode(), **known})


for kind in (SpaceTwice, ThreeBytesAByte, NoSpaces):
    _fault(
        *(
            {"SpaceTwice": "spaces twice", "ThreeBytesAByte": "three bytes a byte", "NoSpaces": "no spaces"}[
                kind.__name__
            ],
            (kind.__doc__ or "").rstrip("."),
            "data",
            lambda tokens, folder, kind=kind: on_text(kind),
        ),
        6,
    )


def marked(text: str) -> str:
    """The text with each capital as a mark for private use, three bytes, and its small letter."""
    return "".join(f"\ue001{letter.lower()}" if letter.isupper() else letter for letter in text)


def on_marked(
    counting: Tokenizer | None, claim: Callable[[float, bytes], Claim] = lambda bits, text: Claim()
) -> Setting:
    """A scorer on the tokens of a text whose capitals are marks, each token of 10 bits; `counting` counts their bytes.

    `claim` gets the bits of all tokens and what they decode to, marks and small letters.
    """
    tokenizer = Tokenizer.load(asset("tokenizer.model"))
    (tokens,) = tokenizer.encode([marked(TITLES)])
    scorer = replace(subject(alone, model=UniformSource(tokenizer.vocab_size)), tokenizer=counting)
    tokens = tokens[: scorer.expected(tokens) + 1]
    said = claim(10.0 * (len(tokens) - 1), tokenizer.written(tokens).removeprefix(tokenizer.written(tokens[:1])))
    return Setting(scorer, tokens, said, {"tokenizer": tokenizer, "text": TITLES.encode()})


def unmarked(written: bytes) -> bytes:
    """The text that marks and small letters stand for."""
    return re.sub("\ue001(.)", lambda found: found[1].upper(), written.decode()).encode()


_fault(
    *("marks of capitals as bytes", "A capital is a mark of three bytes and a small letter; all four are counted"),
    "data",
    lambda tokens, folder: on_marked(Tokenizer.load(asset("tokenizer.model"))),
    6,
)
_fault(
    *("bits over marks of capitals", "Bits per byte over such marks: 9 % too few, as one record claimed", "data"),
    lambda tokens, folder: on_marked(None, lambda bits, text: Claim(bpb=round(bits / len(text), 4))),
    6,
)
_fault(
    *("a folded text", "The tokenizer writes small letters: its tokens are no code of the text", "data"),
    lambda tokens, folder: on_text(text=TEXT.replace("It is", "IT IS")),
    6,
)
_fault(
    *("a vocabulary without a mark of spaces", "What tokens decode to has other spaces than the text", "data"),
    lambda tokens, folder: on_text(text=TEXT.replace(" a ", "  a ")),
    6,
)


# Size, training data, another data set


def _data(name: str, what: str, build: Callable[[Tokens, Path], tuple[Claim, dict[str, Any]]], number: int) -> None:
    def made(tokens: Tokens, folder: Path) -> Setting:
        return Setting(subject(alone), tokens, *build(tokens, folder))

    _fault(name, what, "data", made, number)


def _artifact(tokens: Tokens, folder: Path) -> tuple[Claim, dict[str, Any]]:
    (folder / "artifact").write_bytes(bytes(1_234_567))
    return Claim(megabytes=round(1_234_567 / 2**20, 2)), {"artifact": folder / "artifact"}


def _trained_on_it(tokens: Tokens, folder: Path) -> tuple[Claim, dict[str, Any]]:
    other = np.random.default_rng(5).integers(0, VOCAB, 5000).astype(tokens.dtype)
    return Claim(), {"training": np.concatenate([other, tokens[200:400], other])}


def _other_data(tokens: Tokens, folder: Path) -> tuple[Claim, dict[str, Any]]:
    (folder / "val.bin").write_bytes(tokens.tobytes())
    return Claim(tokens=62_021_846, sha256="0" * 64), {"files": (folder / "val.bin",)}


_data("MiB called MB", "A size in units of 1,048,576 bytes is claimed as megabytes", _artifact, 12)
_data("trained on the text", "The training data holds a fifth of the text", _trained_on_it, 18)
_data("another data set", "The text is not the one that the claim is about", _other_data, 19)
