"""Makes the scorer of a configuration, and checks that backend and model have what it needs."""

from ngram_eval.config import EvalConfig
from ngram_eval.errors import InputError
from ngram_eval.models.branches import Tree
from ngram_eval.models.source import NeuralSource
from ngram_eval.scorers.backends import BACKENDS, ON_DEVICE
from ngram_eval.scorers.base import Scorer, Vocabulary
from ngram_eval.scorers.exact.model import make_model
from ngram_eval.scorers.exact.scorer import ExactScorer
from ngram_eval.scorers.hashed.counts import make_counts
from ngram_eval.scorers.hashed.gate import GatedBackoff
from ngram_eval.scorers.hashed.scorer import HashedScorer
from ngram_eval.scorers.mixer.model import TOKEN_CONTEXTS, make_mixer, spelling_of, unspelt
from ngram_eval.scorers.mixer.scorer import MixerScorer
from ngram_eval.scorers.ppmd.model import byte_spelling, make_ppmd
from ngram_eval.scorers.ppmd.scorer import PpmdScorer
from ngram_eval.text.stream import MAX_VOCABULARY

_POSITIONS_AT_ONCE = 1 << 20
"""Most scored positions of a batch, so that its memory does not grow with the stride."""
_ROWS_AT_ONCE = 1 << 11
"""Most whole distributions of a batch."""
_ENTRIES_AT_ONCE = 1 << 27
"""Most probabilities in the rows of one batch (1 GiB)."""


def check_backend(name: str, config: EvalConfig, backend: str) -> None:
    """Raise `InputError` unless the backend, `auto` resolved, has what the scorer of the preset `name` needs."""
    able = BACKENDS[backend]
    tilted = config.scorer == "exact" and config.exact.tilt != "off"
    if getattr(able, config.scorer) is None or (tilted and not able.tilt):
        raise InputError(f"--preset {name} learns position by position: it needs --backend cpu or reference")


def check_source(config: EvalConfig, source: NeuralSource) -> None:
    """Raise `InputError` unless the source gives what the scorer of `config` needs, and knows no more tokens."""
    if config.scorer != "hashed" and source.vocab_size > MAX_VOCABULARY:
        raise InputError(
            f"the model's vocabulary has {source.vocab_size:,} tokens, and {config.scorer} counts at most "
            f"{MAX_VOCABULARY:,}: choose a preset of hashed counts, such as hashed"
        )
    if config.needs_rows and not source.gives_all:
        what = {"mixer": "the mixer", "ppmd": "--byte-share marginal"}.get(config.scorer, "a tilt")
        raise InputError(
            f"{what} needs the neural distribution of every token, and only "
            "the target's probability is known: give --artifact, --logits, --hf or --uniform, or another --preset"
        )


def orders_of(config: EvalConfig) -> list[int]:
    """The orders that the scorer of `config` can match, lowest first. The mixer has hashed contexts of some only."""
    hashed = range(config.mixer.contexts)
    if config.scorer == "mixer":
        return [n for n in config.ngram.orders if n <= 2 or TOKEN_CONTEXTS.get(n) in hashed]
    return list(config.ngram.orders)


def windows_at_once(config: EvalConfig, source: NeuralSource) -> int:
    """Windows of one batch: the source's number, or fewer if the batch would take too much memory."""
    positions = _POSITIONS_AT_ONCE
    if config.needs_rows:
        positions = min(_ROWS_AT_ONCE, _ENTRIES_AT_ONCE // source.vocab_size)
    return min(source.batch_windows, max(1, positions // config.window.stride))


def make_scorer(backend: str, config: EvalConfig, threads: int = 1, vocabulary: Vocabulary | None = None) -> Scorer:
    """The scorer of `config`, with an empty memory of the named backend; the mixer and bytes need a `vocabulary`."""
    if config.scorer == "exact":
        return ExactScorer(make_model(backend, config.ngram.max_order, config.exact, threads), config)
    if config.scorer == "mixer":
        if vocabulary is None:
            raise ValueError("the mixer needs a vocabulary")
        known = vocabulary.surfaces
        spelling = unspelt(vocabulary.size) if known is None else spelling_of(known)
        mixer = make_mixer(backend, config.mixer, spelling, neural=vocabulary.neural)
        return MixerScorer(mixer, config, Tree(spelling.rank))
    if config.scorer == "ppmd":
        bytes_of = byte_spelling(vocabulary and vocabulary.surfaces, config.byte_rule)
        return PpmdScorer(make_ppmd(backend, config.ppmd, config.ngram.max_order, bytes_of), config)
    if backend in ON_DEVICE:
        from ngram_eval.scorers.hashed.device_scorer import CudaScorer, TritonScorer

        return TritonScorer(config) if backend == "triton" else CudaScorer(config)
    return HashedScorer(make_counts(backend, config.ngram, threads), GatedBackoff(config.gate))
