"""The n-gram engine: readings in, one tally out. Looks up, blends, charges, counts; and can stop and go on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from ngram_eval.bpb import Tally
from ngram_eval.checkpoint import Checkpoint, Record, joined
from ngram_eval.config import ByteRule
from ngram_eval.counts import Stream
from ngram_eval.ranks import Ranks
from ngram_eval.reading import Reading
from ngram_eval.samples import cut, entropy_of
from ngram_eval.scorers import Scorer
from ngram_eval.timing import Stopwatch
from ngram_eval.tokens import TextTokenizer
from ngram_eval.windows import Plan, Windows

_COUNTED_AT_ONCE = 1 << 15
"""Windows made at once to be counted again."""


@dataclass(kw_only=True)
class Engine:
    """Scores windows in ascending order; what lies between runs of them, and before, is only counted."""

    tokens: Stream
    plan: Plan
    scorer: Scorer
    tokenizer: TextTokenizer | None
    byte_rule: ByteRule
    clock: Stopwatch
    expect: Callable[[int], None]
    """Hears how many positions will be counted or scored."""
    advance: Callable[[int], None]
    """Hears of positions counted or scored."""
    checkpoint: Checkpoint | None = None
    tally: Tally = field(default_factory=Tally)
    """Bytes and samples; what was charged is the scorer's to tell."""
    done: list[range] = field(default_factory=list)
    """Windows scored, in runs."""
    _next: int = 0
    """The first window that has not been counted."""
    _unsaved: int = 0
    """Positions scored since the last checkpoint."""

    def prefill(self, stop: int, row: int) -> None:
        """Count positions [0, stop), which are those before window `row`."""
        with self.clock.stage("prefill"):
            self.scorer.prefill(self.tokens, 0, stop, self.advance)
        self._next = row

    def prefill_by_scan(self, cuts: list[int], row: int, ranks: Ranks) -> None:
        """The same by all ranks together (`ngram_eval.prefill`); `row` is the first window of this rank."""
        with self.clock.stage("prefill"):
            if ranks.rank + 1 < ranks.world:
                self.scorer.prefill(self.tokens, cuts[ranks.rank], cuts[ranks.rank + 1], self.advance)
        with self.clock.stage("scan"):
            self.scorer.scan(ranks)
        self._next = row

    def count(self, rows: range) -> None:
        """Count windows that have been scored before or elsewhere."""
        with self.clock.stage("prefill"):
            for row in range(rows.start, rows.stop, _COUNTED_AT_ONCE):
                for first, stop in self.plan[row : min(row + _COUNTED_AT_ONCE, rows.stop)].spans():
                    self.scorer.prefill(self.tokens, first, stop, self.advance)
        self._next = max(self._next, rows.stop)

    def run(self, readings: Iterable[Reading]) -> Tally:
        """Score all readings; what they cost."""
        for reading in readings:
            rows = reading.rows
            if rows.start > self._next:
                self.count(range(self._next, rows.start))
            self._score(reading)
            self._next, self.done = rows.stop, joined([*self.done, rows])
            self._unsaved += reading.windows.scored
            if self.checkpoint is not None and self._unsaved >= self.checkpoint.every:
                self._save(self.checkpoint)
            self.advance(reading.windows.scored)
        if self.checkpoint is not None and self._unsaved:
            self._save(self.checkpoint)
        return self.scorer.tally() + self.tally

    def _save(self, checkpoint: Checkpoint) -> None:
        with self.clock.stage("checkpoint"):
            tally = self.scorer.tally() + self.tally
            checkpoint.write(Record(done=self.done, tally=tally, learned=self.scorer.learned()))
        self._unsaved = 0

    def _score(self, reading: Reading) -> None:
        entry = 0
        samples = np.array(sorted(reading.looks), np.int64)
        for looks, part in cut(reading.windows, samples, self.scorer.window_wise):
            with self.clock.stage("samples"):
                for position in looks:
                    neural = reading.looks[position]
                    self.tally.add_vocabulary(
                        self.scorer.distribution(self.tokens, position, neural, entropy_of(neural))
                    )
            with self.clock.stage("n-gram"):
                stats = reading.stats.part(slice(entry, entry + part.scored))
                self.scorer.score(self.tokens, part, stats)  # counts, then blend
            entry += part.scored
        if self.tokenizer is not None:
            with self.clock.stage("bytes"):
                count_bytes(self.tally, self.tokens, self.tokenizer, reading.windows, self.byte_rule)


def count_bytes(tally: Tally, tokens: Stream, tokenizer: TextTokenizer, windows: Windows, rule: ByteRule) -> None:
    """Add the bytes and the unknown targets of the scored positions."""
    for first, stop in windows.spans():
        decoded = int(tokenizer.target_bytes(tokens, first, stop, "decoded").sum())
        tally.decoded_bytes += decoded
        tally.bytes += decoded if rule == "decoded" else int(tokenizer.target_bytes(tokens, first, stop, rule).sum())
        tally.unknown_targets += tokenizer.unknown_targets(tokens, first, stop)
