"""Learning rate and momentum during a run (PR #890)."""

from ngram_eval.train.config import TrainConfig


def lr_multiplier(step: int, seconds: float, config: TrainConfig) -> float:
    """Multiplier of the learning rates: 1, then a linear fall to 0 over the last `warmdown_steps`.

    `seconds` is the time that the `step` steps so far took. With a time limit, the remaining steps are those that fit
    into it at the speed so far.
    """
    if not config.warmdown_steps:
        return 1.0
    left = float(config.steps - step)
    if config.max_seconds and step and seconds:
        left = min(left, max(0.0, config.max_seconds - seconds) * step / seconds)
    return min(1.0, left / config.warmdown_steps)


def momentum_at(step: int, config: TrainConfig) -> float:
    """Muon's momentum: a linear rise over the first `momentum_warmup` steps."""
    share = min(1.0, step / config.momentum_warmup)
    return config.momentum_start + share * (config.momentum - config.momentum_start)
