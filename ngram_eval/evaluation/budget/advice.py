"""One line before an evaluation that windows make long: what `--forward banded` would take."""

from ngram_eval.config import EvalConfig
from ngram_eval.evaluation.budget.measure import measure_window, plan_of
from ngram_eval.evaluation.job import Job

LONG, TENTH = 600.0, 0.1
"""Seconds of forward passes from which on there is advice, and the most of them that banded may take."""
_POSITIONS_A_SECOND = 1000
"""Fewer than any device forwards: what it would finish in time is not even measured."""
_BANDED = 2.0
"""Cost of a banded position over one of a window, with its lead-in: at most, as measured (docs/forward_once.md)."""


def advice(job: Job, config: EvalConfig) -> str | None:
    """The line, or None where windows are quick or banded would not be quick enough; measures a few windows."""
    plan, window = plan_of(job, config), config.window
    banded = _BANDED * window.stride / window.seq_len  # of what windows take
    if len(plan) < 2 or banded > TENTH or len(plan) * window.seq_len / job.ranks.world < LONG * _POSITIONS_A_SECOND:
        return None
    seconds = measure_window(job, config, 1, 1.0)[0] * len(plan) / job.ranks.world
    if seconds <= LONG:
        return None
    return (
        f"advice: the forward passes of windows will take about {_time(seconds)}; --forward banded gives nearly the "
        f"same number in about {_time(seconds * banded)} (docs/forward_once.md)"
    )


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 7200 else f"{seconds / 60:.0f} minutes"
