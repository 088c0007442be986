"""Published figures of the evaluation of parameter-golf PR #890, shown beside what is measured here."""

TARGETS = 62_021_632
"""Positions of the validation split (FineWeb, 1024 tokens)."""
SECONDS = (502, 588)
"""Shortest and longest of its evaluations, on `RANKS` H100 GPUs."""
RANKS = 8
LIMIT = 600.0
"""Seconds that the challenge allows an evaluation."""
