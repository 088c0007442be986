"""What a rank must have counted before its first window, so that its tables hold the whole past."""

from collections.abc import Callable

from ngram_eval.config import NgramConfig
from ngram_eval.counts import Counts, Tokens
from ngram_eval.windows import Windows

_CHUNK = 1 << 22


def prefill_stop(windows: Windows, config: NgramConfig) -> int:
    """Positions [0, stop) come before the rank's windows: up to the first one scored, or with the published
    `prefill_hole` only up to the first window's start. 0 for a rank without windows.
    """
    if len(windows) == 0:
        return 0
    return int(windows.start[0] if config.prefill_hole else windows.first[0])


def prefill_locally(counts: Counts, tokens: Tokens, stop: int, advance: Callable[[int], None]) -> None:
    """Count positions [0, stop), as every rank does for itself in PR #890; `advance` hears of positions counted."""
    for start in range(0, stop, _CHUNK):
        end = min(start + _CHUNK, stop)
        counts.update(tokens, start, end)
        advance(end - start)
