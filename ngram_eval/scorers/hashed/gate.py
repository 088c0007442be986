"""From counts and neural statistics to the value charged for the target."""

import numpy as np
from numpy.typing import NDArray

from ngram_eval.config import GateConfig
from ngram_eval.models.source import Stats
from ngram_eval.scorers.hashed.counts import Best, Counts, Matches, around
from ngram_eval.scorers.hashed.reference import best_match
from ngram_eval.text.stream import Stream


class GatedBackoff:
    """PR #890: the best match's count ratio, mixed in by a gate on the neural entropy.

        p_ng  = min(full, context) / context
        alpha = base + range * sigmoid(slope * (H - centre of the matched order))
        p     = (1 - alpha) * p_model + alpha * p_ng, or p_model where no order matched

    The result is not a probability over the vocabulary: the two tables collide unequally, and with `target_backoff` the
    target picks the order.
    """

    def __init__(self, gate: GateConfig) -> None:
        self.gate = gate
        self._centres = np.array((0.0, *gate.centres))  # index 0: no match, never used

    def alpha(self, entropy: NDArray[np.float32], order: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Weight of the n-gram estimate, for entropies in nats and matched orders of the same shape."""
        gate = self.gate
        if gate.alpha_range == 0:
            return np.full(entropy.shape, gate.alpha_fixed)
        argument = gate.alpha_slope * (entropy.astype(np.float64) - self._centres.take(order))
        sigmoid = 0.5 + 0.5 * np.tanh(0.5 * argument)  # unlike 1 / (1 + exp(-x)), never overflows
        weight: NDArray[np.float64] = gate.alpha_base + gate.alpha_range * sigmoid
        return weight

    def __call__(self, stats: Stats, best: Best) -> NDArray[np.float64]:
        """The value charged for each target, before the floor; float64 of the positions' shape."""
        return self.weighed(stats, best)[0]

    def weighed(self, stats: Stats, best: Best) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(value charged for each target, weight of the n-gram estimate in it: 0 where no order matched)."""
        context = np.maximum(best.context, 1).astype(np.float64)
        p_ngram = np.minimum(best.full, best.context) / context
        alpha = np.where(best.order > 0, self.alpha(stats.entropy, best.order), 0.0)
        blended: NDArray[np.float64] = (1.0 - alpha) * stats.p_target + alpha * p_ngram
        return blended, alpha

    def distribution(
        self, counts: Counts, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        """The value of each token as the target of `position`, with the current counts, (V,)."""
        matches = self.matches(counts, tokens, position, len(probabilities))
        return self(_stats(probabilities, entropy), best_match(matches, counts.config))

    def given_target(
        self, counts: Counts, tokens: Stream, position: int, probabilities: NDArray[np.float64], entropy: float
    ) -> NDArray[np.float64]:
        """The values of all tokens at the matched order of tokens[position + 1], (V,)."""
        matches = self.matches(counts, tokens, position, len(probabilities))
        order = best_match(matches, counts.config).order[tokens[position + 1 : position + 2][0]]
        if order == 0:
            return probabilities
        row = order - counts.config.min_order
        best = Best(np.full(len(probabilities), order), matches.context[row], matches.full[row])
        return self(_stats(probabilities, entropy), best)

    def matches(self, counts: Counts, tokens: Stream, position: int, vocab: int) -> Matches:
        """The counts at `position` for each token below `vocab` as the target, (orders, vocab)."""
        part, base = around(tokens, position, position + 1, counts.config)
        return counts.lookup_targets(part, position - base, vocab)


def _stats(probabilities: NDArray[np.float64], entropy: float) -> Stats:
    """Statistics in which every token of one position is a target."""
    return Stats(probabilities, np.full(len(probabilities), entropy, np.float32))
