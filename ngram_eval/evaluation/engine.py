"""The n-gram engine: turns readings into one tally. It looks up, blends, charges and counts, and writes checkpoints."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ngram_eval.bpb import Tally, check_charges
from ngram_eval.config import ByteRule
from ngram_eval.distributed.ranks import Ranks
from ngram_eval.evaluation.checkpoint import Checkpoint, Record, joined
from ngram_eval.evaluation.profile import Profile
from ngram_eval.evaluation.reader import Reading
from ngram_eval.models.source import nan_statistics
from ngram_eval.scorers.base import Charged, Scorer
from ngram_eval.text.samples import cut, entropy_of
from ngram_eval.text.stream import Stream
from ngram_eval.text.tokenizer import TextTokenizer
from ngram_eval.text.windows import Plan, Windows
from ngram_eval.timing import Stopwatch

_COUNTED_AT_ONCE = 1 << 15
"""Most windows that are built at once when they are only counted."""
_READ_BACK_AT_ONCE = 64
"""Batches after which the host waits for the device and reads back what it charged."""


@dataclass(kw_only=True)
class Engine:
    """Scores windows in ascending order; windows before and between them are only counted."""

    tokens: Stream
    plan: Plan
    scorer: Scorer
    tokenizer: TextTokenizer | None
    byte_rule: ByteRule
    clock: Stopwatch
    track: Callable[[int], Callable[[int], None]] = lambda positions: lambda done: None
    """Called with the number of positions to count or score; returns a function of the number that was just done."""
    look: Callable[[int, NDArray[np.float64]], None] | None = None
    """Called with each sampled position and the neural distribution (V,) there, before the position is scored. By
    default the blended distribution is summed over the vocabulary."""
    checkpoint: Checkpoint | None = None
    tally: Tally = field(default_factory=Tally)
    """Bytes and samples; the scorer holds the sums of what was charged."""
    watch: Callable[[], None] | None = None
    """Called after each reading that was scored."""
    advance: Callable[[int], None] = lambda done: None
    expected: int = 0
    """Positions that will be counted or scored."""
    passed: int = 0
    """Positions that have been."""
    profile: Profile = field(init=False)
    """Sums of what was charged, along the stream and by order."""
    done: list[range] = field(default_factory=list)
    """Windows scored, in runs."""
    _next: int = 0
    """The first window that has not been counted."""
    _unsaved: int = 0
    """Positions scored since the last checkpoint."""
    _unread: list[tuple[Reading, list[Charged], NDArray[np.int64] | None]] = field(default_factory=list)
    """Batches scored on a device whose charges have not been read back."""

    def __post_init__(self) -> None:
        self.profile = Profile.empty(self.plan)

    def expect(self, positions: int) -> None:
        """Announce the number of positions that will be counted or scored."""
        self.expected, shown = positions, self.track(positions)

        def advance(done: int) -> None:
            self.passed += done
            shown(done)

        self.advance = advance

    def prefill(self, stop: int, row: int) -> None:
        """Count positions [0, stop), which are those before window `row`."""
        with self.clock.stage("prefill"):
            self.scorer.prefill(self.tokens, 0, stop, self.advance)
        self._next = row

    def prefill_by_scan(self, cuts: list[int], row: int, ranks: Ranks) -> None:
        """Prefill by all ranks together (`ngram_eval.distributed.prefill`); `row` is the first window of this rank."""
        with self.clock.stage("prefill"):
            if ranks.rank + 1 < ranks.world:
                self.scorer.prefill(self.tokens, cuts[ranks.rank], cuts[ranks.rank + 1], self.advance)
        with self.clock.stage("scan"):
            self.scorer.scan(ranks)
        self._next = row

    def count(self, rows: range) -> None:
        """Count the windows `rows`, which an earlier run or another rank has scored."""
        with self.clock.stage("prefill"):
            for row in range(rows.start, rows.stop, _COUNTED_AT_ONCE):
                for first, stop in self.plan[row : min(row + _COUNTED_AT_ONCE, rows.stop)].spans():
                    self.scorer.prefill(self.tokens, first, stop, self.advance)
        self._next = max(self._next, rows.stop)

    def run(self, readings: Iterable[Reading]) -> Tally:
        """Score all readings; returns the tally."""
        for reading in readings:
            rows = reading.rows
            if rows.start > self._next:
                self.count(range(self._next, rows.start))
            self.score(reading)
            self._next, self.done = rows.stop, joined([*self.done, rows])
            self._unsaved += reading.windows.scored
            if self.checkpoint is not None and self._unsaved >= self.checkpoint.every:
                self._save(self.checkpoint)
            self.advance(reading.windows.scored)
            if self.watch is not None:
                self.watch()
        if self.checkpoint is not None and self._unsaved:
            self._save(self.checkpoint)
        return self.so_far()

    def so_far(self) -> Tally:
        """The tally of what has been scored; the profile is then of the same."""
        self._read_back()
        return self.scorer.tally() + self.tally

    def _save(self, checkpoint: Checkpoint) -> None:
        with self.clock.stage("checkpoint"):
            tally = self.so_far()
            learned, profile = self.scorer.learned(), self.profile
            checkpoint.write(Record(done=self.done, tally=tally, learned=learned, profile=profile))
        self._unsaved = 0

    def score(self, reading: Reading) -> None:
        """Look up, blend, charge and count the windows of the next reading."""
        entry, charged = 0, []
        samples = np.array(sorted(reading.looks), np.int64)
        for looks, part in cut(reading.windows, samples, self.scorer.window_wise):
            with self.clock.stage("samples"):
                for position in looks:
                    (self.look or self._sum)(position, reading.looks[position])
            with self.clock.stage("n-gram"):
                stats = reading.stats.part(slice(entry, entry + part.scored))
                charged.append(self.scorer.score(self.tokens, part, stats))  # counts, then blend
            entry += part.scored
        sizes = None
        if self.tokenizer is not None:
            with self.clock.stage("bytes"):
                sizes = count_bytes(self.tally, self.tokens, self.tokenizer, reading.windows, self.byte_rule)
        self._unread.append((reading, charged, sizes))
        if not self.scorer.on_device or len(self._unread) == _READ_BACK_AT_ONCE:
            self._read_back()

    def _sum(self, position: int, neural: NDArray[np.float64]) -> None:
        entropy = entropy_of(neural)
        values = self.scorer.distribution(self.tokens, position, neural, entropy)
        total = self.tally.add_vocabulary(values, position)
        target = int(self.tokens[position + 1 : position + 2][0])
        explained = self.scorer.explain(self.tokens, position, neural, entropy, target)
        self.profile.samples.append((position, entropy, total, explained.weight if explained else None))

    def _read_back(self) -> None:
        """Add what was charged to the profile."""
        with self.clock.stage("profile"):
            for reading, charged, sizes in self._unread:
                p_target = reading.stats.p_target
                if np.isnan(p_target).any():  # a device does not check for NaN
                    raise nan_statistics(int(reading.windows.positions()[np.isnan(p_target)][0]))
                values = _joined([one.values for one in charged])
                if self.scorer.on_device:  # others look as they charge
                    check_charges(p_target, reading.windows.positions, whose="the model's probability")
                    check_charges(values, reading.windows.positions)
                self.profile.add(
                    reading.rows,
                    reading.windows,
                    p=values,
                    p_neural=p_target,
                    entropy=reading.stats.entropy,
                    sizes=sizes,
                    order=_joined([one.order for one in charged]),
                    weight=_joined([one.weight for one in charged]),
                )
        self._unread = []


def _joined(parts: list[Any]) -> Any:
    """The arrays concatenated; None if any is None."""
    return None if any(part is None for part in parts) else np.concatenate(parts)


def count_bytes(
    tally: Tally, tokens: Stream, tokenizer: TextTokenizer, windows: Windows, rule: ByteRule
) -> NDArray[np.int64]:
    """Add the bytes and the unknown targets of the scored positions to `tally`.

    Returns the bytes of each target under `rule`, (positions,) int64.
    """
    sizes = []
    for first, stop in windows.spans():
        decoded = tokenizer.target_bytes(tokens, first, stop, "decoded")
        tally.decoded_bytes += int(decoded.sum())
        sizes.append(decoded if rule == "decoded" else tokenizer.target_bytes(tokens, first, stop, rule))
        tally.bytes += int(sizes[-1].sum())
        tally.unknown_targets += tokenizer.unknown_targets(tokens, first, stop)
    return np.concatenate(sizes)
